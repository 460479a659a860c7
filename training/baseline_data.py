"""What the competing priors are trained on: the poses ours is trained on, and distances to them.

Bodies are CMU motion without the held-out subjects, mirrored at random like for our own prior,
but not widened by recombined limbs or noise: that widening is part of our method. Whole bodies
are compositions (`training.composition`), hands and faces the synthetic ones.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dposer_core.baselines.distance_field import quat_wxyz, rotvec_of, upper_half
from dposer_core.baselines.nrdf import multiply, perturbation
from dposer_core.files import whole
from training.augment import mirror_body
from training.composition import heldout_parts, training_parts, wholebody_samples

PARTS = ('body', 'hand', 'face', 'wholebody')
_COMPOSED = 100_000  # whole bodies drawn once for a run
_COMPOSED_HELD_OUT = 4000
_HELD_OUT_PAIRS = 4000
_log = logging.getLogger(__name__)


class PoseData:
    """Rows of one part, drawn by their weights."""

    def __init__(self, packed: Mapping[str, np.ndarray], part: str, seed: int) -> None:
        """`packed`: a file of training.pack; `part`: one of PARTS."""
        train, heldout = training_parts(packed), heldout_parts(packed)
        self.part = part
        self._cumulative: Tensor | None = None
        if part == 'wholebody':
            draws = torch.Generator().manual_seed(seed)
            self._rows = wholebody_samples(train, _COMPOSED, draws)
            self.heldout = wholebody_samples(heldout, _COMPOSED_HELD_OUT, draws)
        else:
            self._rows = torch.from_numpy(np.asarray(train[part], dtype=np.float32))
            self.heldout = torch.from_numpy(np.asarray(heldout[part], dtype=np.float32))
        if part == 'body':
            self._cumulative = torch.from_numpy(train['body_weight']).double().cumsum(0)

    @property
    def dim(self) -> int:
        """Size D of a row."""
        return self._rows.shape[1]

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, D) raw rows; bodies mirrored with probability one half."""
        if self._cumulative is None:
            return self._rows[torch.randint(len(self._rows), (count,), generator=generator)]
        place = torch.rand(count, generator=generator, dtype=torch.float64)
        index = torch.searchsorted(self._cumulative, place * self._cumulative[-1])
        rows = self._rows[index.clamp(max=len(self._rows) - 1)]
        flip = torch.rand((count, 1), generator=generator) < 0.5
        return torch.where(flip, mirror_body(rows), rows)


@dataclass(frozen=True)
class PairConfig:
    """Noisy poses and their distances to the training poses."""

    pool: int = 40_000
    """Training poses that distances are measured to."""
    pairs: int = 60_000
    """Noisy poses."""
    noise_rad: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 1.0)
    """Pose-NDF: standard deviations of the axis-angle noise, one drawn for each pose."""
    mean_angle_rad: float = 0.785
    """NRDF: standard deviation of the mean angle by which the joints are turned."""
    nearest: int = 5
    """Pose-NDF: neighbours whose distance is averaged; NRDF takes the nearest."""
    candidates: int = 32
    """Poses near in quaternion space among which the nearest are looked for."""


@dataclass(frozen=True)
class Pairs:
    """Noisy poses with their distances, for training and held out."""

    quat: Tensor
    """(N, J, 4), scalar first and not negative."""
    distance: Tensor
    """(N,) rad."""
    heldout_quat: Tensor
    """Made of held-out poses in the same way; distances to the same training poses."""
    heldout_distance: Tensor


