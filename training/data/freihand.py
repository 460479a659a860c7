"""FreiHAND: right hands, MANO parameters in one JSON file per set, relative to the mean hand."""

from pathlib import Path

import numpy as np

from training.data.pose_batch import TEST, TRAIN, BadClipError, Clip, PoseBatch, ReadOptions
from training.data.safe_files import read_json

_FILES = {'training_mano.json': TRAIN, 'evaluation_mano.json': TEST}
_WIDTH = 61  # pose 48, shape 10, root in the image 2, scale 1


def list_freihand(root: Path) -> tuple[list[Clip], list[str]]:
    """One clip for each of the two sets."""
    clips, missing = [], []
    for name, split in _FILES.items():
        paths = sorted([*root.glob(name), *root.glob(f'*/{name}')])[:1]
        clips += [Clip(name.removesuffix('_mano.json'), split, path) for path in paths]
        missing += [] if paths else [name]
    return clips, missing


def read_freihand(clip: Clip, options: ReadOptions) -> PoseBatch:
    """Right hands of one set."""
    content = read_json(clip.path)
    try:
        values = np.array(content, dtype=np.float64)
        values = values.reshape(len(content), -1)
    except (TypeError, ValueError) as error:
        raise BadClipError('not a list of equally long rows of numbers') from error
    if values.shape[1] != _WIDTH:
        raise BadClipError(f'rows of {values.shape[1]} numbers, expected {_WIDTH}')
    return PoseBatch(right_hand=values[:, 3:48], betas=values[:, 48:58])
