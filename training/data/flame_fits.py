"""FLAME fits to scans, one .npz per scan: the sets of MICA, and WCPA.

`pose` holds root, neck, jaw and eyes (15), `betas` 300 of shape and 100 of expression.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.data.pose_batch import TEST, TRAIN, VALID, BadClipError, Clip, PoseBatch, ReadOptions
from training.data.safe_files import read_npz

SHAPE_COLUMNS = 300
EXPRESSION_COLUMNS = 100
_FOLDER, _MERGED = 'FLAME_parameters', 'merged_flame_data.npz'
# Sub-sets with their splits. Source: PROTOCOLS 2.8.
MICA_SETS = {
    **dict.fromkeys(
        ('FACEWAREHOUSE', 'FLORENCE', 'FRGC', 'FT', 'STIRLING', 'LYHM_TRAIN', 'WCPA_TRAIN'), TRAIN
    ),
    **dict.fromkeys(('LYHM_VALID', 'WCPA_VALID'), VALID),
}
WCPA_SETS = {'WCPAPRE_TRAIN': TRAIN, 'WCPAPRE_VALID': TEST}

Lister = Callable[[Path], tuple[list[Clip], list[str]]]


def lister(sets: dict[str, str]) -> Lister:
    """The function that finds the fits of `sets`: single ones, or those of a merged file."""

    def list_fits(root: Path) -> tuple[list[Clip], list[str]]:
        clips, missing = [], []
        folders = {p.name.upper(): p for p in root.iterdir() if p.is_dir()}
        for name, split in sets.items():
            folder = folders.get(name, root / name)
            paths = sorted((folder / _FOLDER).rglob('*.npz'))
            if not paths and (folder / _MERGED).is_file():
                paths = [folder / _MERGED]
            clips += [Clip(str(p.relative_to(root).with_suffix('')), split, p) for p in paths]
            missing += [] if paths else [f'{name}/{_FOLDER}/**/*.npz']
        return clips, missing

    return list_fits


def read_flame(clip: Clip, options: ReadOptions) -> PoseBatch:
    """Jaw, expression and shape of one scan or of a merged file."""
    if clip.path.name == _MERGED:
        arrays = read_npz(clip.path, 'jaw_pose', 'expression', 'betas')
        return PoseBatch(
            jaw=arrays['jaw_pose'], expression=arrays['expression'], betas=arrays['betas']
        )
    arrays = read_npz(clip.path, 'pose', 'betas')
    pose, betas = np.ravel(arrays['pose']), np.ravel(arrays['betas'])
    if len(pose) < 9 or len(betas) < SHAPE_COLUMNS + EXPRESSION_COLUMNS:
        raise BadClipError(
            f'pose of {len(pose)} and betas of {len(betas)} numbers, expected at '
            f'least 9 and {SHAPE_COLUMNS + EXPRESSION_COLUMNS}'
        )
    return PoseBatch(
        jaw=pose[None, 6:9],
        expression=betas[None, SHAPE_COLUMNS : SHAPE_COLUMNS + EXPRESSION_COLUMNS],
        betas=betas[None, :SHAPE_COLUMNS],
    )
