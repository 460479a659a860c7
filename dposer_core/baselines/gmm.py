"""Gaussian mixture over pose vectors, the prior of SMPLify (Bogo et al., ECCV 2016)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dposer_core.baselines.store import read_array_pickle
from dposer_core.errors import CheckpointError

_SMPL_DIM = 69  # pose of SMPL: 63 body values and the two hands, which are zero


@dataclass(frozen=True)
class GmmConfig:
    """Sizes."""

    dim: int
    """D of the mixture; 69 takes 63-vectors and appends zeros."""
    components: int = 8


class Gmm(nn.Module):
    """Mixture with full covariances; its cost is that of the nearest component.

    With d = x - mean, P = inverse covariance and w the weight of a component, the cost of a pose
    is the minimum over the components of d' P d / 2 - log(w / ((2 pi)^(D/2) r)), where r is the
    square root of the determinant relative to the smallest one. Source: SMPLify; PROTOCOLS 5.
    """

    name = 'GMM'
    means: Tensor
    covars: Tensor
    mix: Tensor
    precisions: Tensor
    offsets: Tensor

    def __init__(self, config: GmmConfig) -> None:
        super().__init__()
        shape = (config.components, config.dim)
        self.config = config
        self.register_buffer('means', torch.zeros(shape))
        self.register_buffer('covars', torch.eye(config.dim).repeat(config.components, 1, 1))
        self.register_buffer('mix', torch.full((config.components,), 1 / config.components))
        self.register_buffer('precisions', self.covars.clone(), persistent=False)
        self.register_buffer('offsets', torch.zeros(config.components), persistent=False)
        self._derive()

    @staticmethod
    def from_arrays(means: np.ndarray, covars: np.ndarray, weights: np.ndarray) -> 'Gmm':
        """Mixture of K means (K, D), covariances (K, D, D) and weights (K,)."""
        gmm = Gmm(GmmConfig(dim=means.shape[1], components=len(means)))
        gmm.load_state_dict(
            {
                'means': torch.as_tensor(means, dtype=torch.float32),
                'covars': torch.as_tensor(covars, dtype=torch.float32),
                'mix': torch.as_tensor(weights, dtype=torch.float32),
            }
        )
        return gmm

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Load, and derive what the cost needs."""
        result = super().load_state_dict(state_dict, *args, **kwargs)
        self._derive()
        return result

    def _derive(self) -> None:
        """Precisions and constants, in float64."""
        covars = self.covars.double()
        half_log_det = 0.5 * torch.linalg.slogdet(covars).logabsdet
        offsets = (
            torch.log(self.mix.double())
            - 0.5 * self.config.dim * np.log(2 * np.pi)
            - (half_log_det - half_log_det.min())
        )
        self.precisions.copy_(torch.linalg.inv(covars))
        self.offsets.copy_(-offsets)

    def negative_log_likelihood(self, pose: Tensor) -> Tensor:
        """(B, D) raw -> (B,) cost of the nearest component (SMPLify's constant included)."""
        missing = self.config.dim - pose.shape[-1]
        difference = nn.functional.pad(pose, (0, missing))[:, None] - self.means
        quadratic = torch.einsum('bki,kij,bkj->bk', difference, self.precisions, difference)
        return (0.5 * quadratic + self.offsets).amin(dim=1)

    def loss(self, pose: Tensor) -> Tensor:
        """(B, D) raw -> scalar, mean of the poses' costs."""
        return self.negative_log_likelihood(pose).mean()

    def mean_pose(self) -> Tensor:
        """(D,) raw, mean of the mixture."""
        return self.mix @ self.means

    def log_density(self, pose: Tensor) -> Tensor:
        """(B, D) raw, D as trained -> (B,) true log density of the mixture, nats."""
        mixture = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(probs=self.mix),
            torch.distributions.MultivariateNormal(self.means, self.covars),
        )
        return mixture.log_prob(pose)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, D) raw; of SMPLify's 69 values the first 63."""
        component = torch.multinomial(self.mix, count, replacement=True, generator=generator)
        noise = torch.randn((count, self.config.dim), generator=generator)
        factor = torch.linalg.cholesky(self.covars.double()).float()
        pose = self.means[component] + (factor[component] @ noise[..., None])[..., 0]
        return pose[:, :63] if self.config.dim == _SMPL_DIM else pose


def load_smplify(path: str | Path) -> Gmm:
    """The published mixture (gmm_08.pkl or one with another number of components).

    Raises:
        CheckpointError: not that file.
    """
    content = read_array_pickle(path)
    if not {'means', 'covars', 'weights'} <= set(content):
        raise CheckpointError(
            f'{path}: holds {sorted(content)}, expected means, covars, weights of a mixture'
        )
    means, covars, weights = content['means'], content['covars'], content['weights'].reshape(-1)
    count = len(means)
    if means.shape != (count, _SMPL_DIM) or covars.shape != (count, _SMPL_DIM, _SMPL_DIM):
        raise CheckpointError(
            f'{path}: means {means.shape}, covariances {covars.shape}; expected '
            f'(K, {_SMPL_DIM}) and (K, {_SMPL_DIM}, {_SMPL_DIM})'
        )
    if len(weights) != count or not weights.min() > 0 or np.linalg.eigvalsh(covars).min() <= 0:
        raise CheckpointError(f'{path}: weights or covariances of the mixture are not positive')
    return Gmm.from_arrays(means, covars, weights)
