"""The node `dposer_fusion` over real DDS, fed by several cameras."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from dposer_ros.msg import KeypointFrame, PersonKeypoints
from geometry_msgs.msg import TransformStamped
from node_probe import ros_context, spinning, wait_for
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage

from dposer_core.camera import PinholeCamera
from dposer_core.config import InputConfig
from dposer_core.triangulation import View
from dposer_ros.conversions import header_at, observations_from_msg
from dposer_ros.fusion import FusionNode
from dposer_ros.tf_frames import STATIC_QOS

pytestmark = pytest.mark.ros

CAMERA = PinholeCamera(1000.0, 1000.0, 640.0, 360.0, 1280, 720)
NAMES = ('front', 'left', 'back')


def rig() -> dict[str, View]:
    """Three level cameras 4 m around the origin of a world with y down."""
    rotations = [Rotation.from_rotvec([0, i * np.pi / 2, 0]).as_matrix() for i in range(3)]
    return {
        name: View(name, CAMERA, (), rotation, np.array([0.0, 0.0, 4.0]))
        for name, rotation in zip(NAMES, rotations, strict=True)
    }


def calibration(folder) -> str:
    """A file of the rig."""
    lines = []
    for name, view in rig().items():
        rotvec = Rotation.from_matrix(view.R_cam_world).as_rotvec().tolist()
        place = view.t_cam_world.tolist()
        lines.append(f'{name}: {{rotation: {rotvec}, translation: {place}}}')
    (folder / 'rig.yaml').write_text('\n'.join(lines))
    return str(folder / 'rig.yaml')


class Studio(Node):
    """The cameras and their detectors, and who listens to what is fused."""

    def __init__(self, context, views: dict[str, View]) -> None:
        super().__init__('studio', context=context)
        self.views = views
        self.frames: list[KeypointFrame] = []
        self.reports: list[DiagnosticArray] = []
        self.keypoints = {
            n: self.create_publisher(KeypointFrame, f'{n}/keypoints', 5) for n in views
        }
        self.infos = {n: self.create_publisher(CameraInfo, f'{n}/camera_info', 5) for n in views}
        self.static = self.create_publisher(TFMessage, '/tf_static', STATIC_QOS)
        self.create_subscription(
            KeypointFrame, 'keypoints', self.frames.append, QoSProfile(depth=50)
        )
        self.create_subscription(DiagnosticArray, '/diagnostics', self.reports.append, 10)

    def now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def send_infos(self) -> None:
        for name, publisher in self.infos.items():
            camera = self.views[name].camera
            info = CameraInfo(
                width=camera.width, height=camera.height, distortion_model='plumb_bob'
            )
            info.k, info.d = camera.matrix.ravel().tolist(), [0.0] * 5
            info.header.frame_id = f'{name}_optical'
            publisher.publish(info)

    def send(self, *people: np.ndarray, names=NAMES, stamp_ns=None, late_ns=0) -> int:
        """What every camera's detector makes of these points (133, 3)."""
        stamp_ns = stamp_ns or self.now_ns()
        for i, name in enumerate(names):
            msg = KeypointFrame(layout='coco_wholebody133', dim=2, unit=KeypointFrame.UNIT_PIXEL)
            msg.header = header_at(stamp_ns + i * late_ns, f'{name}_optical')
            for points in people:
                pixels = self.views[name].project(points)
                person = PersonKeypoints(points=pixels.astype(np.float32).ravel().tolist())
                person.confidence = [1.0] * 133
                msg.people.append(person)
            self.keypoints[name].publish(msg)
        return stamp_ns

    def send_placements(self, without: str = '') -> None:
        """/tf_static: the world, a pole in it, the cameras' optical frames on the pole."""
        transforms = [self._transform('world', 'pole', np.eye(3), np.array([0.0, 1.0, 0.0]))]
        for name, view in self.views.items():
            if name != without:
                place = view.position - [0.0, 1.0, 0.0]
                rotation = view.R_cam_world.T
                transforms.append(self._transform('pole', f'{name}_optical', rotation, place))
        self.static.publish(TFMessage(transforms=transforms))

    def _transform(self, parent, child, rotation, place) -> TransformStamped:
        msg = TransformStamped(child_frame_id=child)
        msg.header.frame_id = parent
        q = msg.transform.rotation
        q.x, q.y, q.z, q.w = Rotation.from_matrix(rotation).as_quat()
        p = msg.transform.translation
        p.x, p.y, p.z = place
        return msg


@contextmanager
def fusing(views=None, **overrides) -> Iterator[tuple[FusionNode, Studio]]:
    """The node, started, and the studio, both spinning and discovered."""
    with ros_context() as context:
        parameters = [Parameter(k.replace('__', '.'), value=v) for k, v in overrides.items()]
        node = FusionNode(context=context, parameter_overrides=parameters)
        studio = Studio(context, views or rig())
        try:
            assert node.start()
            with spinning(node, studio):
                wait_for(lambda: studio.count_publishers('keypoints') == 1, what='discovery')
                wait_for(
                    lambda: (
                        studio.send_infos()
                        or time.sleep(0.05)
                        or all(c.frames for c in node._cameras.values())
                    ),
                    what='camera_info',
                )
                yield node, studio
        finally:
            node.close()
            node.destroy_node()
            studio.destroy_node()


def settled(studio: Studio, *people, **kwargs) -> None:
    """Send until something comes out, and wait for what is on its way."""

    def is_heard() -> bool:
        studio.send(*people, **kwargs)
        time.sleep(0.05)
        return bool(studio.frames)

    wait_for(is_heard, what='a fused frame')
    time.sleep(0.2)
    studio.frames.clear()


