"""The SMPL-X skeleton as a URDF, and the joint angles that pose it.

Every ball joint becomes three revolute joints `<joint>_x`, `_y`, `_z` (R = Rx Ry Rz, axes of the
rest pose). The root link is the REP-155 frame `body_<id>`, which the node broadcasts in TF; the
pelvis hangs on it by a fixed joint. Joint names do not contain the id: they stay when the person
changes; links do, because TF frames must.
"""

from xml.sax.saxutils import quoteattr

import numpy as np

from dposer_core import skeleton
from dposer_core.rotations import rotvec_to_rotmat
from dposer_ros import frames

_AXES = {'x': '1 0 0', 'y': '0 1 0', 'z': '0 0 1'}
# y is the middle angle: a quarter turn to each side reaches every rotation.
_LIMITS = {'x': np.pi, 'y': np.pi / 2, 'z': np.pi}
_GIMBAL_LOCK = 1.0 - 1e-9

# Of the constant rotation frames.R_BODY_SMPLX, as URDF writes it: R = Rz(yaw) Ry(pitch) Rx(roll).
_SMPLX_IN_BODY_RPY = (np.pi / 2, 0.0, np.pi / 2)

JOINT_NAMES = [f'{name}_{axis}' for name in skeleton.JOINT_NAMES[1:] for axis in _AXES]
"""The 162 revolute joints; the pelvis' own pose is that of the body frame."""


def joint_angles(pose_rotvec: np.ndarray) -> np.ndarray:
    """(162,) rad, in the order of `JOINT_NAMES`.

    Args:
        pose_rotvec: (55, 3) parent-relative rotations.
    """
    rotmats = rotvec_to_rotmat(pose_rotvec[1:])
    sine = rotmats[:, 0, 2]
    is_locked = np.abs(sine) > _GIMBAL_LOCK  # x and z turn about one line: give it all to x
    x = np.where(
        is_locked,
        np.arctan2(rotmats[:, 2, 1], rotmats[:, 1, 1]),
        np.arctan2(-rotmats[:, 1, 2], rotmats[:, 2, 2]),
    )
    y = np.arcsin(np.clip(sine, -1.0, 1.0))
    z = np.where(is_locked, 0.0, np.arctan2(-rotmats[:, 0, 1], rotmats[:, 0, 0]))
    return np.stack([x, y, z], axis=1).ravel()


def skeleton_urdf(rest_joints: np.ndarray, body_id: str) -> str:
    """URDF of one person.

    Args:
        rest_joints: (55, 3) m, T-pose, SMPL-X axes (they hold the betas).
        body_id: of the person.
    """
    root, pelvis = frames.body_frame(body_id), frames.link_frame('pelvis', body_id)
    parts = [
        '<?xml version="1.0"?>',
        f'<robot name={quoteattr("human_" + body_id)}>',
        _link(root),
        _link(pelvis),
        _joint(
            'pelvis_fixed', 'fixed', root, pelvis, frames.pelvis_in_body(rest_joints),
            _SMPLX_IN_BODY_RPY,
        ),
    ]  # fmt: skip
    for joint in range(1, skeleton.NUM_JOINTS):
        parts += _ball_joint(joint, rest_joints, body_id)
    parts.append('</robot>')
    return '\n'.join(parts)


def _ball_joint(joint: int, rest_joints: np.ndarray, body_id: str) -> list[str]:
    """Three revolute joints with two links without extent between them."""
    name, parent = skeleton.JOINT_NAMES[joint], int(skeleton.PARENTS[joint])
    links = [
        frames.link_frame(link, body_id)
        for link in (skeleton.JOINT_NAMES[parent], f'{name}_x', f'{name}_y', name)
    ]
    offset = rest_joints[joint] - rest_joints[parent]
    parts = []
    for (axis, vector), above, below in zip(_AXES.items(), links[:-1], links[1:], strict=True):
        inner = (
            f'<axis xyz="{vector}"/>'
            f'<limit lower="{-_LIMITS[axis]:.9f}" upper="{_LIMITS[axis]:.9f}"'
            ' effort="0" velocity="0"/>'
        )
        parts.append(_link(below))
        parts.append(_joint(f'{name}_{axis}', 'revolute', above, below, offset, inner=inner))
        offset = np.zeros(3)
    return parts


def _link(name: str) -> str:
    return f'<link name={quoteattr(name)}/>'


def _joint(
    name: str,
    kind: str,
    parent: str,
    child: str,
    xyz: np.ndarray,
    rpy: tuple[float, float, float] = (0.0, 0.0, 0.0),
    inner: str = '',
) -> str:
    x, y, z = (f'{value:.6f}' for value in xyz)
    roll, pitch, yaw = (f'{value:.9f}' for value in rpy)
    return (
        f'<joint name={quoteattr(name)} type="{kind}"><parent link={quoteattr(parent)}/>'
        f'<child link={quoteattr(child)}/><origin xyz="{x} {y} {z}" rpy="{roll} {pitch} {yaw}"/>'
        f'{inner}</joint>'
    )
