"""Names of TF frames, and the one conversion between SMPL-X axes and those of REP 103 / REP 155.

SMPL-X at rest: x to the person's left, y up, z to the front. REP 155 `body_<id>`: x to the front,
y to the left, z up, origin midway between the hips. The two differ by one constant rotation.
"""

import numpy as np

from dposer_core import skeleton
from dposer_core.rotations import chain_quat_xyzw

# p_body = R_BODY_SMPLX @ p_smplx, for a pelvis at rest.
R_BODY_SMPLX = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_SMPLX_BODY_QUAT_XYZW = np.array([-0.5, -0.5, -0.5, 0.5])  # of its transpose

_HIPS = [skeleton.JOINT_INDEX['left_hip'], skeleton.JOINT_INDEX['right_hip']]


def body_frame(body_id: str) -> str:
    """TF frame of a tracked body (REP 155)."""
    return f'body_{body_id}'


def link_frame(link: str, body_id: str) -> str:
    """TF frame of another link of a tracked body (REP 155: suffixed with its id)."""
    return f'{link}_{body_id}'


def body_pose(joints: np.ndarray, root_quat_xyzw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The REP-155 body frame of a fitted body.

    Args:
        joints: (55, 3) m, in the output frame.
        root_quat_xyzw: (4,) rotation of the pelvis in the output frame.

    Returns:
        Origin (3,), and rotation from the body frame to the output frame, quaternion x, y, z, w.
    """
    rotation = chain_quat_xyzw(np.stack([root_quat_xyzw, _SMPLX_BODY_QUAT_XYZW]))
    return joints[_HIPS].mean(axis=0), rotation


def pelvis_in_body(rest_joints: np.ndarray) -> np.ndarray:
    """(3,) position of the pelvis joint in the body frame; constant, for the hips move with it.

    Args:
        rest_joints: (55, 3) m, SMPL-X axes.
    """
    return R_BODY_SMPLX @ (rest_joints[0] - rest_joints[_HIPS].mean(axis=0))
