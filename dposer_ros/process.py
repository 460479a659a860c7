"""The life of a lifecycle node's process: start, spin, an orderly end on a signal."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn, Protocol

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

STOP_TIMEOUT = 0.5  # s, for the callback in progress

# Python makes a thread that wants to run wait for this long; by default 5 ms, which a message
# would wait while the worker computes in Python.
SWITCH_INTERVAL = 0.0005  # s


class AutostartNode(Protocol):
    """A node that can bring itself up and down."""

    autostart: bool

    def start(self) -> bool:
        """Configure and activate."""
        ...

    def close(self) -> None:
        """Publish what is last to say, and free everything."""
        ...


def run_until_signal(
    make_node: Callable[[], AutostartNode], args: list[str] | None = None
) -> NoReturn:
    """Run a node until SIGINT or SIGTERM, which end the process with 0; 1 if it did not come up.

    The signals are our own, not rclpy's: that would shut ROS down at once, and nobody would hear
    the last messages. Python runs handlers in the main thread, which therefore only waits.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    stop, failed = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = make_node()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    is_over = Future()

    def autostart() -> None:
        if not node.start():
            failed.set()
            stop.set()

    def spin() -> None:
        while not is_over.done():
            try:
                executor.spin_until_future_complete(is_over)
            except Exception:  # rclpy's own services are not ours to guard
                node.get_logger().error(traceback.format_exc())

    if node.autostart:
        executor.create_task(autostart)
    spinner = threading.Thread(target=spin, name='executor', daemon=True)
    spinner.start()
    stop.wait()
    is_over.set_result(None)
    spinner.join(STOP_TIMEOUT)
    if not spinner.is_alive():  # else: loading a model, say, and nothing was published
        try:
            node.close()
            node.destroy_node()
            rclpy.shutdown()
        except Exception:  # a fit that hangs, say: the process ends all the same
            traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # All that is left is to take the libraries apart, for which nobody should wait a second.
    os._exit(int(failed.is_set()))
