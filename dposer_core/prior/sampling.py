"""Samplers of the prior: predictor-corrector, few-step DDIM, probability flow; and likelihood.

Source: Song et al., ICLR 2021, with the step sizes and draws of PROTOCOLS 3.0. Noise comes from
`draw(shape)`, in the order of the official code, so that runs can be repeated and compared.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from dposer_core.errors import ConfigError
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.sde import LinearBeta

Draw = Callable[[tuple[int, ...]], Tensor]
Progress = Callable[[int, int], None]
Corrector = Callable[[DiffusionPrior, Tensor, Tensor, float, Draw], Tensor]
"""Prior, x (B, D), time, share of variance kept by a predictor step, noise -> x (B, D)."""
NUM_STEPS = 1000
MIN_TIME = 1e-3  # the paper's figures use 5e-3 for body, hand and whole body


def normal_draw(seed: int) -> Draw:
    """Standard normal noise from a seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator)


def rademacher(shape: tuple[int, ...], seed: int) -> Tensor:
    """+1 and -1 with equal chance, the probes of `bits_per_dim`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, shape, generator=generator).float() * 2 - 1


@dataclass(frozen=True)
class LangevinCorrector:
    """Steps of Langevin dynamics at a fixed time, their size from the norm of the score."""

    snr: float = 0.16
    """Size of a step: wanted ratio of its score part to its noise part."""
    steps: int = 1

    def __call__(
        self, prior: DiffusionPrior, x: Tensor, t: Tensor, kept: float, draw: Draw
    ) -> Tensor:
        """`x` (B, D) moved towards the distribution of time t."""
        for _ in range(self.steps):
            score = prior.score(x, t)
            noise = draw(tuple(x.shape))
            # Norms are averaged over the batch, as in the official code.
            ratio = self.snr * noise.norm(dim=-1).mean() / score.norm(dim=-1).mean()
            x = _langevin_step(x, score, noise, 2 * kept * ratio**2)
        return x


@dataclass(frozen=True)
class AnnealedLangevinCorrector:
    """Steps of annealed Langevin dynamics (ALD): their size from the noise level alone."""

    snr: float = 0.16
    """Size of a step, relative to sigma."""
    steps: int = 1

    def __call__(
        self, prior: DiffusionPrior, x: Tensor, t: Tensor, kept: float, draw: Draw
    ) -> Tensor:
        """`x` (B, D) moved towards the distribution of time t."""
        for _ in range(self.steps):
            score = prior.score(x, t)
            step = 2 * kept * (self.snr * prior.sde.sigma(t)) ** 2
            x = _langevin_step(x, score, draw(tuple(x.shape)), step)
        return x


def _langevin_step(x: Tensor, score: Tensor, noise: Tensor, step: Tensor) -> Tensor:
    return x + step * score + torch.sqrt(2 * step) * noise


def _kept_variance(prior: DiffusionPrior, t: float, steps: int) -> float:
    """1 - beta of the discrete chain of `steps` steps, by which correctors shorten theirs."""
    if not isinstance(prior.sde, LinearBeta):
        return 1.0
    kept = 1.0 - prior.sde.beta(int(t * (steps - 1)) / (steps - 1)) / steps
    if kept <= 0:
        raise ConfigError(
            f'a corrector with {steps} steps: at t = {t:.2f} one step would remove all of the '
            f'sample; use more than {math.ceil(prior.sde.beta_max)} steps'
        )
    return kept


@torch.no_grad()
def predictor_corrector(
    prior: DiffusionPrior,
    shape: tuple[int, int],
    draw: Draw,
    steps: int = NUM_STEPS,
    min_time: float = MIN_TIME,
    reverse_diffusion: bool = False,
    corrector: Corrector | None = None,
    probability_flow: bool = False,
    progress: Progress | None = None,
) -> Tensor:
    """Samples (B, D), normalised, by the reverse process from t = 1.

    The step is 1 / steps throughout although the grid ends at `min_time`; the last step's noise
    is drawn but left out of the result. Both as in the official code.

    Args:
        prior: in eval mode.
        shape: (B, D).
        draw: source of noise.
        steps: of the predictor.
        min_time: where the grid of times ends.
        reverse_diffusion: step by the reversed discrete chain of the process instead of
            Euler-Maruyama; the two differ for the VP and VE processes only.
        corrector: run before each step of the predictor.
        probability_flow: follow the deterministic flow (Euler); its noise is drawn, not used.
        progress: called with the number of steps done and of all.
    """
    x = draw(shape)
    for index, t in enumerate(torch.linspace(1.0, min_time, steps)):
        if corrector is not None:
            x = corrector(prior, x, t, _kept_variance(prior, float(t), steps), draw)
        score = prior.score(x, t)
        noise = draw(shape)
        if reverse_diffusion:
            f, g = prior.sde.reverse_discretise(x, t, score, steps)
            mean = x - f
        else:
            mean = x - prior.sde.reverse_drift(x, t, score, probability_flow) / steps
            g = 0.0 if probability_flow else prior.sde.diffusion(t) * math.sqrt(1 / steps)
        x = mean + g * noise
        if progress is not None:
            progress(index + 1, steps)
    return mean


def euler_maruyama(
    prior: DiffusionPrior,
    shape: tuple[int, int],
    draw: Draw,
    steps: int = NUM_STEPS,
    min_time: float = MIN_TIME,
    progress: Progress | None = None,
) -> Tensor:
    """Samples (B, D), normalised, as the paper draws them: see `predictor_corrector`."""
    return predictor_corrector(prior, shape, draw, steps, min_time, progress=progress)


@torch.no_grad()
def ddim(prior: DiffusionPrior, shape: tuple[int, int], draw: Draw, steps: int = 10) -> Tensor:
    """Samples (B, D), normalised, in few deterministic steps from t = 1 (the paper's DPoser*)."""
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
    min_time: float = 1e-4,
    tolerance: float = 1e-4,
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

    Source: Hutchinson's estimate, PROTOCOLS 4.8.
    """
    shape, batch = x_0.shape, len(x_0)

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(flat[:-batch].reshape(shape)).to(x_0.dtype)
        flow, trace = flow_and_trace(prior, x, t, probe)
        return np.concatenate([flow.numpy().ravel(), trace.numpy()])

    start = np.concatenate([x_0.numpy().ravel(), np.zeros(batch)])
    solved = solve_ivp(
        slope, (min_time, 1.0), start, method='RK45', rtol=tolerance, atol=tolerance
    )
    latent = torch.from_numpy(solved.y[:-batch, -1].reshape(shape)).to(x_0.dtype)
    log_density = prior.sde.prior_logp(latent) + torch.from_numpy(solved.y[-batch:, -1])
    return -log_density / math.log(2) / shape[-1], latent


def flow_and_trace(
    prior: DiffusionPrior, x: Tensor, t: float, probe: Tensor
) -> tuple[Tensor, Tensor]:
    """Slope (B, D) of the probability flow at x (B, D), and the estimate (B,) of its divergence.

    `probe` (B, D) of +1 and -1: the estimate is exact in the mean over probes.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        flow = _flow(prior, x, t)
        (gradient,) = torch.autograd.grad((flow * probe).sum(), x)
    return flow.detach(), (gradient * probe).sum(-1)


def _flow(prior: DiffusionPrior, x: Tensor, t: float) -> Tensor:
    time = torch.full((len(x),), t, dtype=x.dtype)
    return prior.sde.reverse_drift(x, time, prior.score(x, time), probability_flow=True)
