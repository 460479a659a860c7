"""The hand sets that HaMeR republished: MANO poses relative to the flat hand, right-hand form.

Read from the files of the DPoser-X release (dataset_params/<set>.npz) or from HaMeR's own
(dataset_contents/<set>-train/**/*.data.pyd).
"""

from pathlib import Path

import numpy as np

from dposer_core.skeleton import MIRROR_SIGN
from training.data.pose_batch import TRAIN, BadClipError, Clip, PoseBatch, ReadOptions
from training.data.safe_files import entries, read_npz, read_pickle

SETS = ('dex', 'freihand', 'h2o3d', 'ho3d', 'interhand26m')


def list_hamer(root: Path) -> tuple[list[Clip], list[str]]:
    """One clip for each set, or for each folder of a set in HaMeR's form."""
    clips, missing = [], []
    for name in SETS:
        packed = [
            p
            for p in (root / f'{name}.npz', root / 'dataset_params' / f'{name}.npz')
            if p.is_file()
        ][:1]
        folder = root / 'dataset_contents' / f'{name}-train'
        loose = sorted({path.parent for path in folder.rglob('*.data.pyd')})
        if packed:
            clips.append(Clip(name, TRAIN, packed[0]))
        elif loose:
            clips += [Clip(str(p.relative_to(folder.parent)), TRAIN, p) for p in loose]
        else:
            missing.append(f'dataset_params/{name}.npz')
    return clips, missing


def read_hamer(clip: Clip, options: ReadOptions) -> PoseBatch:
    """Right hands of one set; left ones were mirrored."""
    if clip.path.is_dir():
        return _loose(clip.path)
    arrays = read_npz(clip.path, 'hand_pose', 'betas')
    poses = arrays['hand_pose']
    if poses.ndim != 2 or poses.shape[1] != 48:
        raise BadClipError(f'hand_pose has shape {poses.shape}, expected (hands, 48)')
    return PoseBatch(right_hand=poses[:, 3:], betas=arrays['betas'])


def _loose(folder: Path) -> PoseBatch:
    poses, shapes = [], []
    for path in sorted(folder.glob('*.data.pyd')):
        try:
            (record,) = read_pickle(path)[:1]
            has_pose, has_betas, pose, betas, is_right = entries(
                record, 'has_hand_pose', 'has_betas', 'hand_pose', 'betas', 'right'
            )
            if not (has_pose and has_betas):
                continue
            hand = np.array(pose, dtype=np.float64).reshape(48)[3:]
            poses.append(hand if is_right else hand * np.tile(MIRROR_SIGN, 15))
            shapes.append(np.array(betas, dtype=np.float64).reshape(10))
        except (BadClipError, TypeError, ValueError) as error:
            raise BadClipError(f'{path.name}: {error}') from error
    if not poses:
        raise BadClipError('no hand with pose and shape in it')
    return PoseBatch(right_hand=np.stack(poses), betas=np.stack(shapes))
