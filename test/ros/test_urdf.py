import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from null_fitter import rest_joints, result
from scipy.spatial.transform import Rotation
from urdf_chain import urdf_poses, urdf_positions

from dposer_core import skeleton
from dposer_core.turns import Turns
from dposer_ros import frames, urdf
from dposer_ros.conversions import header_at
from dposer_ros.tf_tree import TfTree

pytestmark = pytest.mark.ros

BODY_ID = 'p0001'


def posed(rest, pose):
    """(55, 3) joints by the definition of SMPL-X."""
    rotations, joints = [Rotation.from_rotvec(pose[0])], [rest[0]]
    for j in range(1, skeleton.NUM_JOINTS):
        parent = skeleton.PARENTS[j]
        rotations.append(rotations[parent] * Rotation.from_rotvec(pose[j]))
        joints.append(joints[parent] + rotations[parent].apply(rest[j] - rest[parent]))
    return np.array(joints)


@pytest.mark.parametrize('seed', range(5))
def test_urdf_at_the_joint_states_is_the_state(seed):
    rng = np.random.default_rng(seed)
    pose = rng.normal(0.0, 1.0, (skeleton.NUM_JOINTS, 3))
    rest = rest_joints([seed])
    joints = posed(rest, pose) + rng.normal(size=3)
    origin, quat = frames.body_pose(joints, Rotation.from_rotvec(pose[0]).as_quat())
    angles = dict(zip(urdf.JOINT_NAMES, urdf.joint_angles(Turns.of(pose)), strict=True))
    found = urdf_positions(urdf.skeleton_urdf(rest, BODY_ID), angles, BODY_ID, origin, quat)
    assert np.abs(found - joints).max() < 1e-4  # the file has six digits; promised is 1 mm


@pytest.mark.parametrize('angle', [np.pi / 2, -np.pi / 2])
def test_gimbal_lock_keeps_the_rotation(angle):
    rotation = Rotation.from_euler('XYZ', [0.7, angle, -0.4])
    pose = np.tile(rotation.as_rotvec(), (skeleton.NUM_JOINTS, 1))
    angles = urdf.joint_angles(Turns.of(pose))[:3]
    again = Rotation.from_euler('XYZ', angles)
    assert (rotation.inv() * again).magnitude() < 1e-4  # sqrt of the threshold of the lock


def test_joint_names_do_not_depend_on_the_person_and_links_do():
    for body_id in ('p0001', 'p0002'):
        robot = ElementTree.fromstring(urdf.skeleton_urdf(rest_joints(), body_id))
        revolute = [j.get('name') for j in robot.iter('joint') if j.get('type') == 'revolute']
        assert revolute == urdf.JOINT_NAMES
        assert all(link.get('name').endswith(body_id) for link in robot.iter('link'))


def test_every_link_but_the_root_has_one_joint():
    robot = ElementTree.fromstring(urdf.skeleton_urdf(rest_joints(), BODY_ID))
    links = {link.get('name') for link in robot.iter('link')}
    children = [joint.find('child').get('link') for joint in robot.iter('joint')]
    assert len(children) == len(set(children))
    assert links - set(children) == {'body_p0001'}


@pytest.mark.parametrize('mode', ['root', 'rep155', 'smplx', 'smplx_hands'])
def test_tf_is_what_the_urdf_at_the_joint_states_says(mode):
    """The promise is 1 mm and 0.1 degree; the URDF has six digits."""
    tree, worst_mm, worst_deg, count = TfTree(), 0.0, 0.0, 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        pose = rng.normal(0.0, 1.0, (skeleton.NUM_JOINTS, 3))
        rest = rest_joints([seed])
        joints = posed(rest, pose) + rng.normal(size=3)
        state = result(pose_rotvec=pose, joints=joints).state
        origin, quat = frames.body_pose(joints, Rotation.from_rotvec(pose[0]).as_quat())
        angles = dict(
            zip(urdf.joint_names(BODY_ID), urdf.joint_angles(Turns.of(pose)), strict=True)
        )
        text = urdf.skeleton_urdf(rest, BODY_ID, id_in_joints=True)
        expected = urdf_poses(text, angles, BODY_ID, origin, quat)
        found = chained(tree.transforms(state, BODY_ID, header_at(10**9, 'camera'), mode, rest))
        for name, (position, rotation) in found.items():
            worst_mm = max(worst_mm, 1e3 * np.abs(position - expected[name][0]).max())
            turn = (expected[name][1].inv() * rotation).magnitude()
            worst_deg = max(worst_deg, np.degrees(turn))
        count = len(found)
    print(f'{mode}: {count} frames, TF against URDF {worst_mm:.4f} mm, {worst_deg:.5f} degree')
    assert count == {'root': 1, 'rep155': 16, 'smplx': 41, 'smplx_hands': 71}[mode]
    assert worst_mm < 1.0 and worst_deg < 0.1


def chained(transforms) -> dict:
    """Frame -> (position, rotation) in the frame that the first transform hangs on."""
    poses = {transforms[0].header.frame_id: (np.zeros(3), Rotation.identity())}
    for transform in transforms:  # parents come first
        position, rotation = poses[transform.header.frame_id]
        t, q = transform.transform.translation, transform.transform.rotation
        position = position + rotation.apply([t.x, t.y, t.z])
        poses[transform.child_frame_id] = (
            position,
            rotation * Rotation.from_quat([q.x, q.y, q.z, q.w]),
        )
    del poses[transforms[0].header.frame_id]
    return poses


def test_links_of_rep155_look_forward_and_stand_upright_at_rest():
    """x to the front, z up; arms hang in REP 155, so theirs has -z along the bone."""
    rest = np.zeros((skeleton.NUM_JOINTS, 3))
    left, right = (skeleton.JOINT_INDEX[f'{side}_elbow'] for side in ('left', 'right'))
    rest[left], rest[right] = (0.3, 0.0, 0.0), (-0.3, 0.0, 0.0)
    state = result(pose_rotvec=np.zeros((skeleton.NUM_JOINTS, 3)), joints=rest).state
    found = chained(TfTree().transforms(state, BODY_ID, header_at(1, 'world'), 'rep155', rest))
    for name in ('body', 'torso', 'head', 'l_knee', 'r_elbow', 'l_elbow'):
        front = found[f'{name}_{BODY_ID}'][1].apply([1.0, 0.0, 0.0])
        np.testing.assert_allclose(front, (0.0, 0.0, 1.0), atol=1e-12)  # SMPL-X faces its z
    for name in ('body', 'head', 'r_knee'):
        up = found[f'{name}_{BODY_ID}'][1].apply([0.0, 0.0, 1.0])
        np.testing.assert_allclose(up, (0.0, 1.0, 0.0), atol=1e-12)
    for name, outwards in (('l_elbow', 1.0), ('r_elbow', -1.0)):
        along = found[f'{name}_{BODY_ID}'][1].apply([0.0, 0.0, -1.0])
        np.testing.assert_allclose(along, (outwards, 0.0, 0.0), atol=1e-12)


def test_messages_of_people_who_are_gone_are_forgotten():
    tree = TfTree()
    for body_id in ('p0001', 'p0002'):
        tree.transforms(result().state, body_id, header_at(1, 'world'), 'root', rest_joints())
    again = tree.transforms(result().state, 'p0001', header_at(1, 'world'), 'root', rest_joints())
    tree.keep(['p0002'])
    anew = tree.transforms(result().state, 'p0001', header_at(1, 'world'), 'root', rest_joints())
    assert anew is not again
