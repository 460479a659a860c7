"""Quality steps down while the fit cannot keep up with its input, and up again when it can.

The age of the output needs no ladder: the newest frame wins, whatever a fit costs. What the ladder
saves are frames in between, which a cheaper fit has the time to see. It has one rung: a smaller
window costs as much, and what is left beside the iterations is most of a fit (9.1 of 11.0 ms).
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

from dposer_core.config import Config
from dposer_core.state import FitResult, Quality
from dposer_ros.node_config import DegradeConfig

SETTLE = 0.3  # s that a load must last
_MEMORY = 0.2  # s, of the means that the load is made of
_LONGEST_PERIOD = 1.0  # s; slower input is no input


class QualityLadder:
    """Full or reduced, by the share of the time between frames that one frame's work takes.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Begin anew, at full quality."""
        self.is_reduced = False
        self._period = self._work = 0.0
        self._arrived: float | None = None
        self._since: float | None = None

    @property
    def load(self) -> float:
        """Work over period; above 1 frames are dropped."""
        return self._work / self._period if self._period else 0.0

    def arrived(self) -> None:
        """A frame has come, fitted or not."""
        now, before = self._clock(), self._arrived
        self._arrived = now
        if before is not None:
            self._period = _mean(self._period, min(now - before, _LONGEST_PERIOD), now - before)

    def answered(self, seconds: float, config: DegradeConfig) -> None:
        """A frame was fitted and published, which took `seconds`."""
        # One frame that was held up for long must not count as an overload that lasts.
        seconds = min(seconds, 2.0 * self._period) if self._period else seconds
        self._work = _mean(self._work, seconds, max(seconds, self._period))
        wants_change = (
            self.load < config.up_below if self.is_reduced else self.load > config.down_above
        )
        now = self._clock()
        if not config.enable:
            self.is_reduced, self._since = False, None
        elif not wants_change:
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since >= SETTLE:
            self.is_reduced, self._since = not self.is_reduced, None
            self._work = 0.0  # of the other quality: begin anew

    def config(self, full: Config) -> Config:
        """What to fit with now."""
        if not self.is_reduced:
            return full
        fit = dataclasses.replace(
            full.fit, max_iterations=min(2, full.fit.max_iterations), relinearise=1
        )
        return dataclasses.replace(full, fit=fit)

    def marked(self, results: Sequence[FitResult]) -> list[FitResult]:
        """The results, none of them called better than it is."""
        if not self.is_reduced:
            return list(results)
        return [dataclasses.replace(r, quality=max(r.quality, Quality.REDUCED)) for r in results]


def _mean(before: float, value: float, weight: float) -> float:
    """Exponential mean over `_MEMORY` seconds; the first value is taken as it is."""
    share = weight / (weight + _MEMORY) if before else 1.0
    return before + share * (value - before)
