"""Packs everything the priors are trained on into one .npz: real body poses, synthetic parts.

Body: every training clip retargeted to 30 fps; clips that repeat held-out motion left out, frames
with impossible joint angles and near duplicates dropped, the weight of long clips capped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from rich.progress import track
from scipy.spatial import cKDTree

from dposer_core.errors import ConfigError
from dposer_core.files import whole
from dposer_core.skeleton import JOINT_NAMES
from training.data.archives import (
    DEFAULT_ROOT,
    HELD_OUT,
    HELD_OUT_SUBJECTS,
    SOURCES,
    TRAINING_SOURCES,
    archive_folder,
    read_clips,
)
from training.data.motion import SmplxMotion
from training.faces import FaceGeneratorConfig, generate_faces
from training.hands import HandGeneratorConfig, generate_hands, load_anchors
from training.retarget import FPS, Corrections, retarget
from training.script import run_script

PACKED = DEFAULT_ROOT / 'packed.npz'
# Largest rotation angle (degrees) of a joint; beyond it the capture failed. Default 165.
_MAX_ANGLE = {
    'spine1': 60, 'spine2': 60, 'spine3': 60, 'neck': 60, 'head': 60, 'left_ankle': 65,
    'right_ankle': 65, 'left_wrist': 75, 'right_wrist': 75, 'left_hip': 150, 'right_hip': 150,
}  # fmt: skip
_NO_WRISTS = slice(0, 57)  # the exponential maps lack them, so the same frame differs there


@dataclass(frozen=True)
class PackConfig:
    """What is kept. Distances are Euclidean over the 63 body values, rad."""

    duplicate_distance: float = 0.12  # a pose closer than this to a kept one is dropped
    leak_distance: float = 0.10  # a training pose this close to a held-out one is the same frame
    leak_share: float = 0.05  # of matching frames, above which the whole clip is left out
    variants: int = 5  # retargetings of each clip: the default one and others with random anatomy
    clip_cap_seconds: float = 20.0  # a longer clip weighs as much as one of this length
    num_hands: int = 60_000
    num_faces: int = 40_000
    seed: int = 42


def pack(root: Path, path: Path, config: PackConfig) -> dict:
    """Write `path` from the archives under `root`; returns what was kept of what.

    Every source is packed; which of them a run trains on, and which test sets it must not have
    seen, is decided by `select_body`.
    """
    tests = _test_sets(root)
    trees = {name: cKDTree(bodies[:, _NO_WRISTS]) for name, bodies in tests.items()}
    report: dict = {'sources': {}, 'skipped': {}, 'left_out': {name: [] for name in tests}}
    arrays: dict[str, np.ndarray] = {'test_names': np.array(list(tests))}
    rng = np.random.default_rng(config.seed)
    for source in SOURCES:
        rows: list[_Rows] = []
        found = read_clips(source, root, report['skipped'])
        clips = [motion for motion in found if motion.subject not in HELD_OUT_SUBJECTS]
        for clip in track(clips, f'{source} clips'):
            default = retarget(clip)
            repeats = {name: _repeats(default, tree, config) for name, tree in trees.items()}
            others = [retarget(clip, Corrections.random(rng)) for _ in range(1, config.variants)]
            for variant in (default, *others):
                body = _without_duplicates(variant.body[plausible(variant)], config)
                rows.append(_Rows(body, list(repeats.values()), config))
            for name in (n for n, is_repeat in repeats.items() if is_repeat and n != source):
                report['left_out'][name].append(clip.name)
        arrays[f'body_{source}'] = np.concatenate([row.body for row in rows]).astype(np.float32)
        arrays[f'weight_{source}'] = np.concatenate([row.weight for row in rows])
        arrays[f'repeats_{source}'] = np.concatenate([row.repeats for row in rows])
        report['sources'][source] = {
            'clips': len(clips),
            'frames': sum(len(row.body) for row in rows[:: config.variants]),
            'kept': len(arrays[f'body_{source}']),
        }
    _, anchors = load_anchors(archive_folder('hands_handy', root))
    hands = generate_hands(
        anchors,
        config.num_hands,
        np.random.default_rng([config.seed, 1]),
        HandGeneratorConfig(),
    )
    face_rng = np.random.default_rng([config.seed, 2])
    faces = generate_faces(config.num_faces, face_rng, FaceGeneratorConfig())
    arrays |= {
        'hand': hands.reshape(-1, 45).astype(np.float32),
        'face': faces.astype(np.float32),
        **{f'test_{name}': body.astype(np.float32) for name, body in tests.items()},
    }
    report['arrays'] = {name: list(array.shape) for name, array in arrays.items()}
    with whole(path) as partial:
        np.savez_compressed(partial, report=json.dumps(report), **arrays)
    return report


class _Rows:
    """What the packed arrays say about the poses of one clip."""

    def __init__(self, body: np.ndarray, repeats: list[bool], config: PackConfig) -> None:
        cap = config.clip_cap_seconds * FPS
        self.body = body
        self.weight = np.full(len(body), min(1.0, cap / max(len(body), 1)), dtype=np.float32)
        self.repeats = np.tile(np.array(repeats, dtype=bool), (len(body), 1))


def _test_sets(root: Path) -> dict[str, np.ndarray]:
    """Poses (M, 63) of each test set: the held-out subjects, and every source as a whole.

    A whole source is the test set of a run that leaves this source out.
    """
    whole = {
        source: [(m.subject, retarget(m).body) for m in read_clips(source, root)]
        for source in SOURCES
    }
    heldout = [
        body for clips in whole.values() for subject, body in clips if subject in HELD_OUT_SUBJECTS
    ]
    tests = {source: np.concatenate([b for _, b in clips]) for source, clips in whole.items()}
    return {HELD_OUT: np.concatenate(heldout)} | tests


def select_body(
    packed: Mapping[str, np.ndarray],
    sources: Sequence[str] = TRAINING_SOURCES,
    unseen: Sequence[str] = (HELD_OUT,),
) -> tuple[np.ndarray, np.ndarray]:
    """Poses (N, 63) and weights (N,) of `sources`, but of no clip that repeats an `unseen` set.

    Args:
        packed: a file of `pack`.
        sources: names of SOURCES, or of prepared sets that were packed as well.
        unseen: names of test sets (`test_names` of the file).

    Raises:
        ConfigError: a name that the file does not know.
    """
    known = [key.removeprefix('repeats_') for key in packed if key.startswith('repeats_')]
    tests = [str(name) for name in packed['test_names']]
    for name in [*(n for n in sources if n not in known), *(n for n in unseen if n not in tests)]:
        raise ConfigError(f"'{name}' is not packed; sources: {known}, test sets: {tests}")
    columns = [tests.index(name) for name in unseen]
    bodies, weights = [], []
    for source in sources:
        keep = ~packed[f'repeats_{source}'][:, columns].any(axis=1)
        bodies.append(packed[f'body_{source}'][keep])
        weights.append(packed[f'weight_{source}'][keep])
    return np.concatenate(bodies), np.concatenate(weights)


def plausible(motion: SmplxMotion) -> np.ndarray:
    """(T,) True where no body joint turns beyond what it can."""
    angle = np.degrees(np.linalg.norm(motion.pose_rotvec[:, 1:22], axis=-1))
    limit = [_MAX_ANGLE.get(name, 165) for name in JOINT_NAMES[1:22]]
    return (angle <= np.array(limit)).all(axis=1)


def _repeats(motion: SmplxMotion, heldout: cKDTree, config: PackConfig) -> bool:
    distance, _ = heldout.query(
        motion.body[:, _NO_WRISTS], distance_upper_bound=config.leak_distance
    )
    return bool(np.isfinite(distance).mean() > config.leak_share)


def _without_duplicates(body: np.ndarray, config: PackConfig) -> np.ndarray:
    """`body` (T, 63) without frames too close to the last kept one."""
    kept: list[int] = []
    for i, pose in enumerate(body):
        if not kept or np.linalg.norm(pose - body[kept[-1]]) >= config.duplicate_distance:
            kept.append(i)
    return body[kept]


def main() -> None:
    """Command line: pack what `configs/data.yaml` says."""
    settings = yaml.safe_load((Path(__file__).parent / 'configs' / 'data.yaml').read_text())
    print(json.dumps(pack(DEFAULT_ROOT, PACKED, PackConfig(**settings)), indent=2))


if __name__ == '__main__':
    run_script(main)
