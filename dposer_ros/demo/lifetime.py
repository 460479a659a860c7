"""How the demo's nodes start and end: signals set a flag, so that nothing is cut short."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from dposer_core.errors import DPoserError


class Stop:
    """True once SIGINT or SIGTERM has come."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def _request(self, *_: object) -> None:
        self.requested = True

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def ros(arguments: list[str] | None = None) -> Iterator[Stop]:
    """rclpy, initialised with `arguments` (--ros-args ...) and shut down at the end."""
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield Stop()
    finally:
        rclpy.try_shutdown()


def spin(node: Node, stop: Stop) -> None:
    """Serve the node's callbacks until `stop`."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop:
        executor.spin_once(timeout_sec=0.1)


def run_main(main: Callable[[], None]) -> None:
    """Call `main`; an error that a user can cause becomes one line and exit code 1."""
    try:
        main()
    except DPoserError as error:
        sys.exit(f'error: {error}')
