"""Re:InterHand: two interacting hands, MANO fits relative to the mean hand, one JSON per hand.

Also the merged file of the DPoser-X release (reinterhand_mocap.pt), whose row order its split of
single hands belongs to.
"""

from pathlib import Path

import numpy as np
import torch

from dposer_core.errors import CheckpointError
from dposer_core.prior.torch_file import read_torch_file
from dposer_core.skeleton import MIRROR_SIGN
from training.data.pose_batch import (
    SPLITS,
    TRAIN,
    BadClipError,
    Clip,
    PoseBatch,
    ReadOptions,
)
from training.data.safe_files import entries, read_json

MERGED = 'reinterhand_mocap.pt'
_SHUFFLE_SEED, _SPLIT_SEED = 42, 0
_SHARES = (0.8, 0.1)  # of train and valid; test has the rest


def list_reinterhand(root: Path) -> tuple[list[Clip], list[str]]:
    """The merged file if there is one, else one clip for each folder of fits."""
    if (root / MERGED).is_file():
        return [Clip('merged', TRAIN, root / MERGED)], []
    folders = sorted({path.parent for path in root.rglob('*_right.json')})
    folders = [folder for folder in folders if folder.name == 'params']
    return [Clip(str(f.relative_to(root)), TRAIN, f) for f in folders], []


def read_reinterhand(clip: Clip, options: ReadOptions) -> PoseBatch:
    """Both hands of one folder, or of the merged file; frames with one hand are left out."""
    if clip.path.is_file():
        return _merged(clip.path)
    left = {p.name.removesuffix('_left.json'): p for p in clip.path.glob('*_left.json')}
    right = {p.name.removesuffix('_right.json'): p for p in clip.path.glob('*_right.json')}
    rows = {side: [] for side in ('left', 'right')}
    for frame in sorted(left.keys() & right.keys()):
        for side, path in (('left', left[frame]), ('right', right[frame])):
            try:
                (pose,) = entries(read_json(path), 'pose')
                rows[side].append(np.array(pose, dtype=np.float64).reshape(48))
            except (BadClipError, TypeError, ValueError) as error:
                raise BadClipError(f'{path.name}: {error}') from error
    if not rows['left']:
        raise BadClipError('no frame with <frame>_left.json and <frame>_right.json')
    return PoseBatch(
        left_hand=np.stack(rows['left'])[:, 3:], right_hand=np.stack(rows['right'])[:, 3:]
    )


def split_hands(left: np.ndarray, right: np.ndarray) -> tuple[dict, dict]:
    """The released split of single hands, and that of pairs which follows from it.

    Args:
        left: (N, 45) left hands as they are.
        right: (N, 45) right hands.

    Returns:
        split -> (M, 45) in right-hand form: mirrored left hands, then right ones, shuffled, 80, 10
        and 10 %. split -> (K,) indices of pairs, of which both hands are in that split; the others
        are left out, since one of their hands is measured on (the release trains on all).
    """
    mirrored = left * np.tile(MIRROR_SIGN, 15)
    single = np.concatenate([mirrored, right]).astype(np.float32)
    count = len(single)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(_SHUFFLE_SEED))
    inner = torch.randperm(count, generator=torch.Generator().manual_seed(_SPLIT_SEED))
    order = order[inner].numpy()
    ends = np.cumsum([int(share * count) for share in _SHARES])
    hands, owner = {}, np.empty(count, dtype=int)
    for number, (split, index) in enumerate(zip(SPLITS, np.split(order, ends), strict=True)):
        hands[split] = single[index]
        owner[index] = number
    both = np.where(owner[: len(left)] == owner[len(left) :], owner[: len(left)], -1)
    return hands, {split: np.flatnonzero(both == k) for k, split in enumerate(SPLITS)}


def _merged(path: Path) -> PoseBatch:
    try:
        left, right = entries(read_torch_file(path), 'left_pose', 'right_pose')
    except CheckpointError as error:
        raise BadClipError(str(error)) from error
    return PoseBatch(left_hand=np.asarray(left)[:, 3:], right_hand=np.asarray(right)[:, 3:])
