"""The one form in which every data set yields its poses, and how a bad clip is refused."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core.errors import DPoserError

TRAIN, VALID, TEST = SPLITS = ('train', 'valid', 'test')
ABSOLUTE = 'absolute'  # hand pose relative to the flat hand
MEAN_RELATIVE = 'mean-relative'  # hand pose relative to MANO's mean hand
NO_HANDS = 'none'
# Columns of each field; None: any number, but the same in all clips of a set.
WIDTHS = {
    'body': 63, 'left_hand': 45, 'right_hand': 45, 'jaw': 3, 'expression': None, 'betas': None,
}  # fmt: skip
_ROTATIONS = ('body', 'left_hand', 'right_hand', 'jaw')
_MAX_ANGLE = 2.0 * np.pi + 0.1  # of an axis-angle joint, rad; beyond it the numbers are no angles


class BadClipError(DPoserError):
    """One clip cannot be used; the message says why, the caller names and counts it."""


@dataclass(frozen=True)
class Clip:
    """One file or folder that holds poses."""

    name: str
    split: str  # of SPLITS
    path: Path


@dataclass(frozen=True)
class ReadOptions:
    """What readers may need beyond the files."""

    mano: Any = None
    """`mano.ManoHands`; None: hands in principal components cannot be read."""


@dataclass(frozen=True)
class PoseBatch:
    """Poses of one clip, axis-angle in rad, float32; a part that the set lacks is None."""

    body: np.ndarray | None = None  # (N, 63) SMPL-X joints 1 to 21
    left_hand: np.ndarray | None = None  # (N, 45) as it is, not mirrored
    right_hand: np.ndarray | None = None  # (N, 45)
    jaw: np.ndarray | None = None  # (N, 3)
    expression: np.ndarray | None = None  # (N, E) FLAME or SMPL-X coefficients
    betas: np.ndarray | None = None  # (N, B) shape coefficients

    def parts(self) -> dict[str, np.ndarray]:
        """The parts that are there, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def __len__(self) -> int:
        return len(next(iter(self.parts().values()), ()))

    def rows(self, index: Any) -> 'PoseBatch':
        """These rows of every part."""
        return PoseBatch(**{name: value[index] for name, value in self.parts().items()})


def checked(batch: PoseBatch) -> PoseBatch:
    """`batch` as float32 after a look at every number.

    Raises:
        BadClipError: no rows, unequal lengths, wrong widths, NaN, or angles that cannot be.
    """
    parts = {}
    for name, value in batch.parts().items():
        value = np.asarray(value)
        if value.ndim != 2 or (WIDTHS[name] or value.shape[1]) != value.shape[1]:
            width = WIDTHS[name] or 'any'
            raise BadClipError(f'{name} has shape {value.shape}, expected (frames, {width})')
        if not np.issubdtype(value.dtype, np.number):
            raise BadClipError(f'{name} holds {value.dtype} instead of numbers')
        finite = np.isfinite(value).all(axis=1)
        if not finite.all():
            where = int(np.argmin(finite))
            raise BadClipError(
                f'{name} has NaN or infinity in {(~finite).sum()} of {len(value)} '
                f'frames, first in frame {where}'
            )
        if name in _ROTATIONS:
            angle = np.linalg.norm(value.reshape(len(value), -1, 3), axis=-1)
            if angle.size and angle.max() > _MAX_ANGLE:
                frame, joint = np.unravel_index(angle.argmax(), angle.shape)
                raise BadClipError(
                    f'{name} joint {joint} turns by {angle.max():.1f} rad in frame '
                    f'{frame}; these are no axis-angle rotations'
                )
        parts[name] = value.astype(np.float32)
    lengths = {name: len(value) for name, value in parts.items()}
    if not lengths or min(lengths.values()) == 0:
        raise BadClipError('no frames in it')
    if len(set(lengths.values())) > 1:
        raise BadClipError(f'parts of different lengths: {lengths}')
    return PoseBatch(**parts)


def smplx_pose(poses: np.ndarray) -> PoseBatch:
    """Parts of full SMPL-X poses (N, 165): root, body, jaw, eyes, left and right hand."""
    poses = np.asarray(poses)
    if poses.ndim != 2 or poses.shape[1] != 165:
        raise BadClipError(f'poses have shape {poses.shape}, expected (frames, 165) of SMPL-X')
    return PoseBatch(
        body=poses[:, 3:66],
        jaw=poses[:, 66:69],
        left_hand=poses[:, 75:120],
        right_hand=poses[:, 120:165],
    )


def repeated(values: np.ndarray, count: int) -> np.ndarray:
    """`values` (B,) of a whole clip as (count, B)."""
    return np.broadcast_to(
        np.asarray(values, dtype=np.float32).reshape(1, -1), (count, np.size(values))
    )


def padded(values: np.ndarray, columns: int) -> np.ndarray:
    """`values` (N, E) with E at most `columns`, filled with zeros to (N, columns)."""
    values = np.asarray(values, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] > columns:
        raise BadClipError(f'shape {values.shape}, expected (frames, at most {columns})')
    return np.pad(values, ((0, 0), (0, columns - values.shape[1])))
