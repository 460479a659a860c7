import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from null_fitter import rest_joints
from scipy.spatial.transform import Rotation
from urdf_chain import urdf_positions

from dposer_core import skeleton
from dposer_ros import frames, urdf

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
    angles = dict(zip(urdf.JOINT_NAMES, urdf.joint_angles(pose), strict=True))
    found = urdf_positions(urdf.skeleton_urdf(rest, BODY_ID), angles, BODY_ID, origin, quat)
    assert np.abs(found - joints).max() < 1e-4  # the file has six digits; promised is 1 mm


@pytest.mark.parametrize('angle', [np.pi / 2, -np.pi / 2])
def test_gimbal_lock_keeps_the_rotation(angle):
    rotation = Rotation.from_euler('XYZ', [0.7, angle, -0.4])
    pose = np.tile(rotation.as_rotvec(), (skeleton.NUM_JOINTS, 1))
    angles = urdf.joint_angles(pose)[:3]
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
