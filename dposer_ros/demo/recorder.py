"""Recorder node: what the demo's topics carried, in one MCAP file.

Messages are stored as they came over DDS; only images are re-encoded, as JPEG. The file appears at
its path when it is complete: it grows in a folder beside it, and signals only end the recording.
"""

import argparse
import importlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import CompressedImage, Image

from dposer_ros.bags import add_connection, typestore
from dposer_ros.compat import CvBridge
from dposer_ros.demo.lifetime import ros, run_main, spin

NODE = '/dposer_wholebody'
# Topic -> type. All but BEST_EFFORT are published reliably.
TOPICS: dict[str, str] = {
    '/camera_info': 'sensor_msgs/msg/CameraInfo',
    '/keypoints': 'dposer_ros/msg/KeypointFrame',
    '/human/smplx_state': 'dposer_ros/msg/SmplxState',
    '/human/smplx_states': 'dposer_ros/msg/SmplxStateArray',
    '/human/hands': 'dposer_ros/msg/HandStateArray',
    '/human/joint_states': 'sensor_msgs/msg/JointState',
    f'{NODE}/timing': 'dposer_ros/msg/FitStats',
    '/diagnostics': 'diagnostic_msgs/msg/DiagnosticArray',
    '/tf': 'tf2_msgs/msg/TFMessage',
}
BEST_EFFORT = (f'{NODE}/timing',)
IMAGE_TOPIC = '/image'
JPEG_TOPIC = '/image/compressed'
JPEG_QUALITIES = (85, 70, 50, 30, 15)


@dataclass(frozen=True)
class ImageBudget:
    """How large the JPEG of one frame may be, so that the recording stays below its limit."""

    frame_bytes: int

    @classmethod
    def of_recording(cls, megabytes: float, frames: int) -> 'ImageBudget':
        """Share the limit among `frames`; 15 % and 40 kB a frame are left to all other topics."""
        share = 0.85e6 * megabytes / max(frames, 1) - 40_000
        return cls(max(8_000, int(share)))


class RecorderNode(Node):
    """Subscribes to everything and writes it down."""

    def __init__(self, path: Path, budget: ImageBudget) -> None:
        super().__init__('dposer_recorder')
        self._path = path
        self._folder = path.with_name(f'.{path.name}.partial')
        shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
        path.parent.mkdir(parents=True, exist_ok=True)
        self._budget = budget
        self._bridge = CvBridge()
        self._types = typestore()
        self._writer = Writer(self._folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connections = {}
        for topic, type_name in TOPICS.items():
            self._record(topic, type_name)
        self._add_connection(JPEG_TOPIC, 'sensor_msgs/msg/CompressedImage')
        images = QoSProfile(depth=15, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(Image, IMAGE_TOPIC, self._on_image, images)

    def close(self) -> None:
        """Finish the file and move it to its place."""
        self._writer.close()
        (inner,) = self._folder.glob('*.mcap')
        inner.replace(self._path)
        shutil.rmtree(self._folder)

    def _record(self, topic: str, type_name: str) -> None:
        try:
            message_type = _message_type(type_name)
        except ModuleNotFoundError:
            self.get_logger().warning(f'{topic} is not recorded: {type_name} is not installed')
            return
        self._add_connection(topic, type_name)
        is_reliable = topic not in BEST_EFFORT
        qos = QoSProfile(
            depth=50,
            reliability=ReliabilityPolicy.RELIABLE
            if is_reliable
            else ReliabilityPolicy.BEST_EFFORT,
        )
        self.create_subscription(
            message_type, topic, lambda data: self._write(topic, data), qos, raw=True
        )

    def _add_connection(self, topic: str, type_name: str) -> None:
        self._connections[topic] = add_connection(self._writer, topic, type_name, self._types)

    def _write(self, topic: str, data: bytes) -> None:
        self._writer.write(self._connections[topic], self.get_clock().now().nanoseconds, data)

    def _on_image(self, message: Image) -> None:
        image = self._bridge.imgmsg_to_cv2(message, 'bgr8')
        jpeg = CompressedImage(header=message.header, format='bgr8; jpeg compressed bgr8')
        for quality in JPEG_QUALITIES:
            _, encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if encoded.nbytes <= self._budget.frame_bytes:
                break
        jpeg.data.frombytes(encoded.tobytes())
        self._write(JPEG_TOPIC, serialize_message(jpeg))


def _message_type(name: str) -> type:
    """Class of e.g. 'sensor_msgs/msg/Image'."""
    package, _, kind = name.split('/')
    return getattr(importlib.import_module(f'{package}.msg'), kind)


def main() -> None:
    """Entry point of `dposer_recorder`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('output', type=Path, help='the .mcap file to write')
    parser.add_argument('--frames', type=int, default=300, help='images expected')
    parser.add_argument('--megabytes', type=float, default=55.0, help='size aimed at')
    arguments, ros_arguments = parser.parse_known_args()
    cv2.setNumThreads(1)
    os.nice(5)  # what is recorded matters more than the recording, which has queues
    with ros(ros_arguments) as stop:
        node = RecorderNode(
            arguments.output, ImageBudget.of_recording(arguments.megabytes, arguments.frames)
        )
        try:
            spin(node, stop)
        finally:
            node.close()


if __name__ == '__main__':
    run_main(main)
