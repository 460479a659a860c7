"""What is published as uncertain is so."""

import json
from pathlib import Path

import numpy as np
import pytest

from dposer_core import evidence, skeleton
from dposer_core.body_model import load_body
from dposer_core.kinematics import PRIOR_ROTATIONS, Kinematics, exp_many
from dposer_core.observation import NUM_POINTS
from dposer_core.uncertainty import PriorOnly, add_unseen, size_covariance
from dposer_core.window import Pose

ROOT = Path(__file__).parents[2]
SIZE = 3 * len(skeleton.PRIOR_JOINTS)
DT = 0.035


@pytest.fixture(scope='module')
def kinematics() -> Kinematics:
    return Kinematics(load_body().tables)


def _prior_only() -> PriorOnly:
    rng = np.random.default_rng(0)
    return PriorOnly(
        rng.uniform(0.1, 0.3, SIZE) ** 2.0, rng.uniform(1.5, 3.0, SIZE),
        rng.uniform(5.0, 50.0, SIZE), rng.uniform(1.0, 5.0, SIZE),
    )  # fmt: skip


def _pose(kinematics: Kinematics) -> Pose:
    rng = np.random.default_rng(1)
    turns = rng.normal(0.0, 0.3, (1 + len(skeleton.PRIOR_JOINTS), 3))
    return Pose(
        np.array([0.1, 0.2, 3.0]), exp_many(turns), rng.normal(size=kinematics.num_coefficients)
    )


def _posed(kinematics: Kinematics, pose: Pose):
    local = np.tile(np.eye(3), (skeleton.NUM_JOINTS, 1, 1))
    local[0], local[skeleton.PRIOR_JOINTS] = pose.rotations[0], pose.rotations[1:]
    return kinematics.pose(pose.pelvis, local, pose.coefficients)


def _seen(*groups) -> np.ndarray:
    seen = np.zeros(NUM_POINTS, dtype=bool)
    for group in groups:
        seen[group] = True
    return seen


def test_what_many_frames_of_prior_and_links_say_is_found_without_them() -> None:
    """Against the information of the newest of 200 frames, written out as one matrix."""
    prior, frames = _prior_only(), 200
    for axis in (0, 7):
        information = np.eye(frames) * prior.weight[axis] / prior.variance[axis]
        for k in range(1, frames):
            row = np.zeros(frames)
            row[[k - 1, k]] = -1.0, 1.0
            information += np.outer(row, row) / (prior.velocity[axis] * DT) ** 2
        for k in range(2, frames):
            row = np.zeros(frames)
            row[[k - 2, k - 1, k]] = 1.0, -2.0, 1.0
            information += np.outer(row, row) / (prior.acceleration[axis] * DT * DT) ** 2
        marginal = np.linalg.inv(information)[-1, -1]
        assert 1.0 / prior.information(DT)[axis] == pytest.approx(marginal, rel=1e-3)


def test_a_joint_never_seen_is_as_uncertain_as_the_prior(kinematics) -> None:
    prior, hand = _prior_only(), skeleton.LEFT_HAND_JOINTS
    covariance = np.eye(kinematics.num_dof) * 1e-6
    steady = 1.0 / prior.information(DT)
    covariance[PRIOR_ROTATIONS, PRIOR_ROTATIONS] = np.diag(steady)
    seen = _seen(slice(0, 91), evidence.RIGHT_HAND_POINTS)
    add_unseen(covariance, seen, _posed(kinematics, _pose(kinematics)), prior, DT)
    variance = np.diagonal(covariance)[PRIOR_ROTATIONS].reshape(-1, 3)
    of_joint = dict(zip(skeleton.PRIOR_JOINTS, variance, strict=True))
    expected = dict(zip(skeleton.PRIOR_JOINTS, prior.variance.reshape(-1, 3), strict=True))
    before = dict(zip(skeleton.PRIOR_JOINTS, steady.reshape(-1, 3), strict=True))
    for joint in range(hand.start, hand.stop):
        np.testing.assert_allclose(of_joint[joint], expected[joint], rtol=1e-9)
    elbow = skeleton.JOINT_INDEX['right_elbow']
    np.testing.assert_array_equal(of_joint[elbow], before[elbow])  # its wrist is seen
    assert (steady < prior.variance).all()  # or the test would say nothing


def test_what_was_measured_before_it_was_hidden_still_counts() -> None:
    prior = _prior_only()
    just_hidden = np.full(SIZE, 1e-6)
    variance = just_hidden + prior.missing(just_hidden, DT)
    assert (variance < 1e-5).all()


def test_with_the_legs_alone_seen_it_is_the_rest_that_may_turn(kinematics) -> None:
    """Nothing above the left knee is seen: the knee's own spread moves all but the shank."""
    pose = _pose(kinematics)
    posed = _posed(kinematics, pose)
    ankle, foot, knee = (skeleton.JOINT_INDEX[f'left_{n}'] for n in ('ankle', 'foot', 'knee'))
    covariance = np.zeros((kinematics.num_dof, kinematics.num_dof))
    prior = _prior_only()
    covariance[PRIOR_ROTATIONS, PRIOR_ROTATIONS] = np.diag(1.0 / prior.information(DT))
    before = covariance.copy()
    add_unseen(covariance, _seen([15, 17, 18, 19]), posed, prior, DT)
    index = list(skeleton.PRIOR_JOINTS).index(knee)
    gain = (covariance - before)[PRIOR_ROTATIONS, PRIOR_ROTATIONS]
    assert np.diagonal(gain)[3 * index : 3 * index + 3].min() > 0.0
    added = kinematics.joint_covariance(posed, covariance - before)
    sigma = np.sqrt(np.maximum(np.einsum('nii->n', added), 0.0))  # of no spread at all: rounding
    assert sigma[[knee, ankle, foot]].max() < 0.05 * sigma[skeleton.JOINT_INDEX['head']]


def test_one_camera_knows_least_along_the_ray() -> None:
    points = np.array([[0.0, 0.0, 4.0], [1.0, -2.0, 3.0]])
    for is_known, other in ((True, False), (False, True)):
        covariance = size_covariance(points, is_known)
        values, axes = np.linalg.eigh(covariance)
        np.testing.assert_allclose(values[:, :2], 0.0, atol=1e-12)
        rays = points / np.linalg.norm(points, axis=1, keepdims=True)
        np.testing.assert_allclose(np.abs((axes[:, :, 2] * rays).sum(axis=1)), 1.0)
        grows = np.trace(covariance[0]) > np.trace(size_covariance(points, other)[0])
        assert grows == (not is_known)


def test_the_table_of_the_page_is_what_was_measured() -> None:
    from training.benchmarks.uncertainty import markdown

    results = ROOT / 'training' / 'benchmarks' / 'results' / 'uncertainty.json'
    table = markdown(json.loads(results.read_text()))
    assert table in (ROOT / 'docs' / 'UNCERTAINTY.md').read_text()
