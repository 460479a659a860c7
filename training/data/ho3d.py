"""HO-3D v3 (right hands) and H2O-3D (both hands) of HOnnotate; poses relative to the flat hand."""

from pathlib import Path
from typing import Any

import numpy as np

from training.data.pose_batch import TRAIN, BadClipError, Clip, PoseBatch, ReadOptions
from training.data.safe_files import entries, read_pickle


def list_ho3d(root: Path) -> tuple[list[Clip], list[str]]:
    """One clip for each sequence of train/; evaluation/ publishes no poses."""
    paths = sorted(p for p in root.glob('train/*/meta') if p.is_dir())
    clips = [Clip(path.parent.name, TRAIN, path) for path in paths]
    listed = _sequences(root / 'train.txt')
    there = {clip.name for clip in clips}
    return clips, [f'train/{name}/meta/' for name in sorted(listed - there)]


def read_ho3d(clip: Clip, options: ReadOptions) -> PoseBatch:
    """Right hands of one sequence, frames without annotation left out."""
    rows = _annotated(clip.path, 'handPose', 'handBeta')
    return PoseBatch(right_hand=rows[0][:, 3:], betas=rows[1])


def read_h2o3d(clip: Clip, options: ReadOptions) -> PoseBatch:
    """Both hands of one sequence, frames without annotation left out."""
    left, right, betas = _annotated(clip.path, 'leftHandPose', 'rightHandPose', 'handBeta')
    return PoseBatch(left_hand=left[:, 3:], right_hand=right[:, 3:], betas=betas)


def _annotated(folder: Path, *keys: str) -> list[np.ndarray]:
    """(frames, 48) or (frames, 10) of each key."""
    rows: list[list[Any]] = []
    for path in sorted(folder.glob('*.pkl')):
        try:
            values = entries(read_pickle(path), *keys)
            if any(value is None for value in values):
                continue  # the fit failed in this frame
            rows.append([np.asarray(value, dtype=np.float64).reshape(-1) for value in values])
        except (BadClipError, TypeError, ValueError) as error:
            raise BadClipError(f'{path.name}: {error}') from error
    if not rows:
        raise BadClipError('no annotated frame in it')
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    for key, column in zip(keys, columns, strict=True):
        width = 10 if key.endswith('Beta') else 48
        if column.shape[1] != width:
            raise BadClipError(f'{key} has {column.shape[1]} numbers, expected {width}')
    return columns


def _sequences(table: Path) -> set[str]:
    """Sequences that train.txt names, as <sequence>/<frame> lines."""
    if not table.is_file():
        return set()
    return {line.split('/')[0] for line in table.read_text().split() if '/' in line}
