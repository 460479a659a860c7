"""Completion by other diffusion solvers: ScoreSDE, DPS, MCG and DSG, on Euler-Maruyama steps.

Source: PROTOCOLS 3.2 (table S-18): 1000 steps from t = 1 to 0.001. As in the official code the
score is a constant in the gradient of DPS, the norm in it is over the whole batch, so that its
result depends on the batch, and what is returned is the mean of the last step.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.sampling import MIN_TIME, NUM_STEPS, Draw

Solver = Literal['scoresde', 'dps', 'mcg', 'dsg']
SOLVERS: dict[str, str] = {'scoresde': 'ScoreSDE', 'dps': 'DPS', 'mcg': 'MCG', 'dsg': 'DSG'}
"""Name in tables by name."""


@torch.no_grad()
def solve_completion(
    solver: Solver,
    prior: DiffusionPrior,
    observation: Tensor,
    mask: Tensor,
    draw: Draw,
    steps: int = NUM_STEPS,
    min_time: float = MIN_TIME,
    guidance: float = 1.0,
) -> Tensor:
    """Completed poses (B, D), normalised; only the hidden entries are of use.

    Args:
        solver: a key of `SOLVERS`.
        prior: in eval mode.
        observation: (B, D) normalised.
        mask: (B, D) or (D,) bool, True = visible.
        draw: source of noise.
        steps: of the predictor.
        min_time: where the grid of times ends.
        guidance: step of DPS and MCG along their gradient; rate of DSG.
    """
    imputes, guides = solver in ('scoresde', 'mcg'), solver in ('dps', 'mcg')
    shape = tuple(observation.shape)
    x = draw(shape)
    sde, mean = prior.sde, x
    for t in torch.linspace(1.0, min_time, steps):
        if imputes:  # once where the corrector would stand, once after the predictor
            x = _impute(prior, x, observation, mask, t, draw)
        score = prior.score(x, t)
        mean = x - sde.reverse_drift(x, t, score) / steps
        spread = float(sde.diffusion(t)) * math.sqrt(1 / steps)
        noise = draw(shape)
        after = mean + spread * noise
        if guides:
            after = after - guidance * _gradient(prior, x, score, observation, mask, t)
        if solver == 'dsg':
            radius = math.sqrt(shape[-1]) * spread
            direction = _unit(_gradient(prior, x, score, observation, mask, t))
            sampled = after - mean
            mixed = sampled + guidance * (-radius * direction - sampled)
            after = mean + radius * _unit(mixed)
        x = after
        if imputes:
            x = _impute(prior, x, observation, mask, t, draw)
    return mean


def _impute(
    prior: DiffusionPrior, x: Tensor, observation: Tensor, mask: Tensor, t: Tensor, draw: Draw
) -> Tensor:
    """`x` with the visible entries replaced by the observation at noise level t."""
    return torch.where(mask, prior.sde.add_noise(observation, t, draw(tuple(x.shape))), x)


def _gradient(
    prior: DiffusionPrior, x: Tensor, score: Tensor, observation: Tensor, mask: Tensor, t: Tensor
) -> Tensor:
    """Gradient by x of the distance of x0_hat from the observation, the score held constant."""
    alpha, sigma = prior.sde.alpha(t), prior.sde.sigma(t)
    residual = mask * (observation - (x + sigma**2 * score) / alpha)
    return -residual / residual.norm() / alpha


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
