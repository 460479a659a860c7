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
    assert refused[FIRST:, 0].mean() > 0.8  # some kinds need a few frames
    assert not refused[:, 1].any()


def judged(*frames, dt: float = 0.033) -> list[tuple[bool, bool]]:
    """Whether the hands of each frame were refused, of points (133, 2) that nobody expected.

    A person 1 unit tall; nothing is expected anywhere, so only what is seen is judged.
    """
    hands, found = InventedHands(), []
    confidence = np.zeros(133)
    confidence[LEFT] = confidence[RIGHT] = 1.0
    for k, points in enumerate(frames):
        observation = Observation(round((1 + k * dt) * 1e9), points, confidence)
        hands.without(observation, np.full((133, 2), np.nan), 1.0)
        found.append(hands.refused)
    return found


def two_hands(left_turn: float, right_turn: float, apart: float = 0.4) -> np.ndarray:
    """(133, 2) a flat left and right hand of the same shape, each turned by so many rad."""
    points = np.zeros((133, 2))
    finger = np.linspace(0.03, 0.1, 4)[:, None]
    hand = np.concatenate([[[0.0, 0.0]], *(finger * [np.cos(a), np.sin(a)] for a in
                                           np.linspace(-0.5, 0.5, 5))])  # fmt: skip
    for side, turn, place in ((LEFT, left_turn, 0.0), (RIGHT, right_turn, apart)):
        turned = hand @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
        points[side] = turned + [place, 0.0]
    return points


def test_a_hand_that_turns_round_between_two_frames_is_refused_until_it_is_back() -> None:
    here, round_about = two_hands(0.0, 1.5), two_hands(np.pi, 1.5)
    refused = judged(*[here] * 2, *[round_about] * 4, *[here] * 6)
    assert [left for left, _ in refused[:7]] == [False] * 2 + [True] * 5
    assert not refused[-1][0]
    assert not any(right for _, right in refused)


def test_a_hand_that_stays_turned_round_is_believed_after_two_seconds() -> None:
    frames = [two_hands(0.0, 1.5)] * 2 + [two_hands(np.pi, 1.5)] * 70
    refused = [left for left, _ in judged(*frames)]
    assert all(refused[2:58]) and not any(refused[64:])


def test_a_hand_may_turn_round_in_a_fifth_of_a_second_and_between_rare_frames() -> None:
    turning = [two_hands(a, -1.5) for a in np.linspace(0.0, np.pi, 7)]
    assert not any(left for left, _ in judged(*turning))
    assert not any(left for left, _ in judged(turning[0], turning[-1], turning[-1], dt=0.1))


def test_a_hand_that_takes_the_shape_of_the_other_at_once_is_its_copy() -> None:
    refused = judged(*[two_hands(0.0, 0.6)] * 2, *[two_hands(0.6, 0.6)] * 3, two_hands(0.0, 0.6))
    assert [left for left, _ in refused] == [False, False, True, True, True, True]
    little_by_little = [two_hands(a, 0.6) for a in np.linspace(0.0, 0.6, 9)]
    assert not any(left for left, _ in judged(*little_by_little))


def test_hands_in_one_place_at_wrists_apart_are_one_hand() -> None:
    hands, points = InventedHands(), two_hands(0.0, 0.0, apart=0.0)
    points[[9, 10]] = (0.0, 0.0), (0.08, 0.0)
    confidence = np.zeros(133)
    confidence[[9, 10, *LEFT, *RIGHT]] = 1.0
    expected = two_hands(0.0, 0.0, apart=0.01)
    hands.without(Observation(10**9, points, confidence), expected, 1.0)
    assert sum(hands.refused) == 1
    points[10] = (0.01, 0.0)
    hands.without(Observation(2 * 10**9, points, confidence), expected, 1.0)
    hands.without(Observation(3 * 10**9, points, confidence), expected, 1.0)
    assert hands.refused == (False, False)


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
