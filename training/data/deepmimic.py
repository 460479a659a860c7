"""Reader of DeepMimic humanoid clips: JSON rows of joint quaternions (wxyz) and hinge angles.

Its axes are x forward, y up, z to the right; the rest pose stands with arms hanging down.
"""

import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from dposer_core.errors import MediaError
from training.data.motion import SourceMotion

# Joints in row order after the duration and the root position; a hinge has one angle, about z.
_JOINTS = (
    ('root', '', 4), ('chest', 'root', 4), ('neck', 'chest', 4),
    ('rhip', 'root', 4), ('rknee', 'rhip', 1), ('rankle', 'rknee', 4),
    ('rshoulder', 'chest', 4), ('relbow', 'rshoulder', 1),
    ('lhip', 'root', 4), ('lknee', 'lhip', 1), ('lankle', 'lknee', 4),
    ('lshoulder', 'chest', 4), ('lelbow', 'lshoulder', 1),
)  # fmt: skip
_ROW = 4 + sum(width for _, _, width in _JOINTS)
# Ours (x left, y up, z forward) from theirs.
_OURS = Rotation.from_matrix([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
_LIMBS = ('hip', 'knee', 'shoulder', 'elbow')


def read_deepmimic(path: Path, subject: str, source: str) -> SourceMotion:
    """The motion in `path`; its rate is that of its mean frame duration.

    Raises:
        MediaError: not such a file.
    """
    try:
        rows = np.array(json.loads(path.read_text())['Frames'], dtype=float)
    except (ValueError, KeyError, TypeError) as error:
        raise MediaError(f'{path}: no Frames in it; expected a DeepMimic motion') from error
    if rows.ndim != 2 or rows.shape[1] != _ROW or len(rows) < 2:
        raise MediaError(f'{path}: shape {rows.shape}, expected at least 2 rows of {_ROW}')
    world: dict[str, Rotation] = {}
    column = 4
    for name, parent, width in _JOINTS:
        values = rows[:, column : column + width]
        column += width
        if width == 4:
            local = Rotation.from_quat(values, scalar_first=True)
        else:
            local = Rotation.from_rotvec(values * [0.0, 0.0, 1.0])
        local = _OURS * local * _OURS.inv()
        world[name] = world[parent] * local if parent else local
    for side in 'lr':
        world[f'{side}hand'] = world[f'{side}elbow']  # wrists do not move
    down = np.array([0.0, -1.0, 0.0])
    return SourceMotion(
        name=path.stem.removeprefix('humanoid3d_'),
        subject=subject,
        source=source,
        fps=1.0 / rows[:-1, 0].mean(),
        pelvis=_OURS.apply(rows[:, 1:4]),
        world_rotmat={name: rotation.as_matrix() for name, rotation in world.items()},
        rest_direction={f'{side}{name}': down for side in 'lr' for name in _LIMBS},
    )
