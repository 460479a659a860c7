"""What a pose prior other than ours offers, and the plainest one of them.

Vectors are raw axis-angle in the layout of the prior of their part: body (B, 63), right hand
(B, 45), face (B, 3 jaw + expression), whole body (B, 63 + 45 + 45 + face).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class PosePrior(Protocol):
    """A term that prefers likely poses."""

    name: str
    """Name in tables, for instance 'VPoser'."""

    def loss(self, pose: Tensor) -> Tensor:
        """The prior's cost of a batch.

        Args:
            pose: (B, D) raw axis-angle.

        Returns:
            Differentiable scalar, already reduced over the batch as the method's authors or the
            paper do; the weight of the task is still to be multiplied.
        """
        ...


@runtime_checkable
class SamplingPrior(PosePrior, Protocol):
    """A prior that can draw poses."""

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, D) raw axis-angle poses."""
        ...


@runtime_checkable
class ProjectingPrior(PosePrior, Protocol):
    """A prior that can move any pose to a likely one."""

    def project(self, pose: Tensor) -> Tensor:
        """(B, D) raw -> (B, D) raw, without gradient."""
        ...


@runtime_checkable
class LatentPrior(SamplingPrior, Protocol):
    """A prior whose latent codes can be optimised in place of poses."""

    latent_dim: int

    def draw_latents(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, latent_dim) codes of the prior distribution."""
        ...

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent_dim) -> (B, D) raw, differentiable."""
        ...


@dataclass(frozen=True)
class L2:
    """Squared length of the pose vector, mean over the batch: the rest pose is best."""

    name: str = 'L2'

    def loss(self, pose: Tensor) -> Tensor:
        """(B, D) raw -> scalar, rad^2."""
        return pose.square().sum(dim=-1).mean()
