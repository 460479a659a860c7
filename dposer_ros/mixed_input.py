"""The input `keypoints_3d` beside `keypoints`: each frame with the 3D points of its instant."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from dposer_core.config import InputConfig
from dposer_ros.conversions import ns_from_stamp
from dposer_ros.keypoint_source import KeypointSource
from dposer_ros.msg import KeypointFrame
from dposer_ros.refusals import Refusals, guarded, refuses_qos
from dposer_ros.synchroniser import Instant, Synchroniser

TOPIC = 'keypoints_3d'
MAX_WAIT = 0.03  # s, that a frame waits for the points beside it

_FRAME = 'keypoints'
_TICK = 0.005  # s

Frame = TypeVar('Frame')


class MixedInput(Generic[Frame]):
    """Holds a frame until its 3D points are there, and not for long.

    Args:
        node: that owns the subscription.
        refusals: of the node.
        config: `input.beside` is the type, `input.sync_slop` how far the stamps may differ.
        put: given every frame, and the message beside it or None.
    """

    def __init__(
        self,
        node: Node,
        refusals: Refusals,
        config: InputConfig,
        put: Callable[[Frame, KeypointFrame | None], None],
    ) -> None:
        self.refusals = refusals
        self._node, self._put = node, put
        self._sync: Synchroniser[Any] = Synchroniser([_FRAME, TOPIC], config.sync_slop, MAX_WAIT)
        self._source = KeypointSource(
            node,
            self._on_beside,
            replace(config, type=config.beside),
            refuses_qos(refusals.add, f'/{TOPIC}', is_input=True),
            TOPIC,
        )
        clock = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self._timer = node.create_timer(_TICK, self._flush, clock=clock)

    def add(self, stamp_ns: int, frame: Frame) -> None:
        """Take a frame of `keypoints`; in the executor thread."""
        self._hand_over(self._sync.add(_FRAME, stamp_ns, frame, time.monotonic()))

    def clear(self) -> None:
        """Time starts again."""
        self._sync.clear()

    def close(self) -> None:
        """Stop listening."""
        self._node.destroy_timer(self._timer)
        self._source.close()

    @guarded
    def _on_beside(self, message: Any) -> None:
        msg = self._source.read(message)
        stamp_ns = ns_from_stamp(msg.header.stamp)
        self._hand_over(self._sync.add(TOPIC, stamp_ns, msg, time.monotonic()))

    @guarded
    def _flush(self) -> None:
        self._hand_over(self._sync.due(time.monotonic()))

    def _hand_over(self, instants: list[Instant[Any]]) -> None:
        for instant in instants:
            _, beside = instant.items.get(TOPIC, (0, None))
            if _FRAME in instant.items:
                self._put(instant.items[_FRAME][1], beside)
            else:
                self.refusals.add(
                    'unpaired', f'no frame on `keypoints` is of the time of one on `{TOPIC}`'
                )
