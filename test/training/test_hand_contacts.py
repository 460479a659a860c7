"""Overlapping fingers are found and moved apart."""

import numpy as np

from dposer_core.body_model import load_body
from training.evaluate_hands import HandSkeleton
from training.hand_contacts import BONES_MM, moved_apart, penetration_mm

_INDEX, _MIDDLE = 0, 3  # their first joints


def _crossed() -> np.ndarray:
    """Index and middle finger stretched and turned sideways into each other."""
    pose = np.zeros((1, 15, 3))
    pose[0, _INDEX, 1], pose[0, _MIDDLE, 1] = -0.25, 0.15
    return pose


def test_flat_hand_does_not_overlap() -> None:
    assert penetration_mm(np.zeros((1, 45)))[0] == 0.0


def test_crossed_fingers_overlap() -> None:
    assert penetration_mm(_crossed())[0] > 5.0


def test_fist_through_the_palm_overlaps() -> None:
    pose = np.zeros((1, 5, 3, 3))
    pose[0, :4, :, 2] = [1.6, 2.2, 1.5]
    assert penetration_mm(pose.reshape(1, 45))[0] > 5.0


def test_moved_apart_fingers_touch_at_most_and_stay_near() -> None:
    pose = _crossed()
    free = moved_apart(pose, tolerance_mm=2.0, iterations=40)
    assert penetration_mm(free)[0] < 3.0  # squared cost leaves a little over the tolerance
    assert np.abs(free - pose).max() < 0.4
    np.testing.assert_allclose(free[0, 12:], 0.0, atol=1e-6)  # the thumb had no part in it


def test_hands_without_overlap_stay_as_they_are() -> None:
    pose = np.zeros((3, 15, 3))
    pose[:, :, 2] = 0.1
    np.testing.assert_array_equal(moved_apart(pose, 2.0, 5), pose)


def test_bones_are_those_of_the_open_body() -> None:
    body = load_body('')
    offsets = 1000.0 * HandSkeleton(body).offsets
    np.testing.assert_allclose(BONES_MM, offsets, atol=0.8)  # rounded to half a millimetre
