"""Batches of one part: weighted draws, mirrored, widened and normalised.

Free motion data is narrow: few people, joints that never move, limbs that always go together. A
network trained on it as it is takes ordinary poses of other people for noise. So half of the body
samples get their limbs from different clips, half get noise, and no value stands still: knees and
elbows of the sources are pure hinges and their toes never move, where people and SMPL-X fits show
rotations of some degrees about every axis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from scipy.spatial import cKDTree
from torch import Tensor

from dposer_core import skeleton
from dposer_core.skeleton import JOINT_INDEX
from training.data.archives import HELD_OUT, TRAINING_SOURCES
from training.pack import select_body


@dataclass(frozen=True)
class AugmentConfig:
    """How samples are widened."""

    recombine_share: float = 0.0  # of samples: limbs from different clips (body only)
    noise_share: float = 0.0  # of samples: joint noise
    noise_sigma: float = 0.2  # of that noise, in standard deviations of each value
    noise_sigma_low: float = 0.0  # above 0: sigma differs by sample, from here up, log-uniform
    std_floor: float = 0.0  # rad; smallest standard deviation that a value is divided by
    fill: bool = True  # values that vary less get noise that fills them up to the floor
    clusters: int = 0  # above 0: draw each of so many kinds of pose equally often (body only)


# Limbs exchanged between clips: joints of the 63 body values.
LIMBS = {
    'left_leg': ('left_hip', 'left_knee', 'left_ankle', 'left_foot'),
    'right_leg': ('right_hip', 'right_knee', 'right_ankle', 'right_foot'),
    'spine': ('spine1', 'spine2', 'spine3'),
    'head': ('neck', 'head'),
    'left_arm': ('left_collar', 'left_shoulder', 'left_elbow', 'left_wrist'),
    'right_arm': ('right_collar', 'right_shoulder', 'right_elbow', 'right_wrist'),
}

_CLUSTERED_ROWS = 40_000  # poses that clusters are found in


class Augmenter:
    """Source of normalised training batches of one part."""

    def __init__(self, poses: Tensor, weights: Tensor, part: str, config: AugmentConfig) -> None:
        """Takes the raw poses and measures their statistics.

        Args:
            poses: (N, D) raw vectors; body poses already with their mirror images.
            weights: (N,) chance of each to be drawn, any scale.
            part: 'body', 'hand' or 'face'.
            config: how batches are widened.
        """
        self.config = config
        self.part = part
        self._poses = poses
        self._cumulative = torch.cumsum(weights.double(), 0)
        share = (weights / weights.sum())[:, None]
        self.mean = (share * poses).sum(0)
        spread = (share * (poses - self.mean) ** 2).sum(0).sqrt()
        self.std = spread.clamp(min=max(config.std_floor, 1e-6))
        missing = (self.std**2 - spread**2).clamp(min=0.0).sqrt() / self.std
        self._fill = missing if config.fill else torch.zeros_like(missing)
        self._limbs = _limb_columns() if part == 'body' else []

    @staticmethod
    def from_packed(
        packed: Mapping[str, np.ndarray],
        part: str,
        config: AugmentConfig,
        sources: Sequence[str] = TRAINING_SOURCES,
        unseen: Sequence[str] = (HELD_OUT,),
    ) -> 'Augmenter':
        """The part's poses of a file of `training.pack`; body poses get their mirror images.

        `sources` and `unseen` choose body poses, see `select_body`.
        """
        if part != 'body':
            poses = torch.from_numpy(packed[part]).float()
            return Augmenter(poses, torch.ones(len(poses)), part, config)
        rows, row_weights = select_body(packed, sources, unseen)
        if config.clusters:
            row_weights = balanced_weights(rows, row_weights, config.clusters)
        poses, weights = torch.from_numpy(rows), torch.from_numpy(row_weights)
        poses, weights = torch.cat([poses, mirror_body(poses)]), torch.cat([weights, weights])
        return Augmenter(poses, weights, part, config)

    @property
    def dim(self) -> int:
        """Size D of a vector."""
        return self._poses.shape[1]

    @property
    def fill(self) -> Tensor:
        """(D,) standard deviation of the noise that fills a value up to the floor."""
        return self._fill

    def normalized(self) -> Tensor:
        """(N, D) all poses as they are, normalised; weights do not show in them."""
        return (self._poses - self.mean) / self.std

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, D) normalised."""
        poses = self._draw(count, generator)
        recombined = torch.rand(count, generator=generator) < self.config.recombine_share
        for columns in self._limbs:
            mixed = recombined & (torch.rand(count, generator=generator) < 0.5)
            poses[:, columns] = torch.where(
                mixed[:, None], self._draw(count, generator)[:, columns], poses[:, columns]
            )
        x = (poses - self.mean) / self.std
        noise = torch.randn(x.shape, generator=generator)
        noisy = torch.rand((count, 1), generator=generator) < self.config.noise_share
        sigma: float | Tensor = self.config.noise_sigma
        if low := self.config.noise_sigma_low:
            sigma = low * (sigma / low) ** torch.rand((count, 1), generator=generator)
        x = x + noise * noisy * sigma
        return x + torch.randn(x.shape, generator=generator) * self._fill

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        position = torch.rand(count, generator=generator, dtype=torch.float64)
        index = torch.searchsorted(self._cumulative, position * self._cumulative[-1])
        return self._poses[index.clamp(max=len(self._poses) - 1)]


def balanced_weights(poses: np.ndarray, weights: np.ndarray, clusters: int) -> np.ndarray:
    """(N,) `weights` scaled so that every cluster of `poses` (N, D) is drawn equally often.

    Against the bias of motion data to people who stand (DPoser-X, section K).
    """
    rng = np.random.default_rng(0)
    known = poses[rng.choice(len(poses), min(len(poses), _CLUSTERED_ROWS), replace=False)]
    centres, _ = kmeans2(known.astype(np.float64), clusters, minit='points', seed=0)
    _, label = cKDTree(centres).query(poses)
    mass = np.bincount(label, weights, minlength=clusters)
    return (weights / mass[label]).astype(np.float32)


def mirror_body(poses: Tensor) -> Tensor:
    """(N, 63) body poses seen in a mirror."""
    order = skeleton.mirror_joints()[skeleton.BODY_JOINTS] - 1
    sign = torch.as_tensor(skeleton.MIRROR_SIGN, dtype=poses.dtype)
    return (poses.reshape(-1, len(order), 3)[:, order] * sign).reshape(poses.shape)


def _limb_columns() -> list[Tensor]:
    """Columns of the 63 body values that belong to each limb."""
    first = skeleton.BODY_JOINTS.start
    return [
        torch.tensor([3 * (JOINT_INDEX[name] - first) + i for name in names for i in range(3)])
        for names in LIMBS.values()
    ]
