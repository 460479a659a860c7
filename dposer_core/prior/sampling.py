"""Samplers of the prior: Euler-Maruyama, few-step DDIM, probability flow; and likelihood.

Source: Song et al., ICLR 2021, with the step sizes and draws of PROTOCOLS 3.0. Noise comes from
`draw(shape)`, in the order of the official code, so that runs can be repeated and compared.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from dposer_core.prior.prior import DiffusionPrior

Draw = Callable[[tuple[int, ...]], Tensor]
NUM_STEPS = 1000
MIN_TIME = 1e-3  # the paper's figures use 5e-3 for body, hand and whole body


def normal_draw(seed: int) -> Draw:
    """Standard normal noise from a seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator)


@torch.no_grad()
def euler_maruyama(
    prior: DiffusionPrior,
    shape: tuple[int, int],
    draw: Draw,
    steps: int = NUM_STEPS,
    min_time: float = MIN_TIME,
    probability_flow: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Samples (B, D), normalised.

    The step is 1 / steps throughout although the grid ends at `min_time`; the last step's noise
    is drawn but left out of the result. Both as in the official code.
    """
    x = draw(shape)
    step = -1.0 / steps
    for index, t in enumerate(torch.linspace(1.0, min_time, steps)):
        score = prior.score(x, t)
        mean = x + prior.sde.reverse_drift(x, t, score, probability_flow) * step
        noise = draw(shape)
        g = 0.0 if probability_flow else prior.sde.diffusion(t)
        x = mean + g * math.sqrt(-step) * noise
        if progress is not None:
            progress(index + 1, steps)
    return mean


@torch.no_grad()
def ddim(prior: DiffusionPrior, shape: tuple[int, int], draw: Draw, steps: int = 10) -> Tensor:
    """Samples (B, D), normalised, in few deterministic steps from t = 1."""
    return prior.denoise_steps(draw(shape), 1.0, MIN_TIME, steps)


@torch.no_grad()
def probability_flow(
    prior: DiffusionPrior, latent: Tensor, min_time: float = MIN_TIME, tolerance: float = 1e-5
) -> Tensor:
    """Deterministic samples (B, D) of latents (B, D) at t = 1, by RK45 on the whole batch."""

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(flat.reshape(latent.shape)).to(latent.dtype)
        return _flow(prior, x, t).numpy().ravel()

    start = latent.numpy().ravel()
    solved = solve_ivp(
        slope, (1.0, min_time), start, method='RK45', rtol=tolerance, atol=tolerance
    )
    return torch.from_numpy(solved.y[:, -1].reshape(latent.shape)).to(latent.dtype)


def bits_per_dim(
    prior: DiffusionPrior,
    x_0: Tensor,
    probe: Tensor,
    min_time: float = 1e-5,
    tolerance: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Negative log likelihood in bits per dimension.

    Args:
        prior: in eval mode.
        x_0: (B, D) normalised data.
        probe: (B, D) of +1 and -1 (Rademacher) for the trace of the Jacobian.
        min_time: time at which the data are placed.
        tolerance: of RK45, relative and absolute.

    Returns:
        (B,) bits per dimension of the normalised vectors and (B, D) latents.
    """
    shape, batch = x_0.shape, len(x_0)

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(flat[:-batch].reshape(shape)).to(x_0.dtype).requires_grad_()
        with torch.enable_grad():
            flow = _flow(prior, x, t)
            (gradient,) = torch.autograd.grad((flow * probe).sum(), x)
        trace = (gradient * probe).sum(-1)
        return np.concatenate([flow.detach().numpy().ravel(), trace.numpy()])

    start = np.concatenate([x_0.numpy().ravel(), np.zeros(batch)])
    solved = solve_ivp(
        slope, (min_time, 1.0), start, method='RK45', rtol=tolerance, atol=tolerance
    )
    latent = torch.from_numpy(solved.y[:-batch, -1].reshape(shape)).to(x_0.dtype)
    log_density = prior.sde.prior_logp(latent) + torch.from_numpy(solved.y[-batch:, -1])
    return -log_density / math.log(2) / shape[-1], latent


def _flow(prior: DiffusionPrior, x: Tensor, t: float) -> Tensor:
    time = torch.full((len(x),), t, dtype=x.dtype)
    return prior.sde.reverse_drift(x, time, prior.score(x, time), probability_flow=True)
