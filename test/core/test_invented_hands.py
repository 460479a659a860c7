"""Hands that cannot be the person's are refused, and hands as people have them are not."""

import dataclasses

import numpy as np
import pytest

from dposer_core.body_model import load_body
from dposer_core.config import Config
from dposer_core.evidence import LEFT_HAND_POINTS, RIGHT_HAND_POINTS
from dposer_core.fitter import PoseFitter
from dposer_core.invented_hands import InventedHands
from dposer_core.observation import Observation
from dposer_core.prior.runtime import load_prior
from dposer_core.state import Source
from test.swaying import swaying
from training.benchmarks.hidden_hands import INVENTIONS, clips

LEFT, RIGHT = np.r_[LEFT_HAND_POINTS], np.r_[RIGHT_HAND_POINTS]
FIRST = 20  # frame with an invented hand


@pytest.fixture(scope='module')
def clip():
    """Held-out motion in 3D with 5 mm of noise."""
    return clips(load_body(), 3, 3)[2]


def refusals(clip, change=None) -> np.ndarray:
    """(T, 2) whether the left and right hand were refused; expected is the frame before."""
    hands, rng, past, refused = InventedHands(), np.random.default_rng(0), [], []
    expected = clip.observations[0].points
    for k, observation in enumerate(clip.observations):
        points = observation.points.copy()
        past.append(observation.points)
        if change is not None and k >= FIRST:
            points[LEFT] = change(k, points, past, clip.height, rng)
        hands.without(dataclasses.replace(observation, points=points), expected, clip.height)
        refused.append(hands.refused)
        expected = observation.points
    return np.array(refused)


def test_real_hands_are_believed(clip) -> None:
    assert not refusals(clip).any()


@pytest.mark.parametrize('kind', INVENTIONS)
def test_invented_hands_are_refused_and_the_other_is_not(clip, kind: str) -> None:
    refused = refusals(clip, INVENTIONS[kind])
    assert not refused[:FIRST].any()
    # Some kinds need a few frames; a copy of the other hand, moved here, is told from this one
    # only while the two have other shapes.
    assert refused[FIRST:, 0].mean() > (0.5 if 'moved here' in kind else 0.8)
    assert not refused[:, 1].any()


def test_only_the_points_of_the_hand_are_dropped() -> None:
    _, observation = next(swaying(load_body().tables, 1))
    moved = observation.points.copy()
    moved[LEFT] += 200.0
    believed = InventedHands().without(
        dataclasses.replace(observation, points=moved), observation.points, 400.0
    )
    assert not believed.confidence[LEFT].any()
    rest = np.setdiff1d(np.arange(133), LEFT)
    np.testing.assert_array_equal(believed.confidence[rest], observation.confidence[rest])


def test_hands_that_are_not_seen_whole_are_not_judged() -> None:
    points, confidence = np.zeros((133, 2)), np.ones(133)
    confidence[[91, 112]] = 0.0
    observation = Observation(1, points, confidence)
    assert InventedHands().without(observation, points, 1.0) is observation


def test_the_fit_calls_an_invented_hand_hidden() -> None:
    tables = load_body().tables
    fitter = PoseFitter(tables, load_prior('mixed'), Config())
    for k, (_, observation) in enumerate(swaying(tables, 8, noise=1.0)):
        if k >= 5:
            points = observation.points.copy()
            points[LEFT] = points[RIGHT]
            observation = dataclasses.replace(observation, points=points)
        result = fitter.step(observation)
        assert fitter.refused_hands == (k >= 5, False)
        is_hidden = result.state.source[25:40] == Source.COMPLETED
        if k >= 4:  # the fit has settled
            assert is_hidden.all() if k >= 5 else not is_hidden.any()
