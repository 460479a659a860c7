"""DexYCB: a hand that grasps an object; MANO principal components, relative to the mean hand.

Read from pose.npz of each sequence: what the labels of its eight cameras repeat differs from it in
the wrist only. Splits are those of set-up S0 (each fifth sequence of a subject is not trained on).
"""

from pathlib import Path

import numpy as np
import yaml

from dposer_core.errors import ModelFileError
from training.data.pose_batch import (
    TEST,
    TRAIN,
    VALID,
    BadClipError,
    Clip,
    PoseBatch,
    ReadOptions,
    repeated,
)
from training.data.safe_files import read_npz

NUM_SUBJECTS = 10
_VALID_SUBJECTS = 2  # the first so many; the others test


def list_dexycb(root: Path) -> tuple[list[Clip], list[str]]:
    """One clip for each sequence."""
    clips = []
    subjects = sorted(p for p in root.glob('20*-subject-*') if p.is_dir())
    for subject in subjects:
        number = int(subject.name.rsplit('-', 1)[-1])
        held_out = VALID if number <= _VALID_SUBJECTS else TEST
        for index, path in enumerate(sorted(p for p in subject.iterdir() if p.is_dir())):
            split = held_out if index % 5 == 4 else TRAIN
            clips.append(Clip(f'{subject.name}/{path.name}', split, path))
    numbers = {int(p.name.rsplit('-', 1)[-1]) for p in subjects}
    missing = [f'*-subject-{n:02d}/' for n in range(1, NUM_SUBJECTS + 1) if n not in numbers]
    return clips, missing + ([] if (root / 'calibration').is_dir() else ['calibration/'])


def read_dexycb(clip: Clip, options: ReadOptions) -> PoseBatch:
    """The hand of one sequence; frames before it comes into view are left out."""
    if options.mano is None:
        raise ModelFileError(
            'DexYCB counts hands in the principal components of MANO; give --mano with the '
            'folder of MANO_LEFT.pkl and MANO_RIGHT.pkl (https://mano.is.tue.mpg.de)'
        )
    meta = _yaml(clip.path / 'meta.yml')
    try:
        side, calibration = str(meta['mano_sides'][0]), str(meta['mano_calib'][0])
    except (KeyError, IndexError, TypeError) as error:
        raise BadClipError('meta.yml has no mano_sides and mano_calib') from error
    if side not in ('left', 'right'):
        raise BadClipError(f"meta.yml: mano_sides '{side}', expected left or right")
    poses = read_npz(clip.path / 'pose.npz', 'pose_m')['pose_m']
    if poses.ndim != 3 or poses.shape[1:] != (1, 51):
        raise BadClipError(f'pose_m has shape {poses.shape}, expected (frames, 1, 51)')
    poses = poses[:, 0]
    poses = poses[(poses != 0).any(axis=1)]
    if not len(poses):
        raise BadClipError('the hand is in no frame')
    calibrated = _yaml(clip.path.parents[1] / 'calibration' / f'mano_{calibration}' / 'mano.yml')
    betas = np.asarray(calibrated.get('betas', ()), dtype=np.float64)
    if betas.shape != (10,):
        raise BadClipError(f'mano_{calibration}/mano.yml: expected 10 betas')
    hand = getattr(options.mano, side).relative(poses[:, 3:48])
    return PoseBatch(**{f'{side}_hand': hand, 'betas': repeated(betas, len(hand))})


def _yaml(path: Path) -> dict:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadClipError(f'{path.name} is missing or not readable') from error
    if not isinstance(content, dict):
        raise BadClipError(f'{path.name} holds no values')
    return content
