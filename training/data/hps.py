"""HPS: people in large scenes from body-mounted sensors, SMPL poses (72 values)."""

from pathlib import Path

import numpy as np

from training.data.pose_batch import TEST, BadClipError, Clip, PoseBatch, ReadOptions
from training.data.safe_files import entries, read_npz, read_pickle


def list_hps(root: Path) -> tuple[list[Clip], list[str]]:
    """Every pose file, .pkl as published or .npz of the toolbox; a test set."""
    paths = sorted([*root.rglob('SUB*.pkl'), *root.rglob('SUB*.npz')])
    return [Clip(str(p.relative_to(root).with_suffix('')), TEST, p) for p in paths], []


def read_hps(clip: Clip, options: ReadOptions) -> PoseBatch:
    """Body of one clip; joints 22 and 23 of SMPL, its hands, are dropped."""
    if clip.path.suffix == '.npz':
        poses = read_npz(clip.path, 'poses')['poses']
    else:
        (poses,) = entries(read_pickle(clip.path), 'poses')
    poses = np.asarray(poses)
    if poses.ndim != 2 or poses.shape[1] < 66:
        raise BadClipError(f'poses have shape {poses.shape}, expected (frames, 72) of SMPL')
    return PoseBatch(body=poses[:, 3:66])
