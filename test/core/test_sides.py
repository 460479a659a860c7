"""Left and right that a detector exchanges are put right, and only those."""

import dataclasses

import numpy as np
import pytest

from dposer_core.body_model import load_body
from dposer_core.config import from_mapping
from dposer_core.fitter import PoseFitter
from dposer_core.keypoints import MIRROR
from dposer_core.observation import Observation
from dposer_core.sides import Sides
from test.swaying import swaying

FRAME_NS = 33_000_000
ARMS = np.r_[5:11, 91:133]


def seen(k: int, order=None, noise=0.01) -> tuple[Observation, np.ndarray]:
    """A frame of a person of height 1, 0.3 wide, and where the points are expected."""
    rng = np.random.default_rng(k)
    side = np.sign(np.arange(133) - MIRROR)
    expected = np.column_stack([0.15 * side, np.linspace(0.0, 1.0, 133)])
    expected[:, 1] = (expected[:, 1] + expected[MIRROR, 1]) / 2.0
    points = expected + rng.normal(0.0, noise, expected.shape)
    confidence = np.linspace(0.5, 1.0, 133)
    if order is not None:
        points, confidence = points[order], confidence[order]
    return Observation(k * FRAME_NS, points, confidence, sigma=np.arange(133.0)), expected


def exchanged(points: np.ndarray) -> np.ndarray:
    order = np.arange(133)
    order[points] = MIRROR[points]
    return order


@pytest.mark.parametrize('points', [np.r_[1:23, 91:133], ARMS, np.r_[11:23]])
def test_exchanged_points_are_put_back_with_all_that_belongs_to_them(points) -> None:
    sides = Sides()
    for k in range(20):
        observation, expected = seen(k)
        assert sides.corrected(observation, expected, 1.0) is observation
        assert not sides.is_exchanged
    observation, expected = seen(20, exchanged(points))
    right, _ = seen(20)
    found = sides.corrected(observation, expected, 1.0)
    assert sides.is_exchanged
    np.testing.assert_array_equal(found.points, right.points)
    np.testing.assert_array_equal(found.confidence, right.confidence)
    np.testing.assert_array_equal(found.sigma, np.arange(133.0)[exchanged(points)])


def test_a_new_track_believes_the_detector() -> None:
    sides = Sides()
    for k in range(10):
        observation, expected = seen(k, exchanged(ARMS) if k else None)
        assert sides.corrected(observation, expected, 1.0) is observation


def test_a_detector_that_insists_is_believed_after_a_second() -> None:
    sides = Sides()
    for k in range(30):
        sides.corrected(*seen(k), 1.0)
    corrected = []
    for k in range(30, 90):
        observation, expected = seen(k, exchanged(ARMS))
        corrected.append(sides.corrected(observation, expected, 1.0) is not observation)
    assert sum(corrected) * FRAME_NS == pytest.approx(1e9, abs=2 * FRAME_NS)
    assert corrected == sorted(corrected, reverse=True)


def test_sides_that_lie_on_each_other_are_left_alone() -> None:
    sides = Sides()
    for k in range(40):
        observation, expected = seen(k, exchanged(ARMS) if k >= 20 else None, noise=0.05)
        expected = expected * (0.05, 1.0)
        observation = dataclasses.replace(observation, points=observation.points * (0.05, 1.0))
        assert sides.corrected(observation, expected, 1.0) is observation


def test_fit_of_a_person_does_not_turn_around_with_the_detector() -> None:
    """Ten exchanged frames of a person who faces the camera."""
    tables = load_body().tables
    fitter = PoseFitter(tables, None, from_mapping({'fit.max_iterations': 2}))
    errors, counted = [], 0
    for k, (joints, observation) in enumerate(swaying(tables, 36, noise=1.0)):
        if 20 <= k < 30:
            observation = dataclasses.replace(
                observation,
                points=observation.points[MIRROR],
                confidence=observation.confidence[MIRROR],
            )
        result = fitter.step(observation)
        counted += result.stats.sides_exchanged
        hips = result.state.joints[1, 0] - result.state.joints[2, 0]
        errors.append(abs(hips - (joints[1, 0] - joints[2, 0])))
    assert counted == 10
    assert max(errors[20:]) < max(errors[10:20]) + 0.02
