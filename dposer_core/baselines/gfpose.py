"""GFPose: the score of 3D joints given 2D keypoints; hypotheses are drawn by the reverse process.

Source: Ci et al., CVPR 2023. Here the 22 joints of the body stand for 17 of Human3.6M, OpenPose's
25 points are the condition, the process is DPoser's sub-VP one with its noise predicted, and the
network is smaller. The condition is left out of one training row in ten, so that the same network
also knows bodies that nobody sees; single points go missing as in the table, and joints are never
masked.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dposer_core.baselines.lifting import CONDITION, NUM_JOINTS, unpack
from dposer_core.prior.sampling import MIN_TIME, normal_draw, predictor_corrector
from dposer_core.prior.sde import SubVP

_FOURIER_SCALE = 16.0
_SEED = 11
_STEPS = 500  # of the reverse process


@dataclass(frozen=True)
class GfPoseConfig:
    """Sizes of the network."""

    hidden: int = 384
    embed: int = 128
    blocks: int = 2
    unit_m: float = 0.4
    """Metres in a unit of the network: about one standard deviation of a joint."""
    unconditional: float = 0.1
    """Share of training rows without the condition."""


class GfPose(nn.Module):
    """Predicts the noise in joints relative to the pelvis."""

    name = 'GFPose'

    def __init__(self, config: GfPoseConfig) -> None:
        super().__init__()
        self.config, self.sde = config, SubVP()
        hidden, dim = config.hidden, 3 * (NUM_JOINTS - 1)
        self.first = nn.Linear(dim, hidden)
        self.seen = nn.Linear(CONDITION, hidden)
        frequencies = _FOURIER_SCALE * torch.randn(config.embed // 2)
        self.register_buffer('frequencies', frequencies)
        self.time = nn.Sequential(nn.Linear(config.embed, hidden), nn.SiLU())
        self.blocks = nn.ModuleList(_Block(hidden) for _ in range(config.blocks))
        self.last = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, t: Tensor, seen: Tensor) -> Tensor:
        """Noise (B, 63) in x (B, 63) at times (B,), given keypoints (B, 75); zeros: none."""
        angle = 2 * torch.pi * t[:, None] * self.frequencies
        time = self.time(torch.cat([angle.sin(), angle.cos()], dim=1))
        h = functional.silu(self.first(x) + self.seen(seen) + time)
        for block in self.blocks:
            h = block(h, time)
        return self.last(h)

    def loss(self, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean squared error of the noise of rows (B, 207); the same draws without a generator."""
        generator = generator or torch.Generator().manual_seed(_SEED)
        bodies = unpack(rows)
        x = bodies.joints[:, 1:].flatten(1) / self.config.unit_m
        t = MIN_TIME + (1 - MIN_TIME) * torch.rand(len(x), generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        kept = torch.rand((len(x), 1), generator=generator) >= self.config.unconditional
        predicted = self(self.sde.add_noise(x, t, noise), t, bodies.seen * kept)
        return (predicted - noise).square().mean()

    @torch.no_grad()
    def joints(self, seen: Tensor, seed: int, steps: int = _STEPS) -> Tensor:
        """One hypothesis each: (B, 22, 3) m about the pelvis, for keypoints (B, 75)."""
        shape = (len(seen), 3 * (NUM_JOINTS - 1))
        given = _Given(self, seen)
        x = predictor_corrector(given, shape, normal_draw(seed), steps, MIN_TIME)
        found = self.config.unit_m * x.reshape(len(seen), -1, 3)
        return torch.cat([torch.zeros(len(seen), 1, 3), found], dim=1)


class _Given:
    """The network with its keypoints, as samplers want a prior."""

    def __init__(self, network: GfPose, seen: Tensor) -> None:
        self.sde, self._network, self._seen = network.sde, network, seen

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        times = torch.as_tensor(t, dtype=x.dtype).expand(len(x))
        return self.sde.score(self._network(x, times, self._seen), times)


class _Block(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2))

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        inner = functional.silu(self.inner(self.norms[0](h + time)))
        return h + functional.silu(self.outer(self.norms[1](inner)))
