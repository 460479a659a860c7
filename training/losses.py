"""What a prior is trained to do well: the losses, by name, and everything random that one needs.

A loss is a function of the network, one `Draw` and a `LossContext`; it returns named scalars, of
which 'loss' is minimised and the others are only reported. A new one is a function and an entry in
`LOSSES`. Source: PROTOCOLS 2.2, 2.4, 2.6.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dposer_core import skeleton
from dposer_core.errors import ConfigError
from dposer_core.prior.architecture import JAW_DIM
from dposer_core.prior.normalizer import Normalizer
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.rotations import rotvec_to_rotmat
from training.settings import nearest

EPS_T = 1e-5  # smallest diffusion time drawn
AUX_STEPS = 10
_MAX_NOISE = 1.5  # sigma / alpha; beyond it the pose is a guess whatever the noise
_JOINT_UNIT = 0.1  # m of joint error that count as much as one standard deviation of a value
_EPS_M2 = 1e-6  # keeps the distance differentiable at zero


class Draw(NamedTuple):
    """A batch and all that is random about a step."""

    x_0: Tensor
    """(B, D) normalised."""
    t: Tensor
    """(B,) diffusion times."""
    noise: Tensor
    """(B, D) standard normal."""
    network_mask: Tensor | None = None
    """(B, 4) parts that the whole-body network sees; None: all."""
    loss_mask: Tensor | None = None
    """(B, D) values that count; None: all."""


@dataclass(frozen=True)
class LossConfig:
    """The loss of a run. The defaults are the paper's."""

    name: str = 'eps_mse'  # of LOSSES
    reduction: str = 'mean'  # over a row's values, or 'half_sum': half of their sum
    likelihood_weighting: bool = False  # weigh the score's error by g(t)^2 instead of sigma^2
    aux_weighting: str = 'log_snr'  # of 'auxiliary': log(1 + alpha/sigma), or 'one'
    body_model: str = ''  # of 'auxiliary': SMPL-X .npz; empty: the open body

    def __post_init__(self) -> None:
        for key, value, known in (
            ('name', self.name, LOSSES),
            ('reduction', self.reduction, ('mean', 'half_sum')),
            ('aux_weighting', self.aux_weighting, ('log_snr', 'one')),
        ):
            if value not in known:
                raise ConfigError(f"loss.{key} = '{value}' is unknown{nearest(value, known)}")


class LossContext:
    """What losses need beside the network: units of the data, and where the body's points are."""

    def __init__(self, config: LossConfig, part: str, normalizer: Normalizer) -> None:
        self.config = config
        self.normalizer = normalizer
        needs_points = config.name != 'eps_mse'
        self.points = BodyPoints(part, config.body_model) if needs_points else None


