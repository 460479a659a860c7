"""Points in 3D beside those of a picture: whose are they?"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dposer_core.evidence import LEFT_HAND_POINTS, RIGHT_HAND_POINTS
from dposer_core.keypoints import POINT_INDEX
from dposer_core.observation import Observation

_HEIGHT = 1.7  # m
_GATE = 0.15  # of a person's height, between where the picture has a point and where 3D has it
# A body's wrist and a hand's root are one place, and often all that two detectors share.
_SAME_PLACE = (
    (POINT_INDEX['left_wrist'], LEFT_HAND_POINTS.start),
    (POINT_INDEX['right_wrist'], RIGHT_HAND_POINTS.start),
)


def put_beside(
    people: Sequence[Observation], others: Sequence[Observation]
) -> tuple[list[Observation], int]:
    """Give every 3D observation to the person in the picture that it lies on.

    Several may go to one person: some trackers report each hand as somebody of its own.

    Args:
        people: 2D.
        others: 3D, in the optical frame of their camera.

    Returns:
        The people with what is beside them, and how many of the others are nobody's.
    """
    joined, unclaimed = list(people), 0
    for other in others:
        distances = [_distance(person, other) for person in people]
        nearest = int(np.argmin(distances)) if distances else -1
        if nearest < 0 or not distances[nearest] < _GATE:
            unclaimed += 1
            continue
        before = joined[nearest]
        beside = dataclasses.replace(other, beside=before.beside)
        joined[nearest] = dataclasses.replace(before, beside=beside)
    return joined, unclaimed


def _distance(person: Observation, other: Observation) -> float:
    """Median distance in the picture, in heights of a person; infinite if nothing is shared."""
    seen, seen_confidence = _with_places(person)
    given, given_confidence = _with_places(other)
    shared = (seen_confidence > 0.0) & (given_confidence > 0.0) & (given[:, 2] > 0.0)
    if not shared.any():
        return float('inf')
    apart = np.linalg.norm(person.camera.project(given[shared]) - seen[shared], axis=1)
    height_px = person.camera.fy * _HEIGHT / given[shared, 2]
    return float(np.median(apart / height_px))


def _with_places(observation: Observation) -> tuple[np.ndarray, np.ndarray]:
    """Points and confidence, the wrist for a missing root of the hand and the other way round."""
    points, confidence = observation.points.copy(), observation.confidence.copy()
    for pair in _SAME_PLACE:
        for empty, full in (pair, pair[::-1]):
            if confidence[empty] == 0.0 and observation.confidence[full] > 0.0:
                points[empty], confidence[empty] = points[full], confidence[full]
    return points, confidence
