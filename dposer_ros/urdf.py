"""The SMPL-X skeleton as a URDF, and the joint angles that pose it.

Every ball joint becomes three revolute joints `<joint>_x`, `_y`, `_z` (R = Rx Ry Rz, axes of the
rest pose). The root link is the REP-155 frame `body_<id>`, which the node broadcasts in TF; the
pelvis hangs on it by a fixed joint, and the other links of REP 155 on their SMPL-X joints. On
`/human/urdf` joint names do not contain the id: they stay when the person changes; links do,
because TF frames must. On the topics of REP-155 joints contain it too.
"""

import functools
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from dposer_core import skeleton
from dposer_core.turns import Turns
from dposer_ros import frames

_AXES = {'x': '1 0 0', 'y': '0 1 0', 'z': '0 0 1'}
# y is the middle angle: a quarter turn to each side reaches every rotation.
_LIMITS = {'x': np.pi, 'y': np.pi / 2, 'z': np.pi}

# Of the constant rotation frames.R_BODY_SMPLX, as URDF writes it: R = Rz(yaw) Ry(pitch) Rx(roll).
_SMPLX_IN_BODY_RPY = (np.pi / 2, 0.0, np.pi / 2)

_GIMBAL_LOCK = 1.0 - 1e-9

_ID = '@'  # in no name of ours
_XYZ = '%.6f %.6f %.6f'

JOINT_NAMES = [f'{name}_{axis}' for name in skeleton.JOINT_NAMES[1:] for axis in _AXES]
"""The 162 revolute joints; the pelvis' own pose is that of the body frame."""


def joint_angles(turns: Turns) -> list[float]:
    """(162,) rad, in the order of `JOINT_NAMES`."""
    return turns.euler_xyz[1:].ravel().tolist()


def joint_names(body_id: str = '') -> list[str]:
    """`JOINT_NAMES`, with the id if there is one."""
    return [f'{name}_{body_id}' for name in JOINT_NAMES] if body_id else JOINT_NAMES


def skeleton_urdf(rest_joints: np.ndarray, body_id: str, id_in_joints: bool = False) -> str:
    """URDF of one person.

    Args:
        rest_joints: (55, 3) m, T-pose, SMPL-X axes (they hold the betas).
        body_id: of the person.
        id_in_joints: end the names of joints with the id too.
    """
    above = np.array(skeleton.PARENTS[1:])
    offsets = [
        frames.pelvis_in_body(rest_joints),
        *(rest_joints[1:] - rest_joints[above]),
        *(link.p_joint_link(rest_joints) for link in frames.BODY_LINKS),
    ]
    text = _template(id_in_joints) % tuple(np.concatenate(offsets).tolist())
    return text.replace(_ID, escape(body_id))


@functools.cache
def _template(id_in_joints: bool) -> str:
    """The URDF of anybody, with `_ID` for the id and `%` places for the lengths.

    Writing it costs 7 ms, which a frame that meets somebody new should not wait for.
    """
    suffix = f'_{_ID}' if id_in_joints else ''
    root, pelvis = frames.body_frame(_ID), frames.joint_frame('pelvis', _ID)
    parts = [
        '<?xml version="1.0"?>',
        f'<robot name={quoteattr("human_" + _ID)}>',
        _link(root),
        _link(pelvis),
        _joint(f'pelvis_fixed{suffix}', 'fixed', root, pelvis, _XYZ, _SMPLX_IN_BODY_RPY),
    ]
    for joint in range(1, skeleton.NUM_JOINTS):
        parts += _ball_joint(joint, suffix)
    for link in frames.BODY_LINKS:
        name = frames.link_frame(link.name, _ID)
        above = frames.joint_frame(skeleton.JOINT_NAMES[link.joint], _ID)
        fixed = f'{link.name}_fixed{suffix}'
        parts += [
            _link(name), _joint(fixed, 'fixed', above, name, _XYZ, _rpy(link.R_joint_link)),
        ]  # fmt: skip
    parts.append('</robot>')
    return '\n'.join(parts)


def _rpy(rotmat: np.ndarray) -> tuple[float, float, float]:
    """Roll, pitch, yaw of a (3, 3) rotation as URDF writes it: R = Rz(yaw) Ry(pitch) Rx(roll)."""
    pitch = np.arcsin(np.clip(-rotmat[2, 0], -1.0, 1.0))
    if abs(rotmat[2, 0]) > _GIMBAL_LOCK:  # roll and yaw turn about one line: give it all to roll
        return float(np.arctan2(-rotmat[1, 2], rotmat[1, 1])), float(pitch), 0.0
    roll = np.arctan2(rotmat[2, 1], rotmat[2, 2])
    return float(roll), float(pitch), float(np.arctan2(rotmat[1, 0], rotmat[0, 0]))


def _ball_joint(joint: int, suffix: str) -> list[str]:
    """Three revolute joints with two links without extent between them."""
    name, parent = skeleton.JOINT_NAMES[joint], int(skeleton.PARENTS[joint])
    links = [
        frames.joint_frame(link, _ID)
        for link in (skeleton.JOINT_NAMES[parent], f'{name}_x', f'{name}_y', name)
    ]
    xyz = _XYZ
    parts = []
    for (axis, vector), above, below in zip(_AXES.items(), links[:-1], links[1:], strict=True):
        inner = (
            f'<axis xyz="{vector}"/>'
            f'<limit lower="{-_LIMITS[axis]:.9f}" upper="{_LIMITS[axis]:.9f}"'
            ' effort="0" velocity="0"/>'
        )
        joint_name = f'{name}_{axis}{suffix}'
        parts.append(_link(below))
        parts.append(_joint(joint_name, 'revolute', above, below, xyz, inner=inner))
        xyz = '0 0 0'
    return parts


def _link(name: str) -> str:
    return f'<link name={quoteattr(name)}/>'


def _joint(
    name: str,
    kind: str,
    parent: str,
    child: str,
    xyz: str,
    rpy: tuple[float, float, float] = (0.0, 0.0, 0.0),
    inner: str = '',
) -> str:
    roll, pitch, yaw = (f'{value:.9f}' for value in rpy)
    return (
        f'<joint name={quoteattr(name)} type="{kind}"><parent link={quoteattr(parent)}/>'
        f'<child link={quoteattr(child)}/><origin xyz="{xyz}" rpy="{roll} {pitch} {yaw}"/>'
        f'{inner}</joint>'
    )
