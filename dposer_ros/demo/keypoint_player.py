"""Replay node: keypoints of a file become `keypoints`, at their own timing, without a detector."""

import argparse
import time
from pathlib import Path

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo

from dposer_core.recording import Person, read_npz
from dposer_ros.demo.detector import LAYOUT
from dposer_ros.demo.lifetime import Stop, ros, run_main
from dposer_ros.demo.player import (
    FRAME_ID,
    camera_info_message,
    topic_counts,
    wait_for_subscribers,
)
from dposer_ros.msg import KeypointFrame, PersonKeypoints


class ReplayNode(Node):
    """Publishes the frames of a recording, stamped with the time at which they are due."""

    def __init__(self, path: Path, rate: float, stop: Stop) -> None:
        super().__init__('dposer_replay')
        recording = read_npz(path)
        stamps = recording.stamps_ns or [
            round(i * 1e9 / rate) for i in range(len(recording.frames))
        ]
        self._frames = list(zip(stamps, recording.frames, strict=True))
        self._size = recording.size or (0, 0)
        self._dim = recording.dim
        self._camera = recording.camera if recording.dim == 2 else None
        if self._camera is not None:
            self._camera_pub = self.create_publisher(CameraInfo, 'camera_info', 5)
        self._stop = stop
        self._keypoints_pub = self.create_publisher(
            KeypointFrame, 'keypoints', QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        )

    def play(self) -> int:
        """Publish every frame when its time has come; returns how many."""
        start_ns = self.get_clock().now().nanoseconds - self._frames[0][0]
        print(f'start {start_ns + self._frames[0][0]}')
        for count, (stamp_ns, people) in enumerate(self._frames, start=1):
            due_ns = start_ns + stamp_ns
            time.sleep(max(0.0, (due_ns - self.get_clock().now().nanoseconds) * 1e-9))
            if self._stop:
                return count - 1
            frame = self._message(due_ns, people, count)
            if self._camera is not None:  # first: the fit needs it
                camera = camera_info_message(self._camera)
                camera.header = frame.header
                self._camera_pub.publish(camera)
            self._keypoints_pub.publish(frame)
            print(f'frame {count}')  # the progress bar reads this
        return len(self._frames)

    def _message(self, stamp_ns: int, people: tuple[Person, ...], seq: int) -> KeypointFrame:
        is_3d = self._dim == 3
        frame = KeypointFrame(
            layout=LAYOUT,
            dim=KeypointFrame.DIM_3D if is_3d else KeypointFrame.DIM_2D,
            unit=KeypointFrame.UNIT_METRE if is_3d else KeypointFrame.UNIT_PIXEL,
            image_width=self._size[0],
            image_height=self._size[1],
            seq=seq,
        )
        frame.header.frame_id = FRAME_ID
        frame.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
        for person in people:
            points = np.where(person.confidence[:, None] > 0, person.points, np.nan)
            frame.people.append(
                PersonKeypoints(
                    track_id=person.track_id,
                    score=float('nan'),
                    bbox=np.full(4, np.nan, np.float32),
                    points=points.ravel().astype(np.float32).tolist(),
                    confidence=person.confidence.astype(np.float32).tolist(),
                )
            )
        return frame


def main() -> None:
    """Entry point of `python -m dposer_ros.demo.replay`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('keypoints', type=Path, help='.npz file; see dposer_core.recording')
    parser.add_argument(
        '--rate', type=float, default=30.0, help='frames/s of a file without times'
    )
    parser.add_argument(
        '--wait-for', type=topic_counts, default={}, help='topic:subscribers,... to wait for'
    )
    parser.add_argument('--timeout', type=float, default=120.0, help='longest wait, s')
    arguments, ros_arguments = parser.parse_known_args()
    with ros(ros_arguments) as stop:
        node = ReplayNode(arguments.keypoints, arguments.rate, stop)
        wait_for_subscribers(node, arguments.wait_for, arguments.timeout, stop)
        count = node.play()
        time.sleep(0.5)  # let the last message leave
        print(f'played {count} frames')


if __name__ == '__main__':
    run_main(main)
