"""Real motion that no prior was trained on: for truth tests, tables and the fixture of the tests.

Held out: subjects 02 and 03 of CMU, and HDM05 altogether. Some of CMU's exponential-map files are
the very clips of subject 02, so `is_held_out` is asked by content too (see `pack.py`).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dposer_core import skeleton
from dposer_core.errors import MediaError
from dposer_core.files import whole
from training.data.archives import DEFAULT_ROOT, HELD_OUT_SUBJECTS, read_clips
from training.data.motion import SmplxMotion
from training.retarget import retarget

FIXTURE = Path(__file__).parents[2] / 'test' / 'fixtures' / 'heldout_motion.npz'
_RESOLUTION = 1e-4  # radians (pose) and metres (pelvis) per integer step in the fixture
_HDM05_CLIPS = ('throwBasketball', 'squat')


def heldout_clips(root: Path = DEFAULT_ROOT, hdm05: bool = True) -> Iterator[SmplxMotion]:
    """CMU subjects 02 and 03, then one throw and one squat of HDM05; 30 fps, world y up."""
    for motion in read_clips('cmu_asf_amc', root):
        if motion.subject in HELD_OUT_SUBJECTS:
            yield retarget(motion)
    wanted = list(_HDM05_CLIPS) if hdm05 else []
    for motion in read_clips('hdm05_asf_amc', root) if hdm05 else ():
        found = [word for word in wanted if word in motion.name]
        if found:
            wanted.remove(found[0])
            yield retarget(motion)
        if not wanted:
            return


def excerpts(clips: Iterator[SmplxMotion], count: int, seconds: float) -> list[SmplxMotion]:
    """The `count` liveliest stretches of `seconds`, spread evenly over the clips."""
    candidates = []
    for clip in clips:
        length = round(seconds * clip.fps)
        for start in range(0, len(clip.pelvis) - length + 1, length):
            part = slice(start, start + length)
            cut = SmplxMotion(
                f'{clip.name}@{start}',
                clip.subject,
                clip.source,
                clip.fps,
                clip.pose_rotvec[part],
                clip.pelvis[part],
            )
            activity = float(np.abs(np.diff(cut.body, axis=0)).mean())
            candidates.append((clip.name, activity, cut))
    chosen: list[SmplxMotion] = []
    while candidates and len(chosen) < count:
        seen: set[str] = set()
        for item in sorted(candidates, key=lambda item: (item[0], -item[1])):
            if item[0] not in seen and len(chosen) < count:
                seen.add(item[0])
                chosen.append(item[2])
                candidates.remove(item)
    return chosen


def save_excerpts(motions: list[SmplxMotion], path: Path = FIXTURE) -> None:
    """Write `motions` (equal lengths) as one small .npz of integers, joints at rest dropped."""
    poses = np.stack([motion.pose_rotvec for motion in motions])
    joints = np.flatnonzero(poses.any(axis=(0, 1, 3)))
    pelvis = np.stack([motion.pelvis for motion in motions])
    with whole(path) as partial:
        np.savez_compressed(
            partial,
            name=np.array([motion.name for motion in motions]),
            subject=np.array([motion.subject for motion in motions]),
            source=np.array([motion.source for motion in motions]),
            fps=np.array([motion.fps for motion in motions]),
            joints=joints,
            pose_rotvec=np.round(poses[:, :, joints] / _RESOLUTION).astype(np.int16),
            pelvis=np.round(pelvis / _RESOLUTION).astype(np.int32),
        )


def load_excerpts(path: Path = FIXTURE) -> list[SmplxMotion]:
    """The motions that `save_excerpts` wrote."""
    if not path.is_file():
        raise MediaError(f'{path} not found; it belongs to the repository')
    with np.load(path) as file:
        arrays = dict(file)
    motions = []
    for i, name in enumerate(arrays['name']):
        packed = arrays['pose_rotvec'][i]
        pose = np.zeros((len(packed), skeleton.NUM_JOINTS, 3))
        pose[:, arrays['joints']] = packed * _RESOLUTION
        motions.append(
            SmplxMotion(
                str(name),
                str(arrays['subject'][i]),
                str(arrays['source'][i]),
                float(arrays['fps'][i]),
                pose,
                arrays['pelvis'][i] * _RESOLUTION,
            )
        )
    return motions
