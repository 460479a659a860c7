"""dposer_fusion over real DDS on recorded detections of four real cameras.

The figures printed are distances of the body's and feet's points to the offline triangulation.
"""

import time
from dataclasses import dataclass

import numpy as np
import pytest
from dposer_ros.msg import KeypointFrame, PersonKeypoints
from geometry_msgs.msg import TransformStamped
from node_probe import ros_context, spinning, wait_for
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage

from dposer_core.config import InputConfig
from dposer_ros.conversions import header_at, ns_from_stamp, observations_from_msg
from dposer_ros.fusion import FusionNode
from dposer_ros.tf_frames import STATIC_QOS
from training.benchmarks.recorded_views import RecordedViews, load_recorded_views

pytestmark = pytest.mark.ros

BODY = slice(0, 23)  # and feet
FIRST, LAST, STEP = 4, 96, 2  # frames used: 30 of the 60 per second


@pytest.fixture(scope='module')
def recording() -> RecordedViews:
    return load_recorded_views()


@pytest.fixture(scope='module')
def truth(recording) -> dict[int, np.ndarray]:
    return {frame: recording.truth(frame) for frame in range(FIRST, LAST, STEP)}


@dataclass(frozen=True)
class Case:
    """Which cameras there are, and what is wrong with them."""

    cameras: tuple[int, ...]
    late: tuple[int, ...] = (0, 0, 0, 0)
    """Frames of 1/60 s by which the pictures are later than their stamps say."""
    dies: int | None = None
    """Camera that falls silent in the middle."""


class Rig(Node):
    """Publishes what the detectors of the cameras found, and keeps what is fused."""

    def __init__(self, context, recording: RecordedViews, case: Case) -> None:
        super().__init__('rig', context=context)
        self.recording, self.case = recording, case
        self.fused: dict[int, KeypointFrame] = {}
        self.frames_of: dict[int, int] = {}  # stamp -> frame
        self.outputs = {
            i: self.create_publisher(KeypointFrame, f'cam{i}/keypoints', 5) for i in case.cameras
        }
        self.infos = {
            i: self.create_publisher(CameraInfo, f'cam{i}/camera_info', 5) for i in case.cameras
        }
        self.static = self.create_publisher(TFMessage, '/tf_static', STATIC_QOS)
        self.create_subscription(KeypointFrame, 'keypoints', self.keep, QoSProfile(depth=50))

    def keep(self, msg: KeypointFrame) -> None:
        self.fused[ns_from_stamp(msg.header.stamp)] = msg

    def announce(self) -> None:
        """camera_info and /tf_static."""
        transforms = []
        for i, publisher in self.infos.items():
            view = self.recording.views[i]
            info = CameraInfo(width=view.camera.width, height=view.camera.height)
            info.distortion_model, info.d = 'plumb_bob', [*view.distortion, 0.0]
            info.k = view.camera.matrix.ravel().tolist()
            info.header.frame_id = f'cam{i}_optical'
            publisher.publish(info)
            transform = TransformStamped(child_frame_id=info.header.frame_id)
            transform.header.frame_id = 'world'
            q, p = transform.transform.rotation, transform.transform.translation
            q.x, q.y, q.z, q.w = Rotation.from_matrix(view.R_cam_world.T).as_quat()
            p.x, p.y, p.z = view.position
            transforms.append(transform)
        self.static.publish(TFMessage(transforms=transforms))

    def play(self) -> None:
        """The recording in its own time."""
        for frame in range(FIRST, LAST, STEP):
            stamp_ns = self.get_clock().now().nanoseconds
            self.frames_of[stamp_ns] = frame
            for i in self.case.cameras:
                if i != self.case.dies or frame < (FIRST + LAST) // 2:
                    self.outputs[i].publish(self.detection(i, frame, stamp_ns))
            time.sleep(STEP / 60)

    def detection(self, i: int, frame: int, stamp_ns: int) -> KeypointFrame:
        late = frame + self.case.late[i]
        msg = KeypointFrame(layout='coco_wholebody133', dim=2, unit=KeypointFrame.UNIT_PIXEL)
        msg.header = header_at(stamp_ns, f'cam{i}_optical')
        person = PersonKeypoints()
        person.points = self.recording.points[i, late].astype(np.float32).ravel().tolist()
        person.confidence = self.recording.confidence[i, late].astype(np.float32).tolist()
        msg.people = [person]
        return msg


def played(recording: RecordedViews, case: Case) -> Rig:
    names = ','.join(f'cam{i}' for i in case.cameras)
    with ros_context() as context:
        node = FusionNode(context=context, parameter_overrides=[Parameter('cameras', value=names)])
        rig = Rig(context, recording, case)
        try:
            assert node.start()
            with spinning(node, rig):

                def is_ready() -> bool:
                    rig.announce()
                    time.sleep(0.05)
                    cameras = node._cameras.values()
                    return rig.count_publishers('keypoints') == 1 and all(
                        c.frames and node._static.lookup(c.frames.frame_id, 'world')
                        for c in cameras
                    )

                wait_for(is_ready, what='cameras')
                wait_for(
                    lambda: all(p.get_subscription_count() for p in rig.outputs.values()),
                    what='subscriptions',
                )
                rig.play()
                time.sleep(0.2)
            assert set(node.refusals.counts) <= {'no_points'}
        finally:
            node.close()
            node.destroy_node()
            rig.destroy_node()
    return rig


CASES = {
    '4 cameras': (Case((0, 1, 2, 3)), 25.0),
    '3 cameras': (Case((0, 2, 3)), 40.0),
    '3 cameras, one on a bystander': (Case((0, 1, 3)), 60.0),
    '2 cameras, 111 degrees apart': (Case((0, 3)), 55.0),
    '2 cameras, 154 degrees apart': (Case((0, 2)), 130.0),
    '4 cameras, 33 ms apart': (Case((0, 1, 2, 3), late=(0, 2, 0, 2)), 50.0),
    '4 cameras, one dies': (Case((0, 1, 2, 3), dies=2), 50.0),
}
FAST = ('4 cameras', '4 cameras, one dies')


@pytest.mark.parametrize(
    'name', [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_what_several_cameras_saw_is_where_all_of_them_saw_it(recording, truth, name) -> None:
    """Bounds in mm, about twice what is measured; at least 9 in 10 frames must be answered."""
    case, bound = CASES[name]
    rig = played(recording, case)
    errors, answered = [], 0
    for stamp_ns, frame in rig.frames_of.items():
        msg = rig.fused.get(stamp_ns)
        if msg is None or not msg.people:
            continue
        answered += 1
        (seen,), _ = observations_from_msg(msg, None, InputConfig())
        true = truth[frame][BODY]
        known = (seen.confidence[BODY] > 0.0) & np.isfinite(true).all(axis=1)
        errors += np.linalg.norm(seen.points[BODY] - true, axis=1)[known].tolist()
    mean, p95 = 1e3 * np.mean(errors), 1e3 * np.percentile(errors, 95)
    share = answered / len(rig.frames_of)
    print(f'{name}: mean {mean:.1f} mm, p95 {p95:.1f} mm, {share:.0%} of frames')
    assert share > 0.9
    assert mean < bound