@pytest.fixture
def body(standing) -> np.ndarray:
    """(133, 3) about the origin of the rig."""
    return standing - [0.0, 0.0, 3.0]


def test_people_come_out_in_the_world_frame_with_their_covariance(tmp_path, body) -> None:
    names = ','.join(NAMES)
    with fusing(cameras=names, calibration=calibration(tmp_path), world_frame='studio') as (
        node, studio,
    ):  # fmt: skip
        people = [body + [0.7, 0.0, 0.3], body - [0.7, 0.0, 0.2]]
        settled(studio, *people)
        stamp_ns = studio.send(*people, late_ns=3_000_000)
        wait_for(lambda: studio.frames, what='a fused frame')
    (frame,) = studio.frames
    assert frame.header.frame_id == 'studio' and frame.layout == 'coco_wholebody133'
    assert frame.header.stamp.sec * 10**9 + frame.header.stamp.nanosec == stamp_ns + 3_000_000
    found, refused = observations_from_msg(frame, None, InputConfig())
    assert not refused and len({o.track_id for o in found}) == 2
    for observation in found:
        distances = [np.linalg.norm(observation.points - p, axis=1).max() for p in people]
        assert min(distances) < 1e-3  # float32 pixels of 4 m away
        assert observation.sigma.shape == (133, 3, 3)  # not isotropic, and so kept whole
    assert node.refusals.total == 0


def test_a_camera_that_dies_and_comes_back_leaves_no_gap(tmp_path, body) -> None:
    with fusing(cameras=','.join(NAMES), calibration=calibration(tmp_path)) as (_, studio):
        settled(studio, body)
        sent = []
        for k in range(60):
            names = NAMES if k < 15 or k > 45 else NAMES[:2]
            sent.append(studio.send(body, names=names))
            time.sleep(1 / 30)
        time.sleep(0.1)
        wait_for(lambda: studio.reports, what='diagnostics')
    stamps = [f.header.stamp.sec * 10**9 + f.header.stamp.nanosec for f in studio.frames]
    # A newer instant may replace one that waits, when this machine is busy.
    assert len(set(sent) & set(stamps)) >= 57
    assert all(len(f.people) == 1 for f in studio.frames)
    assert len({f.people[0].track_id for f in studio.frames}) == 1


def test_places_come_from_tf_static_and_until_then_a_camera_is_left_out(body) -> None:
    with fusing(cameras=','.join(NAMES)) as (node, studio):
        studio.send(body)
        wait_for(lambda: node.refusals.counts['no_extrinsics'] >= 3, what='refusals')
        studio.send_placements(without='back')
        wait_for(lambda: node._static.lookup('left_optical', 'world') is not None)
        settled(studio, body)
        studio.send_placements()
        wait_for(lambda: node._static.lookup('back_optical', 'world') is not None)
        node.refusals.clear()
        studio.send(body)
        wait_for(lambda: studio.frames, what='a fused frame')
        assert node.refusals.total == 0
    (found,), _ = observations_from_msg(studio.frames[-1], None, InputConfig())
    assert np.linalg.norm(found.points - body, axis=1).max() < 1e-3


def test_after_time_went_back_people_are_there_again_under_new_ids(tmp_path, body) -> None:
    """A bag in a loop: 20 s back. The limits on age are out of the way, as under use_sim_time."""
    with fusing(
        cameras=','.join(NAMES), calibration=calibration(tmp_path), input__max_age=10.0
    ) as (node, studio):
        settled(studio, body)
        studio.send(body)
        wait_for(lambda: studio.frames, what='a fused frame')
        before = studio.frames[-1].people[0].track_id
        stamp_ns = studio.now_ns() - 5 * 10**9
        for k in range(3):
            studio.send(body, stamp_ns=stamp_ns + k * 33_000_000)
            time.sleep(0.05)
        wait_for(lambda: studio.frames[-1].header.stamp.sec <= stamp_ns // 10**9 + 1)
    assert studio.frames[-1].people[0].track_id != before
    assert node._jumps == 1


def test_an_image_size_that_does_not_fit_is_refused_and_the_rest_fused(tmp_path, body) -> None:
    with fusing(cameras=','.join(NAMES), calibration=calibration(tmp_path)) as (node, studio):
        settled(studio, body)
        studio.views['back'] = View(
            'back', CAMERA.scaled(0.5), (), studio.views['back'].R_cam_world, np.array([0, 0, 4.0])
        )
        original = studio.keypoints['back'].publish

        def halved(msg) -> None:
            msg.image_width, msg.image_height = 640, 360
            original(msg)

        studio.keypoints['back'].publish = halved
        studio.send(body)
        wait_for(lambda: studio.frames, what='a fused frame')
    assert node.refusals.counts == {'image_size': 1}
    assert len(studio.frames[-1].people) == 1


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        ({'cameras': 'front'}, 'at least two'),
        ({'cameras': 'front, front'}, 'different names'),
        ({'cameras': 'front,2nd one'}, "'2nd one': not a namespace"),
        ({'cameras': 'front,left', 'calibration': '/nowhere.toml'}, '/nowhere.toml'),
        ({'cameras': 'front,left', 'slop': -1.0}, 'slop'),
        ({'cameras': 'front,left', 'slopp': 0.1}, "did you mean 'slop'"),
        ({'cameras': 'front,left', 'input__type': 'telepathy'}, 'input.type'),
    ],
)
def test_what_cannot_work_is_said_at_the_start(overrides, message, capfd) -> None:
    with ros_context() as context:
        parameters = [Parameter(k.replace('__', '.'), value=v) for k, v in overrides.items()]
        node = FusionNode(context=context, parameter_overrides=parameters)
        try:
            assert not node.start()
        finally:
            node.close()
            node.destroy_node()
    assert message in capfd.readouterr().err
