"""NRDF: a Riemannian distance field over poses (He et al., CVPR 2024)."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dposer_core.baselines.distance_field import (
    DistanceField,
    DistanceFieldConfig,
    kinematic_parents,
    quat_wxyz,
    rotvec_of,
    upper_half,
)
from dposer_core.baselines.posendf import load_field


class NRDF(DistanceField):
    """The field as a prior."""

    name = 'NRDF'
    projection_steps = 200
    step_size = 0.01

    def loss(self, pose: Tensor) -> Tensor:
        """(B, D) raw -> scalar, the mean distance."""
        return self.distance(pose).mean()

    def project(self, pose: Tensor, steps: int | None = None) -> Tensor:
        """(B, D) raw -> (B, D) by gradient descent on the rotations.

        A step turns each joint against its own unit gradient by twice `step_size` times the
        distance. The gradient is carried to the tangent space at the identity by left
        translation, which is exact; the authors' code carries it in parallel instead, which
        turns it by half the joint's angle.
        """
        quat = quat_wxyz(pose.detach())
        for _ in range(self.projection_steps if steps is None else steps):
            distance, gradient = self.distance_and_gradient(quat)
            tangent = nn.functional.normalize(_left_translated(quat, gradient), dim=-1)
            half_angle = (-self.step_size * distance)[:, None, None].expand(*quat.shape[:2], 1)
            quat = upper_half(multiply(quat, _turn(half_angle, tangent)))
            quat = nn.functional.normalize(quat, dim=-1)
        return rotvec_of(quat)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, D) raw: projections of perturbed rest poses."""
        distance = torch.randn(count, generator=generator)
        joints = len(self.config.parents)
        return self.project(rotvec_of(perturbation(distance, joints, generator)))


def perturbation(
    distance: Tensor, joints: int, generator: torch.Generator | None = None
) -> Tensor:
    """Random rotations (B, J, 4) whose mean angle over the joints is |`distance`| (B,) rad.

    Directions are uniform; the angle is shared among the joints by uniform random weights.
    Source: He et al. 2024, section 3.3, and their code.
    """
    count = len(distance)
    axis = nn.functional.normalize(torch.randn((count, joints, 3), generator=generator), dim=-1)
    share = torch.rand((count, joints), generator=generator)
    share = share / share.sum(dim=1, keepdim=True)
    half_angle = 0.5 * distance[:, None] * share * joints
    return upper_half(_turn(half_angle[..., None], axis))


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Product of quaternions (..., 4), scalar first."""
    scalar = a[..., :1] * b[..., :1] - (a[..., 1:] * b[..., 1:]).sum(-1, keepdim=True)
    cross = torch.linalg.cross(a[..., 1:], b[..., 1:], dim=-1)
    return torch.cat([scalar, a[..., :1] * b[..., 1:] + b[..., :1] * a[..., 1:] + cross], dim=-1)


def _turn(half_angle: Tensor, axis: Tensor) -> Tensor:
    """Quaternions of turns by 2 `half_angle` (..., 1) about unit axes (..., 3)."""
    return torch.cat([half_angle.cos(), half_angle.sin() * axis], dim=-1)


def _left_translated(quat: Tensor, gradient: Tensor) -> Tensor:
    """Gradients (..., 4) at `quat` as vectors (..., 3) of the tangent space at the identity."""
    conjugate = torch.cat([quat[..., :1], -quat[..., 1:]], dim=-1)
    return multiply(conjugate, gradient)[..., 1:]


def load_published(path: str | Path) -> NRDF:
    """A checkpoint of NRDF's authors (its unused decoder is passed over).

    Raises:
        CheckpointError: not such a file.
    """
    config = DistanceFieldConfig(kinematic_parents('body'))
    return load_field(path, NRDF(config))
