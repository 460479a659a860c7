"""How well a prior cleans poses it never saw, against a plain Gaussian (Wiener) posterior.

    python -m training.evaluate data/runs/body.safetensors

Each pose x_0 is noised to x_t and brought back by one denoising step; the error is that of the
returned pose, in degrees per joint and, for bodies, in millimetres of joint position with the
pelvis fixed. The Gaussians have the mean and full covariance of what the network was trained on
and return the exact posterior mean: what a network must beat to be worth its time.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from dposer_core import rotations, skeleton
from dposer_core.files import write_json
from dposer_core.prior.architecture import JAW_DIM, label_of
from dposer_core.prior.checkpoint import PriorCheckpoint, load_checkpoint
from dposer_core.prior.network import from_weights
from dposer_core.prior.sde import SubVP
from training.augment import AugmentConfig, Augmenter
from training.data.archives import HELD_OUT
from training.pack import PACKED
from training.script import run_script

TIMES = (0.05, 0.1, 0.15, 0.2, 0.3)


def denoise_network(checkpoint: PriorCheckpoint, x_t: np.ndarray, t: float) -> np.ndarray:
    """Normalised x_t (N, D) -> x_0 estimate (N, D) by the network."""
    scaled = checkpoint.config.scale_by_sigma
    network = from_weights(checkpoint.weights, scale_by_sigma=scaled)
    x = torch.from_numpy(x_t.astype(np.float32))
    with torch.no_grad():
        eps = network(x, torch.full((len(x),), label_of(t)))
    return SubVP().x0_hat(x, eps, t).numpy()


def denoise_gaussian(
    mean: np.ndarray, covariance: np.ndarray, x_t: np.ndarray, t: float
) -> np.ndarray:
    """Posterior mean of x_0 ~ N(mean, covariance) given x_t = alpha x_0 + sigma noise."""
    alpha, sigma = SubVP().alpha(t), SubVP().sigma(t)
    total = alpha**2 * covariance + sigma**2 * np.eye(len(mean))
    gain = alpha * np.linalg.solve(total, covariance).T
    return mean + (x_t - alpha * mean) @ gain.T


def angle_error_deg(raw: np.ndarray, truth: np.ndarray) -> float:
    """Mean angle between rotations of axis-angle vectors (N, 3 J), degrees."""
    a = rotations.rotvec_to_rotmat(raw.reshape(-1, 3))
    b = rotations.rotvec_to_rotmat(truth.reshape(-1, 3))
    cosine = (np.einsum('nij,nij->n', a, b) - 1.0) / 2.0
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).mean())


def joint_error_mm(raw: np.ndarray, truth: np.ndarray, offsets: np.ndarray) -> float:
    """Mean distance of body joints 1 to 21 with the pelvis fixed, millimetres."""
    return float(
        1000.0
        * np.linalg.norm(body_joints(raw, offsets) - body_joints(truth, offsets), axis=-1).mean()
    )


def body_joints(body: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(N, 63) body pose -> (N, 21, 3) joint positions relative to the pelvis.

    Args:
        body: axis-angle of SMPL-X joints 1 to 21.
        offsets: (55, 3) rest position of each joint relative to its parent, metres.
    """
    local = rotations.rotvec_to_rotmat(body.reshape(-1, 21, 3))
    world = [np.broadcast_to(np.eye(3), (len(body), 3, 3))]
    position = [np.zeros((len(body), 3))]
    for joint in range(1, 22):
        parent = skeleton.PARENTS[joint]
        position.append(position[parent] + world[parent] @ offsets[joint])
        world.append(world[parent] @ local[:, joint - 1])
    return np.stack(position[1:], axis=1)


Gaussian = tuple[np.ndarray, np.ndarray]
"""Mean (D,) and covariance (D, D) of normalised vectors."""


def one_step_estimates(
    checkpoint: PriorCheckpoint,
    gaussians: Mapping[str, Gaussian],
    x_0: np.ndarray,
    t: float,
    seed: int,
) -> dict[str, np.ndarray]:
    """What each method makes of x_0 noised to t; method -> (N, D) normalised.

    Args:
        checkpoint: the prior.
        gaussians: name -> statistics of what the network was trained on, normalised.
        x_0: (N, D) normalised truth.
        t: diffusion time.
        seed: of the noise, the same for every method.
    """
    noise = np.random.default_rng(seed).normal(size=x_0.shape)
    x_t = SubVP().add_noise(x_0, t, noise)
    return {
        'identity': x_t / SubVP().alpha(t),
        'mean': np.zeros_like(x_t),
        **{name: denoise_gaussian(*moments, x_t, t) for name, moments in gaussians.items()},
        'network': denoise_network(checkpoint, x_t, t),
    }


