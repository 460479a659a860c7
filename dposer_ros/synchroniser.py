"""Messages of several sources brought together by their stamps.

`message_filters.ApproximateTimeSynchronizer` would not do, where there is one: it gives nothing as
long as one source is silent, throws away what is new after time went back, and counts no drops.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dposer_ros.gate import TIME_JUMP_NS

Item = TypeVar('Item')

_ALIVE = 0.5  # s after its last message during which a source is waited for
_MAX_PENDING = 16  # instants


@dataclass
class Instant(Generic[Item]):
    """What came for one time."""

    items: dict[str, tuple[int, Item]] = field(default_factory=dict)
    """By source: stamp in nanoseconds, message."""
    arrived: float = 0.0
    """Monotonic seconds, of the first."""

    @property
    def stamp_ns(self) -> int:
        """Mean of the stamps."""
        stamps = [stamp for stamp, _ in self.items.values()]
        return sum(stamps) // len(stamps)


class Synchroniser(Generic[Item]):
    """Puts together what was stamped within `slop`; an instant is given out when it is complete.

    Complete: every source that still speaks has its message in it. Nobody is waited for longer
    than `max_wait`, so a source that drops a message costs that time, and one that dies costs it
    for half a second. Instants come out in order of time. Not for several threads.

    Args:
        sources: their names.
        slop: seconds between stamps of one instant.
        max_wait: seconds.
    """

    def __init__(self, sources: Sequence[str], slop: float, max_wait: float) -> None:
        self._slop_ns, self._max_wait = int(slop * 1e9), max_wait
        self._heard: dict[str, float | None] = dict.fromkeys(sources)
        self._pending: list[Instant[Item]] = []
        self._given: Instant[Item] | None = None
        self.dropped: Counter[str] = Counter()
        """Messages by source that came too late for their instant."""
        self.jumps = 0
        """How often time went back."""

    def add(self, source: str, stamp_ns: int, item: Item, now: float) -> list[Instant[Item]]:
        """Take a message; what is ready with it, oldest first.

        Args:
            source: one of the names.
            stamp_ns: of the message.
            item: the message.
            now: monotonic seconds.
        """
        if set(self._heard.values()) == {None}:  # give all of them the time to begin
            self._heard = dict.fromkeys(self._heard, now)
        self._heard[source] = now
        known = [*self._pending, *([self._given] if self._given else [])]
        if known and max(i.stamp_ns for i in known) - stamp_ns > TIME_JUMP_NS:
            self.clear()
            self.jumps += 1
        instant = self._instant_for(source, stamp_ns, now)
        if instant is None:
            self.dropped[source] += 1
        else:
            instant.items[source] = (stamp_ns, item)
            self._pending.sort(key=lambda i: i.stamp_ns)
        return self.due(now)

    def due(self, now: float) -> list[Instant[Item]]:
        """What is complete or has waited long enough, oldest first; what is older goes with it."""
        last = -1
        for index, instant in enumerate(self._pending):
            is_complete = {*instant.items, *self.silent(now)}.issuperset(self._heard)
            if is_complete or now - instant.arrived >= self._max_wait:
                last = index
        last = max(last, len(self._pending) - _MAX_PENDING - 1)
        ready, self._pending = self._pending[: last + 1], self._pending[last + 1 :]
        if ready:
            self._given = ready[-1]
        return ready

    def silent(self, now: float) -> list[str]:
        """Sources that nobody waits for."""
        return [s for s, heard in self._heard.items() if heard is None or now - heard >= _ALIVE]

    def clear(self) -> None:
        """Time starts again: forget what waits."""
        self._pending.clear()
        self._given = None

    def _instant_for(self, source: str, stamp_ns: int, now: float) -> Instant[Item] | None:
        """The nearest pending instant that lacks this source, or a new one; None: too late."""
        near = [instant for instant in self._pending if self._fits(instant, source, stamp_ns)]
        if near:
            return min(near, key=lambda instant: abs(instant.stamp_ns - stamp_ns))
        given = self._given
        if given is not None and (
            stamp_ns <= given.stamp_ns or self._fits(given, source, stamp_ns)
        ):
            return None
        instant: Instant[Item] = Instant(arrived=now)
        self._pending.append(instant)
        return instant

    def _fits(self, instant: Instant[Item], source: str, stamp_ns: int) -> bool:
        """Whether a message of this source and stamp is one that the instant lacks."""
        return source not in instant.items and all(
            abs(stamp - stamp_ns) <= self._slop_ns for stamp, _ in instant.items.values()
        )
