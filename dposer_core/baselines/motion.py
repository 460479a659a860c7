"""Motion priors: HuMoR and MVAE as two configurations of one auto-encoder of transitions.

Sources: Rempe et al., ICCV 2021 (HuMoR: a learned prior of the code given the last state, changes
of state, codes in every layer of the decoder, group normalisation) and Ling et al., SIGGRAPH 2020
(MVAE: a standard normal prior, the next state itself, a mixture of six experts). As in HuMoR's
paper the two share state, training and use.

Deviations: the body is described about its pelvis, as the table of motion denoising sees it. So
root, ground and contacts, and the terms that need them, are left out, and there is no heading to
turn away. Networks are small. Rotations enter and leave as 6D (HuMoR: matrices in,
rotation vectors out), changes are added to them and the sum is made a rotation again. The mixture
over the first state has two parts of it, pose and velocities of joints; the rest follows.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dposer_core import rotations, skeleton
from dposer_core.baselines.gmm import Gmm, GmmConfig
from dposer_core.tasks.body_points import Chain

FPS = 30.0
"""Of the motions."""
_TURNS = 21  # body joints but the pelvis
_ROT6D, _JOINTS, _VELOCITY = slice(0, 126), slice(126, 189), slice(189, 252)
KINDS = {'rotations': _ROT6D, 'joints': _JOINTS, 'velocities': _VELOCITY}
"""Parts of a state (252,): 6D rotations; joints but the pelvis relative to it, m; their m/s."""
STATE = 252
KL_WEIGHT = 4e-4
"""Of the divergence, nats, against squared errors of the state. Source: HuMoR."""
KIND_WEIGHT = {'rotations': 1.0, 'joints': 1.0, 'velocities': 0.01}
"""Of squared errors; HuMoR has 1 for all. A velocity off by 0.1 m/s is a joint off by 3 mm in the
next frame, so it counts as 10 mm here."""
_ACTIVATIONS = {'relu': nn.functional.relu, 'elu': nn.functional.elu}


@dataclass(frozen=True)
class MotionConfig:
    """Sizes and the choices in which the two differ; the defaults are HuMoR's."""

    latent: int = 48
    width: int = 192
    """Of hidden layers (HuMoR 1024, MVAE 256)."""
    layers: int = 2
    """Hidden ones (HuMoR 3 to 4, MVAE 2)."""
    learned_prior: bool = True
    """Otherwise codes are standard normal."""
    predicts_change: bool = True
    """Otherwise the decoder gives the next state itself."""
    experts: int = 1
    """Decoders that a further network mixes."""
    groups: int = 16
    """Of the normalisation; 0: none."""
    activation: str = 'relu'
    components: int = 4
    """Of the mixture over first states (HuMoR 12)."""


@dataclass(frozen=True)
class Followed:
    """How the network retells a motion of T states."""

    states: Tensor
    """(B, T - 1, 252) of all but the first."""
    latents: Tensor
    """(B, T - 1, latent) codes that led to them."""
    divergence: Tensor
    """(B, T - 1) of the encoder's codes from the prior's, nats."""


class _Layers(nn.Module):
    """A perceptron, or several mixed layer by layer, into each layer of which `extra` enters."""

    def __init__(
        self, inputs: int, outputs: int, config: MotionConfig, extra: int = 0, experts: int = 1
    ) -> None:
        super().__init__()
        widths = [inputs, *[config.width] * config.layers]
        self.hidden = nn.ModuleList(
            nn.Linear(a + extra, experts * b) for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(
            nn.GroupNorm(config.groups, width) if config.groups else nn.Identity()
            for width in widths[1:]
        )
        self.last = nn.Linear(widths[-1] + extra, experts * outputs)
        self._activation = _ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, extra: Tensor, shares: Tensor) -> Tensor:
        """(B, inputs) and (B, extra) -> (B, outputs); `shares` (B, experts) add up to 1."""
        for linear, norm in zip(self.hidden, self.norms, strict=True):
            x = self._activation(norm(self._mixed(linear, x, extra, shares)))
        return self._mixed(self.last, x, extra, shares)

    @staticmethod
    def _mixed(linear: nn.Linear, x: Tensor, extra: Tensor, shares: Tensor) -> Tensor:
        each = linear(torch.cat([x, extra], dim=1)).unflatten(1, (shares.shape[1], -1))
        return (shares[:, :, None] * each).sum(dim=1)


