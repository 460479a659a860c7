"""sensor_msgs/Image <-> numpy, through cv_bridge where ROS 2 has it (the pip wheels have not)."""

import array
from collections.abc import Sequence

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from dposer_core.camera import PinholeCamera
from dposer_core.errors import ObservationError

try:
    from cv_bridge import CvBridge
except ImportError:

    class CvBridge:
        """The two bgr8 calls of cv_bridge.CvBridge that the demo uses."""

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


def camera_info_message(camera: PinholeCamera, distortion: Sequence[float] = ()) -> CameraInfo:
    """CameraInfo of a plumb_bob camera; the header is left to the caller."""
    matrix = camera.matrix
    return CameraInfo(
        width=camera.width,
        height=camera.height,
        distortion_model='plumb_bob',
        d=[*distortion, *[0.0] * (5 - len(distortion))],
        k=matrix.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([matrix, np.zeros((3, 1))]).ravel(),
    )
