"""Files of the networks that the paper starts from, as where a fit of ours begins.

Each network publishes its answers in a form of its own: names, sizes, axis-angle rotations in
radians. A file of another length or convention is refused, as a fit from it would look like a bad
prior. Formats: PROTOCOLS 3.3, 3.7, 3.9 and 3.11, and the demos of the networks.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dposer_core.errors import ConfigError

_MAX_ANGLE = 2 * np.pi + 1e-3
_MAX_COEFFICIENT = 20.0  # sigmas: nobody is so tall
_SUFFIXES = ('.npz', '.npy', '.json')


@dataclass(frozen=True)
class _Piece:
    """Some columns of an array of the file that become a variable of a fit."""

    array: str
    size: int
    """Columns of the array."""
    columns: slice
    is_rotation: bool = False


@dataclass(frozen=True)
class Format:
    """What a network publishes."""

    name: str
    about: str
    pieces: Mapping[str, _Piece]
    """By variable."""


def _whole(array: str, size: int, **more: bool) -> _Piece:
    return _Piece(array, size, slice(0, size), **more)


FORMATS: Mapping[str, Format] = {
    'cliff': Format(
        'CLIFF', 'body, SMPL: root and 23 joints, of which SMPL-X has the first 21',
        {
            'global_orient': _Piece('pose', 72, slice(0, 3), True),
            'pose': _Piece('pose', 72, slice(3, 66), True),
            'betas': _whole('shape', 10),
            'camera': _whole('global_t', 3),
        },
    ),
    'smplerx': Format(
        'SMPLer-X', 'whole body, SMPL-X; hands relative to the flat hand',
        {
            'global_orient': _whole('global_orient', 3, is_rotation=True),
            'body_pose': _whole('body_pose', 63, is_rotation=True),
            'left_hand_pose': _whole('left_hand_pose', 45, is_rotation=True),
            'right_hand_pose': _whole('right_hand_pose', 45, is_rotation=True),
            'jaw_pose': _whole('jaw_pose', 3, is_rotation=True),
            'expression': _whole('expression', 10),
            'betas': _whole('betas', 10),
            'camera': _whole('transl', 3),
        },
    ),
    'hand4whole': Format(
        'Hand4Whole', 'right hand, MANO: wrist and 15 joints',
        {
            'global_orient': _Piece('pose', 48, slice(0, 3), True),
            'pose': _Piece('pose', 48, slice(3, 48), True),
            'betas': _whole('shape', 10),
            'camera': _whole('cam_trans', 3),
        },
    ),
    'mica': Format(
        'MICA', 'face, FLAME: of 300 shape coefficients the first 100',
        {'shape': _Piece('code', 300, slice(0, 100))},
    ),
    'emoca': Format(
        'EMOCA', 'face, FLAME: neck or head and jaw, shape, expression',
        {
            'global_orient': _Piece('pose', 6, slice(0, 3), True),
            'jaw': _Piece('pose', 6, slice(3, 6), True),
            'shape': _whole('shape', 100),
            'expression': _whole('exp', 50),
        },
    ),
}  # fmt: skip


TABLES: Mapping[str, str] = {'2': 'cliff', 'S-9': 'hand4whole', '8': 'smplerx', 'S-14': 'smplerx'}
"""Table -> format of the file that its fits may start from, one prediction an image."""


def read_predictions(path: Path, kind: str, count: int | None = None) -> dict[str, np.ndarray]:
    """Variables by name, each (count, size) float32.

    Args:
        path: an .npz, a .json (one object, or a list of one object an image), a MICA .npy, or a
            folder of such files in the order of their names, one or more images each.
        kind: a key of `FORMATS`.
        count: images that there are; None: as many as predictions.

    Raises:
        ConfigError: another length or convention than expected; says which.
    """
    if kind not in FORMATS:
        raise ConfigError(f"predictions of '{kind}' are unknown; there are: {', '.join(FORMATS)}")
    form = FORMATS[kind]
    files = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f'{path} holds no {", ".join(_SUFFIXES)} file of {form.name}')
    parts = [_variables(_arrays(file, form), form, file) for file in files]
    found = {name: np.concatenate([part[name] for part in parts]) for name in form.pieces}
    lengths = {name: len(values) for name, values in found.items()}
    count = max(lengths.values()) if count is None else count
    if set(lengths.values()) != {count}:
        raise ConfigError(
            f'{path}: {form.name} has {max(lengths.values())} predictions, there are {count} '
            f'images; give one an image, in their order'
        )
    return found


def _arrays(path: Path, form: Format) -> dict[str, np.ndarray]:
    """What a file holds, by name."""
    try:
        if path.suffix == '.json':
            content = json.loads(path.read_text())
            listed = content if isinstance(content, list) else [content]
            needed = {piece.array for piece in form.pieces.values()}
            return {
                key: np.array([np.ravel(one[key]) for one in listed], dtype=float)
                for key in needed
                if all(key in one for one in listed)
            }
        with path.open('rb') as stream:  # which numpy leaves open when the archive is damaged
            loaded = np.load(stream, allow_pickle=False)
            if path.suffix == '.npy':
                return {'code': loaded}
            return {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        # numpy takes whatever it does not know for pickled data, and advises to unpickle it.
        is_foreign = isinstance(error, ValueError) and 'pickled' in str(error)
        reason = 'it is no numpy file of plain numbers' if is_foreign else error
        raise ConfigError(
            f'{path} cannot be read as predictions of {form.name}: {reason}'
        ) from error


def _variables(
    arrays: Mapping[str, np.ndarray], form: Format, path: Path
) -> dict[str, np.ndarray]:
    found = {}
    for name, piece in form.pieces.items():
        if piece.array not in arrays:
            raise ConfigError(
                f"{path}: {form.name} has '{piece.array}' ({form.about}); the file has: "
                f'{", ".join(sorted(arrays)) or "nothing"}'
            )
        values = _flat(np.asarray(arrays[piece.array]), piece, f'{path}: {piece.array}')
        found[name] = values[:, piece.columns].astype(np.float32)
        _check(found[name], piece, f'{path}: {piece.array}')
    return found


def _flat(values: np.ndarray, piece: _Piece, where: str) -> np.ndarray:
    """(N, size)."""
    if piece.is_rotation and values.shape[-2:] == (3, 3) and values.size > piece.size:
        raise ConfigError(
            f'{where} has rotation matrices {values.shape}; axis-angle is expected, '
            f'(N, {piece.size}) in rad'
        )
    if values.size == 0 or values.size % piece.size or not np.issubdtype(values.dtype, np.number):
        raise ConfigError(
            f'{where} has the shape {values.shape} of {values.dtype}; '
            f'(N, {piece.size}) is expected'
        )
    rows = values.size // piece.size
    if values.ndim > 1 and values.shape[0] != rows and values.shape != (piece.size // 3, 3):
        raise ConfigError(f'{where} has the shape {values.shape}; (N, {piece.size}) is expected')
    return values.reshape(rows, piece.size)


def _check(values: np.ndarray, piece: _Piece, where: str) -> None:
    if not np.isfinite(values).all():
        bad = np.unique(np.nonzero(~np.isfinite(values))[0])
        raise ConfigError(f'{where} is not finite in images {bad[:10].tolist()}; leave them out')
    if piece.is_rotation:
        angle = np.linalg.norm(values.reshape(-1, 3), axis=1).max()
        if angle > _MAX_ANGLE:
            raise ConfigError(
                f'{where} has a rotation of {angle:.1f}; axis-angle in rad is at most 2 pi: '
                'degrees, or not rotations at all?'
            )
    elif piece.array in ('shape', 'betas', 'exp', 'expression', 'code'):
        largest = np.abs(values).max()
        if largest > _MAX_COEFFICIENT:
            raise ConfigError(
                f'{where} has a coefficient of {largest:.0f} sigmas; not the coefficients of the '
                'model?'
            )
