"""BEAT2 of EMAGE: speech with body, fingers and FLAME face, four languages."""

import csv
from pathlib import Path

from training.data.amass import EXPRESSION_COLUMNS
from training.data.pose_batch import (
    TEST,
    TRAIN,
    VALID,
    Clip,
    PoseBatch,
    ReadOptions,
    padded,
    smplx_pose,
)
from training.data.safe_files import read_npz

LANGUAGES = ('english', 'chinese', 'spanish', 'japanese')
# Types of train_test_split.csv; 'additional' is trained on, as by the paper.
_SPLITS = {'train': TRAIN, 'additional': TRAIN, 'val': VALID, 'test': TEST}


def list_beat2(root: Path) -> tuple[list[Clip], list[str]]:
    """Clips of every language whose split file is there."""
    clips, missing = [], []
    for language in LANGUAGES:
        folder = root / f'beat_{language}_v2.0.0'
        table = folder / 'train_test_split.csv'
        motions = sorted(folder.glob('smplxflame_30/*.npz'))
        if not motions:
            missing.append(f'{folder.name}/smplxflame_30/*.npz')
        if not table.is_file():
            missing.append(f'{folder.name}/train_test_split.csv')
            continue
        with table.open(newline='', encoding='utf-8') as stream:
            splits = {row.get('id'): row.get('type') for row in csv.DictReader(stream)}
        for path in motions:
            split = _SPLITS.get(splits.get(path.stem) or '', TRAIN)
            clips.append(Clip(str(path.relative_to(root).with_suffix('')), split, path))
    return clips, missing


def read_beat2(clip: Clip, options: ReadOptions) -> PoseBatch:
    """Body, hands, jaw and expression of one clip."""
    arrays = read_npz(clip.path, 'poses', 'expressions')
    expression = padded(arrays['expressions'], EXPRESSION_COLUMNS)
    return PoseBatch(**smplx_pose(arrays['poses']).parts(), expression=expression)
