"""Accuracy on known truth, guarded: two held-out clips, bounds well above the measured figures."""

import numpy as np
import pytest

from dposer_core.body_model import load_body
from dposer_core.config import Config
from dposer_core.prior.runtime import load_prior
from training.benchmarks.live_truth import TUNING_CLIPS, errors, live
from training.benchmarks.truth import SCENARIOS, truth_clips


@pytest.fixture(scope='module')
def body():
    return load_body()


def _mpjpe(body, prior, name: str) -> float:
    clips = list(truth_clips(body, SCENARIOS[name], TUNING_CLIPS + 2, 45))[TUNING_CLIPS:]
    found = live(body, prior)(clips, SCENARIOS[name])
    rows = [errors(SCENARIOS[name], clip, f) for clip, f in zip(clips, found, strict=True)]
    return float(np.mean([row['mpjpe'] for row in rows]))


def test_3d_points_with_5_mm_noise(body) -> None:
    """6 mm are measured over ten clips."""
    assert _mpjpe(body, load_prior(Config().prior.checkpoint), '3d') < 12.0


def test_2d_points_with_2_px_noise_and_what_the_prior_is_worth(body) -> None:
    """Depth comes from the prior alone: without it the error is several times as large."""
    with_prior = _mpjpe(body, load_prior(Config().prior.checkpoint), '2d')
    assert with_prior < 60.0
    assert with_prior < 0.6 * _mpjpe(body, None, '2d')
