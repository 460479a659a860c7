"""What is in a packed or prepared file: rows of each source, and how far each joint turns."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dposer_core.errors import ConfigError
from dposer_core.skeleton import BODY_JOINTS, JOINT_NAMES, RIGHT_HAND_JOINTS
from training.data.prepare import DataSetError

_LIMITS = (0.001, 0.999)  # quantiles that stand for the limits, as in the paper's normalisers
_MAX_ROWS = 200_000  # drawn for the quantiles; more change them in the third digit
PARTS = ('body', 'hand', 'face', 'face_shape', 'wholebody')
# Of prepared files, which arrays make up a part; the first that is there.
_PREPARED = {
    'body': ('body',), 'hand': ('hand', 'right_hand', 'left_hand'), 'face': ('jaw', 'expression'),
    'face_shape': ('betas',),
}  # fmt: skip


@dataclass(frozen=True)
class PartRows:
    """The training rows of one part in a file."""

    part: str
    rows: np.ndarray  # (N, D)
    counts: dict[str, int]  # of each source


@dataclass(frozen=True)
class ColumnStats:
    """One column of a part, rad or coefficient."""

    name: str
    mean: float
    std: float
    low: float  # quantiles 0.1 and 99.9 %
    high: float


def load_part(path: Path, part: str) -> PartRows:
    """The training rows of `part` in a packed or prepared file.

    Raises:
        ConfigError: unknown part.
        DataSetError: no such file, or the part is not in it.
    """
    if part not in PARTS:
        raise ConfigError(f"part '{part}' is unknown; known: {', '.join(PARTS)}")
    if not path.is_file():
        raise DataSetError(f'{path} not found; make it with `dposer data pack` or `prepare`')
    try:
        file = np.load(path, allow_pickle=False)
        names = set(file.files)
    except Exception as error:  # damaged archives fail in many ways
        raise DataSetError(f'{path} is not readable ({error}); make it again') from error
    with file:
        found = _prepared(file, names, part) if 'meta' in names else _packed(file, names, part)
    if found is None or not len(found.rows):
        raise DataSetError(f"{path} holds no '{part}'; its arrays: {', '.join(sorted(names))}")
    return found


def column_stats(rows: np.ndarray, part: str) -> list[ColumnStats]:
    """Mean, standard deviation and limits of each column of (N, D)."""
    every = max(1, len(rows) // _MAX_ROWS)
    low, high = np.quantile(rows[::every], _LIMITS, axis=0)
    mean, std = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    names = column_names(part, rows.shape[1])
    values = zip(names, mean, std, low, high, strict=True)
    return [ColumnStats(name, *map(float, numbers)) for name, *numbers in values]


def column_names(part: str, width: int) -> list[str]:
    """Joint and axis, or coefficient, of each column."""
    joints = {
        'body': JOINT_NAMES[BODY_JOINTS],
        'hand': [n.removeprefix('right_') for n in JOINT_NAMES[RIGHT_HAND_JOINTS]],
        'face': ['jaw'],
    }.get(part, [])
    names = [f'{joint} {axis}' for joint in joints for axis in 'xyz'][:width]
    kind = 'expression' if part == 'face' else part
    return names + [f'{kind} {k}' for k in range(width - len(names))]


def _packed(file: np.lib.npyio.NpzFile, names: set[str], part: str) -> PartRows | None:
    sources = sorted(n.removeprefix('repeats_') for n in names if n.startswith('repeats_'))
    if part == 'body' and sources:
        bodies = {source: file[f'body_{source}'] for source in sources}
        counts = {source: len(body) for source, body in bodies.items()}
        return PartRows(part, np.concatenate(list(bodies.values())), counts)
    if part not in names:
        return None
    rows = file[part]
    if f'{part}_source' not in names:
        synthetic = part in ('hand', 'face')
        return PartRows(part, rows, {'synthetic' if synthetic else 'all': len(rows)})
    amounts = np.bincount(file[f'{part}_source'], minlength=len(file[f'{part}_sources']))
    counts = dict(zip(map(str, file[f'{part}_sources']), map(int, amounts), strict=True))
    return PartRows(part, rows, counts)


def _prepared(file: np.lib.npyio.NpzFile, names: set[str], part: str) -> PartRows | None:
    meta = json.loads(str(file['meta']))
    splits = [split for split in meta['rows'] if meta['rows'][split]]
    rows = []
    for split in splits:
        here = [file[f'{split}_{n}'] for n in _PREPARED.get(part, ()) if f'{split}_{n}' in names]
        if here:
            rows.append(np.concatenate(here, axis=1) if part == 'face' else here[0])
    if not rows:
        return None
    return PartRows(part, np.concatenate(rows), dict(zip(splits, map(len, rows), strict=True)))
