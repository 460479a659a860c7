"""The prior's term in a task: from the diffusion prior, from a competitor, or none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from dposer_core.baselines.base import PosePrior
from dposer_core.prior.normalizer import Normalizer
from dposer_core.prior.prior import DiffusionPrior, Reduction
from dposer_core.prior.sampling import Draw


@dataclass(frozen=True)
class Denoising:
    """How L_DPoser weighs, reduces and denoises; see `DiffusionPrior.loss`."""

    weighting: str
    """A key of `WEIGHTINGS`."""
    reduction: Reduction
    steps: int = 1
    """Denoising steps; the paper's table S-1 tries 5 and 10."""
    t_end: float = 1e-3
    """Where several steps end: completion and inverse kinematics."""
    t_end_share: float = 0.0
    """If positive, they end at this share of t instead: 1/10 mesh recovery, 1/20 motion."""

    def end(self, t: float) -> float:
        """The time at which several steps from `t` end."""
        return t * self.t_end_share if self.t_end_share else self.t_end


class PriorTerm(Protocol):
    """A term without its weight."""

    def __call__(self, pose: Tensor, step: int) -> Tensor:
        """Scalar of raw poses (B, D) in a step counted from 0 over all stages."""
        ...


@dataclass(frozen=True)
class DiffusionTerm:
    """L_DPoser of raw poses."""

    prior: DiffusionPrior
    normalizer: Normalizer | None
    """None: poses come normalised."""
    denoising: Denoising
    times: np.ndarray
    """(steps,) one per step of the optimisation."""
    draw: Draw
    """Source of the noise."""

    def __call__(self, pose: Tensor, step: int) -> Tensor:
        """L_DPoser of raw poses (B, D)."""
        x = pose if self.normalizer is None else self.normalizer.normalize(pose)
        t, how = float(self.times[step]), self.denoising
        noise = self.draw(tuple(x.shape))
        return self.prior.loss(x, t, noise, how.weighting, how.reduction, how.steps, how.end(t))


@dataclass(frozen=True)
class CompetitorTerm:
    """The loss of a competing prior."""

    prior: PosePrior
    shape: Callable[[Tensor], Tensor] = lambda loss: loss
    """Applied to the loss: Pose-NDF's enters squared."""

    def __call__(self, pose: Tensor, step: int) -> Tensor:
        """The competitor's cost of raw poses (B, D), the same in every step."""
        return self.shape(self.prior.loss(pose))


@dataclass(frozen=True)
class NoTerm:
    """No prior at all."""

    def __call__(self, pose: Tensor, step: int) -> Tensor:
        """Zero."""
        return pose.new_zeros(())
