"""A URDF read and chained by itself, independent of the code that wrote it."""

import xml.etree.ElementTree as ElementTree

import numpy as np
from scipy.spatial.transform import Rotation

from dposer_core import skeleton
from dposer_ros import frames


def numbers(text):
    return np.array([float(v) for v in text.split()])


def urdf_positions(text, angles, body_id, body_origin, body_quat) -> np.ndarray:
    """(55, 3) joints of a person whose body frame stands at this pose."""
    poses = urdf_poses(text, angles, body_id, body_origin, body_quat)
    return np.array([poses[frames.joint_frame(name, body_id)][0] for name in skeleton.JOINT_NAMES])


def urdf_poses(text, angles, body_id, body_origin, body_quat) -> dict:
    """Link -> (position, rotation)."""
    robot = ElementTree.fromstring(text)
    poses = {frames.body_frame(body_id): (body_origin, Rotation.from_quat(body_quat))}
    for joint in robot.iter('joint'):  # parents come first
        position, rotation = poses[joint.find('parent').get('link')]
        origin = joint.find('origin')
        position = position + rotation.apply(numbers(origin.get('xyz')))
        rotation = rotation * Rotation.from_euler('xyz', numbers(origin.get('rpy')))
        if joint.get('type') == 'revolute':
            angle, limit = angles[joint.get('name')], joint.find('limit')
            assert float(limit.get('lower')) <= angle <= float(limit.get('upper')) + 1e-9
            axis = numbers(joint.find('axis').get('xyz'))
            rotation = rotation * Rotation.from_rotvec(angle * axis)
        poses[joint.find('child').get('link')] = (position, rotation)
    return poses
