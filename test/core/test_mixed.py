"""Which person in the picture a 3D observation belongs to."""

import dataclasses

import numpy as np
import pytest

from dposer_core.body_model import load_body
from dposer_core.camera import PinholeCamera
from dposer_core.mixed import put_beside
from dposer_core.observation import Observation

CAMERA = PinholeCamera(900.0, 900.0, 480.0, 270.0, 960, 540)
BODY, LEFT, RIGHT = np.r_[0:17], np.r_[91:112], np.r_[112:133]


@pytest.fixture(scope='module')
def body() -> np.ndarray:
    """(133, 3) landmarks of the body at rest, 3 m in front of the camera."""
    tables = load_body().tables
    points = (tables.point_weights[..., None] * tables.point_template).sum(axis=1)
    return points * (1.0, -1.0, -1.0) + (0.0, 0.0, 3.0)


def confident(points: np.ndarray) -> np.ndarray:
    confidence = np.zeros(133)
    confidence[points] = 1.0
    return confidence


def in_picture(points: np.ndarray, track_id: str) -> Observation:
    return Observation(0, CAMERA.project(points), confident(BODY), CAMERA, track_id=track_id)


def hands(points: np.ndarray, which: np.ndarray) -> Observation:
    return Observation(0, points, confident(which))


def test_hands_go_to_the_body_whose_wrists_they_are_at(body: np.ndarray) -> None:
    """The body has 17 points and no hand: the wrist is all they share."""
    here, there = body - [0.8, 0.0, 0.0], body + [0.8, 0.0, 0.5]
    people = [in_picture(here, 'here'), in_picture(there, 'there')]
    others = [hands(there, np.r_[LEFT, RIGHT]), hands(here, RIGHT)]
    joined, unclaimed = put_beside(people, others)
    assert unclaimed == 0
    assert [o.track_id for o in joined] == ['here', 'there']
    assert joined[0].beside.points is others[1].points
    assert joined[1].beside.points is others[0].points


def test_two_hands_reported_one_by_one_are_both_kept(body: np.ndarray) -> None:
    left, right = hands(body, LEFT), hands(body, RIGHT)
    (joined,), unclaimed = put_beside([in_picture(body, '')], [left, right])
    assert unclaimed == 0
    kept = {int(np.flatnonzero(part.confidence)[0]) for part in joined.parts[1:]}
    assert kept == {LEFT[0], RIGHT[0]} and len(joined.parts) == 3


def test_hands_on_nobody_are_nobodys(body: np.ndarray) -> None:
    far = hands(body + [1.5, 0.0, 0.0], LEFT)
    behind = hands(body - [0.0, 0.0, 6.0], LEFT)
    joined, unclaimed = put_beside([in_picture(body, '')], [far, behind])
    assert unclaimed == 2 and joined[0].beside is None
    assert put_beside([], [far]) == ([], 1)


def test_without_a_point_in_common_nothing_is_guessed(body: np.ndarray) -> None:
    person = in_picture(body, '')
    confidence = person.confidence.copy()
    confidence[9] = 0.0  # the left wrist
    person = dataclasses.replace(person, confidence=confidence)
    assert put_beside([person], [hands(body, LEFT)])[1] == 1
