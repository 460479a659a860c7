"""Packs everything the priors are trained on into one .npz: real body poses, synthetic parts.

Body: every training clip retargeted to 30 fps; clips that repeat held-out motion left out, frames
with impossible joint angles and near duplicates dropped, the weight of long clips capped.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from rich.progress import track
from scipy.spatial import cKDTree

from dposer_core.skeleton import JOINT_NAMES
from training.data.archives import (
    DEFAULT_ROOT,
    HELD_OUT_SUBJECTS,
    TEST_SOURCES,
    TRAINING_SOURCES,
    archive_folder,
    read_clips,
)
from training.data.motion import SmplxMotion
from training.faces import FaceGeneratorConfig, generate_faces
from training.hands import HandGeneratorConfig, generate_hands, load_anchors
from training.retarget import FPS, Corrections, retarget

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
    """Write `path` from the archives under `root`; returns what was kept of what."""
    heldout = [
        retarget(motion).body
        for motion in read_clips('cmu_asf_amc', root)
        if motion.subject in HELD_OUT_SUBJECTS
    ]
    heldout_tree = cKDTree(np.concatenate(heldout)[:, _NO_WRISTS])
    report: dict = {'sources': {}, 'left_out_as_held_out': []}
    bodies, weights = [], []
    rng = np.random.default_rng(config.seed)
    for source in TRAINING_SOURCES:
        counts = report['sources'].setdefault(source, {'clips': 0, 'frames': 0, 'kept': 0})
        clips = [m for m in read_clips(source, root) if m.subject not in HELD_OUT_SUBJECTS]
        for clip in track(clips, f'{source} clips'):
            motion = retarget(clip)
            if _repeats(motion, heldout_tree, config):
                report['left_out_as_held_out'].append(motion.name)
                continue
            counts['clips'] += 1
            counts['frames'] += len(motion.body)
            others = [retarget(clip, Corrections.random(rng)) for _ in range(1, config.variants)]
            for variant in (motion, *others):
                body = _without_duplicates(variant.body[plausible(variant)], config)
                counts['kept'] += len(body)
                bodies.append(body)
                cap = config.clip_cap_seconds * FPS
                weights += [min(1.0, cap / max(len(body), 1))] * len(body)
    tests = {
        name: np.concatenate([retarget(motion).body for motion in read_clips(source, root)])
        for name, source in TEST_SOURCES.items()
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
    arrays = {
        'body': np.concatenate(bodies).astype(np.float32),
        'body_weight': np.array(weights, dtype=np.float32),
        'hand': hands.reshape(-1, 45).astype(np.float32),
        'face': faces.astype(np.float32),
        'heldout_cmu': np.concatenate(heldout).astype(np.float32),
        **{f'heldout_{name}': body.astype(np.float32) for name, body in tests.items()},
    }
    report['arrays'] = {name: list(array.shape) for name, array in arrays.items()}
    partial = path.with_suffix('.partial.npz')
    np.savez_compressed(partial, report=json.dumps(report), **arrays)
    partial.replace(path)
    return report


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
    main()
