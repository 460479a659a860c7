import numpy as np
import pytest
from null_fitter import rest_joints, result
from scipy.spatial.transform import Rotation

from dposer_ros import frames

pytestmark = pytest.mark.ros


def in_output(rotvec, joints, vector):
    """A vector of the body frame, in the output frame."""
    root = Rotation.from_rotvec(rotvec).as_quat()
    _, quat = frames.body_pose(joints, root)
    return Rotation.from_quat(quat).apply(vector)


@pytest.mark.parametrize(
    'body, smplx', [('x', [0, 0, 1]), ('y', [1, 0, 0]), ('z', [0, 1, 0])]
)  # x forward is SMPL-X z, y left is SMPL-X x, z up is SMPL-X y
def test_body_axes_follow_rep_155(body, smplx):
    rotvec = np.array([0.4, -1.0, 0.3])
    axis = np.eye(3)['xyz'.index(body)]
    expected = Rotation.from_rotvec(rotvec).apply(smplx)
    np.testing.assert_allclose(in_output(rotvec, rest_joints(), axis), expected, atol=1e-12)
    np.testing.assert_array_equal(frames.R_BODY_SMPLX @ smplx, axis)


def test_body_origin_is_midway_between_the_hips():
    joints = result().state.joints
    origin, _ = frames.body_pose(joints, np.array([0.0, 0.0, 0.0, 1.0]))
    np.testing.assert_allclose(origin, (joints[1] + joints[2]) / 2)


def test_frame_names_follow_rep_155():
    assert frames.body_frame('p0001') == 'body_p0001'
    assert frames.link_frame('left_elbow', 'p0001') == 'left_elbow_p0001'


def test_pelvis_in_body_and_body_pose_agree():
    rest = rest_joints()
    root = Rotation.from_rotvec([0.3, 2.0, -0.5])
    joints = root.apply(rest) + (1.0, 2.0, 3.0)
    origin, quat = frames.body_pose(joints, root.as_quat())
    pelvis = origin + Rotation.from_quat(quat).apply(frames.pelvis_in_body(rest))
    np.testing.assert_allclose(pelvis, joints[0], atol=1e-12)
