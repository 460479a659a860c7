"""One data set as one .npz in the uniform form: `dposer data prepare`.

The file holds `<split>_<part>` (N, width) float32 for the parts of `PoseBatch`, `<split>_clip`
(N,) which clip a row comes from, `clips` their names, and `meta`, a JSON text of `PreparedMeta`.
For Re:InterHand it also holds `<split>_hand`, single hands in right-hand form.
"""

import dataclasses
import errno
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core.errors import ModelFileError
from training.data.images import read_ehf_vertices
from training.data.mano import ManoHands
from training.data.pose_batch import (
    ABSOLUTE,
    MEAN_RELATIVE,
    SPLITS,
    TEST,
    BadClipError,
    PoseBatch,
    ReadOptions,
    checked,
)
from training.data.registry import DataSet, DataSetError, shortened
from training.data.reinterhand import split_hands
from training.data.subsample import SEED

FORM = 'dposer-prepared-1'
Progress = Callable[[list[Any]], Iterable[Any]]


@dataclass
class PreparedMeta:
    """What a prepared file is."""

    dataset: str
    title: str
    mask: str
    licence: str
    hands: str  # convention
    subsample: str
    sequence: int  # frames of consecutive sequences; 0: single poses
    seed: int
    form: str = FORM
    clips: int = 0
    rows: dict[str, int] = field(default_factory=dict)  # of each split
    skipped: dict[str, str] = field(default_factory=dict)  # clip -> why
    empty: int = 0  # clips too short for a single kept frame
    missing: list[str] = field(default_factory=list)  # of the published set


def prepare(
    dataset: DataSet,
    root: Path,
    path: Path,
    mano: ManoHands | None = None,
    official_hands: bool = False,
    seed: int = SEED,
    progress: Progress = iter,
) -> PreparedMeta:
    """Write `path` from the published files of `dataset` under `root`.

    Args:
        dataset: entry of the registry.
        root: folder of the published files.
        path: .npz to write.
        mano: MANO's mean hands; with them mean-relative hands become relative to the flat hand.
        official_hands: leave hands as they are published, as the released code does.
        seed: of the choice of frames.
        progress: wraps the list of clips.

    Raises:
        DataSetError: nothing usable there.
        ModelFileError: MANO is needed and not given.
    """
    items, missing = dataset.find(root)
    if dataset.needs_mano and mano is None:
        raise ModelFileError(
            f'{dataset.title} counts hands in the principal components of MANO; give --mano with '
            'the folder of MANO_LEFT.pkl and MANO_RIGHT.pkl (https://mano.is.tue.mpg.de)'
        )
    to_absolute = dataset.hands == MEAN_RELATIVE and mano is not None and not official_hands
    meta = PreparedMeta(
        dataset.name, dataset.title, dataset.mask, dataset.licence,
        ABSOLUTE if to_absolute else dataset.hands, dataset.subsample.describe(),
        dataset.subsample.sequence, seed, missing=missing,
    )  # fmt: skip
    with Output(path) as partial:
        if dataset.is_images:
            arrays = _images(dataset, items, root, meta, progress)
        else:
            arrays = _poses(dataset, items, ReadOptions(mano), seed, to_absolute, meta, progress)
        meta_text = json.dumps(dataclasses.asdict(meta))
        write_arrays(partial, path, {'meta': np.array(meta_text), **arrays})
    return meta


def read_meta(path: Path) -> PreparedMeta:
    """What the prepared file `path` is.

    Raises:
        DataSetError: missing, or not such a file.
    """
    return PreparedMeta(**json.loads(str(read_arrays(path, ['meta'])['meta'])))


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of a prepared file, all by default."""
    if not path.is_file():
        raise DataSetError(f'{path} not found; make it with `dposer data prepare`')
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (names or file.files)}
            form = json.loads(str(file['meta']))['form']
    except Exception as error:  # other files and damaged ones fail in many ways
        raise DataSetError(
            f'{path} is no file of `dposer data prepare` ({type(error).__name__}: {error})'
        ) from error
    if form != FORM:
        raise DataSetError(f"{path} has the form '{form}', expected '{FORM}'; prepare it again")
    return arrays


class Output:
    """A temporary file beside `path`, tried before the work and removed after it."""

    def __init__(self, path: Path) -> None:
        if path.suffix != '.npz':
            raise DataSetError(f"{path}: the ending '{path.suffix}' is not known; use .npz")
        self._partial = path.with_name(f'.{path.stem}.partial.npz')
        self._path = path

    def __enter__(self) -> Path:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.touch()
        except OSError as error:
            raise DataSetError(
                f'{self._path} cannot be written ({error.strerror}); give another --out'
            ) from error
        return self._partial

    def __exit__(self, *_: object) -> None:
        self._partial.unlink(missing_ok=True)


def write_arrays(partial: Path, path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write `arrays` to `partial`, then rename it to `path`."""
    size = sum(array.nbytes for array in arrays.values())
    try:
        np.savez_compressed(partial, **arrays)
        partial.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free
        raise DataSetError(
            f'{path}: the disk is full ({free / 1e9:.2f} GB free, up to {size / 1e9:.2f} GB '
            'needed); make room or give --out on another disk'
        ) from error


