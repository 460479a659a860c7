"""What is worth an event: changes from one frame's results to the next, and jumps of the clock.

Pure bookkeeping; the node publishes what comes out on `~/events`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dposer_core import skeleton
from dposer_core.state import FitResult, Quality, Source, Status
from dposer_ros.conversions import hand_source
from dposer_ros.msg import TrackEvent

# Predictions shorter than this are a missed detection, and their end is no re-acquisition.
SHORT_GAP = 0.25  # s

# A hand that flickers between seen and completed is reported once it has settled.
SETTLED_FRAMES = 3

# Quality must be poor for this many frames to be called degraded, and good for as many more to be
# called recovered: one cold start is neither.
DEGRADED_FRAMES = 5
RECOVERED_FRAMES = 15

CLOCK_STEP_NS = 200_000_000
"""Two clocks that part by more than this between two looks: one was set."""

KINDS = {getattr(TrackEvent, name): name for name in dir(type(TrackEvent)) if name[0].isupper()}
"""Number -> name of every kind of TrackEvent."""

_WORDS = {
    Source.OBSERVED: 'seen',
    Source.PARTIAL: 'seen',
    Source.COMPLETED: 'completed',
    Source.PREDICTED: 'predicted',
    Source.DEFAULT: 'completed',
}
_HANDS = {'left': skeleton.LEFT_HAND_JOINTS, 'right': skeleton.RIGHT_HAND_JOINTS}


@dataclass(frozen=True)
class Event:
    """One TrackEvent without its header."""

    kind: int
    reason: str
    body_id: str = ''


class _Settling:
    """A word that changes only when another one has been heard several times in a row."""

    def __init__(self, word: str) -> None:
        self.word = word
        self._other, self._count = word, 0

    def hear(self, word: str) -> bool:
        """Take the word of this frame; True if it has now become the settled one."""
        self._count = self._count + 1 if word == self._other else 1
        self._other = word
        if word == self.word or self._count < SETTLED_FRAMES:
            return False
        self.word = word
        return True


@dataclass
class _Track:
    track_id: str
    hands: dict[str, _Settling]
    predicted_since_ns: int | None = None


class TrackWatch:
    """Remembers who was there; `update` says what has changed."""

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}
        self._bad_frames = self._good_frames = 0
        self._is_degraded = False

    def clear(self) -> None:
        """Everybody was forgotten; what follows are new bodies."""
        self._tracks.clear()

    def reacquired(self, result: FitResult) -> bool:
        """Whether this result, not yet given to `update`, ends a real gap of its track."""
        track = self._tracks.get(result.body_id)
        if track is None or track.predicted_since_ns is None or not _has_evidence(result):
            return False
        return (result.state.stamp_ns - track.predicted_since_ns) * 1e-9 >= SHORT_GAP

    def update(self, results: Sequence[FitResult]) -> list[Event]:
        """The events of one frame's results."""
        events = []
        for result in results:
            if result.status == Status.LOST:
                if self._tracks.pop(result.body_id, None):
                    events.append(Event(TrackEvent.LOST, 'not seen any more', result.body_id))
            elif result.body_id not in self._tracks:
                self._tracks[result.body_id] = _new_track(result)
                events.append(Event(TrackEvent.CREATED, _origin(result), result.body_id))
            else:
                events += self._changes(self._tracks[result.body_id], result)
        present = {result.body_id for result in results}
        for body_id in [known for known in self._tracks if known not in present]:
            del self._tracks[body_id]
            events.append(Event(TrackEvent.LOST, 'the fit gave the track up', body_id))
        return events + self._quality(results)

    def _changes(self, track: _Track, result: FitResult) -> list[Event]:
        events = []
        state, body_id = result.state, result.body_id
        if self.reacquired(result):
            gap = (state.stamp_ns - track.predicted_since_ns) * 1e-9
            events.append(Event(TrackEvent.REACQUIRED, f'seen again after {gap:.2f} s', body_id))
        if _has_evidence(result):
            track.predicted_since_ns = None
        elif track.predicted_since_ns is None:
            track.predicted_since_ns = state.stamp_ns
        if result.track_id and track.track_id and result.track_id != track.track_id:
            reason = f'the detector calls it {result.track_id!r} instead of {track.track_id!r}'
            events.append(Event(TrackEvent.ID_SWAP_SUSPECTED, reason, body_id))
        track.track_id = result.track_id or track.track_id
        for side, settling in track.hands.items():
            before = settling.word
            if settling.hear(_hand_word(result, side)):
                reason = f'{side} hand: {settling.word}, was {before}'
                events.append(Event(TrackEvent.PROVENANCE, reason, body_id))
        return events

    def _quality(self, results: Sequence[FitResult]) -> list[Event]:
        """DEGRADED and RECOVERED, with hysteresis; predictions say nothing about the fit."""
        qualities = [result.quality for result in results if _has_evidence(result)]
        if not qualities:
            return []
        worst = max(qualities)
        self._bad_frames = self._bad_frames + 1 if worst != Quality.FULL else 0
        self._good_frames = self._good_frames + 1 if worst == Quality.FULL else 0
        if not self._is_degraded and self._bad_frames >= DEGRADED_FRAMES:
            self._is_degraded = True
            return [Event(TrackEvent.DEGRADED, f'quality {Quality(worst).name}: see fit.deadline')]
        if self._is_degraded and self._good_frames >= RECOVERED_FRAMES:
            self._is_degraded = False
            return [Event(TrackEvent.RECOVERED, 'full quality again')]
        return []


class ClockWatch:
    """Notices a wall clock that was set, by a second clock that never is.

    Simulated time runs at any rate and stands still: rclpy's own jump callbacks watch that one.
    """

    def __init__(self) -> None:
        self._offset_ns: int | None = None

    def step_ns(self, wall_ns: int, steady_ns: int) -> int:
        """By how much the wall clock was set since the last look; 0 if it was not."""
        offset_ns = wall_ns - steady_ns
        before_ns, self._offset_ns = self._offset_ns, offset_ns
        if before_ns is None or abs(offset_ns - before_ns) < CLOCK_STEP_NS:
            return 0
        return offset_ns - before_ns


def _new_track(result: FitResult) -> _Track:
    hands = {side: _Settling(_hand_word(result, side)) for side in _HANDS}
    return _Track(result.track_id, hands)


def _hand_word(result: FitResult, side: str) -> str:
    return _WORDS[Source(hand_source(result.state.source[_HANDS[side]]))]


def _has_evidence(result: FitResult) -> bool:
    return result.status not in (Status.PREDICTED, Status.LOST)


def _origin(result: FitResult) -> str:
    return f'new; the detector calls it {result.track_id!r}' if result.track_id else 'new'
