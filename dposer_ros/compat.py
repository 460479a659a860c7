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
    import cv2

    _TO_BGR = {
        'bgr8': (3, None),
        'rgb8': (3, cv2.COLOR_RGB2BGR),
        'bgra8': (4, cv2.COLOR_BGRA2BGR),
        'rgba8': (4, cv2.COLOR_RGBA2BGR),
        'mono8': (1, cv2.COLOR_GRAY2BGR),
        'yuv422_yuy2': (2, cv2.COLOR_YUV2BGR_YUY2),
        'yuv422': (2, cv2.COLOR_YUV2BGR_UYVY),
    }  # encoding -> bytes of a pixel, OpenCV's conversion

    class CvBridge:
        """The two calls of cv_bridge.CvBridge that are made here, to and from bgr8."""

        def cv2_to_imgmsg(self, image: np.ndarray, encoding: str = 'bgr8') -> Image:
            """Message of an (H, W, 3) uint8 image."""
            height, width, channels = image.shape
            message = Image(height=height, width=width, encoding=encoding, step=width * channels)
            # array('B') takes rclpy's fast path; assigning bytes would check every value.
            message.data = array.array('B', np.ascontiguousarray(image).tobytes())
            return message

        def imgmsg_to_cv2(self, message: Image, desired_encoding: str = 'bgr8') -> np.ndarray:
            """(H, W, 3) uint8 BGR image of a message in one of the usual encodings."""
            if desired_encoding != 'bgr8' or message.encoding not in _TO_BGR:
                raise ObservationError(
                    f"image encoding '{message.encoding}' cannot be converted without cv_bridge;"
                    f' publish one of {", ".join(_TO_BGR)}'
                )
            channels, code = _TO_BGR[message.encoding]
            height, width, step = message.height, message.width, message.step
            if width * channels > step or len(message.data) < height * step or not height * width:
                raise ObservationError(
                    f'an image of {width}x{height} {message.encoding} with step {step} cannot '
                    f'have {len(message.data)} bytes'
                )
            rows = np.frombuffer(message.data, np.uint8)[: height * step].reshape(height, step)
            image = rows[:, : width * channels].reshape(height, width, channels)
            return image if code is None else cv2.cvtColor(image, code)


__all__ = ['CvBridge', 'TransformBroadcaster']