def load_pairs(folder: Path, method: str, data: PoseData, config: PairConfig, seed: int) -> Pairs:
    """The pairs of a method, made once and kept in `folder`.

    The file's name holds a hash of the settings and the data, so that it is made anew when either
    changes.
    """
    generator = torch.Generator().manual_seed(seed)
    pool = data.batch(config.pool, generator)
    digest = hashlib.sha256(json.dumps([method, data.part, seed, asdict(config)]).encode())
    digest.update(pool.numpy().data)
    digest.update(data.heldout.contiguous().numpy().data)
    path = folder / f'{method}_{data.part}_pairs_{digest.hexdigest()[:12]}.npz'
    if path.is_file():
        with np.load(path) as file:
            return Pairs(**{key: torch.from_numpy(file[key]) for key in file.files})
    _log.info('measuring distances of %d noisy poses', config.pairs)
    origin = torch.randint(len(pool), (config.pairs,), generator=generator)
    held = torch.randint(len(data.heldout), (_HELD_OUT_PAIRS,), generator=generator)
    reference = quat_wxyz(pool)
    quat = noisy_poses(method, pool[origin], config, generator)
    heldout = noisy_poses(method, data.heldout[held], config, generator)
    pairs = Pairs(
        quat,
        distances(method, quat, reference, config),
        heldout,
        distances(method, heldout, reference, config),
    )
    with whole(path) as partial:
        np.savez(partial, **{key: value.numpy() for key, value in vars(pairs).items()})
    return pairs


def noisy_poses(
    method: str, pose: Tensor, config: PairConfig, generator: torch.Generator
) -> Tensor:
    """(B, D) raw -> (B, J, 4), perturbed as the method's authors do."""
    if method == 'nrdf':
        distance = config.mean_angle_rad * torch.randn(len(pose), generator=generator)
        turn = perturbation(distance, pose.shape[1] // 3, generator)
        return upper_half(multiply(quat_wxyz(pose), turn))
    sigmas = torch.tensor(config.noise_rad)
    sigma = sigmas[torch.randint(len(sigmas), (len(pose), 1), generator=generator)]
    return quat_wxyz(pose + sigma * torch.randn(pose.shape, generator=generator))


def distances(method: str, quat: Tensor, pool: Tensor, config: PairConfig) -> Tensor:
    """(B,) distance of each pose (B, J, 4) to its nearest of the pool (N, J, 4).

    As in the authors' code, candidates are the nearest in the Euclidean sense.
    """
    flat, found = pool.flatten(1), []
    nearest = 1 if method == 'nrdf' else config.nearest
    for rows in quat.split(1000):
        # squared distances of points on a sphere fall as their products rise
        closest = (rows.flatten(1) @ flat.T).topk(config.candidates, dim=1).indices
        measured = pose_distance(method, rows[:, None], pool[closest])
        found.append(measured.topk(nearest, dim=1, largest=False).values.mean(1))
    return torch.cat(found)


def pose_distance(method: str, a: Tensor, b: Tensor) -> Tensor:
    """Distance of poses (..., J, 4), rad.

    NRDF: mean of half the joints' angles. Pose-NDF: root of the weighted sum of the squares of
    half the angles, joints near the root weighing more. Sources: the two papers.
    """
    half_angle = torch.acos((a * b).sum(-1).abs().clamp(max=1.0))
    if method == 'nrdf':
        return half_angle.mean(-1)
    return (half_angle.square() * joint_weights(a.shape[-2])).sum(-1).sqrt()


def joint_weights(joints: int) -> Tensor:
    """(J,) weights of Pose-NDF's distance for the 21 body joints, by depth; else uniform."""
    if joints != 21:
        return torch.full((joints,), joints**-0.5)
    by_depth = (7, 7, 7, 6, 6, 6, 5, 5, 5, 4, 4, 4, 4, 4, 3, 3, 3, 2, 2, 1, 1)
    return nn.functional.normalize(torch.tensor(by_depth, dtype=torch.float32), dim=0)


def random_rotations(count: int, joints: int, generator: torch.Generator) -> Tensor:
    """(count, 3 J) raw, uniform over all rotations: what no prior should like."""
    quat = torch.randn((count, joints, 4), generator=generator)
    return rotvec_of(upper_half(nn.functional.normalize(quat, dim=-1)))
