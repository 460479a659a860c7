"""Detector node: mediapipe holistic turns images into COCO-WholeBody-133 keypoints.

Its own process, because mediapipe pins protobuf and takes 0.5 GB; any other detector that
publishes `KeypointFrame` takes its place.
"""

import argparse
import os
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from dposer_core.errors import ConfigError
from dposer_core.keypoints import from_mediapipe_holistic
from dposer_ros.compat import CvBridge
from dposer_ros.demo.lifetime import ros, run_main, spin
from dposer_ros.msg import KeypointFrame, PersonKeypoints

LAYOUT = 'coco_wholebody133'
TORSO = (5, 6, 11, 12)  # shoulders and hips of COCO
LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))
VISIBLE = 0.5


class HolisticDetector:
    """mediapipe holistic, tracking one person through a stream of images."""

    def __init__(self) -> None:
        os.environ.setdefault('GLOG_minloglevel', '2')  # mediapipe logs every start of a graph
        try:
            import mediapipe
        except ImportError as error:
            raise ConfigError(
                f'mediapipe cannot be imported ({error}); run `make setup`, which installs 0.10.14'
            ) from error
        self._holistic = mediapipe.solutions.holistic.Holistic(model_complexity=1)
        self.detect(np.zeros((540, 960, 3), np.uint8))  # warm up: the networks load at first use

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Keypoints of the person in an (H, W, 3) BGR image.

        Returns:
            points (133, 2) in pixels (NaN where absent) and confidence (133,) in [0, 1]; None if
            nobody plausible is seen.
        """
        found = self._holistic.process(np.ascontiguousarray(image[..., ::-1]))
        if found.pose_landmarks is None:
            return None
        height, width = image.shape[:2]
        points, confidence = from_mediapipe_holistic(
            _landmarks(found.pose_landmarks),
            _landmarks(found.left_hand_landmarks),
            _landmarks(found.right_hand_landmarks),
            _landmarks(found.face_landmarks),
            width,
            height,
        )
        points = np.where(confidence[:, None] > 0, points, np.nan)
        return (points, confidence) if is_plausible(points, confidence, width, height) else None


def _landmarks(found: Any) -> np.ndarray | None:
    """(N, 4) normalised x, y, z and visibility of a mediapipe landmark list."""
    if found is None:
        return None
    return np.array([(p.x, p.y, p.z, p.visibility) for p in found.landmark])


def is_plausible(points: np.ndarray, confidence: np.ndarray, width: int, height: int) -> bool:
    """False for the bodies that holistic draws on hands and background.

    Asks for six visible body points, most of them inside the image, a size of at least 5 % of the
    image, and no limb longer than three torsos.
    """
    body = points[:17][confidence[:17] > VISIBLE]
    if len(body) < 6 or np.count_nonzero(confidence[list(TORSO)] > VISIBLE) < 2:
        return False
    inside = ((body >= 0) & (body < (width, height))).all(axis=1)
    if inside.mean() < 0.5 or np.ptp(body, axis=0).max() < 0.05 * max(width, height):
        return False
    shoulders, hips = points[[5, 6]], points[[11, 12]]
    torso = max(
        np.linalg.norm(shoulders.mean(0) - hips.mean(0)),
        np.linalg.norm(shoulders[0] - shoulders[1]),
    )
    lengths = [
        np.linalg.norm(points[a] - points[b])
        for a, b in LIMBS
        if min(confidence[a], confidence[b]) > VISIBLE
    ]
    return max(lengths, default=0.0) < 3.0 * torso


class DetectorNode(Node):
    """`image` -> `keypoints`. Detects in the callback: the newest image waits, older ones go."""

    def __init__(self, detector: HolisticDetector) -> None:
        super().__init__('dposer_detector')
        self._detector = detector
        self._bridge = CvBridge()
        self._seq = 0
        self._keypoints_pub = self.create_publisher(
            KeypointFrame, 'keypoints', QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        )
        self.create_subscription(
            Image,
            'image',
            self._on_image,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
        )

    def _on_image(self, message: Image) -> None:
        detection = self._detector.detect(self._bridge.imgmsg_to_cv2(message, 'bgr8'))
        self._seq += 1
        self._keypoints_pub.publish(keypoint_frame(message, detection, self._seq))


def keypoint_frame(
    image: Image, detection: tuple[np.ndarray, np.ndarray] | None, seq: int
) -> KeypointFrame:
    """The answer to `image`, with its stamp and frame; without a detection, no people."""
    frame = KeypointFrame(
        header=image.header,
        layout=LAYOUT,
        dim=KeypointFrame.DIM_2D,
        unit=KeypointFrame.UNIT_PIXEL,
        image_width=image.width,
        image_height=image.height,
        seq=seq,
    )
    if detection is not None:
        frame.people = [_person(*detection)]
    return frame


def _person(points: np.ndarray, confidence: np.ndarray) -> PersonKeypoints:
    seen = points[confidence > 0]
    low, high = seen.min(axis=0), seen.max(axis=0)
    return PersonKeypoints(
        score=float(confidence[:17].mean()),
        bbox=np.concatenate([low, high - low]).astype(np.float32),
        points=points.ravel().astype(np.float32).tolist(),
        confidence=confidence.astype(np.float32).tolist(),
    )


def main() -> None:
    """Entry point of `dposer_detector`."""
    parser = argparse.ArgumentParser(description=__doc__)
    _, ros_arguments = parser.parse_known_args()
    detector = HolisticDetector()
    with ros(ros_arguments) as stop:
        spin(DetectorNode(detector), stop)


if __name__ == '__main__':
    run_main(main)
