"""The subscription on `keypoints`, in the type that is published there."""

import copy
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from dposer_core.config import InputConfig
from dposer_core.errors import ConfigError
from dposer_ros.adapters import (
    ADAPTERS,
    AUTO,
    NATIVE,
    NATIVE_TYPE,
    Context,
    convert,
    detected,
    message_class,
)
from dposer_ros.msg import KeypointFrame

TOPIC = 'keypoints'
KEYPOINTS_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_LOOK_PERIOD = 0.5  # s, of looking at the topic until the first message comes


class KeypointSource:
    """Listens to the configured type; with `auto` to what is published, looking until it comes.

    Args:
        node: that owns the subscription.
        callback: given each message as it came; it asks `read` for the KeypointFrame.
        config: `input.type` and what headerless messages lack.
        on_incompatible: called when a publisher's QoS does not fit; None: rclpy logs it.
        topic: its name.

    Raises:
        ConfigError: the message package of a type asked for by name is missing.
    """

    def __init__(
        self,
        node: Node,
        callback: Callable[[Any], None],
        config: InputConfig,
        on_incompatible: Callable[[Any], None] | None = None,
        topic: str = TOPIC,
    ) -> None:
        self._node, self._callback, self._config = node, callback, config
        self._on_incompatible = on_incompatible
        self._topic = topic
        self._subscription: Subscription | None = None
        self._unusable: set[str] = set()
        self._timer = None
        self._was_heard = False
        self.type = NATIVE
        """The value of `input.type` that is listened to."""
        self._open(NATIVE if config.type == AUTO else config.type)
        if config.type == AUTO:
            clock = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
            self._timer = node.create_timer(_LOOK_PERIOD, self._look, clock=clock)
            self._look()

    def read(self, msg: Any) -> KeypointFrame:
        """A message as KeypointFrame.

        Raises:
            Refused: it is damaged.
        """
        self._was_heard = True
        if self.type == NATIVE:
            return msg
        stamp = self._node.get_clock().now().to_msg()
        context = Context(stamp, self._config.frame_id, self._config.layout)
        return convert(self.type, msg, context)

    def close(self) -> None:
        """Stop listening."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _open(self, name: str) -> None:
        kind = KeypointFrame if name == NATIVE else message_class(ADAPTERS[name].type)
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = self._node.create_subscription(
            kind,
            self._topic,
            self._callback,
            copy.copy(KEYPOINTS_QOS),  # rclpy writes overrides into it
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible),
        )
        self.type = name
        topic, form = (
            self._subscription.topic_name,
            getattr(ADAPTERS.get(name), 'type', NATIVE_TYPE),
        )
        self._node.get_logger().info(f'listening to {topic} ({form})')

    def _look(self) -> None:
        """Follow what is published on the topic, until something has been heard."""
        if self._was_heard:
            self._node.destroy_timer(self._timer)
            self._timer = None
            return
        topic = self._subscription.topic_name
        published = {info.topic_type for info in self._node.get_publishers_info_by_topic(topic)}
        name = detected(published - self._unusable)
        if name and name != self.type:
            try:
                self._open(name)
            except ConfigError as error:
                self._unusable.add(ADAPTERS[name].type)
                self._node.get_logger().warning(f'{topic}: {error}')
        elif not name and published - self._unusable:
            self._unusable |= published
            self._node.get_logger().warning(
                f'{topic} is published as {", ".join(sorted(published))}, which no adapter reads; '
                f'known: {NATIVE_TYPE}, {", ".join(a.type for a in ADAPTERS.values())}'
            )
