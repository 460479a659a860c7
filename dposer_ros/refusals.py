"""What the node does not answer, or fails at: counted per cause and logged without flooding.

Nothing is swallowed: `guarded` and `transition` bring every exception of a callback here.
"""

import functools
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_policy_name_from_kind

from dposer_core.errors import ObservationError

WARN_PERIOD = 5.0  # s, per cause

# Causes that do not go away by themselves.
ERROR_CAUSES = (
    'camera_info',
    'callback_failed',
    'fit_failed',
    'fit_hangs',
    'fusion_failed',
    'output_failed',
)


class Refused(ObservationError):
    """A frame or person that is not fitted; `cause` is what it is counted under."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Refusals:
    """Counts per cause; logs each cause at most once in `WARN_PERIOD`.

    Args:
        logger: of the node.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        self.counts: Counter[str] = Counter()
        self._logger = logger
        self._logged: dict[str, float] = {}
        self._lock = threading.Lock()  # the executor and the fit worker both count

    @property
    def total(self) -> int:
        """All refused frames and people."""
        return sum(self.counts.values())

    def clear(self) -> None:
        """Count from zero again."""
        with self._lock:
            self.counts.clear()
            self._logged.clear()

    def add(self, cause: str, message: str) -> None:
        """Count one."""
        with self._lock:
            self.counts[cause] += 1
            count, now = self.counts[cause], time.monotonic()
            if now - self._logged.get(cause, -WARN_PERIOD) < WARN_PERIOD:
                return
            self._logged[cause] = now
        text = f'{cause} ({count} so far): {message}'
        if cause in ERROR_CAUSES:  # rclpy allows one severity per line of code
            self._logger.error(text)
        else:
            self._logger.warning(text)

    def add_error(self, cause: str, error: Exception) -> None:
        """Count an exception: a refusal under its own cause, others with their traceback."""
        if isinstance(error, Refused):
            self.add(error.cause, str(error))
        else:
            self.add(cause, ''.join(traceback.format_exception(error)))


def refuses_qos(
    add: Callable[[str, str], None], topic: str, is_input: bool
) -> Callable[[Any], None]:
    """A callback for QoS that does not fit, which nobody would notice but by silence.

    Args:
        add: `Refusals.add`.
        topic: that it concerns.
        is_input: whether somebody else publishes there, or subscribes.
    """

    def refuse(info: Any) -> None:
        policy = qos_policy_name_from_kind(info.last_policy_kind)
        who = 'a publisher offers less' if is_input else 'a subscriber asks for more'
        add(
            'incompatible_qos',
            f'{topic}: {who} than the node (policy {policy}), no message will pass; change it '
            f'there, or here with qos_overrides.{topic}.',
        )

    return refuse


def guarded(callback: Callable[..., None]) -> Callable[..., None]:
    """A method called by the executor; an exception that escaped would end the spin.

    Its object holds a `refusals`.
    """

    @functools.wraps(callback)
    def run(self: Any, *args: Any) -> None:
        try:
            callback(self, *args)
        except Exception as error:
            self.refusals.add_error('callback_failed', error)

    return run


def transition(on_failure: TransitionCallbackReturn) -> Callable[[Callable], Callable]:
    """A lifecycle transition that says why it failed; rclpy would swallow the exception.

    Its node keeps the reason in `error`, empty after success, and has a `transition_failed`.

    Args:
        on_failure: what to return then.
    """

    def decorate(method: Callable[[Any], None]) -> Callable:
        @functools.wraps(method)
        def run(self: Any, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                method(self)
            except Exception as error:
                self.error = f'{method.__name__}: {error}'
                self.get_logger().error(traceback.format_exc())
                self.get_logger().error(self.error)
                self.transition_failed(self.error)
                return on_failure
            self.error = ''
            return TransitionCallbackReturn.SUCCESS

        return run

    return decorate


class GuardedLifecycleNode(LifecycleNode):
    """Refuses a transition that its state does not have.

    rclpy 7 (Jazzy) lets the exception out into the spin, and whoever asked waits for ever.
    """

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> TransitionCallbackReturn:
        try:
            return super()._LifecycleNodeMixin__change_state(transition_id)
        except rclpy_implementation.RCLError as error:
            self.get_logger().error(f'transition {transition_id} refused: {error}')
            return TransitionCallbackReturn.ERROR
