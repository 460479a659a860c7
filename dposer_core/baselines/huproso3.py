"""HuProSO3: a normalising flow of joint rotations given 2D keypoints, joint by joint.

Source: Duenkel et al., CVPR 2024, with the layers of Liu et al., CVPR 2023: a Moebius map of one
column of a rotation matrix on the circle that another leaves it, and an affine map of its
quaternion. Both have exact inverses and densities. A joint depends on those above it through the
rotations of its parent and of that one's parent; the root is the orientation that the camera sees.
Here one Moebius centre stands for their mixtures, and the network is small.
"""

import math
from dataclasses import dataclass

import roma
import torch
from torch import Tensor, nn
from torch.nn import functional

from dposer_core import skeleton
from dposer_core.baselines.lifting import CONDITION, NUM_JOINTS, unpack

_LOG_UNIFORM = -math.log(8 * math.pi**2)  # density of the uniform rotations, rad^-3
_MOST = 0.95  # length of a Moebius centre
_PARENTS = skeleton.PARENTS[:NUM_JOINTS]


@dataclass(frozen=True)
class HuProSo3Config:
    """Sizes of the network."""

    layers: int = 6
    """Pairs of a Moebius and an affine map."""
    hidden: int = 128
    embed: int = 32
    """Features of a joint."""


class HuProSo3(nn.Module):
    """The density of 22 rotations."""

    name = 'HuProSO3'

    def __init__(self, config: HuProSo3Config) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.joint = nn.Parameter(torch.randn(NUM_JOINTS, config.embed))
        self.context = nn.Sequential(
            nn.Linear(CONDITION + config.embed + 18, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden), nn.SiLU(),
        )  # fmt: skip
        self.centres = nn.ModuleList(_head(hidden + 3, hidden, 3) for _ in range(config.layers))
        self.affine = nn.ModuleList(_head(hidden, hidden, 16) for _ in range(config.layers))

    def loss(self, rows: Tensor) -> Tensor:
        """Mean negative log density of a joint, nats, of rows (B, 207)."""
        bodies = unpack(rows)
        return -self.log_density(roma.rotvec_to_rotmat(bodies.rotvecs), bodies.seen).mean()

    def log_density(self, rotations: Tensor, seen: Tensor) -> Tensor:
        """(B, 22) of rotations (B, 22, 3, 3), each given those above it; rad^-3 as the unit."""
        context = self._context(self._above(rotations), seen, list(range(NUM_JOINTS)))
        x, total = rotations, torch.full(rotations.shape[:2], _LOG_UNIFORM)
        for layer in range(self.config.layers):
            x, change = self._moebius(layer, x, context, 1.0)
            total = total + change
            x, change = affine_map(x, self._matrix(layer, context))
            total = total + change
        return total

    @torch.no_grad()
    def rotvecs(self, seen: Tensor, seed: int) -> Tensor:
        """One hypothesis each: (B, 22, 3) rad, the root as the camera sees it."""
        generator = torch.Generator().manual_seed(seed)
        found = torch.eye(3).repeat(len(seen), NUM_JOINTS, 1, 1)
        for level in _LEVELS:
            base = functional.normalize(
                torch.randn((len(seen), len(level), 4), generator=generator), dim=-1
            )
            x = roma.unitquat_to_rotmat(base)
            context = self._context(self._above(found)[:, level], seen, level)
            for layer in reversed(range(self.config.layers)):
                x, _ = affine_map(x, torch.linalg.inv(self._matrix(layer, context)))
                x, _ = self._moebius(layer, x, context, -1.0)
            found[:, level] = x
        return roma.rotmat_to_rotvec(found)

    def _above(self, rotations: Tensor) -> Tensor:
        """(B, 22, 18) of a joint's parent and the parent's parent; of none the identity."""
        identity = torch.eye(3).expand(len(rotations), 1, 3, 3)
        padded = torch.cat([rotations, identity], dim=1)
        parent = [int(p) for p in _PARENTS]
        beyond = [parent[p] if p >= 0 else -1 for p in parent]
        pairs = torch.stack([padded[:, parent], padded[:, beyond]], dim=2)
        return pairs.flatten(2)

    def _context(self, above: Tensor, seen: Tensor, joints: list[int]) -> Tensor:
        shape = (len(seen), len(joints), -1)
        parts = [seen[:, None].expand(shape), self.joint[joints].expand(shape), above]
        return self.context(torch.cat(parts, dim=-1))

    def _moebius(
        self, layer: int, x: Tensor, context: Tensor, sign: float
    ) -> tuple[Tensor, Tensor]:
        fixed = x[..., layer % 3]
        centre = sign * self.centres[layer](torch.cat([context, fixed], dim=-1))
        return moebius_map(x, centre, layer % 3)

    def _matrix(self, layer: int, context: Tensor) -> Tensor:
        values = self.affine[layer](context)
        # All that is added has a norm below 4 * 0.24 < 1, so the matrix can always be inverted.
        return torch.eye(4) + 0.24 * torch.tanh(values.reshape(*values.shape[:-1], 4, 4))


def moebius_map(x: Tensor, centre: Tensor, column: int) -> tuple[Tensor, Tensor]:
    """Turn rotations (..., 3, 3) about one of their columns by a Moebius map of the circle.

    Args:
        x: rotations.
        centre: (..., 3); what lies in the plane of the circle counts, its length below 1. That of
            the inverse map is its negative.
        column: the one that stays.

    Returns:
        The rotations, and log |det| (...,) of the map.
    """
    first, second = (column + 1) % 3, (column + 2) % 3
    fixed, moved = x[..., column], x[..., first]
    flat = centre - (centre * fixed).sum(-1, keepdim=True) * fixed
    length = flat.norm(dim=-1, keepdim=True)
    flat = flat * _MOST / (1.0 + length)  # the same for the inverse, as |-c| = |c|
    difference = moved - flat
    distance = difference.square().sum(-1, keepdim=True)
    factor = (1.0 - flat.square().sum(-1, keepdim=True)) / distance
    moved = functional.normalize(factor * difference - flat, dim=-1)
    columns = {column: fixed, first: moved, second: torch.linalg.cross(fixed, moved)}
    return torch.stack([columns[c] for c in range(3)], dim=-1), factor[..., 0].log()


def affine_map(x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations (..., 3, 3) whose quaternions a matrix (..., 4, 4) moves; log |det| (...,)."""
    moved = (matrix @ roma.rotmat_to_unitquat(x)[..., None])[..., 0]
    length = moved.norm(dim=-1)
    change = torch.linalg.det(matrix).abs().log() - 4.0 * length.log()
    return roma.unitquat_to_rotmat(moved / length[..., None]), change


def _head(given: int, hidden: int, wanted: int) -> nn.Sequential:
    last = nn.Linear(hidden, wanted)
    nn.init.normal_(last.weight, std=1e-2)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(given, hidden), nn.SiLU(), last)


def _levels() -> list[list[int]]:
    depth = [len(skeleton.ancestors(joint)) for joint in range(NUM_JOINTS)]
    return [[j for j in range(NUM_JOINTS) if depth[j] == d] for d in sorted(set(depth))]


_LEVELS = _levels()