class _Gaussian(nn.Module):
    """Mean and standard deviation of codes."""

    def __init__(self, inputs: int, config: MotionConfig) -> None:
        super().__init__()
        self.layers = _Layers(inputs, 2 * config.latent, config)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs) -> (B, latent) each."""
        mean, std = self.layers(x, x[:, :0], x.new_ones(len(x), 1)).chunk(2, dim=1)
        return mean, nn.functional.softplus(std) + 1e-3  # never so sure that a loss explodes


class MotionVae(nn.Module):
    """The auto-encoder; as a prior, how badly it can retell a motion and how unlikely its codes.

    Motions are (B, T, 63) raw, at `FPS`. States (..., 252) are what `KINDS` says.
    """

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Gaussian(2 * STATE, config)
        if config.learned_prior:
            self.prior = _Gaussian(STATE, config)
        self.decoder = _Layers(STATE, STATE, config, config.latent, config.experts)
        if config.experts > 1:
            gate = MotionConfig(width=64, groups=0, activation=config.activation)
            self.gate = _Layers(STATE, config.experts, gate, config.latent)
        self.start = Gmm(GmmConfig(2 * 3 * _TURNS, config.components))
        # Vectors, which files keep in 32 bits.
        self.register_buffer('mean', torch.zeros(STATE))
        self.register_buffer('scale', torch.ones(STATE))
        self.register_buffer('change_scale', torch.ones(STATE))
        self.register_buffer('start_mean', torch.zeros(self.start.config.dim))
        self.register_buffer('start_scale', torch.ones(self.start.config.dim))
        self.register_buffer('bones', torch.zeros(3 * (_TURNS + 1)))
        self._chain = Chain([int(p) for p in skeleton.PARENTS[: _TURNS + 1]])

    @property
    def name(self) -> str:
        """Name in tables."""
        return 'HuMoR' if self.config.learned_prior else 'MVAE'

    def joints(self, rotmat: Tensor) -> Tensor:
        """(..., 21, 3, 3) local -> (..., 21, 3) all but the pelvis, relative to it, metres."""
        bones = self.bones.reshape(1, -1, 3)
        placed = self._chain(rotmat.flatten(0, -4), 0 * bones[:, :1], bones)[1]
        return placed[:, 1:].reshape(rotmat.shape[:-1])

    def rotmat(self, state: Tensor) -> Tensor:
        """(..., 252) -> (..., 21, 3, 3) local."""
        return rotations.rot6d_to_rotmat(state[..., _ROT6D].unflatten(-1, (_TURNS, 6)))

    def state(self, pose: Tensor, velocity: Tensor) -> Tensor:
        """(..., 252) of raw poses (..., 63) and velocities of their joints (..., 63), m/s."""
        rotmat = rotations.rotvec_to_rotmat(pose.unflatten(-1, (_TURNS, 3)))
        rot6d = rotations.rotmat_to_rot6d(rotmat).flatten(-2)
        return torch.cat([rot6d, self.joints(rotmat).flatten(-2), velocity], dim=-1)

    def states(self, motion: Tensor) -> Tensor:
        """(B, T, 63) raw -> (B, T - 1, 252) of all but the first, which has no velocity."""
        still = self.state(motion, torch.zeros_like(motion))
        velocity = FPS * still[..., _JOINTS].diff(dim=1)
        return torch.cat([still[:, 1:, : _VELOCITY.start], velocity], dim=-1)

    def encode(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, latent) of the code between two states (B, 252)."""
        change = (after - before) / self.change_scale  # of `after` itself it is a small part
        return self.encoder(torch.cat([self._normal(before), change], dim=1))

    def expect(self, before: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, latent) of the prior of the code after (B, 252)."""
        if self.config.learned_prior:
            return self.prior(self._normal(before))
        shape = (len(before), self.config.latent)
        return before.new_zeros(shape), before.new_ones(shape)

    def decode(self, before: Tensor, latent: Tensor) -> Tensor:
        """The state (B, 252) to which a code (B, latent) leads from `before` (B, 252)."""
        known, shares = self._normal(before), before.new_ones(len(before), 1)
        if self.config.experts > 1:
            shares = self.gate(known, latent, shares).softmax(dim=1)
        found = self.decoder(known, latent, shares)
        if self.config.predicts_change:
            found = before + self.change_scale * found
        else:
            found = self.mean + self.scale * found
        rot6d = rotations.rotmat_to_rot6d(self.rotmat(found)).flatten(-2)
        return torch.cat([rot6d, found[:, _ROT6D.stop :]], dim=1)

    def rollout(self, start: Tensor, latents: Tensor) -> Tensor:
        """States (B, T, 252), the first of them `start` (B, 252), of codes (B, T - 1, latent)."""
        states = [start]
        for latent in latents.unbind(dim=1):
            states.append(self.decode(states[-1], latent))
        return torch.stack(states, dim=1)

    def follow(
        self, states: Tensor, noise: Tensor | None = None, given: Tensor | None = None
    ) -> Followed:
        """Retell states (B, T, 252) from the first on.

        Args:
            states: those of a motion.
            noise: (B, T - 1, latent) standard normal, of the codes; None: their means.
            given: (B, T - 1) bool, whether the step after begins at the true state rather than
                at what was made of it. None: never.
        """
        now, made, latents, divergences = states[:, 0], [], [], []
        for step, after in enumerate(states[:, 1:].unbind(dim=1)):
            mean, std = self.encode(now, after)
            expected, spread = self.expect(now)
            latent = mean if noise is None else mean + std * noise[:, step]
            made.append(self.decode(now, latent))
            latents.append(latent)
            divergences.append(divergence(mean, std, expected, spread))
            now = made[-1] if given is None else torch.where(given[:, step, None], after, made[-1])
        return Followed(*(torch.stack(found, dim=1) for found in (made, latents, divergences)))

    def start_cost(self, pose: Tensor, velocity: Tensor) -> Tensor:
        """(B,) negative log density of first poses and velocities (B, 63) each, nats."""
        return -self.start.log_density(self.start_row(pose, velocity))

    def start_row(self, pose: Tensor, velocity: Tensor) -> Tensor:
        """(B, 126) as the mixture over first states has them."""
        return (torch.cat([pose, velocity], dim=-1) - self.start_mean) / self.start_scale

    def loss(self, motion: Tensor) -> Tensor:
        """(B, T, 63) raw -> scalar, mean over the steps: errors retelling them, and divergence."""
        states = self.states(motion)
        followed = self.follow(states)
        errors = squared_errors(followed.states, states[:, 1:])
        cost = torch.stack([KIND_WEIGHT[kind] * error for kind, error in errors.items()]).sum(0)
        return (cost + KL_WEIGHT * followed.divergence).mean()

    def _normal(self, state: Tensor) -> Tensor:
        return (state - self.mean) / self.scale


def squared_errors(found: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Squared errors (...) of states (..., 252) by kind, summed over the joints."""
    square = (found - truth).square()
    return {kind: square[..., part].sum(dim=-1) for kind, part in KINDS.items()}


def divergence(mean: Tensor, std: Tensor, expected: Tensor, spread: Tensor) -> Tensor:
    """Kullback-Leibler divergence (B,) of N(mean, std^2) from N(expected, spread^2), (B, L)."""
    ratio = (std / spread).square()
    offset = ((mean - expected) / spread).square()
    return 0.5 * (ratio + offset - 1 - ratio.log()).sum(dim=-1)
