"""All bodies that a ROS4HRI detector tracks, as one stream of keypoint frames.

REP-155 gives each body a topic of its own, which comes and goes with it. What is stamped alike
is of one picture: it becomes one frame, and the ids of the bodies its track ids.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from dposer_core.config import InputConfig
from dposer_ros.adapters import MAX_PEOPLE, Context, convert, message_class
from dposer_ros.conversions import ns_from_stamp
from dposer_ros.hri import ROOT
from dposer_ros.msg import KeypointFrame
from dposer_ros.refusals import Refusals, Refused, guarded, refuses_qos
from dposer_ros.synchroniser import Instant, Synchroniser

TYPE = 'hri_bodies'
"""The value of `input.type`."""

_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # heard from any publisher
_MAX_WAIT = 0.03  # s, that a body waits for the others of its picture
_TICK = 0.005  # s
_MAX_ID = 64  # characters


class HriBodies:
    """Listens to every body of `/humans/bodies/tracked`; used as a `KeypointSource`.

    Args:
        node: that owns the subscriptions.
        refusals: of the node.
        callback: given each frame.
        config: `input.sync_slop` is how far the stamps of one picture may differ.

    Raises:
        ConfigError: hri_msgs is not installed.
    """

    type = TYPE

    def __init__(
        self,
        node: Node,
        refusals: Refusals,
        callback: Callable[[KeypointFrame], None],
        config: InputConfig,
    ) -> None:
        self.refusals = refusals
        self._node, self._callback, self._config = node, callback, config
        self._skeleton = message_class('hri_msgs/msg/Skeleton2D')
        self._bodies: dict[str, Subscription] = {}
        self._sync = self._synchroniser([])
        self._tracked = self._listen(
            message_class('hri_msgs/msg/IdsList'), f'{ROOT}/tracked', self._on_tracked
        )
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self._timer = node.create_timer(_TICK, self._flush, clock=steady)
        node.get_logger().info(f'listening to {ROOT}/<id>/skeleton2d of all ids of {ROOT}/tracked')

    def read(self, frame: KeypointFrame) -> KeypointFrame:
        """As of `KeypointSource`: what the callback was given is a frame already."""
        return frame

    def close(self) -> None:
        """Stop listening."""
        self._node.destroy_timer(self._timer)
        for subscription in (self._tracked, *self._bodies.values()):
            self._node.destroy_subscription(subscription)
        self._bodies.clear()

    def _listen(self, kind: type, topic: str, callback: Callable[[Any], None]) -> Subscription:
        on_incompatible = refuses_qos(self.refusals.add, topic, is_input=True)
        return self._node.create_subscription(
            kind, topic, callback, _QOS,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=on_incompatible),
        )  # fmt: skip

    def _synchroniser(self, ids: Sequence[str]) -> Synchroniser[Any]:
        return Synchroniser(ids, self._config.sync_slop, _MAX_WAIT)

    @guarded
    def _on_tracked(self, message: Any) -> None:
        """Follow who comes and goes; an id is part of a topic's name, and must be able to be."""
        ids = list(dict.fromkeys(message.ids))
        good = [i for i in ids if len(i) <= _MAX_ID and i.isascii() and i.isidentifier()]
        if len(good) < len(ids) or len(good) > MAX_PEOPLE:
            named = ', '.join(repr(i[:_MAX_ID]) for i in [*(set(ids) - set(good)), *good][:5])
            self.refusals.add(
                'adapter',
                f'{len(ids)} ids of {ROOT}/tracked, {len(ids) - len(good)} of them no part of a '
                f'topic ({named}): at most {MAX_PEOPLE} are followed, of up to {_MAX_ID} letters, '
                'digits and _, not beginning with a digit',
            )
        good = good[:MAX_PEOPLE]
        if set(good) == set(self._bodies):
            return
        self._hand_over(self._sync.due(float('inf')))
        for gone in self._bodies.keys() - set(good):
            self._node.destroy_subscription(self._bodies.pop(gone))
        for came in [i for i in good if i not in self._bodies]:
            self._bodies[came] = self._listen(
                self._skeleton,
                f'{ROOT}/{came}/skeleton2d',
                lambda msg, body_id=came: self._on_skeleton(body_id, msg),
            )
        self._sync = self._synchroniser(list(self._bodies))

    @guarded
    def _on_skeleton(self, body_id: str, message: Any) -> None:
        if body_id not in self._bodies:  # on its way when the body went
            return
        frame = convert('hri', message, Context(message.header.stamp))
        frame.people[0].track_id = body_id
        stamp_ns = ns_from_stamp(frame.header.stamp)
        self._hand_over(self._sync.add(body_id, stamp_ns, frame, time.monotonic()))

    @guarded
    def _flush(self) -> None:
        self._hand_over(self._sync.due(time.monotonic()))

    def _hand_over(self, instants: Sequence[Instant[KeypointFrame]]) -> None:
        for instant in instants:
            first, *others = (frame for _, frame in instant.items.values())
            for other in others:
                if other.header.frame_id != first.header.frame_id:
                    raise Refused(
                        'frame',
                        f'bodies of one picture in {first.header.frame_id!r} and '
                        f'{other.header.frame_id!r}',
                    )
                first.people += other.people
            self._callback(first)
