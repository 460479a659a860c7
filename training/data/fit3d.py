"""Fit3D: fitness exercises with SMPL-X as rotation matrices in JSON files."""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from training.data.pose_batch import (
    TEST,
    TRAIN,
    BadClipError,
    Clip,
    PoseBatch,
    ReadOptions,
    padded,
)
from training.data.safe_files import entries, read_json

_TEST_SUBJECT = 's04'  # of the paper's tables
_PARTS = ('body_pose', 'left_hand_pose', 'right_hand_pose', 'jaw_pose')
_JOINTS = (21, 15, 15, 1)


def list_fit3d(root: Path) -> tuple[list[Clip], list[str]]:
    """One clip for each exercise of a subject."""
    clips = []
    for path in sorted(root.glob('train/*/smplx/*.json')):
        subject = path.parents[1].name
        split = TEST if subject == _TEST_SUBJECT else TRAIN
        clips.append(Clip(f'{subject}/{path.stem}', split, path))
    tested = any(clip.split == TEST for clip in clips)
    return clips, [] if tested or not clips else [f'train/{_TEST_SUBJECT}/smplx/*.json']


def read_fit3d(clip: Clip, options: ReadOptions) -> PoseBatch:
    """All parts of one clip."""
    content = read_json(clip.path)
    body, left, right, jaw = (
        _rotvec(np.asarray(value, dtype=np.float64), name, joints)
        for value, name, joints in zip(entries(content, *_PARTS), _PARTS, _JOINTS, strict=True)
    )
    (expression,) = entries(content, 'expression')
    return PoseBatch(body, left, right, jaw, padded(np.asarray(expression), 10))


def _rotvec(rotmat: np.ndarray, name: str, joints: int) -> np.ndarray:
    if rotmat.ndim != 4 or rotmat.shape[1:] != (joints, 3, 3):
        raise BadClipError(f'{name} has shape {rotmat.shape}, expected (frames, {joints}, 3, 3)')
    if not np.isfinite(rotmat).all():
        raise BadClipError(f'{name} has NaN or infinity')
    if np.abs(rotmat @ rotmat.swapaxes(-1, -2) - np.eye(3)).max(initial=0.0) > 1e-2:
        raise BadClipError(f'{name} holds matrices that are no rotations')
    return Rotation.from_matrix(rotmat.reshape(-1, 3, 3)).as_rotvec().reshape(len(rotmat), -1)
