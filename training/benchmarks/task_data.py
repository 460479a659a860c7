"""What the tables of tasks share: the prior under test, poses, rows and the paper's figures."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from dposer_core import skeleton
from dposer_core.prior.architecture import BODY_DIM, HAND_DIM, WholeBodyLayout
from dposer_core.prior.normalizer import Normalizer
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.runtime import load_prior
from training.benchmarks.generation import RuntimeNetwork, packed_path, prior_path
from training.benchmarks.report import PAPER, Column, Row
from training.benchmarks.tables import Options

EVAL_ONLY = Path(
    os.environ.get('DPOSER_EVAL_ONLY', Path(__file__).parents[3] / 'shared' / 'eval_only')
)
"""Examples of the paper's repository: only measured on, never trained on."""
MEASURE_ONLY = 'The sets "examples" are poses that the paper published: measured on, never tuned.'


def load_diffusion(options: Options, name: str) -> tuple[DiffusionPrior, Normalizer, dict]:
    """The prior of a part under test, its statistics, and the hash of each of its files."""
    torch.set_num_threads(1)
    live = load_prior(prior_path(options, name))
    normalizer = Normalizer.z_score(live.mean, live.std)
    if live.dim > BODY_DIM:
        sign = np.ones(live.dim, np.float32)
        left = WholeBodyLayout(live.num_expression).left_hand
        sign[left] = np.tile(skeleton.MIRROR_SIGN, HAND_DIM // 3)
        normalizer = dataclasses.replace(normalizer, sign=sign)
    return DiffusionPrior(RuntimeNetwork(live)), normalizer, dict(live.hashes)


def body_sets(options: Options, count: int) -> dict[str, np.ndarray]:
    """Held-out body poses (`count`, 63) by name of the set, evenly spread over it."""
    with np.load(packed_path(options)) as packed:
        sets = {'CMU': packed['test_held_out'], 'HDM05': packed['test_hdm05_asf_amc']}
    sets |= _example('toy_body_data.npz', 'pose_samples')
    return {name: _spread(poses, count) for name, poses in sets.items()}


def hand_sets(options: Options, count: int) -> dict[str, np.ndarray]:
    """Hands (`count`, 45) in right-hand form that no prior was trained on, by name of the set."""
    from training.composition import heldout_parts

    with np.load(packed_path(options)) as packed:
        sets = {'generated': heldout_parts(packed)['hand']}
    mirror = np.tile(skeleton.MIRROR_SIGN, 15)
    examples = _example('toy_hand_data.npz', 'pose_samples')
    sets |= {name: poses * mirror for name, poses in examples.items()}
    return {name: _spread(poses, count) for name, poses in sets.items()}


def face_sets(options: Options, count: int) -> dict[str, np.ndarray]:
    """Faces (`count`, 3 + E), jaw and expression, that no prior was trained on."""
    from training.composition import heldout_parts

    with np.load(packed_path(options)) as packed:
        return {'generated': _spread(heldout_parts(packed)['face'], count)}


def wholebody_sets(options: Options, count: int) -> dict[str, np.ndarray]:
    """Whole bodies (`count`, D) raw that no prior was trained on, by name of the set.

    'composed' and 'HDM05': recorded bodies with hands and faces that our generators drew and
    training left out; 'examples': recorded bodies with their own hands and a still face.
    """
    from training.composition import Composer, CompositionConfig, heldout_parts

    with np.load(packed_path(options)) as packed:
        parts = heldout_parts(packed)
        bodies = {'composed': parts['body'], 'HDM05': packed['test_hdm05_asf_amc']}
    sets = {}
    for name, body in bodies.items():
        # Of all poses alike, so that rows before and after one another are not the same motion.
        chosen = parts | {'body': body, 'body_weight': np.ones(len(body), np.float32)}
        generator = torch.Generator().manual_seed(options.seed)
        sets[name] = Composer(chosen, CompositionConfig()).samples(count, generator).numpy()
    path = EVAL_ONLY / 'toy_wholebody_data.npz'
    if path.is_file():
        sets['examples'] = _spread(read_wholebodies(path, sets['HDM05'].shape[1]), count)
    return sets


def read_wholebodies(path: Path, dim: int) -> np.ndarray:
    """(N, dim) of a file with body_pose, left_hand_pose and right_hand_pose; a still face."""
    with np.load(path) as file:
        known = [file[key] for key in ('body_pose', 'left_hand_pose', 'right_hand_pose')]
    joined = np.concatenate(known, 1)
    return np.pad(joined, ((0, 0), (0, dim - joined.shape[1])))


def motion_sets(count: int, frames: int = 60) -> dict[str, np.ndarray]:
    """Body poses (clips, `frames`, 63) of held-out clips, at most `count` of each set."""
    from training.data.heldout import load_excerpts

    clips = load_excerpts()
    chosen = [clips[i] for i in np.linspace(0, len(clips) - 1, min(count, len(clips))).astype(int)]
    sets = {'CMU': np.stack([c.pose_rotvec[:frames, 1:22].reshape(frames, 63) for c in chosen])}
    for name, poses in _example('Gestures_3_poses_batch005.npz', 'pose_body').items():
        whole = len(poses) // frames * frames
        sets[name] = poses[:whole].reshape(-1, frames, 63)[:count]
    return {name: poses.astype(np.float32) for name, poses in sets.items()}


def paper_rows(columns: Sequence[Column], rows: Mapping[str, Sequence[float]]) -> tuple[Row, ...]:
    """The paper's rows, values in the order of `columns`."""
    names = [column.name for column in columns]
    return tuple(
        Row(label, dict(zip(names, values, strict=False)), PAPER) for label, values in rows.items()
    )


def _example(file: str, key: str) -> dict[str, np.ndarray]:
    """One array of the examples, if the machine has them."""
    path = EVAL_ONLY / file
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        return {'examples': arrays[key].astype(np.float32)}


def _spread(poses: np.ndarray, count: int) -> np.ndarray:
    chosen = np.linspace(0, len(poses) - 1, min(count, len(poses))).astype(int)
    return poses[chosen].astype(np.float32)
