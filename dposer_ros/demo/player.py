"""Player node: a video becomes sensor_msgs/Image and CameraInfo at its original timing."""

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image

from dposer_core.camera import PinholeCamera
from dposer_core.errors import DPoserError
from dposer_core.video import video_info
from dposer_ros.compat import CvBridge
from dposer_ros.demo.clips import (
    Clip,
    clip_camera,
    find_clip,
    read_frames,
    resized,
)
from dposer_ros.demo.lifetime import Stop, ros, run_main

FRAME_ID = 'camera_optical_frame'
READ_AHEAD_BYTES = 250e6  # 5 s of 960x540 at 30 Hz


class PlayerNode(Node):
    """Publishes `image` and `camera_info`, stamped with the time at which a frame was 'taken'."""

    def __init__(self, clip: Clip, stop: Stop) -> None:
        super().__init__('dposer_player')
        self._clip = clip
        self._stop = stop
        self._camera = clip_camera(clip, video_info(clip.video))
        self._frames = _read_ahead(read_frames(clip))
        self._bridge = CvBridge()
        qos = QoSProfile(depth=15, reliability=ReliabilityPolicy.RELIABLE)
        self._image_pub = self.create_publisher(Image, 'image', qos)
        self._camera_pub = self.create_publisher(CameraInfo, 'camera_info', qos)

    def play(self) -> int:
        """Publish every frame when its time has come; returns how many."""
        start_ns = None
        count = 0
        for seconds, image in self._frames:
            now_ns = self.get_clock().now().nanoseconds
            if start_ns is None:
                start_ns = now_ns
                print(f'start {start_ns}')
            stamp_ns = start_ns + round(seconds * 1e9)
            time.sleep(max(0.0, (stamp_ns - now_ns) * 1e-9))
            if self._stop:
                break
            self._publish(stamp_ns, image)
            count += 1
            print(f'frame {count}')  # the progress bar reads this
        return count

    def _publish(self, stamp_ns: int, image: np.ndarray) -> None:
        message = self._bridge.cv2_to_imgmsg(image, 'bgr8')
        message.header.frame_id = FRAME_ID
        message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
        camera = camera_info_message(
            resized(self._camera, image.shape[1], image.shape[0]), self._clip.distortion
        )
        camera.header = message.header
        self._camera_pub.publish(camera)  # first: the fit of the image's keypoints needs it
        self._image_pub.publish(message)


def _read_ahead(
    frames: Iterator[tuple[float, np.ndarray]],
) -> Iterator[tuple[float, np.ndarray]]:
    """The same frames, the first of them decoded now: a camera takes no processor time either."""
    ready, size = [], 0
    for frame in frames:
        ready.append(frame)
        size += frame[1].nbytes
        if size > READ_AHEAD_BYTES:
            break
    return itertools.chain(ready, frames)


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


def wait_for_subscribers(node: Node, counts: dict[str, int], timeout: float, stop: Stop) -> None:
    """Wait until each topic has that many subscribers: a stage subscribes when it is ready."""
    deadline = time.monotonic() + timeout
    while missing := [t for t, n in counts.items() if node.count_subscribers(t) < n]:
        if stop or time.monotonic() > deadline:
            raise DPoserError(
                f'{node.get_name()}: no subscriber came in time on {", ".join(missing)}'
            )
        time.sleep(0.05)
    # The graph knows an endpoint before it is matched, and says nothing of how far the other
    # stages are with each other: with half a second the node once missed the first nine frames.
    time.sleep(2.0)


def topic_counts(text: str) -> dict[str, int]:
    """'image:2,keypoints:1' as a dictionary."""
    pairs = (entry.split(':') for entry in text.split(',') if entry)
    return {topic: int(count) for topic, count in pairs}


def clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that choose a clip and a piece of it."""
    parser.add_argument('clip', help='demo, squats, multiview, or the path of a video')
    parser.add_argument('--first', type=int, help='first frame')
    parser.add_argument('--last', type=int, help='one past the last frame')
    parser.add_argument('--step', type=int, help='use every step-th frame')
    parser.add_argument('--focal', type=float, help='assumed focal length / longer image side')


def chosen_clip(arguments: argparse.Namespace) -> Clip:
    """The clip that the arguments describe."""
    names = ('first', 'last', 'step', 'focal')
    given = {n: getattr(arguments, n) for n in names if getattr(arguments, n) is not None}
    return replace(find_clip(arguments.clip), **given)


def main() -> None:
    """Entry point of `dposer_player`."""
    parser = argparse.ArgumentParser(description=__doc__)
    clip_arguments(parser)
    parser.add_argument(
        '--wait-for', type=topic_counts, default={}, help='topic:subscribers,... to wait for'
    )
    parser.add_argument('--timeout', type=float, default=120.0, help='longest wait, s')
    arguments, ros_arguments = parser.parse_known_args()
    with ros(ros_arguments) as stop:
        node = PlayerNode(chosen_clip(arguments), stop)
        wait_for_subscribers(node, arguments.wait_for, arguments.timeout, stop)
        count = node.play()
        time.sleep(0.5)  # let the last image leave
        print(f'played {count} frames')


if __name__ == '__main__':
    run_main(main)
