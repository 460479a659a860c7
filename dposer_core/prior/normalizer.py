"""Normalisation of pose vectors: z-score or min-max, axis-angle or rot6d, left hand mirrored.

All of them are one affine map, so there is one class. Vectors are numpy arrays or torch tensors.
Source: PROTOCOLS 1.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core import rotations
from dposer_core.errors import CheckpointError
from dposer_core.prior.torch_file import read_torch_file
from dposer_core.skeleton import MIRROR_SIGN


@dataclass(frozen=True)
class Normalizer:
    """x' = (sign x - offset) / scale, on axis-angle or, with `rot6d`, on its 6D form."""

    offset: np.ndarray
    """(D,) float32."""
    scale: np.ndarray
    """(D,) float32, positive."""
    sign: np.ndarray | None = None
    """(D,) of +1 and -1: mirrors the left hand to a right hand; None: all +1."""
    rot6d: bool = False
    """Raw vectors are axis-angle (..., D/2) and are converted to 6D (..., D) first."""

    @staticmethod
    def z_score(mean: np.ndarray, std: np.ndarray, rot6d: bool = False) -> 'Normalizer':
        """Zero mean and unit variance."""
        return Normalizer(_float32(mean), _float32(std), rot6d=rot6d)

    @staticmethod
    def min_max(low: np.ndarray, high: np.ndarray, rot6d: bool = False) -> 'Normalizer':
        """`low` to -1, `high` to 1."""
        low, high = _float32(low), _float32(high)
        return Normalizer((low + high) / 2, (high - low) / 2, rot6d=rot6d)

    @staticmethod
    def concatenate(parts: Sequence['Normalizer']) -> 'Normalizer':
        """One normaliser of the concatenated vectors; axis-angle parts only."""
        assert not any(part.rot6d for part in parts)
        signs = [np.ones_like(part.offset) if part.sign is None else part.sign for part in parts]
        return Normalizer(
            np.concatenate([part.offset for part in parts]),
            np.concatenate([part.scale for part in parts]),
            np.concatenate(signs),
        )

    def mirrored(self) -> 'Normalizer':
        """The same statistics for the other hand: raw left-hand axis-angles come in and go out."""
        assert not self.rot6d
        sign = np.tile(MIRROR_SIGN, len(self.offset) // 3).astype(np.float32)
        return Normalizer(self.offset, self.scale, sign)

    @property
    def dim(self) -> int:
        """Size of the normalised vector."""
        return len(self.offset)

    def normalize(self, raw: Any) -> Any:
        """Raw (..., D) -> normalised (..., D), same kind and floating type."""
        x = _per_joint(rotations.rotvec_to_rot6d, raw, 6) if self.rot6d else raw
        if self.sign is not None:
            x = x * _like(self.sign, x)
        return (x - _like(self.offset, x)) / _like(self.scale, x)

    def denormalize(self, x: Any) -> Any:
        """Normalised (..., D) -> raw axis-angle; the left hand is mirrored back."""
        raw = x * _like(self.scale, x) + _like(self.offset, x)
        if self.sign is not None:
            raw = raw * _like(self.sign, raw)
        return _per_joint(rotations.rot6d_to_rotvec, raw, 3) if self.rot6d else raw


def wholebody_normalizer(
    body: Normalizer, hand: Normalizer, face: Normalizer | Sequence[Normalizer]
) -> Normalizer:
    """body | left hand (mirrored) | right hand | face; `face` may come as jaw and expression."""
    faces = [face] if isinstance(face, Normalizer) else list(face)
    return Normalizer.concatenate([body, hand.mirrored(), hand, *faces])


def load_official_normalizer(
    folder: str | Path, rot6d: bool = False, min_max: bool = False
) -> Normalizer:
    """Read an official statistics folder (`{axis,rot6d}_normalize{1,2}.pt`).

    Raises:
        CheckpointError: file missing or not holding the two vectors.
    """
    names = ('min_poses', 'max_poses') if min_max else ('mean_poses', 'std_poses')
    path = Path(folder) / f'{"rot6d" if rot6d else "axis"}_normalize{1 if min_max else 2}.pt'
    content = read_torch_file(path)
    if not isinstance(content, dict) or any(name not in content for name in names):
        raise CheckpointError(
            f'{path}: expected {" and ".join(names)}; is this a normaliser file?'
        )
    first, second = (np.asarray(content[name]) for name in names)
    if first.ndim != 1 or first.shape != second.shape:
        raise CheckpointError(
            f'{path}: statistics of shapes {first.shape}, {second.shape}; expected (D,)'
        )
    return (Normalizer.min_max if min_max else Normalizer.z_score)(first, second, rot6d=rot6d)


def _float32(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def _like(values: np.ndarray, x: Any) -> Any:
    return (
        values.astype(x.dtype, copy=False) if isinstance(x, np.ndarray) else x.new_tensor(values)
    )


def _per_joint(convert: Any, x: Any, size: int) -> Any:
    """A rotation conversion of every joint of flat vectors; the result has `size` per joint."""
    joints = x.reshape(*x.shape[:-1], -1, 9 - size)  # 3 <-> 6
    flat = convert(joints).reshape(*x.shape[:-1], -1)
    return flat.astype(x.dtype, copy=False) if isinstance(x, np.ndarray) else flat
