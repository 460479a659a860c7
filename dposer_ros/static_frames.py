"""Where the cameras stand, as far as /tf_static says it."""

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from scipy.spatial.transform import Rotation

from dposer_core.errors import ConfigError

Transform = tuple[np.ndarray, np.ndarray]
"""R (3, 3) and t (3,): p_a = R p_b + t."""

STATIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class StaticFrames:
    """The tree of /tf_static. Nobody waits here: a frame that has not come yet is None.

    tf2_ros would bring a buffer of everything that moves, too; the cameras of a rig do not.

    Args:
        node: that listens.

    Raises:
        ConfigError: tf2_msgs is missing.
    """

    def __init__(self, node: Node) -> None:
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError as error:
            raise ConfigError(
                f'/tf_static cannot be read ({error}): install tf2_msgs or run `make messages`, '
                'or give a calibration file'
            ) from error
        self._parents: dict[str, tuple[str, Transform]] = {}
        node.create_subscription(TFMessage, '/tf_static', self.store, STATIC_QOS)

    def store(self, msg) -> None:
        """Remember a TFMessage."""
        for item in msg.transforms:
            q, p = item.transform.rotation, item.transform.translation
            quat, place = np.array([q.x, q.y, q.z, q.w]), np.array([p.x, p.y, p.z])
            if abs(np.linalg.norm(quat) - 1.0) < 1e-3 and np.isfinite(place).all():
                transform = Rotation.from_quat(quat).as_matrix(), place
                self._parents[item.child_frame_id] = item.header.frame_id, transform

    def lookup(self, target: str, source: str) -> Transform | None:
        """T_target_source; None as long as nothing connects the two."""
        above_source, above_target = self._chain(source), self._chain(target)
        for frame, (rotation, place) in above_source.items():
            if frame in above_target:
                R, t = above_target[frame]
                return R.T @ rotation, R.T @ (place - t)
        return None

    def _chain(self, frame: str) -> dict[str, Transform]:
        """Every frame above this one -> T_above_frame, the nearest first."""
        rotation, place = np.eye(3), np.zeros(3)
        chain = {frame: (rotation, place)}
        while frame in self._parents:
            frame, (R, t) = self._parents[frame]
            if frame in chain:
                break
            rotation, place = R @ rotation, R @ place + t
            chain[frame] = rotation, place
        return chain
