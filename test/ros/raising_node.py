"""The node with the fitter that does nothing, each of whose callbacks raises the first time.

A program that takes the node's --ros-args; it prints the name of each callback that raised.
"""

from collections.abc import Callable
from typing import Any

from null_fitter import null_model

from dposer_ros.node import WholeBodyNode
from dposer_ros.process import run_until_signal


def raising_once(callback: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`callback`, but for the first call."""
    called = False

    def run(*args: Any) -> Any:
        nonlocal called
        if not called:
            called = True
            print(f'raised: {name}', flush=True)
            raise RuntimeError(f'injected into {name}')
        return callback(*args)

    return run


class RaisingNode(WholeBodyNode):
    """Every timer, subscription and service raises when it is called first."""

    def create_timer(self, period: float, callback: Callable, *args: Any, **kwargs: Any) -> Any:
        callback = raising_once(callback, f'timer {callback.__qualname__}')
        return super().create_timer(period, callback, *args, **kwargs)

    def create_subscription(
        self, kind: type, topic: str, callback: Callable, *args: Any, **kwargs: Any
    ) -> Any:
        def guarded(message: Any) -> None:  # rclpy counts the arguments
            run(message)

        run = raising_once(callback, f'subscription {topic}')
        return super().create_subscription(kind, topic, guarded, *args, **kwargs)

    def create_service(
        self, kind: type, name: str, callback: Callable, *args: Any, **kwargs: Any
    ) -> Any:
        return super().create_service(
            kind, name, raising_once(callback, f'service {name}'), *args, **kwargs
        )


if __name__ == '__main__':
    run_until_signal(lambda: RaisingNode(null_model))