def _poses(
    dataset: DataSet,
    clips: list[Any],
    options: ReadOptions,
    seed: int,
    to_absolute: bool,
    meta: PreparedMeta,
    progress: Progress,
) -> dict[str, np.ndarray]:
    rows: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    names: list[str] = []
    widths: dict[str, tuple[int, str]] = {}
    assert dataset.read is not None
    for clip in progress(clips):
        try:
            batch = checked(dataset.read(clip, options))
            _same_widths(batch, clip.name, widths)
        except BadClipError as error:
            meta.skipped[clip.name] = str(error)
            continue
        batch = batch.rows(dataset.subsample.frames(len(batch), clip.name, seed))
        if not len(batch):
            meta.empty += 1
            continue
        if to_absolute:
            batch = _absolute(batch, options.mano)
        for part, values in batch.parts().items():
            rows[clip.split, part].append(values)
        rows[clip.split, 'clip'].append(np.full(len(batch), len(names), np.int32))
        names.append(clip.name)
    meta.clips = len(names)
    if not names:
        reasons = shortened([f'{name} ({why})' for name, why in meta.skipped.items()])
        short = f'; {meta.empty} clips are too short' if meta.empty else ''
        raise DataSetError(
            f'{dataset.title}: none of {len(clips)} clips can be used: {reasons}{short}. '
            f'{dataset.how_to_get()}'
        )
    arrays = {f'{split}_{part}': np.concatenate(v) for (split, part), v in rows.items()}
    if dataset.name == 'reinterhand':
        arrays = _split_pairs(arrays)
    meta.rows = {
        split: len(arrays[f'{split}_clip']) for split in SPLITS if f'{split}_clip' in arrays
    }
    return {'clips': np.array(names), **arrays}


def _same_widths(batch: PoseBatch, clip: str, widths: dict[str, tuple[int, str]]) -> None:
    for part, values in batch.parts().items():
        width, first = widths.setdefault(part, (values.shape[1], clip))
        if values.shape[1] != width:
            raise BadClipError(f'{part} has {values.shape[1]} columns, {width} in {first}')


def _absolute(batch: PoseBatch, mano: ManoHands) -> PoseBatch:
    parts = batch.parts()
    for side in ('left', 'right'):
        if f'{side}_hand' in parts:
            mean = getattr(mano, side).mean
            parts[f'{side}_hand'] = (parts[f'{side}_hand'] + mean).astype(np.float32)
    return PoseBatch(**parts)


def _split_pairs(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All pairs, read as training ones, in their splits; and the single hands in theirs."""
    hands, pairs = split_hands(arrays['train_left_hand'], arrays['train_right_hand'])
    result = {f'{split}_hand': hand for split, hand in hands.items()}
    for split, index in pairs.items():
        for part in ('left_hand', 'right_hand', 'clip'):
            result[f'{split}_{part}'] = arrays[f'train_{part}'][index]
    return result


def _images(
    dataset: DataSet, items: list[Any], root: Path, meta: PreparedMeta, progress: Progress
) -> dict[str, np.ndarray]:
    """Names and paths relative to `root`; of EHF also the true vertices."""
    kept, vertices = [], []
    for item in progress(items):
        try:
            if dataset.name == 'ehf':
                vertices.append(read_ehf_vertices(item).astype(np.float32))
            kept.append(item)
        except BadClipError as error:
            meta.skipped[item.name] = str(error)
    meta.clips = len(kept)
    if not kept:
        reasons = shortened([f'{name} ({why})' for name, why in meta.skipped.items()])
        raise DataSetError(f'{dataset.title}: no image can be used: {reasons}')
    meta.rows = {TEST: len(kept)}
    arrays = {'clips': np.array([item.name for item in kept])}
    for name in ('image', 'surface', 'landmarks', 'box'):
        paths = [getattr(item, name) for item in kept]
        if None not in paths:
            arrays[f'test_{name}'] = np.array([str(path.relative_to(root)) for path in paths])
    return arrays | ({'test_vertices': np.stack(vertices)} if vertices else {})
