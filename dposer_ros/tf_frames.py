"""Where frames stand, as far as /tf and /tf_static say it."""

import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from scipy.spatial.transform import Rotation, Slerp

from dposer_core.errors import ConfigError

Transform = tuple[np.ndarray, np.ndarray]
"""R (3, 3) and t (3,): p_a = R p_b + t."""

STATIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
HISTORY = 10.0  # s that a moving frame is remembered, as tf2 does
AHEAD = 0.5  # s after its newest transform that a frame is taken to stand still


@dataclass
class _Link:
    """What came of one child frame, oldest first; a static one has one entry."""

    is_static: bool
    messages: deque[tuple[float, TransformStamped]] = field(default_factory=deque)  # by stamp, s


class TfFrames:
    """The tree of /tf_static, and of /tf where asked for.

    Nobody waits here: a frame that nothing is known of is None. (tf2_ros, which has the same
    answers, is not among the wheels of ROS 2.)

    Args:
        node: that listens.
        is_moving: whether /tf is listened to, too.

    Raises:
        ConfigError: tf2_msgs is missing.
    """

    def __init__(self, node: Node, is_moving: bool = False) -> None:
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError as error:
            raise ConfigError(
                f'/tf cannot be read ({error}): install tf2_msgs or run `make messages`, or give '
                'a calibration file'
            ) from error
        self._node = node
        self._lock = threading.Lock()  # messages are stored by the executor, read by the worker
        self._links: dict[str, _Link] = {}
        self._newest = 0.0  # s, of all stamps
        self._pruned = 0.0
        self._inputs = [node.create_subscription(TFMessage, '/tf_static', self.fix, STATIC_QOS)]
        if is_moving:
            self._inputs.append(node.create_subscription(TFMessage, '/tf', self.move, 100))

    def close(self) -> None:
        """Listen no more."""
        for subscription in self._inputs:
            self._node.destroy_subscription(subscription)

    def fix(self, msg) -> None:
        """Remember a TFMessage of /tf_static."""
        with self._lock:
            for item in msg.transforms:
                link = _Link(is_static=True)
                link.messages.append((0.0, item))
                self._links[item.child_frame_id] = link

    def move(self, msg) -> None:
        """Remember a TFMessage of /tf."""
        with self._lock:
            for item in msg.transforms:
                self._add(item)
            if abs(self._newest - self._pruned) > HISTORY:
                self._prune()

    def lookup(self, target: str, source: str, stamp: float = 0.0) -> Transform | None:
        """T_target_source at a time.

        Args:
            target: frame to express in.
            source: frame of what is given.
            stamp: s; between two transforms of a moving frame it is interpolated, up to `AHEAD`
                after the newest that one stands.

        Returns:
            None as long as nothing connects the two at that time.
        """
        with self._lock:
            above_source, above_target = self._chain(source, stamp), self._chain(target, stamp)
        for frame, (rotation, place) in above_source.items():
            if frame in above_target:
                R, t = above_target[frame]
                return R.T @ rotation, R.T @ (place - t)
        return None

    def _add(self, item: TransformStamped) -> None:
        stamp = item.header.stamp.sec + item.header.stamp.nanosec * 1e-9
        link = self._links.get(item.child_frame_id)
        if link is None or link.is_static:
            link = self._links[item.child_frame_id] = _Link(is_static=False)
        messages = link.messages
        if messages and stamp < messages[-1][0] - 1.0:
            messages.clear()  # time started again
        if messages and stamp <= messages[-1][0]:
            return
        messages.append((stamp, item))
        while stamp - messages[0][0] > HISTORY:
            messages.popleft()
        self._newest = stamp

    def _prune(self) -> None:
        """Forget frames that stopped coming: people who left had names of their own."""
        self._pruned = self._newest
        for name, link in list(self._links.items()):
            if not link.is_static and abs(self._newest - link.messages[-1][0]) > HISTORY:
                del self._links[name]

    def _chain(self, frame: str, stamp: float) -> dict[str, Transform]:
        """Every frame above this one -> T_above_frame, the nearest first."""
        rotation, place = np.eye(3), np.zeros(3)
        chain = {frame: (rotation, place)}
        while frame in self._links:
            above = _at(self._links[frame], stamp)
            if above is None or above[0] in chain:
                break
            frame, (R, t) = above
            rotation, place = R @ rotation, R @ place + t
            chain[frame] = rotation, place
        return chain


def _at(link: _Link, stamp: float) -> tuple[str, Transform] | None:
    """Parent and T_parent_child; None if it is not known at that time or is no transform."""
    messages = link.messages
    newest, last = messages[-1]
    if link.is_static or newest <= stamp <= newest + AHEAD:
        return _parsed(last, last, 0.0)
    for (before, a), (after, b) in zip(
        reversed(list(messages)[:-1]), reversed(messages), strict=False
    ):
        if before <= stamp <= after:
            return _parsed(a, b, (stamp - before) / (after - before))
    return None


def _parsed(
    a: TransformStamped, b: TransformStamped, share: float
) -> tuple[str, Transform] | None:
    """Parent and transform between two messages, `share` of the way."""
    both = [m.transform for m in (a, b)]
    quats = np.array([(m.rotation.x, m.rotation.y, m.rotation.z, m.rotation.w) for m in both])
    places = np.array([(m.translation.x, m.translation.y, m.translation.z) for m in both])
    is_unit = np.abs(np.linalg.norm(quats, axis=1) - 1.0).max() < 1e-3
    if not (is_unit and np.isfinite(places).all()) or a.header.frame_id != b.header.frame_id:
        return None
    rotation = Slerp([0.0, 1.0], Rotation.from_quat(quats))(share).as_matrix()
    return b.header.frame_id, (rotation, (1.0 - share) * places[0] + share * places[1])
