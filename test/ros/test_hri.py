"""What a consumer of REP-155 sees, over DDS: topics per body, frames, and who is tracked."""

import time

import numpy as np
import pytest
from dposer_ros.msg import CapsuleArray, KeypointFrame, NamedPoses
from geometry_msgs.msg import PointStamped, TwistStamped
from node_probe import BEST_EFFORT, LATCHED, active_node, person, wait_for
from null_fitter import null_model, result
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String
from test_urdf import chained
from urdf_chain import urdf_poses

from dposer_core import skeleton
from dposer_core.camera import PinholeCamera
from dposer_ros import frames

pytestmark = pytest.mark.ros

hri_msgs = pytest.importorskip('hri_msgs.msg')
tf2_msgs = pytest.importorskip('tf2_msgs.msg')

BODIES = '/humans/bodies'
# The person, 3 m ahead, is 1000 px left of its picture.
CAMERA_TO_ONE_SIDE = PinholeCamera(fx=800.0, fy=800.0, cx=-1000.0, cy=270.0, width=960, height=540)
OPTIONS = {
    '/human/hand_poses': NamedPoses,
    '/human/keypoints_completed': KeypointFrame,
    '/human/capsules': CapsuleArray,
}


def stamps(messages) -> list[int]:
    return [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages]


def newest(probe, topic, stamp_ns):
    """The message of this frame."""
    wait_for(lambda: stamp_ns in stamps(probe.received[topic]), what=topic)
    return probe.received[topic][stamps(probe.received[topic]).index(stamp_ns)]


def listen(probe, body_id) -> None:
    for topic, kind, qos in (
        ('roi', hri_msgs.NormalizedRegionOfInterest2D, 50),
        ('skeleton2d', hri_msgs.Skeleton2D, 50),
        ('joint_states', JointState, 50),
        ('position', PointStamped, 50),
        ('velocity', TwistStamped, 50),
        ('urdf', String, LATCHED),
    ):
        probe.listen(f'{BODIES}/{body_id}/{topic}', kind, qos)


def test_state_joint_states_with_urdf_and_tf_agree_and_bodies_come_and_go():
    overrides = dict(tf__mode='smplx_hands', occlusion__lost_timeout=0.8, hri__enable=True)
    overrides |= {f'outputs__{topic.split("/")[-1]}': True for topic in OPTIONS}
    with active_node(null_model, **overrides) as (node, probe):
        probe.listen(f'{BODIES}/tracked', hri_msgs.IdsList, LATCHED)
        probe.listen('/tf', tf2_msgs.TFMessage, 50)
        for topic, kind in OPTIONS.items():
            probe.listen(topic, kind)
        for body_id in ('p0001', 'p0002'):
            listen(probe, body_id)
        wanted = f'{BODIES}/p0002/velocity'

        def shown() -> bool:
            probe.send(person(), person())
            return bool(probe.received[wanted])

        wait_for(shown, what='topics of the second body')
        wait_for(lambda: all(probe.count_publishers(topic) for topic in OPTIONS))
        stamp_ns = probe.send(person(), person())
        states = newest(probe, '/human/smplx_states', stamp_ns).states
        assert probe.received[f'{BODIES}/tracked'][-1].ids == ['p0001', 'p0002']

        def broadcast() -> list:
            found = [t for message in probe.received['/tf'] for t in message.transforms]
            return [t for t in found if stamps([t]) == [stamp_ns]]

        wait_for(lambda: len(broadcast()) == 2 * 71, what='/tf')
        worst_mm = worst_deg = 0.0
        for state in states:
            body_id = state.body_id
            joint_state = newest(probe, f'{BODIES}/{body_id}/joint_states', stamp_ns)
            assert all(name.endswith(body_id) for name in joint_state.name)
            angles = dict(zip(joint_state.name, joint_state.position, strict=True))
            p, q = state.body.position, state.body.orientation
            at_body = (p.x, p.y, p.z), (q.x, q.y, q.z, q.w)
            text = probe.received[f'{BODIES}/{body_id}/urdf'][-1].data
            of_urdf = urdf_poses(text, angles, body_id, *at_body)
            own = [t for t in broadcast() if t.child_frame_id.endswith(body_id)]
            of_tf = chained(own)
            assert len(of_tf) == 71
            for name, (position, rotation) in of_tf.items():
                worst_mm = max(worst_mm, 1e3 * np.abs(position - of_urdf[name][0]).max())
                turn = (of_urdf[name][1].inv() * rotation).magnitude()
                worst_deg = max(worst_deg, np.degrees(turn))
            for joint, place in enumerate(state.positions.reshape(55, 3)):
                name = frames.joint_frame(skeleton.JOINT_NAMES[joint], body_id)
                worst_mm = max(worst_mm, 1e3 * np.abs(of_tf[name][0] - place).max())
            found = newest(probe, f'{BODIES}/{body_id}/position', stamp_ns).point
            assert (found.x, found.y, found.z) == (p.x, p.y, p.z)
        print(f'state, URDF + joint_states, TF: {worst_mm:.4f} mm, {worst_deg:.5f} degree')
        assert worst_mm < 1.0 and worst_deg < 0.1
        # These landmarks of the null fitter are 3 m ahead on the axis: the middle of the picture.
        skeleton2d = newest(probe, f'{BODIES}/p0001/skeleton2d', stamp_ns).skeleton
        assert {(round(s.x, 3), round(s.y, 3), round(s.c, 3)) for s in skeleton2d} == {
            (0.5, 0.5, 0.9)
        }
        region = newest(probe, f'{BODIES}/p0001/roi', stamp_ns)
        assert 0.0 <= region.xmin < 0.5 < region.xmax <= 1.0
        assert 0.0 <= region.ymin < 0.5 < region.ymax <= 1.0
        assert len(newest(probe, '/human/capsules', stamp_ns).capsules) == 2 * 19
        assert len(newest(probe, '/human/keypoints_completed', stamp_ns).people) == 2
        assert len(newest(probe, '/human/hand_poses', stamp_ns).pose) == 50
        assert node.set_parameters([Parameter('tf.mode', value='none')])[0].successful
        wait_for(lambda: probe.received[f'{BODIES}/tracked'][-1].ids == [], what='all lost')
        wait_for(lambda: probe.count_publishers(f'{BODIES}/p0001/urdf') == 0, what='no dangling')
        assert node.refusals.total == 0


