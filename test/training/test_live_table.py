"""The live fitter a few frames late, and the figures of table 'live'."""

import numpy as np
import pytest
import torch

from dposer_core.body_model import load_body
from dposer_core.config import Config
from dposer_core.errors import ModelFileError
from dposer_core.fitter import PoseFitter
from dposer_core.prior.runtime import load_prior
from training.benchmarks.live import Frames, _against, motion_errors
from training.benchmarks.report import Column, Row
from training.benchmarks.truth import SCENARIOS, truth_clips

LAG = 4


@pytest.fixture(scope='module')
def body():
    try:
        return load_body('')
    except ModelFileError as error:
        pytest.skip(str(error))


@pytest.fixture(scope='module')
def clip(body):
    return next(truth_clips(body, SCENARIOS['3d'], 1, 20))


def stream(body, clip, asks: bool) -> tuple[np.ndarray, np.ndarray]:
    """(T, 55, 3) joints as published, and (T - LAG, 55, 3) as known `LAG` frames later."""
    fitter = PoseFitter(body.tables, load_prior(Config().prior.checkpoint), Config())
    published, late = [], []
    for observation in clip.observations:
        published.append(fitter.step(observation).state.joints)
        if asks and len(published) > LAG:
            assert fitter.joints_before(0) == pytest.approx(published[-1], abs=1e-12)
            late.append(fitter.joints_before(LAG))
    return np.array(published), np.array(late)


def test_a_frame_is_known_better_when_later_ones_were_seen_and_asking_changes_nothing(body, clip):
    published, late = stream(body, clip, asks=True)
    assert np.array_equal(published, stream(body, clip, asks=False)[0])
    errors = [
        np.linalg.norm(found - clip.joints[:-LAG], axis=-1).mean()
        for found in (published[:-LAG], late)
    ]
    assert errors[1] < 0.95 * errors[0]  # 0.8 is measured


def test_figures_of_a_shifted_and_of_a_shaking_motion():
    truth = torch.zeros(1, 60, 22, 3)
    shifted = truth + torch.tensor([0.03, 0.0, 0.04])
    shifted[:, -LAG:] = torch.nan  # where a late method says nothing yet
    assert motion_errors(shifted, truth) == pytest.approx({'MPJPE': 50.0, 'acceleration': 0.0})
    shaking = truth.clone()
    shaking[:, ::2, :, 0] = 0.001
    assert motion_errors(shaking, truth)['acceleration'] == pytest.approx(2.0)


def test_single_frames_have_no_acceleration():
    found = torch.full((1, 60, 22, 3), torch.nan)
    found[:, 14::15] = 0.0
    assert motion_errors(found, torch.zeros(1, 60, 22, 3)) == {'MPJPE': 0.0}


def test_share_above_the_reference_is_of_figures_that_both_have():
    columns = [Column('a'), Column('b')]
    (row,) = _against([Row('x', {'a': 11.0, 'b': 1.0})], Row('y', {'a': 10.0}), columns)
    assert row.values['a, above the reference'] == pytest.approx(10.0)
    assert 'b, above the reference' not in row.values


def test_every_frame_is_the_first_of_a_stream(body, clip):
    live = Frames(body, 1).live(is_noise_told=True)
    frames = [clip.observations[10], clip.observations[2]]  # a stream's may not go back in time
    both = list(live(frames, 0.0))
    alone = next(iter(live(frames[1:], 0.0)))
    assert np.array_equal(both[1], alone)
