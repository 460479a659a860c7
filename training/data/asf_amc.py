"""Reader of Acclaim skeletons (.asf) and motions (.amc): CMU and HDM05.

Each bone turns about its own `axis` frame C: L = C Rz Ry Rx C^-1, relative to its parent.
Format: Acclaim ASF/AMC as published by the University of Wisconsin graphics group.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from dposer_core.errors import MediaError
from training.data.motion import SourceMotion

INCH = 0.0254  # metres; lengths in the file are inches times `:units length`
FPS = 120.0  # both archives were captured at 120 Hz; the file does not say


@dataclass(frozen=True)
class Bone:
    """One bone of an .asf file."""

    name: str
    direction: np.ndarray  # (3,) unit vector in the rest pose
    length: float  # file units
    axis: Rotation  # C
    dof: tuple[str, ...]  # channels in file order, subset of rx ry rz


@dataclass(frozen=True)
class AsfSkeleton:
    """An .asf file."""

    metres_per_unit: float
    bones: dict[str, Bone]
    parents: dict[str, str]  # bone -> parent; the root is 'root'; parents come first


def read_asf(path: Path) -> AsfSkeleton:
    """The skeleton in `path`; raises MediaError if it is not an .asf file."""
    sections = _sections(path)
    if 'bonedata' not in sections or 'hierarchy' not in sections:
        raise MediaError(f'{path}: no :bonedata or no :hierarchy; expected an Acclaim .asf file')
    units = dict(line[:2] for line in sections['units'])
    if units.get('angle', 'deg') != 'deg':
        raise MediaError(f'{path}: angle unit {units["angle"]}, only deg is supported')
    bones = {}
    for block in _blocks(sections['bonedata']):
        bone = _bone(block)
        bones[bone.name] = bone
    parents: dict[str, str] = {}
    for block in _blocks(sections['hierarchy']):
        for parent, *children in block:
            parents.update(dict.fromkeys(children, parent))
    return AsfSkeleton(INCH / float(units['length']), bones, parents)


def read_amc(path: Path, skeleton: AsfSkeleton, subject: str, source: str) -> SourceMotion:
    """The motion in `path` as world rotations of the bones of `skeleton`.

    Raises:
        MediaError: no frames, or a line that does not fit the skeleton.
    """
    frames = _amc_frames(path)
    root = np.array([frame['root'] for frame in frames])  # TX TY TZ RX RY RZ
    num_frames = len(frames)
    world = {'root': Rotation.from_euler('xyz', root[:, 3:], degrees=True)}
    for name, parent in skeleton.parents.items():
        bone = skeleton.bones[name]
        angles = np.zeros((num_frames, 3))
        for column, channel in enumerate(bone.dof):
            try:
                angles[:, 'xyz'.index(channel[1])] = [frame[name][column] for frame in frames]
            except (KeyError, IndexError) as error:
                raise MediaError(f'{path}: bone {name} lacks {channel}; wrong .asf?') from error
        local = bone.axis * Rotation.from_euler('xyz', angles, degrees=True) * bone.axis.inv()
        world[name] = world[parent] * local
    return SourceMotion(
        name=path.stem,
        subject=subject,
        source=source,
        fps=FPS,
        pelvis=root[:, :3] * skeleton.metres_per_unit,
        world_rotmat={name: rotation.as_matrix() for name, rotation in world.items()},
        rest_direction={b.name: b.direction * b.length for b in skeleton.bones.values()},
    )


def _sections(path: Path) -> dict[str, list[list[str]]]:
    sections: dict[str, list[list[str]]] = {}
    lines: list[list[str]] = []
    for line in path.read_text(errors='replace').splitlines():
        words = line.split('#')[0].split()
        if words and words[0].startswith(':'):
            lines = sections.setdefault(words[0][1:], [])
        elif words:
            lines.append(words)
    return sections


def _blocks(lines: list[list[str]]) -> list[list[list[str]]]:
    blocks: list[list[list[str]]] = []
    for words in lines:
        if words == ['begin']:
            blocks.append([])
        elif words != ['end']:
            blocks[-1].append(words)
    return blocks


def _bone(block: list[list[str]]) -> Bone:
    values = {words[0]: words[1:] for words in block}
    return Bone(
        name=values['name'][0],
        direction=np.array(values['direction'], dtype=float),
        length=float(values['length'][0]),
        axis=Rotation.from_euler(
            values['axis'][3].lower(), np.array(values['axis'][:3], dtype=float), degrees=True
        ),
        dof=tuple(channel for channel in values.get('dof', []) if channel.startswith('r')),
    )


def _amc_frames(path: Path) -> list[dict[str, list[float]]]:
    frames: list[dict[str, list[float]]] = []
    for line in path.read_text(errors='replace').splitlines():
        if line.startswith(('#', ':')) or not line.strip():
            continue
        words = line.split()
        if len(words) == 1 and words[0].isdigit():
            frames.append({})
        elif frames:
            frames[-1][words[0]] = [float(word) for word in words[1:]]
    if not frames or any('root' not in frame for frame in frames):
        raise MediaError(f'{path}: no frames with a root; expected an Acclaim .amc file')
    return frames
