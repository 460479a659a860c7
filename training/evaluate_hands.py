"""How well a hand prior cleans hands it never saw, in millimetres, against what is simpler.

    python -m training.evaluate_hands dposer_core/weights/hand.safetensors --extra HANDS.npz
    python -m training.evaluate_hands --leave-out data/hands_left_out.npz

The second form writes training hands around part of the anchors, and the other anchors to test on:
all of the left hand, and some poses of both. Train on it (`dposer train --data`), then measure
with `--data`.

A pose x_0 is noised to x_t and brought back by one denoising step. The error is the mean distance
of the 15 finger joints and 5 tips with the wrist fixed, on the right hand of the open body. Beside
the network stand the noisy pose itself (x_t / alpha, 'identity'), the mean pose, and the exact
posterior means of two Gaussians with mean and full covariance of the training data, as it is and
widened as in training. Noise is drawn once for all of them.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from dposer_core import rotations, skeleton
from dposer_core.body_model import VERTEX_IDS, Body, load_body
from dposer_core.errors import MediaError
from dposer_core.files import whole
from dposer_core.prior.checkpoint import PriorCheckpoint, load_checkpoint
from training.data.archives import archive_folder
from training.evaluate import Gaussian, one_step_estimates, training_gaussians
from training.hands import FINGERS, HandGeneratorConfig, generate_hands, load_anchors
from training.pack import PACKED
from training.script import run_script

TIMES = (0.05, 0.1, 0.15, 0.2, 0.3)
_TEST = 'test_hand_'
_SEED = 0  # of the noise


class HandSkeleton:
    """Bone offsets of the right hand of a body, finger by finger: three joints and a tip."""

    def __init__(self, body: Body) -> None:
        rest = body.tables.joint_template
        joints = rest[skeleton.RIGHT_HAND_JOINTS].reshape(5, 3, 3)
        tips = [body.v_template[VERTEX_IDS[f'right_{finger}_tip']] for finger in FINGERS]
        chain = np.concatenate([joints, np.array(tips)[:, None]], axis=1)
        wrist = rest[skeleton.JOINT_INDEX['right_wrist']]
        self.offsets = np.diff(chain, axis=1, prepend=np.tile(wrist, (5, 1, 1)))
        """(5, 4, 3) metres: from the parent to each joint and to the tip."""

    def points(self, pose: np.ndarray) -> np.ndarray:
        """(N, 45) axis-angle -> (N, 5, 4, 3) joints and tip of each finger from the wrist, m."""
        local = rotations.rotvec_to_rotmat(pose.reshape(-1, 5, 3, 3))
        points = [np.broadcast_to(self.offsets[:, 0], (len(local), 5, 3))]
        world = np.broadcast_to(np.eye(3), (len(local), 5, 3, 3))
        for joint in range(3):
            world = world @ local[:, :, joint]
            step = np.einsum('nfij,fj->nfi', world, self.offsets[:, joint + 1])
            points.append(points[-1] + step)
        return np.stack(points, axis=2)

    def error_mm(self, pose: np.ndarray, truth: np.ndarray) -> float:
        """Mean distance of all 20 points between poses (N, 45), millimetres."""
        return float(1000 * np.linalg.norm(self.points(pose) - self.points(truth), axis=-1).mean())


def evaluate(
    checkpoint: PriorCheckpoint,
    gaussians: Mapping[str, Gaussian],
    tests: Mapping[str, np.ndarray],
    hand: HandSkeleton,
) -> list[dict]:
    """One row per test set and time: errors in millimetres, and the gain on the best Gaussian.

    Args:
        checkpoint: the prior.
        gaussians: name -> statistics of what the network was trained on, normalised.
        tests: name -> (N, 45) raw right-hand poses.
        hand: on which distances are measured.
    """
    normalizer = checkpoint.normalizer
    rows = []
    for name, raw in tests.items():
        x_0 = normalizer.normalize(raw.astype(np.float64))
        for t in TIMES:
            estimates = one_step_estimates(checkpoint, gaussians, x_0, t, _SEED)
            row: dict = {'test': name, 't': t}
            for method, x in estimates.items():
                back = normalizer.denormalize(x.astype(np.float64))
                row[f'{method}_mm'] = hand.error_mm(back, raw)
            best = min(row[f'{g}_mm'] for g in gaussians)
            rows.append(row | {'gain_percent': 100.0 * (1.0 - row['network_mm'] / best)})
    return rows


def read_hands(path: Path) -> dict[str, np.ndarray]:
    """Name -> (N, 45) right-hand poses of a file of example poses.

    `pose_samples` of the paper's examples are left hands by their signs; `left_hand_pose` and
    `right_hand_pose` are those of a whole body. Left hands are mirrored.

    Raises:
        MediaError: none of these arrays is in the file.
    """
    mirror = np.tile(skeleton.MIRROR_SIGN, 15)
    signs = {'pose_samples': mirror, 'left_hand_pose': mirror, 'right_hand_pose': np.ones(45)}
    with np.load(path) as file:
        found = {f'{path.stem} {key}': file[key] * s for key, s in signs.items() if key in file}
    if not found:
        raise MediaError(f'{path}: no hands; expected one of the arrays {", ".join(signs)}')
    return found


def measure(checkpoint: PriorCheckpoint, data: Path, extra: Sequence[Path] = ()) -> list[dict]:
    """Rows of `evaluate` on what `data` holds out, and on the hands in the files `extra`.

    Args:
        checkpoint: the prior.
        data: the packed file that it was trained on; arrays `test_hand_<name>` are test sets.
        extra: files of `read_hands`.
    """
    with np.load(data) as packed:
        gaussians = training_gaussians(checkpoint, packed)
        tests = {key: packed[key] for key in packed if key.startswith(_TEST)}
    tests = {key.removeprefix(_TEST).replace('_', ' '): rows for key, rows in tests.items()}
    for path in extra:
        tests |= read_hands(path)
    return evaluate(checkpoint, gaussians, tests, HandSkeleton(load_body('')))


def leave_out(path: Path, folder: Path, count: int) -> None:
    """Write `hand`: `count` hands around some anchors, and `test_hand_*`: the other anchors.

    Trained on: right-hand snapshots, but for a quarter of the poses by name. Tested on: those
    poses of both hands, and the remaining snapshots of the left hand.
    """
    names, anchors = load_anchors(folder)
    poses = [name.split(' ', 1)[1] for name in names]
    names_unseen = np.random.default_rng(7).choice(sorted(set(poses)), 14, replace=False)
    unseen = np.isin(poses, names_unseen)
    right = np.array([name.startswith('right') for name in names])
    rng = np.random.default_rng([42, 1])
    hands = generate_hands(anchors[right & ~unseen], count, rng, HandGeneratorConfig())
    arrays = {
        'hand': hands,
        f'{_TEST}held_out_poses': anchors[unseen],
        f'{_TEST}other_hand': anchors[~right & ~unseen],
    }
    with whole(path) as partial:
        np.savez(partial, **{k: v.reshape(-1, 45).astype(np.float32) for k, v in arrays.items()})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', type=Path, nargs='?')
    parser.add_argument('--data', type=Path, default=PACKED, help='packed file trained on')
    parser.add_argument('--extra', type=Path, nargs='*', default=[], help='.npz of read_hands')
    parser.add_argument('--leave-out', type=Path, help='write this training and test file')
    parser.add_argument('--count', type=int, default=30_000, help='training hands of --leave-out')
    arguments = parser.parse_args()
    if arguments.leave_out:
        leave_out(arguments.leave_out, archive_folder('hands_handy'), arguments.count)
        return
    if not arguments.checkpoint:
        parser.error('give a checkpoint, or --leave-out')
    rows = measure(load_checkpoint(arguments.checkpoint), arguments.data, arguments.extra)
    if not rows:
        parser.error(f'{arguments.data} holds no test hands; give --extra')
    table = Table(title=f'{arguments.checkpoint}: error after one denoising step, mm')
    for column in rows[0]:
        table.add_column(column.removesuffix('_mm'))
    for row in rows:
        table.add_row(*(v if isinstance(v, str) else f'{v:.4g}' for v in row.values()))
    Console().print(table)


if __name__ == '__main__':
    run_script(main)
