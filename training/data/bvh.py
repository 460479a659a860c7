"""Reader of Biovision .bvh files (skeleton and motion in one); used for CMU's DAZ-friendly set."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from dposer_core.errors import MediaError
from training.data.motion import SourceMotion


@dataclass
class _Joint:
    name: str
    parent: str
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))
    channels: list[str] = field(default_factory=list)
    first_child_offset: np.ndarray | None = None


def read_bvh(path: Path, subject: str, source: str, metres_per_unit: float) -> SourceMotion:
    """The motion in `path`. Rotations are intrinsic in channel order, relative to the parent.

    Raises:
        MediaError: not a .bvh file, or rows that do not fit its channels.
    """
    header, separator, motion = path.read_text(errors='replace').partition('MOTION')
    if not separator or 'HIERARCHY' not in header:
        raise MediaError(f'{path}: no HIERARCHY and MOTION; expected a Biovision .bvh file')
    joints = _read_joints(header)
    lines = motion.strip().splitlines()
    frame_time = float(lines[1].split()[-1])
    values = np.array([line.split() for line in lines[2:] if line.strip()], dtype=float)
    num_channels = sum(len(joint.channels) for joint in joints)
    if values.ndim != 2 or values.shape[1] != num_channels:
        raise MediaError(f'{path}: rows of {values.shape}, expected {num_channels} channels each')

    world: dict[str, Rotation] = {}
    pelvis = np.zeros((len(values), 3))
    start = 0
    for joint in joints:
        block = values[:, start : start + len(joint.channels)]
        start += len(joint.channels)
        turns = [i for i, channel in enumerate(joint.channels) if channel.endswith('rotation')]
        order = ''.join(joint.channels[i][0].upper() for i in turns)
        local = Rotation.from_euler(order, block[:, turns], degrees=True)
        world[joint.name] = world[joint.parent] * local if joint.parent else local
        if not joint.parent:
            moves = [joint.channels.index(f'{axis}position') for axis in 'XYZ']
            pelvis = block[:, moves] * metres_per_unit
    return SourceMotion(
        name=f'{path.parent.name}_{path.stem}',
        subject=subject,
        source=source,
        fps=1.0 / frame_time,
        pelvis=pelvis,
        world_rotmat={name: rotation.as_matrix() for name, rotation in world.items()},
        rest_direction={
            joint.name: joint.first_child_offset
            for joint in joints
            if joint.first_child_offset is not None
        },
    )


def _read_joints(header: str) -> list[_Joint]:
    joints: list[_Joint] = []
    open_joints: list[_Joint | None] = []  # None: an end site
    for line in header.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] in ('ROOT', 'JOINT'):
            parent = open_joints[-1] if open_joints else None
            joints.append(_Joint(words[1], parent.name if parent else ''))
            open_joints.append(joints[-1])
        elif words[0] == 'End':
            open_joints.append(None)
        elif words[0] == '}':
            open_joints.pop()
        elif words[0] == 'OFFSET':
            offset = np.array(words[1:4], dtype=float)
            if open_joints[-1] is not None:
                open_joints[-1].offset = offset
            parent = open_joints[-2] if len(open_joints) > 1 else None
            if parent is not None and parent.first_child_offset is None:
                parent.first_child_offset = offset
        elif words[0] == 'CHANNELS' and open_joints[-1] is not None:
            open_joints[-1].channels = words[2:]
    return joints
