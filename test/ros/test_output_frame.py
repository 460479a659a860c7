"""States in a frame of the robot: where TF says that the camera is at that moment."""

import time

import numpy as np
import pytest
from geometry_msgs.msg import PointStamped, TransformStamped
from hri_msgs.msg import Skeleton2D
from node_probe import active_node, person, ros_context, wait_for
from null_fitter import null_model, result
from rclpy.node import Node
from scipy.spatial.transform import Rotation
from tf2_msgs.msg import TFMessage

from dposer_core.body_model import load_body
from dposer_ros.tf_frames import AHEAD, HISTORY, TfFrames

pytestmark = pytest.mark.ros

TURN = Rotation.from_rotvec([0.0, 0.0, np.pi / 2])


def transform(parent, child, place, rotation=None, stamp=0.0) -> TransformStamped:
    msg = TransformStamped(child_frame_id=child)
    msg.header.frame_id = parent
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(round(stamp * 1e9), 10**9)
    p, q = msg.transform.translation, msg.transform.rotation
    p.x, p.y, p.z = place
    q.x, q.y, q.z, q.w = Rotation.identity().as_quat() if rotation is None else rotation.as_quat()
    return msg


@pytest.fixture
def frames():
    with ros_context() as context:
        node = Node('listener', context=context)
        yield TfFrames(node)
        node.destroy_node()


def test_frames_go_up_and_down_the_tree_and_not_in_circles(frames) -> None:
    broken = transform('base', 'broken', (0.0, 0.0, 0.0))
    broken.transform.rotation.w = 0.0
    frames.fix(
        TFMessage(
            transforms=[
                transform('base', 'left', (1.0, 0.0, 0.0), TURN),
                transform('base', 'right', (0.0, 2.0, 0.0)),
                transform('left', 'eye', (0.5, 0.0, 0.0)),
                transform('chicken', 'egg', (0.0, 0.0, 0.0)),
                transform('egg', 'chicken', (0.0, 0.0, 0.0)),
                broken,
            ]
        )
    )
    rotation, place = frames.lookup('right', 'eye')  # 1, 0.5 in base
    np.testing.assert_allclose(place, [1.0, -1.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(rotation @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    assert frames.lookup('right', 'egg') is None
    assert frames.lookup('base', 'broken') is None


def test_moving_frame_is_where_it_was_at_that_time(frames) -> None:
    frames.fix(TFMessage(transforms=[transform('robot', 'camera', (0.0, 0.0, 1.0))]))
    for second in range(5):
        there = transform('map', 'robot', (float(second), 0.0, 0.0), TURN**second, 100.0 + second)
        frames.move(TFMessage(transforms=[there]))
    rotation, place = frames.lookup('map', 'camera', 102.25)
    np.testing.assert_allclose(place, [2.25, 0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(rotation, (TURN**2.25).as_matrix(), atol=1e-6)
    ahead = frames.lookup('map', 'camera', 104.0 + AHEAD)
    np.testing.assert_allclose(ahead[1], [4.0, 0.0, 1.0], atol=1e-6)
    assert frames.lookup('map', 'camera', 104.01 + AHEAD) is None
    assert frames.lookup('map', 'camera', 99.9) is None


def test_frames_of_people_who_left_are_forgotten_and_time_may_start_again(frames) -> None:
    for step in range(100):
        stamp = 100.0 + step
        gone = transform('map', f'body_{step}', (0.0, 0.0, 0.0), None, stamp)
        frames.move(TFMessage(transforms=[gone]))
    assert len(frames._links) < 4 * HISTORY
    frames.move(TFMessage(transforms=[transform('map', 'body_99', (7.0, 0.0, 0.0), None, 5.0)]))
    assert frames.lookup('map', 'body_99', 5.0)[1][0] == 7.0
    assert frames.lookup('map', 'body_99', 199.0) is None


def test_body_seen_from_elsewhere_is_the_same_body() -> None:
    """Forward kinematics of the moved state gives the moved joints and landmarks."""
    body = load_body()
    rng = np.random.default_rng(4)
    pose, transl = rng.normal(0.0, 0.5, (55, 3)), rng.normal(0.0, 1.0, 3)
    betas, expression = rng.normal(0.0, 1.0, 10), np.zeros(body.tables.num_expression)

    def forward(pose, transl):
        inputs = [array[None] for array in (pose, betas, expression, transl)]
        return body.joints(*inputs)[0], body.landmarks(*inputs)[0]

    joints, landmarks = forward(pose, transl)
    covariance = np.diag([1.0, 4.0, 9.0])
    state = result(
        pose_rotvec=pose, transl=transl, joints=joints, landmarks=landmarks,
        position_covariance=np.tile(covariance, (55, 1, 1)),
    ).state  # fmt: skip
    R, t = Rotation.from_rotvec([0.4, -1.0, 0.3]).as_matrix(), np.array([1.0, -2.0, 0.5])
    moved = state.seen_from(R, t)
    again, points = forward(moved.pose_rotvec, moved.transl)
    np.testing.assert_allclose(moved.joints, again, atol=1e-9)
    np.testing.assert_allclose(moved.landmarks, points, atol=1e-9)
    np.testing.assert_allclose(moved.joints, joints @ R.T + t, atol=1e-12)
    np.testing.assert_allclose(moved.position_covariance[7], R @ covariance @ R.T, atol=1e-12)


def test_everything_is_published_in_the_output_frame_once_it_is_known() -> None:
    """Before that in the frame of the input, counted and said; the picture stays the camera's."""
    with active_node(null_model, output_frame='map', tf__mode='rep155') as (node, probe):
        probe.send(person())
        wait_for(lambda: len(probe.states()) == 1)
        before = probe.states()[0]
        assert before.header.frame_id == 'camera_optical'
        assert node.refusals.counts['no_transform'] >= 1
        for topic, kind in (('/tf', TFMessage), ('/humans/bodies/p0001/position', PointStamped),
                            ('/humans/bodies/p0001/skeleton2d', Skeleton2D)):  # fmt: skip
            probe.listen(topic, kind)
        fixed = probe.create_publisher(TFMessage, '/tf', 100)
        place = (10.0, 0.0, 0.0)
        wait_for(lambda: node._output_frame is not None and fixed.get_subscription_count() == 2)
        end = time.monotonic() + 5.0
        while probe.states()[-1].header.frame_id != 'map' or len(probe.states()) < 10:
            stamp = probe.now_ns() * 1e-9
            moving = transform('map', 'camera_optical', place, TURN, stamp)
            fixed.publish(TFMessage(transforms=[moving]))
            time.sleep(0.02)
            probe.send(person())
            assert time.monotonic() < end
        state = probe.states()[-1]
        expected = TURN.as_matrix() @ before.positions.reshape(-1, 3).T
        np.testing.assert_allclose(state.positions.reshape(-1, 3), expected.T + place, atol=1e-5)
        root = [t for m in probe.received['/tf'] for t in m.transforms
                if t.child_frame_id == 'body_p0001']  # fmt: skip
        assert root[-1].header.frame_id == 'map'
        for name in ('smplx_states', 'hands', 'joint_states'):
            assert probe.received[f'/human/{name}'][-1].header.frame_id == 'map'
        position = probe.received['/humans/bodies/p0001/position'][-1]
        assert position.header.frame_id == 'map' and position.point.x > 5.0
        assert probe.received['/humans/bodies/p0001/skeleton2d']
