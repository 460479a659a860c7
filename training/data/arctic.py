"""ARCTIC: people who handle objects with both hands; its face is not usable."""

from pathlib import Path

import numpy as np

from training.data.pose_batch import TEST, TRAIN, VALID, BadClipError, Clip, PoseBatch, ReadOptions
from training.data.safe_files import entries, read_json, read_npy

_SPLIT_FILE = 'splits_json/protocol_p1.json'
_SPLITS = {'train': TRAIN, 'val': VALID, 'test': TEST}
_PARTS = ('body_pose', 'left_hand_pose', 'right_hand_pose')


def list_arctic(root: Path) -> tuple[list[Clip], list[str]]:
    """Clips of raw_seqs with the split of protocol 1; what it does not name is trained on."""
    paths = sorted(root.glob('raw_seqs/*/*.smplx.npy'))
    table = root / _SPLIT_FILE
    if not table.is_file():
        return [], [_SPLIT_FILE]
    splits = {
        sequence: _SPLITS[split]
        for split, sequences in read_json(table).items()
        if split in _SPLITS
        for sequence in sequences
    }
    clips = []
    for path in paths:
        name = f'{path.parent.name}/{path.name.removesuffix(".smplx.npy")}'
        clips.append(Clip(name, splits.get(name, TRAIN), path))
    there = {clip.name for clip in clips}
    return clips, [f'raw_seqs/{name}.smplx.npy' for name in sorted(splits) if name not in there]


def read_arctic(clip: Clip, options: ReadOptions) -> PoseBatch:
    """Body and hands of one clip."""
    body, left, right = (np.asarray(v) for v in entries(read_npy(clip.path), *_PARTS))
    if not len(body):
        raise BadClipError('no frames in it')
    return PoseBatch(
        body=body.reshape(len(body), -1),
        left_hand=left.reshape(len(left), -1),
        right_hand=right.reshape(len(right), -1),
    )
