"""A Gaussian mixture fitted to training data, and what it makes of noised samples: a teacher.

The noise that a denoising network is trained to predict is mostly luck; its mean given x_t is all
that the network can learn. A mixture has this mean in closed form. Trained on it, a small network
on a CPU gets in some thousand steps where it would not get in a hundred thousand.

Each cluster of the data appears at every strength of the widening noise (`AugmentConfig`). The
posterior therefore tells an ordinary pose, which it pulls towards its cluster, from one of another
origin, which it leaves alone; one Gaussian must treat both alike.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from dposer_core.prior.sde import SubVP
from training.augment import Augmenter
from training.losses import Draw, draw_times

_KMEANS_ROUNDS = 8
_SMALLEST = 6  # samples; a cluster with fewer is dropped
_ROWS = 64  # that share a diffusion time, which makes their posterior six times as cheap


@dataclass(frozen=True)
class TeacherConfig:
    """A mixture as teacher, or none."""

    clusters: int = 0  # 0: no teacher, the network learns from the noise itself
    strengths: int = 4  # of the widening noise, that each cluster appears at
    borrowed: float = 45.0  # samples' worth of the mean covariance that every cluster is given
    broad_share: float = 0.1  # weight of one Gaussian over all data
    pool: int = 100_000  # noised samples that are computed once and used again and again


class Mixture:
    """Gaussians over the widened, normalised data of an `Augmenter`."""

    def __init__(self, data: Augmenter, config: TeacherConfig, seed: int = 0) -> None:
        x = data.normalized().double().numpy()
        _, label = kmeans2(x, config.clusters, minit='points', seed=seed, iter=_KMEANS_ROUNDS)
        clusters = [x[label == k] for k in range(config.clusters)]
        clusters = [c for c in clusters if len(c) >= _SMALLEST]
        kept = sum(map(len, clusters))
        covariances = [np.cov(c, rowvar=False) for c in clusters]
        common = sum(len(c) * v for c, v in zip(clusters, covariances, strict=True)) / kept
        fill = np.diag(data.fill.double().numpy() ** 2)
        means = [c.mean(0) for c in clusters] + [x.mean(0)]
        shares = [(1 - config.broad_share) * len(c) / kept for c in clusters]
        parts = [
            (len(c) * v + config.borrowed * common) / (len(c) + config.borrowed) + fill
            for c, v in zip(clusters, covariances, strict=True)
        ]
        eigen = [np.linalg.eigh(part) for part in [*parts, np.cov(x, rowvar=False) + fill]]
        self._mean = _float([*means])  # (K, D)
        self._log_share = _float([*shares, config.broad_share]).log()  # (K,)
        self._variance = _float([values for values, _ in eigen]).clamp(min=0.0)  # (K, D)
        self._basis = _float([vectors for _, vectors in eigen])  # (K, D, D)
        self._turned_mean = torch.einsum('kd,kde->ke', self._mean, self._basis)
        shares, variances = _strengths(data, config.strengths)
        self._log_share = self._log_share[:, None] + _float(shares).log()  # (K, strengths)
        self._noise = _float(variances)[:, None]

    def posterior_mean(self, x_t: Tensor, t: float) -> Tensor:
        """Expected x_0 (B, D) given x_t (B, D), all at time t."""
        count = len(x_t)
        alpha, sigma = SubVP().alpha(t), SubVP().sigma(t)
        offset = x_t @ self._basis - alpha * self._turned_mean[:, None]  # (K, B, D)
        spread = self._variance[:, None] + self._noise  # (K, strengths, D)
        total = alpha**2 * spread + sigma**2
        fit = offset.square() @ total.reciprocal().transpose(1, 2)  # (K, B, strengths)
        log = self._log_share[:, None] - 0.5 * (fit + total.log().sum(-1)[:, None])
        weight = log.permute(1, 0, 2).reshape(count, -1).softmax(1)
        weight = weight.reshape(count, *log.shape[::2]).permute(1, 0, 2)  # (K, B, strengths)
        moved = (weight @ (alpha * spread / total)) * offset
        turned_back = moved @ self._basis.transpose(1, 2)
        return weight.sum(2).T @ self._mean + turned_back.sum(0)


class TaughtDraws:
    """A pool of noised samples with their expected clean samples.

    A row is given as a `Draw` of the expected x_0 and of the noise that leads from it to the same
    x_t: every loss then works as with samples, only without their luck.
    """

    def __init__(
        self, data: Augmenter, config: TeacherConfig, low_t: float, low_t_share: float, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        times = draw_times(max(1, config.pool // _ROWS), generator, low_t, low_t_share)
        self._t = times.repeat_interleave(_ROWS)
        x_0 = data.batch(len(self._t), generator)
        sde = SubVP()
        x_t = sde.add_noise(x_0, self._t, torch.randn(x_0.shape, generator=generator))
        mixture = Mixture(data, config, seed)
        rows = zip(x_t.split(_ROWS), times.tolist(), strict=True)
        self._expected = torch.cat([mixture.posterior_mean(x, t) for x, t in rows])
        alpha, sigma = (f(self._t)[:, None] for f in (sde.alpha, sde.sigma))
        self._noise = (x_t - alpha * self._expected) / sigma

    def draw(self, count: int, generator: torch.Generator) -> Draw:
        """`count` random rows."""
        rows = torch.randint(len(self._t), (count,), generator=generator)
        return Draw(self._expected[rows], self._t[rows], self._noise[rows])


def _strengths(data: Augmenter, count: int) -> tuple[list[float], list[float]]:
    """Shares and variances of the levels that stand for the widening noise; none comes first."""
    config = data.config
    quantiles = (np.arange(count) + 0.5) / count
    low = config.noise_sigma_low or config.noise_sigma
    sigmas = low * (config.noise_sigma / low) ** quantiles
    shares = [1.0 - config.noise_share, *[config.noise_share / count] * count]
    return shares, [0.0, *(float(sigma) ** 2 for sigma in sigmas)]


def _float(values: list) -> Tensor:
    return torch.from_numpy(np.array(values)).float()
