"""What a plain ROS 2 has and its pip wheels have not. Delete this module when the wheels have it.

The real one is used wherever it can be imported; the stand-in has the same call signature.
"""

import array
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from sensor_msgs.msg import Image

from dposer_core.errors import ObservationError

try:
    from tf2_ros import TransformBroadcaster
except ImportError:
    from rclpy.qos import QoSProfile

    class TransformBroadcaster:
        """tf2_ros.TransformBroadcaster as far as the node uses it: one TFMessage per call.

        tf2_msgs comes from ROS 2, or is generated from `ros_interfaces/` by `make messages`.
        """

        def __init__(self, node: Node) -> None:
            from tf2_msgs.msg import TFMessage

            self._message_type = TFMessage
            self.pub_tf = node.create_publisher(TFMessage, '/tf', QoSProfile(depth=100))

        def sendTransform(self, transform: TransformStamped | Sequence[TransformStamped]) -> None:
            """Broadcast one transform or several."""
            several = [transform] if isinstance(transform, TransformStamped) else list(transform)
            self.pub_tf.publish(self._message_type(transforms=several))


try:
    from cv_bridge import CvBridge
except ImportError:

    class CvBridge:
        """The two bgr8 calls of cv_bridge.CvBridge that the demo makes."""

        def cv2_to_imgmsg(self, image: np.ndarray, encoding: str = 'bgr8') -> Image:
            """Message of an (H, W, 3) uint8 image."""
            height, width, channels = image.shape
            message = Image(height=height, width=width, encoding=encoding, step=width * channels)
            # array('B') takes rclpy's fast path; assigning bytes would check every value.
            message.data = array.array('B', np.ascontiguousarray(image).tobytes())
            return message

        def imgmsg_to_cv2(self, message: Image, desired_encoding: str = 'bgr8') -> np.ndarray:
            """(H, W, 3) uint8 image of a message whose encoding is `desired_encoding`."""
            if message.encoding != desired_encoding:
                raise ObservationError(
                    f"image encoding '{message.encoding}' cannot be converted without cv_bridge;"
                    f" publish '{desired_encoding}'"
                )
            rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
            return rows[:, : message.width * 3].reshape(message.height, message.width, 3)


__all__ = ['CvBridge', 'TransformBroadcaster']
