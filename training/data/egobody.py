"""EgoBody: two people who talk, fitted with SMPL-X; hands as 12 principal components of MANO."""

import re
from pathlib import Path

import numpy as np

from dposer_core.errors import ModelFileError
from training.data.amass import EXPRESSION_COLUMNS
from training.data.pose_batch import (
    TEST,
    TRAIN,
    VALID,
    BadClipError,
    Clip,
    PoseBatch,
    ReadOptions,
    padded,
)
from training.data.safe_files import entries, read_pickle

_FOLDERS = {
    f'smplx_{who}_{tag}': split
    for who in ('camera_wearer', 'interactee')
    for tag, split in (('train', TRAIN), ('val', VALID), ('test', TEST))
}
_PARTS = ('body_pose', 'left_hand_pose', 'right_hand_pose', 'jaw_pose', 'expression')


def list_egobody(root: Path) -> tuple[list[Clip], list[str]]:
    """One clip for each person of a recording."""
    clips = []
    if (root / 'smplx_parameters').is_dir():
        root = root / 'smplx_parameters'
    for folder, split in _FOLDERS.items():
        for path in sorted((root / folder).glob('*/body_idx_*/results')):
            clips.append(Clip(str(path.parent.relative_to(root)), split, path))
    seen = {clip.name.split('/')[0] for clip in clips}
    return clips, [f'{folder}/' for folder in _FOLDERS if folder not in seen]


def read_egobody(clip: Clip, options: ReadOptions) -> PoseBatch:
    """All frames of one person."""
    if options.mano is None:
        raise ModelFileError(
            'EgoBody counts hands in the principal components of MANO; give --mano with the '
            'folder of MANO_LEFT.pkl and MANO_RIGHT.pkl (https://mano.is.tue.mpg.de)'
        )
    frames = sorted(clip.path.glob('frame_*/000.pkl'), key=_frame_number)
    rows: list[list[np.ndarray]] = []
    for path in frames:
        try:
            values = entries(read_pickle(path), *_PARTS)
        except BadClipError as error:
            raise BadClipError(f'{path.parent.name}/000.pkl: {error}') from error
        rows.append([np.asarray(value, dtype=np.float64).reshape(1, -1) for value in values])
    if not rows:
        raise BadClipError('no frame_*/000.pkl in it')
    body, left, right, jaw, expression = (
        np.concatenate(column) for column in zip(*rows, strict=True)
    )
    return PoseBatch(
        body=body,
        left_hand=options.mano.left.relative(left),
        right_hand=options.mano.right.relative(right),
        jaw=jaw,
        expression=padded(expression, EXPRESSION_COLUMNS),
    )


def _frame_number(path: Path) -> int:
    number = re.search(r'frame_(\d+)', path.parent.name)
    return int(number.group(1)) if number else 0
