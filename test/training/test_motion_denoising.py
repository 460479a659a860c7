"""What the rows of the tables of motion are given, and how they are judged."""

import dataclasses

import numpy as np
import pytest
import torch

from dposer_core.body_model import Body, load_body
from dposer_core.errors import ModelFileError
from dposer_core.prior.sampling import normal_draw
from dposer_core.tasks.body_points import BodyPoints
from dposer_core.tasks.optimise import Stages
from dposer_core.tasks.prior_term import NoTerm
from training.benchmarks import motion_denoising
from training.benchmarks.motion_denoising import (
    AsLive,
    Clips,
    Denoiser,
    Found,
    Live,
    Optimised,
    RolledOut,
    noisy,
    partial,
)


@pytest.fixture(scope='module')
def body() -> Body:
    torch.set_num_threads(1)
    try:
        return load_body('')
    except ModelFileError as error:
        pytest.skip(str(error))


def poses(frames: int = 30) -> np.ndarray:
    """(1, frames, 63): arms and legs that swing."""
    swing = 0.3 * np.sin(np.linspace(0, np.pi, frames))
    found = np.zeros((1, frames, 21, 3), np.float32)
    found[0, :, [0, 15], 0] = swing
    found[0, :, [17, 18], 1] = swing
    return found.reshape(1, frames, 63)


def clips(body: Body, case, noise: float = 0.0) -> Clips:
    joints = BodyPoints(body).joints(torch.from_numpy(poses()[0]))[None]
    draw = normal_draw(0)
    return Clips(case, joints, joints + noise * draw(tuple(joints.shape)), draw)


def quick(case):
    protocol = dataclasses.replace(case.noisy, stages=Stages(2, 5))
    return Optimised(lambda p: NoTerm(), np.zeros(63, np.float32), change=lambda case: protocol)


def test_perfect_method_has_no_error_and_joints_are_judged_by_whether_they_were_seen(body):
    denoiser = Denoiser(body, {'a': poses()}, seed=0)
    case = partial('legs')

    def perfect(clips, points):
        return Found(clips.truth, torch.from_numpy(poses()[0]))

    def legs_off(clips, points):
        joints = clips.truth.clone()
        joints[:, :, list(case.hidden), 0] += 0.1
        return Found(joints)

    assert max(denoiser.errors_mm('p', perfect, 'a', case).values()) < 1e-3
    errors = denoiser.errors_mm('off', legs_off, 'a', case)
    expected = {'MPJPE': 100 * 8 / 22, 'Vis': 0.0, 'Occ': 100.0}
    assert errors == pytest.approx(expected, abs=1e-3)


def test_frames_that_were_not_asked_for_do_not_count(body):
    denoiser = Denoiser(body, {'a': poses()}, seed=0)

    def half(clips, points):
        joints = torch.full_like(clips.truth, torch.nan)
        joints[:, 14] = clips.truth[:, 14] + torch.tensor([0.0, 0.02, 0.0])
        return Found(joints)

    assert denoiser.errors_mm('half', half, 'a', noisy(40))['MPJPE'] == pytest.approx(20.0)


def test_partner_of_the_live_fitter_sees_no_future_and_no_spine(body):
    seen = clips(body, noisy(40), 0.02)
    method = AsLive(quick(seen.case), sees_future=False)
    points = BodyPoints(body, np.arange(0, 13000, 200))
    found = method(dataclasses.replace(seen, draw=normal_draw(1)), points).joints
    other = seen.observed.clone()
    other[:, 15:] += 0.5  # later than the first frame that counts
    other[:, :, [3, 6, 9, 12, 15]] += 0.5  # spine, neck and head: no detector gives them
    changed = dataclasses.replace(seen, observed=other, draw=normal_draw(1))
    again = method(changed, points).joints
    assert torch.equal(found[:, 14], again[:, 14])
    assert not torch.equal(found[:, 29], again[:, 29])
    assert bool(found[:, 13].isnan().all())


def test_prior_of_motion_is_given_the_observed_joints_their_noise_and_the_first_fit(
    body, monkeypatch
):
    seen, points, given = clips(body, noisy(40), 0.02), BodyPoints(body), []

    def search(*arguments):
        given.extend(arguments)
        return arguments[1]

    monkeypatch.setattr(motion_denoising, 'denoise_by_rollout', search)
    first = Found(seen.truth, 0.5 * torch.from_numpy(poses()[0]))
    found = RolledOut('prior', lambda clips, points: first)(seen, points)
    observed, start, part, prior, noise_m = given
    assert observed is seen.observed and part is points.part
    assert (prior, noise_m) == ('prior', 0.04)
    assert torch.equal(start, 0.5 * torch.from_numpy(poses()))
    assert torch.equal(found.poses, first.poses)  # what the search found
    torch.testing.assert_close(found.joints[0], points.joints(first.poses))


def test_live_fitter_follows_exact_joints(body):
    seen = clips(body, noisy(20))
    told = Live(body, lambda case: 0.005)
    found = told(seen, BodyPoints(body)).joints[:, [14, 29]]
    distance = torch.linalg.norm(found - seen.truth[:, [14, 29]], dim=-1)
    assert float(distance.mean()) < 0.02  # m; collars, spine and feet are guessed


def test_live_fitter_does_not_look_at_hidden_joints(body):
    seen = clips(body, partial('left_arm'))
    other = seen.observed.clone()
    other[:, :, list(seen.case.hidden)] += 1.0
    live = Live(body)
    found = live(seen, BodyPoints(body)).joints
    again = live(dataclasses.replace(seen, observed=other), BodyPoints(body)).joints
    assert torch.equal(found[:, 14], again[:, 14])
