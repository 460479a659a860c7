"""Completion in several modes: particles that come down from pure noise, and those to name.

DPoser's loop starts from noise of the size of the data and falls into a mode near it, so tries
from other noise find some modes often and others never. Here particles are sampled: every step
denoises, puts the visible entries in place and adds the noise of the next, smaller t (for a mask
that is the null-space sampler: Wang, Yu, Zhang, ICLR 2023). Twenty steps do, so a loop's worth of
network calls gives ten times as many particles, of which those are kept that lie nearest to all
others: the best of K is what K medians of the samples are made for.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.sampling import Draw

STEPS = 20
_T_MAX, _T_MIN = 1.0, 0.02


@torch.no_grad()
def anneal(
    prior: DiffusionPrior, observation: Tensor, mask: Tensor, draw: Draw, steps: int = STEPS
) -> Tensor:
    """Completed normalised poses, samples of what the prior thinks of the hidden entries.

    Args:
        prior: in eval mode.
        observation: (B, D) normalised; what is hidden is not looked at.
        mask: (B, D) or (D,) bool, True = visible.
        draw: source of noise.
        steps: network calls, but for the last one.

    Returns:
        (B, D), visible entries as given.
    """
    sde = prior.sde
    times = np.geomspace(_T_MAX, _T_MIN, steps + 1)
    x = draw(tuple(observation.shape))
    for t, after in pairwise(times):
        clean = torch.where(mask, observation, prior.denoise(x, float(t)))
        x = sde.add_noise(clean, float(after), draw(tuple(x.shape)))
    return torch.where(mask, observation, prior.denoise(x, float(times[-1])))


def representatives(points: Tensor, count: int) -> Tensor:
    """Which of M particles stand for all: (count, N) indices, the most typical first.

    Each next one is that which brings the mean distance of all particles to their nearest
    representative down the most.

    Args:
        points: (M, N, P, 3) of M particles of each of N poses.
        count: at most M.
    """
    apart = torch.linalg.norm(points[:, None] - points[None], dim=-1).mean(dim=-1)  # (M, M, N)
    column = torch.arange(apart.shape[-1])
    nearest = torch.full_like(apart[0], torch.inf)
    chosen = []
    for _ in range(count):
        cost = torch.minimum(nearest, apart).mean(dim=1)  # (candidates, N)
        best = cost.argmin(dim=0)
        chosen.append(best)
        nearest = torch.minimum(nearest, apart[best, :, column].T)
    return torch.stack(chosen)