def evaluate(
    checkpoint: PriorCheckpoint,
    gaussians: Mapping[str, Gaussian],
    tests: Mapping[str, np.ndarray],
    offsets: np.ndarray | None,
    seed: int = 0,
) -> list[dict]:
    """One row per test set and time: errors of every method, noise drawn once for all of them.

    Methods: `identity` (x_t / alpha, nothing done), `mean` (the mean pose), the Gaussians, and
    the `network`. Keys of a row are `<method>_deg`, `<method>_x` and, for bodies, `<method>_mm`.

    Args:
        checkpoint: the prior.
        gaussians: name -> statistics of what the network was trained on.
        tests: name -> (N, D) raw vectors.
        offsets: bone offsets for millimetres (body only), else None.
        seed: of the noise.
    """
    normalizer = checkpoint.normalizer
    rows = []
    for name, raw in tests.items():
        x_0 = normalizer.normalize(raw.astype(np.float64))
        for t in TIMES:
            estimates = one_step_estimates(checkpoint, gaussians, x_0, t, seed)
            row: dict = {'test': name, 't': t}
            for method, estimate in estimates.items():
                back = normalizer.denormalize(estimate.astype(np.float64))
                turns = JAW_DIM if checkpoint.part == 'face' else checkpoint.config.dim
                row[f'{method}_deg'] = angle_error_deg(back[:, :turns], raw[:, :turns])
                row[f'{method}_x'] = float(np.sqrt(((estimate - x_0) ** 2).mean()))
                if offsets is not None:
                    row[f'{method}_mm'] = joint_error_mm(back, raw, offsets)
            rows.append(row)
    return rows


def training_gaussians(
    checkpoint: PriorCheckpoint, packed: Mapping[str, np.ndarray]
) -> dict[str, Gaussian]:
    """Mean and covariance of the checkpoint's own training split, as it is and as it was widened.

    Widening helps a Gaussian on poses of another origin and hurts it elsewhere, so a network is
    held against both.
    """
    run = checkpoint.notes['run']
    chosen = {key: run[key] for key in ('sources', 'unseen') if key in run}
    gaussians = {}
    for name, widening in (
        ('gaussian', AugmentConfig(std_floor=run['augment'].get('std_floor', 0.0), fill=False)),
        ('widened_gaussian', AugmentConfig(**run['augment'])),
    ):
        source = Augmenter.from_packed(packed, checkpoint.part, widening, **chosen)
        x_0 = source.batch(100_000, torch.Generator().manual_seed(0)).double().numpy()
        gaussians[name] = (x_0.mean(0), np.cov(x_0, rowvar=False))
    return gaussians


def open_body_offsets() -> np.ndarray:
    """(55, 3) bone offsets of the open body, metres."""
    from dposer_core.body_model import load_body

    joints = load_body('').tables.joint_template
    return joints - np.where(skeleton.PARENTS[:, None] >= 0, joints[skeleton.PARENTS], 0.0)


def measure(checkpoint: PriorCheckpoint, data: Path, extra: Path | None = None) -> list[dict]:
    """Rows of `evaluate` on what the packed file `data` holds out for this part, and on `extra`.

    Args:
        checkpoint: the prior.
        data: file of training.pack.
        extra: .npz with `pose_samples` (N, D) of another origin; hands as left hands.
    """
    tests = {}
    with np.load(data) as packed:
        gaussians = training_gaussians(checkpoint, packed)
        if checkpoint.part == 'body':
            tests = {
                'CMU 02, 03': packed[f'test_{HELD_OUT}'],
                'HDM05': packed['test_hdm05_asf_amc'][::3],
                'DeepMimic': packed['test_deepmimic'][::2],
            }
        elif not extra:  # synthetic: fresh draws are all there is
            widening = AugmentConfig(**checkpoint.notes['run']['augment'])
            source = Augmenter.from_packed(packed, checkpoint.part, widening)
            fresh = source.batch(2_000, torch.Generator().manual_seed(1)).double().numpy()
            tests['fresh synthetic'] = checkpoint.normalizer.denormalize(fresh)
    if extra:
        with np.load(extra) as file:
            samples = file['pose_samples']
        if checkpoint.part == 'hand':
            samples = samples * np.tile(skeleton.MIRROR_SIGN, samples.shape[1] // 3)
        tests[extra.stem] = samples
    offsets = open_body_offsets() if checkpoint.part == 'body' else None
    return evaluate(checkpoint, gaussians, tests, offsets)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--data', type=Path, default=PACKED, help='file of training.pack')
    parser.add_argument('--extra', type=Path, help='.npz with pose_samples (N, D) to measure on')
    parser.add_argument('--json', type=Path, help='write the figures here')
    arguments = parser.parse_args()
    rows = measure(load_checkpoint(arguments.checkpoint), arguments.data, arguments.extra)
    unit = 'mm' if 'network_mm' in rows[0] else 'x'
    title = f'{arguments.checkpoint.name}: error after one denoising step ({unit})'
    shown = ['test', 't', *(key for key in rows[0] if key.endswith(f'_{unit}'))]
    table = Table(*(key.removesuffix(f'_{unit}') for key in shown), title=title)
    for row in rows:
        values = (row[key] for key in shown)
        table.add_row(*(v if isinstance(v, str) else f'{v:.4g}' for v in values))
    Console().print(table)
    if arguments.json:
        write_json(arguments.json, rows)


if __name__ == '__main__':
    run_script(main)