def test_who_is_tracked_is_told_to_those_who_come_late_and_hear_nothing_latched():
    """As libhri subscribes on Fast DDS: volatile and best effort."""
    with active_node(null_model) as (_, probe):
        wait_for(lambda: bool(probe.send(person())) and bool(probe.states()))
        began = time.monotonic()
        probe.listen(f'{BODIES}/tracked', hri_msgs.IdsList, BEST_EFFORT)
        heard = probe.received[f'{BODIES}/tracked']
        wait_for(lambda: bool(heard) or not probe.send(person()), 5.0, 'tracked')
        print(f'a late listener knew who is tracked after {time.monotonic() - began:.2f} s')
        assert heard[0].ids == ['p0001'] and time.monotonic() - began < 2.0
        wait_for(lambda: len(heard) >= 3 or not probe.send(person()), 5.0, 'repeated')
        wait_for(lambda: heard[-1].ids == [], 5.0, 'nobody')


def test_nobody_in_the_picture_has_no_region_in_it():
    with active_node(null_model) as (node, probe):
        listen(probe, 'p0001')
        wait_for(lambda: bool(probe.send(person())) and probe.received[f'{BODIES}/p0001/roi'])
        camera = CAMERA_TO_ONE_SIDE
        assert node.outputs._hri._region_msg(result(), Header(), camera) is None


def test_hands_of_which_nothing_was_seen_can_be_left_out():
    with active_node(null_model, outputs__completed_hands=False) as (_, probe):
        stamp_ns = probe.send(person())
        assert len(newest(probe, '/human/hands', stamp_ns).hands) == 2  # the null fitter sees all
        wait_for(lambda: probe.received['/human/hands'][-1].hands == [], what='predicted hands')


def test_markers_are_made_for_who_looks_and_deleted_with_the_person():
    visualization_msgs = pytest.importorskip('visualization_msgs.msg')
    with active_node(null_model, occlusion__lost_timeout=0.6) as (node, probe):
        probe.listen('/human/markers', visualization_msgs.MarkerArray)
        received = probe.received['/human/markers']
        begin, frames = time.monotonic(), 0
        while time.monotonic() - begin < 1.0 or not received:
            probe.send(person())
            frames += 1
            time.sleep(0.02)
        shown = len(received)
        seconds = time.monotonic() - begin
        print(f'{shown} marker messages of {frames} frames in {seconds:.1f} s')
        assert shown <= 16.0 * seconds + 1
        bones, label = received[0].markers
        assert (bones.ns, label.text) == ('p0001', 'p0001 TRACKING')
        assert len(bones.points) == len(bones.colors) == 2 * 52
        deleted = visualization_msgs.Marker.DELETE
        wait_for(lambda: {m.action for m in received[-1].markers} == {deleted}, what='DELETE')
        assert node.refusals.total == 0