class BodyPoints:
    """Joints and landmarks of raw vectors of one part, on a body of mean shape.

    The landmarks stand for the vertices of the paper's loss: 133 points of the skin, at a small
    part of their cost.
    """

    def __init__(self, part: str, body_model: str) -> None:
        from dposer_core.body_model import load_body

        if part not in _POSE_COLUMNS:
            raise ConfigError(
                f"a '{part}' has no joints to compare; use loss.name = 'eps_mse' for it"
            )
        self._body = load_body(body_model)
        rest = self._body.tables.joint_template
        parents = skeleton.PARENTS
        offsets = rest - np.where(parents[:, None] >= 0, rest[parents], 0.0)
        self._offsets = torch.from_numpy(offsets.astype(np.float32))
        self._part = part

    def joints(self, raw: Tensor) -> Tensor:
        """(B, D) -> (B, J, 3) joints that the part turns or carries, the body's pelvis fixed.

        Rest offsets alone; the landmarks would cost ten times as much.
        """
        count = len(raw)
        turned, columns = _POSE_COLUMNS[self._part](raw.shape[1])
        index = list(range(skeleton.NUM_JOINTS))[turned] if isinstance(turned, slice) else turned
        local = rotvec_to_rotmat(raw[:, columns].reshape(count, -1, 3))
        place, world = {}, {}
        for slot, joint in enumerate(index):
            parent = int(skeleton.PARENTS[joint])
            offset = self._offsets[joint]
            if parent in world:
                place[joint] = place[parent] + world[parent] @ offset
                world[joint] = world[parent] @ local[:, slot]
            else:
                place[joint] = offset.expand(count, 3)
                world[joint] = local[:, slot]
        return torch.stack([place[joint] for joint in index], dim=1)

    def __call__(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> joints (B, 55, 3) and landmarks (B, 133, 3), metres."""
        count = len(raw)
        pose = raw.new_zeros(count, skeleton.NUM_JOINTS, 3)
        joints, columns = _POSE_COLUMNS[self._part](raw.shape[1])
        pose[:, joints] = raw[:, columns].reshape(count, -1, 3)
        tables = self._body.tables
        expression = raw.new_zeros(count, tables.num_expression)
        if self._part in ('face', 'wholebody'):
            own = raw[:, columns.stop :]
            if own.shape[1] != tables.num_expression:
                raise ConfigError(
                    f'the data has {own.shape[1]} expression coefficients, the body model '
                    f"'{tables.name}' {tables.num_expression}; set loss.body_model to one that "
                    'fits, or use loss.name = eps_mse'
                )
            expression = own
        betas = raw.new_zeros(count, tables.num_betas)
        return self._body.torch_forward(pose, betas, expression, raw.new_zeros(count, 3))


# Part -> (joints of the 55, columns of the part's raw vector of size D that turn them).
_POSE_COLUMNS: dict[str, Callable[[int], tuple]] = {
    'body': lambda dim: (skeleton.BODY_JOINTS, slice(0, dim)),
    'hand': lambda dim: (skeleton.RIGHT_HAND_JOINTS, slice(0, dim)),
    'face': lambda dim: ([skeleton.JAW_JOINT], slice(0, JAW_DIM)),
    'wholebody': lambda dim: (
        list(skeleton.PRIOR_JOINTS),
        slice(0, 3 * len(skeleton.PRIOR_JOINTS)),
    ),
}


def eps_mse(network: nn.Module, draw: Draw, context: LossContext) -> dict[str, Tensor]:
    """Mean squared error of the predicted noise, the paper's denoising score matching.

    With a loss mask the mean still runs over all values, as in the released code.
    """
    prior = DiffusionPrior(network)
    x_t = prior.sde.add_noise(draw.x_0, draw.t, draw.noise)
    eps = prior.predict_noise(x_t, draw.t, draw.network_mask)
    error = (eps - draw.noise).square()
    if context.config.likelihood_weighting:
        error = error * (prior.sde.diffusion(draw.t) / prior.sde.sigma(draw.t))[:, None] ** 2
    if draw.loss_mask is not None:
        error = error * draw.loss_mask
    rows = error.mean(1) if context.config.reduction == 'mean' else 0.5 * error.sum(1)
    return {'loss': rows.mean()}


def auxiliary(network: nn.Module, draw: Draw, context: LossContext) -> dict[str, Tensor]:
    """`eps_mse` plus squared distances, m^2, of the points of a ten-step denoised pose."""
    losses = eps_mse(network, draw, context)
    clean, snr = denoised(network, draw)
    weight = (1.0 + snr).log() if context.config.aux_weighting == 'log_snr' else snr * 0.0 + 1.0
    assert context.points is not None
    names = ('joints', 'landmarks')
    found = context.points(context.normalizer.denormalize(clean))
    truth = context.points(context.normalizer.denormalize(draw.x_0))
    for name, a, b in zip(names, found, truth, strict=True):
        losses[name] = (weight[:, None] * (a - b).square().sum(-1)).mean()
    losses['loss'] = losses['loss'] + losses['joints'] + losses['landmarks']
    return losses


def clean_joints(network: nn.Module, draw: Draw, context: LossContext) -> dict[str, Tensor]:
    """Error of the one-step denoised pose itself: of its values and of where its joints are.

    Both in units of what the noise does to them (sigma / alpha), so that no diffusion time
    outweighs the others. Not in the papers; what a fit asks of a prior is this pose, and for some
    thousand steps it comes out better so than through the predicted noise.
    """
    assert context.points is not None
    prior = DiffusionPrior(network)
    x_t = prior.sde.add_noise(draw.x_0, draw.t, draw.noise)
    clean = prior.denoise(x_t, draw.t, draw.network_mask)
    noise = (1.0 / prior.sde.snr(draw.t)).clamp(max=_MAX_NOISE)[:, None]
    values = ((clean - draw.x_0) / noise).square().mean()
    found = context.points.joints(context.normalizer.denormalize(clean))
    truth = context.points.joints(context.normalizer.denormalize(draw.x_0))
    distance = ((found - truth).square().sum(-1) + _EPS_M2).sqrt()
    joints = (distance / noise).mean()
    return {'loss': values + joints / _JOINT_UNIT, 'values': values, 'joints': joints}


def denoised(network: nn.Module, draw: Draw) -> tuple[Tensor, Tensor]:
    """x0_hat (B, D) by ten deterministic steps from t to t / 20, and alpha / sigma at t (B,)."""
    mask = draw.network_mask
    masked = network if mask is None else lambda x, label: network(x, label, mask)
    prior = DiffusionPrior(masked)
    x_t = prior.sde.add_noise(draw.x_0, draw.t, draw.noise)
    clean = prior.denoise_steps(x_t, draw.t, draw.t / (2 * AUX_STEPS), AUX_STEPS)
    return clean, prior.sde.snr(draw.t)


LOSSES: dict[str, Callable[[nn.Module, Draw, LossContext], dict[str, Tensor]]] = {
    'eps_mse': eps_mse,
    'auxiliary': auxiliary,
    'clean_joints': clean_joints,
}
"""Losses by the name that a configuration gives."""


class Objective(nn.Module):
    """A network together with its loss: one forward pass is one step's loss.

    Several devices synchronise after a forward pass of what they wrap, and a loss may call the
    network many times, so the whole loss is what is wrapped.
    """

    def __init__(self, network: nn.Module, context: LossContext) -> None:
        super().__init__()
        self.network = network
        self._context = context

    def forward(self, draw: Draw) -> dict[str, Tensor]:
        """Named scalars; 'loss' is to be minimised."""
        return LOSSES[self._context.config.name](self.network, draw, self._context)


def draw_times(
    count: int, generator: torch.Generator, low_t: float = 1.0, low_share: float = 0.0
) -> Tensor:
    """(count,) diffusion times in (0, 1]; `low_share` of them are drawn below `low_t` instead."""
    t = torch.rand(count, generator=generator)
    if low_share > 0.0:
        low = torch.rand(count, generator=generator) < low_share
        t = torch.where(low, t * low_t, t)
    return t * (1 - EPS_T) + EPS_T
