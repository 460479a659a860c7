"""Pose-NDF: a neural distance field over poses (Tiwari et al., ECCV 2022)."""

from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from dposer_core.baselines.distance_field import (
    DistanceField,
    DistanceFieldConfig,
    quat_wxyz,
    rotvec_of,
    upper_half,
)
from dposer_core.baselines.store import read_published
from dposer_core.errors import CheckpointError

Field = TypeVar('Field', bound=DistanceField)

# The released network's parents are off by one from the left knee on, and its code normalises
# over the joints. Published weights need both; our own training uses neither.
OFFICIAL_PARENTS = (-1, -1, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)


class PoseNDF(DistanceField):
    """The field as a prior."""

    name = 'Pose-NDF'
    projection_steps = 1000

    def loss(self, pose: Tensor) -> Tensor:
        """(B, D) raw -> scalar, the square of the mean distance (denoising, completion)."""
        return self.distance(pose).mean().square()

    def mesh_recovery_loss(self, pose: Tensor) -> Tensor:
        """(B, D) raw -> scalar, the mean of the squared distances, used for mesh recovery."""
        return self.distance(pose).square().mean()

    def project(self, pose: Tensor, steps: int | None = None) -> Tensor:
        """(B, D) raw -> (B, D): steps of the predicted distance against its gradient."""
        quat = quat_wxyz(pose.detach())
        for _ in range(self.projection_steps if steps is None else steps):
            distance, gradient = self.distance_and_gradient(quat)
            unit = nn.functional.normalize(gradient.flatten(1), dim=-1).view_as(quat)
            quat = upper_half(quat - distance[:, None, None] * unit)
            quat = nn.functional.normalize(quat, dim=-1)
        return rotvec_of(quat)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, D) raw: projections of uniformly random rotations."""
        shape = (count, len(self.config.parents), 4)
        quat = nn.functional.normalize(torch.randn(shape, generator=generator), dim=-1)
        return self.project(rotvec_of(quat))


def load_published(path: str | Path) -> PoseNDF:
    """A checkpoint of Pose-NDF's authors, with the conventions of their code.

    Raises:
        CheckpointError: not such a file.
    """
    config = DistanceFieldConfig(OFFICIAL_PARENTS, over_joints=True)
    return load_field(path, PoseNDF(config))


def load_field(path: str | Path, field: Field) -> Field:
    """`field` with the tensors of a published file.

    Raises:
        CheckpointError: tensors are missing or have another shape.
    """
    weights = read_published(path)
    state = {}
    for key, wanted in field.state_dict().items():
        value = next((weights[k] for k in (key, f'module.{key}') if k in weights), None)
        found = None if value is None else value.shape
        if found != tuple(wanted.shape):
            raise CheckpointError(
                f'{path}: {key} has shape {found}, expected {tuple(wanted.shape)}; '
                f'give a checkpoint of {field.name}'
            )
        state[key] = torch.from_numpy(value.copy())
    field.load_state_dict(state)
    return field.eval()
