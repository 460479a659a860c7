"""Which frames are answered, judged by their time stamps alone."""

from dposer_core.config import InputConfig
from dposer_ros.refusals import Refused

# A stamp this far behind its predecessor means that time started again (a bag in a loop, a clock
# set back); anything less is a frame out of order.
TIME_JUMP_NS = 1_000_000_000


class StampGate:
    """Admits frames in the order of their stamps, none too old and none from the future.

    Args:
        on_jump: `time.on_jump`; with drop, what lies behind the newest is never admitted.
    """

    def __init__(self, on_jump: str = 'reset') -> None:
        self._longest_back_ns = TIME_JUMP_NS if on_jump == 'reset' else float('inf')
        self._newest_ns: int | None = None

    def clear(self) -> None:
        """Time starts again: admit whatever stamp comes next."""
        self._newest_ns = None

    def admit(self, stamp_ns: int, now_ns: int, config: InputConfig) -> None:
        """Remember the stamp, or refuse it.

        Args:
            stamp_ns: acquisition time.
            now_ns: the node's clock.
            config: `max_age` and `max_future`.

        Raises:
            Refused: with cause stamp_zero, stamp_future, stamp_stale, stamp_order, stamp_repeated.
        """
        if stamp_ns == 0:
            raise Refused('stamp_zero', 'header.stamp is 0; set the time of image acquisition')
        age = (now_ns - stamp_ns) * 1e-9
        if age < -config.max_future:
            raise Refused(
                'stamp_future',
                f'stamp is {-age:.3f} s ahead of the clock (input.max_future: '
                f'{config.max_future}); synchronise the clocks or their use_sim_time',
            )
        if age > config.max_age:
            raise Refused(
                'stamp_stale',
                f'stamp is {age:.3f} s old (input.max_age: {config.max_age}); the detector is too '
                'slow, the clocks differ, or a bag is played without --clock and use_sim_time',
            )
        back_ns = 0 if self._newest_ns is None else self._newest_ns - stamp_ns
        if self._newest_ns is not None and 0 <= back_ns <= self._longest_back_ns:
            if back_ns == 0:
                raise Refused('stamp_repeated', 'stamp is that of the frame before')
            raise Refused('stamp_order', f'stamp is {back_ns * 1e-9:.3f} s behind the newest')
        self._newest_ns = stamp_ns
