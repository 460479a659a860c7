"""AMASS in its SMPL-X form, and sets with the same files: GRAB, HumanEva as sequences."""

from pathlib import Path

from training.data.pose_batch import (
    TEST,
    TRAIN,
    VALID,
    BadClipError,
    Clip,
    PoseBatch,
    ReadOptions,
    padded,
    repeated,
    smplx_pose,
)
from training.data.safe_files import read_npz

EXPRESSION_COLUMNS = 100
BETA_COLUMNS = 16
# Splits by sub-set. Source: PROTOCOLS 2.8.
SUBSETS = {
    **dict.fromkeys(
        ('CMU', 'PosePrior', 'TotalCapture', 'EyesJapanDataset', 'KIT', 'BMLrub', 'BMLmovi',
         'EKUT', 'TCDHands', 'ACCAD'),
        TRAIN,
    ),
    **dict.fromkeys(('HumanEva', 'HDM05', 'SFU', 'MoSh'), VALID),
    **dict.fromkeys(('Transitions', 'SSM'), TEST),
}  # fmt: skip
# Folder names of other releases of AMASS, in lower case without '_' and '-'.
_ALIASES = {
    'mpihdm05': 'HDM05', 'mpilimits': 'PosePrior', 'mpimosh': 'MoSh', 'transitionsmocap':
    'Transitions', 'ssmsynced': 'SSM', 'tcdhandmocap': 'TCDHands', 'eyesjapan': 'EyesJapanDataset',
    'bioml': 'BMLmovi', 'biomotionlabntroje': 'BMLrub',
}  # fmt: skip
_BY_KEY = {name.lower(): name for name in SUBSETS} | _ALIASES


def list_amass(root: Path) -> tuple[list[Clip], list[str]]:
    """Clips of the sub-sets that have a split, and the sub-sets that are missing."""
    clips, found = [], set()
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        name = _BY_KEY.get(folder.name.lower().replace('_', '').replace('-', ''))
        if name is None:
            continue
        of_folder = _stageii(folder, root, SUBSETS[name])
        found |= {name} if of_folder else set()
        clips += of_folder
    return clips, [f'{name}/<subject>/*_stageii.npz' for name in SUBSETS if name not in found]


def list_grab(root: Path) -> tuple[list[Clip], list[str]]:
    """Clips of GRAB; all of them are for training."""
    folder = root / 'GRAB' if (root / 'GRAB').is_dir() else root
    clips = _stageii(folder, root, TRAIN)
    subjects = {clip.path.parent.name for clip in clips}
    return clips, [f'GRAB/s{k}/' for k in range(1, 11) if clips and f's{k}' not in subjects]


def list_humaneva(root: Path) -> tuple[list[Clip], list[str]]:
    """Clips of HumanEva, a test set of motion denoising."""
    folder = root / 'HumanEva' if (root / 'HumanEva').is_dir() else root
    return _stageii(folder, root, TEST), []


def read_amass(clip: Clip, options: ReadOptions) -> PoseBatch:
    """Body of one clip."""
    poses = _poses(clip)
    return PoseBatch(body=smplx_pose(poses['poses']).body, betas=poses.get('betas'))


def read_grab(clip: Clip, options: ReadOptions) -> PoseBatch:
    """Body, hands, jaw and expression of one clip."""
    poses = _poses(clip)
    whole = smplx_pose(poses['poses'])
    expression = poses.get('expression')
    if expression is None:
        raise BadClipError('no expression in it; expected the SMPL-X release of GRAB in AMASS')
    return PoseBatch(**whole.parts(), expression=padded(expression, EXPRESSION_COLUMNS))


def _stageii(folder: Path, root: Path, split: str) -> list[Clip]:
    paths = sorted(folder.glob('*/*_stageii.npz'))
    return [Clip(str(p.relative_to(root)).removesuffix('_stageii.npz'), split, p) for p in paths]


def _poses(clip: Clip) -> dict:
    arrays = read_npz(clip.path, 'poses', optional=('betas', 'expression'))
    if 'betas' in arrays:
        betas = arrays['betas'].reshape(-1)[:BETA_COLUMNS]
        arrays['betas'] = padded(repeated(betas, len(arrays['poses'])), BETA_COLUMNS)
    return arrays
