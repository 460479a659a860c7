"""Left and right: detectors exchange them, most often of a person who turns or shows the back.

Such a detection is as sharp as any other, and a fit that believes it turns the person around for a
few frames. What tells is time: people do not turn by half within a frame.
"""

import dataclasses

import numpy as np

from dposer_core.evidence import FACE_POINTS, LEFT_HAND_POINTS, RIGHT_HAND_POINTS
from dposer_core.keypoints import MIRROR
from dposer_core.observation import Observation

# Exchanged as a whole, each by itself: (left of each pair that is judged, points that follow).
_GROUPS = (
    (np.array([1, 3]), np.r_[1:5]),
    (np.array([5, 7, 9]), np.r_[5:11, LEFT_HAND_POINTS, RIGHT_HAND_POINTS]),
    (np.array([11, 13, 15, 17, 18, 19]), np.r_[11:23]),
    (FACE_POINTS.start + np.array([0, 36, 48]), np.r_[FACE_POINTS]),
)
_RATIO = (
    0.5  # exchanged points are at most this far from where they are expected, of what they were
)
_GAIN = 0.03  # and nearer by at least this share of a person's height
_SETTLED = 0.5  # s of undisputed tracking before a person's sides are known
_BELIEVED = 1.0  # s after which the detector is right and the track was wrong


class Sides:
    """Watches over the sides of one person."""

    def __init__(self) -> None:
        self.is_exchanged = False
        """Whether the newest observation was put right."""
        self._agreed_since_ns: int | None = None
        self._exchanged_since_ns: int | None = None

    def corrected(
        self, observation: Observation, expected: np.ndarray, height: float
    ) -> Observation:
        """The observation with its sides put right where they contradict the track.

        Args:
            observation: next frame of the person.
            expected: (133, dim) where the track expects the points, in their unit; NaN: nowhere.
            height: of the person in that unit.

        Returns:
            `observation` itself if nothing is exchanged, or if it has been for so long that the
            detector must be right.
        """
        self.is_exchanged = False
        order = np.arange(len(MIRROR))
        for judged, followers in _GROUPS:
            if _is_exchanged(observation, expected, judged, height):
                order[followers] = MIRROR[followers]
        stamp_ns = observation.stamp_ns
        if (order == np.arange(len(MIRROR))).all():
            self._exchanged_since_ns = None
            if self._agreed_since_ns is None:
                self._agreed_since_ns = stamp_ns
            return observation
        if self._exchanged_since_ns is None:
            self._exchanged_since_ns = stamp_ns
        is_settled = (
            self._agreed_since_ns is not None
            and self._exchanged_since_ns - self._agreed_since_ns >= _SETTLED * 1e9
        )
        if not is_settled or stamp_ns - self._exchanged_since_ns > _BELIEVED * 1e9:
            self._agreed_since_ns = None
            return observation
        self.is_exchanged = True
        sigma = observation.sigma
        return dataclasses.replace(
            observation,
            points=observation.points[order],
            confidence=observation.confidence[order],
            sigma=None if sigma is None else sigma[order],
        )


def _is_exchanged(
    observation: Observation, expected: np.ndarray, judged: np.ndarray, height: float
) -> bool:
    """Whether these left points and their partners are where the other side is expected."""
    pairs = np.stack([judged, MIRROR[judged]])
    is_seen = (observation.confidence[pairs] > 0.0).all(axis=0)
    pairs = pairs[:, is_seen & np.isfinite(expected[pairs]).all(axis=(0, 2))]
    if not pairs.size:
        return False
    seen = observation.points[pairs]
    same = np.linalg.norm(seen - expected[pairs], axis=-1).mean() / height
    other = np.linalg.norm(seen - expected[pairs[::-1]], axis=-1).mean() / height
    return bool(other < _RATIO * same and same - other > _GAIN)
