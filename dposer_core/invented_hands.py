"""Hands that a detector invents: it rarely says that it does not see one.

Scores do not tell, since a hidden hand gets a high one. Keypoints do, where they contradict the
arm, the size of the person, the other hand or time. A hand that is refused counts as hidden. One
that is drawn on the end of the right forearm, of the right size, and moves like a hand cannot be
told from a real one here.

Lengths are shares of the person's height. The limits leave room around all hands of held-out
motion with noise, and of real ones (MediaPipe, four views of one person).
"""

import dataclasses

import numpy as np

from dposer_core.evidence import LEFT_HAND_POINTS, RIGHT_HAND_POINTS
from dposer_core.observation import Observation

_HANDS = (LEFT_HAND_POINTS, RIGHT_HAND_POINTS)
_ELBOWS, _WRISTS = (7, 8), (9, 10)
_KNUCKLES = [5, 9, 13, 17]  # of the 21 points of a hand
_MIDDLE = 9

_WRIST_REACH = 0.09  # between the wrist of the hand and that of the body
_WRIST_REACH_UNSEEN = 0.3  # and that which is expected, when the body's is not seen
_PALM = (0.016, 0.11)  # longest way from the wrist to a knuckle; a flat view is never a point
_PALM_3D = (0.04, 0.095)
_STRAIGHT_FOREARM, _STRAIGHT_PALM = 0.11, 0.04  # seen long enough for their angle to mean much
_MAX_BEND = np.cos(np.radians(120.0))  # of the wrist, as seen
_SAME_PLACE, _APART = 0.02, 0.12  # between the points of two hands: seen, expected
_WRISTS_APART = 0.05  # between the wrists of the body, seen, while the hands are in one place
_SAME_SHAPE, _OTHER_SHAPE = 0.012, 0.03  # the same with their wrists laid on each other
_BECAME_SAME = 0.02  # loss of the difference of two shapes in one frame
_FROZEN = 0.001  # change of the shape of a hand that is a copy of itself
_MOVED = 0.01  # change of a forearm whose hand must have changed with it
_JITTER = 0.05  # second difference of the shape of a hand
_JITTER_FRAMES = 3
_SHORT_DT = 0.05  # s; hands change freely in longer times
_LEAP = 0.08  # change of the shape, mean of all points, that no hand makes in so short a time:
# a flat one turns by some 90 degrees
_LEAP_SECONDS = 2.0  # after which a hand that leapt is believed where it is


class _Past:
    """What one hand did before."""

    def __init__(self) -> None:
        self._stamp_ns = 0
        self.forget()

    def forget(self) -> None:
        """The hand is not seen."""
        self._shape: np.ndarray | None = None  # (21, dim) from the wrist, heights
        self._change: np.ndarray | None = None  # of it in the last frame
        self._held: tuple[np.ndarray, np.ndarray] | None = None  # shape, forearm since then
        self._jittery = 0  # frames on end
        self._believed: tuple[int, np.ndarray] | None = None  # stamp and shape before a leap

    def jitters(self, stamp_ns: int, hand: np.ndarray) -> bool:
        """Whether the shape goes to and fro, for longer than a blink of the detector."""
        shape = hand - hand[0]
        is_recent = (stamp_ns - self._stamp_ns) * 1e-9 <= _SHORT_DT
        change = shape - self._shape if self._shape is not None and is_recent else None
        is_rough = (
            change is not None
            and self._change is not None
            and np.linalg.norm(change - self._change, axis=1).mean() > _JITTER
        )
        self._jittery = self._jittery + 1 if is_rough else 0
        self._stamp_ns, self._shape, self._change = stamp_ns, shape, change
        return self._jittery >= _JITTER_FRAMES

    def leaps(self, stamp_ns: int, hand: np.ndarray) -> bool:
        """Whether the shape became another between two frames, and has not come back.

        Called before `jitters`, which notes the time of the frame.
        """
        shape = hand - hand[0]
        # In space the other signs suffice, and a hand that swings a sword leaps farther than this.
        if self._believed is not None and hand.shape[1] == 2:
            then, before = self._believed
            is_watched = (stamp_ns - self._stamp_ns) * 1e-9 <= _SHORT_DT
            is_recent = (stamp_ns - then) * 1e-9 <= _LEAP_SECONDS
            change = np.linalg.norm(shape - before, axis=1).mean()
            if is_watched and is_recent and change > _LEAP:
                return True
        self._believed = (stamp_ns, shape)
        return False

    def is_frozen(self, side: int, points: np.ndarray, seen: np.ndarray, height: float) -> bool:
        """Whether the shape is the same, to the digit, as before the forearm moved."""
        elbow, wrist = _ELBOWS[side], _WRISTS[side]
        if not seen[[elbow, wrist]].all():
            return False
        hand = points[_HANDS[side]]
        shape, forearm = hand - hand[0], points[wrist] - points[elbow]
        if self._held is None or np.abs(shape - self._held[0]).max() > _FROZEN * height:
            self._held = (shape, forearm)
        return bool(np.linalg.norm(forearm - self._held[1]) > _MOVED * height)


class InventedHands:
    """Watches over the hands of one person."""

    def __init__(self) -> None:
        self.refused = (False, False)
        """Whether the left and right hand of the newest observation were refused."""
        self._contradicted = [False, False]  # in the frame before
        self._pair: tuple[int, np.ndarray] | None = None  # stamp, shapes (2, 21, dim) of then
        self._copy: int | None = None  # side that took the shape of the other
        self._past = (_Past(), _Past())

    def without(
        self, observation: Observation, expected: np.ndarray, height: float
    ) -> Observation:
        """The observation without hands that cannot be the person's.

        Args:
            observation: next frame of the person.
            expected: (133, dim) where the track expects the points, in their unit; NaN: nowhere.
            height: of the person in that unit.
        """
        points = observation.points / height
        expected = expected / height
        seen = observation.confidence > 0.0
        shown = [bool(seen[hand].all()) for hand in _HANDS]
        refused = [
            shown[side]
            and (
                _is_elsewhere(side, points, seen, expected)
                or _is_no_hand(points[_HANDS[side]])
                or _is_bent_too_far(side, points, seen)
            )
            for side in range(2)
        ]
        if all(shown) and not any(refused):
            refused = _is_the_other(points, seen, expected)
        if not all(shown):
            self._copy = None
        elif self._copied(observation.stamp_ns, points) is not None:
            refused[self._copy] = True
        for side, past in enumerate(self._past):
            if shown[side]:
                refused[side] |= past.leaps(observation.stamp_ns, points[_HANDS[side]])
                refused[side] |= past.jitters(observation.stamp_ns, points[_HANDS[side]])
                # In the detector's own unit: the height is estimated anew in every frame.
                refused[side] |= past.is_frozen(side, observation.points, seen, height)
            else:
                past.forget()
        # Some inventions are caught in every second frame only.
        before, self._contradicted = self._contradicted, [bool(r) for r in refused]
        left, right = (now or then for now, then in zip(self._contradicted, before, strict=True))
        self.refused = (left and shown[0], right and shown[1])
        if not any(self.refused):
            return observation
        confidence = observation.confidence.copy()
        for side in np.flatnonzero(self.refused):
            confidence[_HANDS[side]] = 0.0
        return dataclasses.replace(observation, confidence=confidence)

    def _copied(self, stamp_ns: int, points: np.ndarray) -> int | None:
        """The side whose shape became that of the other between two frames, as long as it is.

        Hands that really come to look the same do so little by little.
        """
        hands = np.stack([points[hand] for hand in _HANDS])
        shapes = hands - hands[:, :1]
        apart = _apart(shapes)
        if apart >= _SAME_SHAPE:
            self._copy = None
        elif self._copy is None and self._pair is not None:
            then, before = self._pair
            is_short = (stamp_ns - then) * 1e-9 <= _SHORT_DT
            if is_short and _apart(before) - apart > _BECAME_SAME:
                change = np.linalg.norm(shapes - before, axis=2).mean(axis=1)
                self._copy = int(change.argmax())
        self._pair = (stamp_ns, shapes)
        return self._copy


def _is_elsewhere(side: int, points: np.ndarray, seen: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the hand is not at the end of the arm."""
    wrist, own = points[_HANDS[side].start], _WRISTS[side]
    if seen[own]:
        return bool(np.linalg.norm(wrist - points[own]) > _WRIST_REACH)
    # NaN compares as false: nothing is expected of a wrist behind the camera.
    return bool(np.linalg.norm(wrist - expected[own]) > _WRIST_REACH_UNSEEN)


def _is_no_hand(hand: np.ndarray) -> bool:
    """Whether the palm has a size that no view of a palm has."""
    least, most = _PALM_3D if hand.shape[1] == 3 else _PALM
    palm = float(np.linalg.norm(hand[_KNUCKLES] - hand[0], axis=1).max())
    return not least <= palm <= most


def _is_bent_too_far(side: int, points: np.ndarray, seen: np.ndarray) -> bool:
    """Whether the hand points back along the forearm."""
    if not seen[[_WRISTS[side], _ELBOWS[side]]].all():
        return False
    hand = points[_HANDS[side]]
    forearm, palm = points[_WRISTS[side]] - points[_ELBOWS[side]], hand[_MIDDLE] - hand[0]
    lengths = np.linalg.norm(forearm), np.linalg.norm(palm)
    if lengths[0] < _STRAIGHT_FOREARM or lengths[1] < _STRAIGHT_PALM:
        return False
    return bool(forearm @ palm < _MAX_BEND * lengths[0] * lengths[1])


def _is_the_other(points: np.ndarray, shown: np.ndarray, expected: np.ndarray) -> list[bool]:
    """Whether the left or right points are those of the other hand, in place or in shape.

    Hands that really come together, or look the same from the side, are expected to. In space
    they never have the same shape, but that of a mirror image.
    """
    seen, known = (np.stack([p[hand] for hand in _HANDS]) for p in (points, expected))
    wrists = points[list(_WRISTS)]
    are_wrists_apart = (
        shown[list(_WRISTS)].all() and np.linalg.norm(wrists[0] - wrists[1]) > _WRISTS_APART
    )
    is_same = _apart(seen) < _SAME_PLACE and (_apart(known) > _APART or are_wrists_apart)
    if not is_same:
        seen, known = (hands - hands[:, :1] for hands in (seen, known))
        is_odd = points.shape[1] == 3 or _apart(known) > _OTHER_SHAPE
        is_same = _apart(seen) < _SAME_SHAPE and is_odd
    farther = int(np.linalg.norm(seen - known, axis=2).mean(axis=1).argmax())
    return [is_same and side == farther for side in range(2)]


def _apart(hands: np.ndarray) -> float:
    """Mean distance of the points of two hands (2, 21, dim)."""
    return float(np.linalg.norm(hands[0] - hands[1], axis=1).mean())
