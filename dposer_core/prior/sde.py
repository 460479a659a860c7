"""The diffusion processes: alpha, sigma, SNR, drift and diffusion. Time runs from 0 (data) to 1.

Every function takes floats, numpy arrays or torch tensors and returns the same kind; a vector of
times (B,) goes with rows (B, D). Nothing here imports torch.

Source: Song et al., ICLR 2021 (score SDE); DPoser uses the sub-VP process.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

NUM_STEPS = 1000  # N of the discretised processes


def _exp(x: Any) -> Any:
    return x.exp() if hasattr(x, 'exp') else np.exp(x)


def _sqrt(x: Any) -> Any:
    return x.sqrt() if hasattr(x, 'sqrt') else np.sqrt(x)


def _column(value: Any, x: Any) -> Any:
    """A value per row (B,) as (B, 1), so that it multiplies rows; scalars stay."""
    return value[:, None] if getattr(value, 'ndim', 0) == 1 and x.ndim == 2 else value


class SDE(ABC):
    """What the processes share. A process gives `alpha`, `sigma`, `drift` and `diffusion`."""

    @abstractmethod
    def alpha(self, t: Any) -> Any:
        """Factor of the clean sample in x_t."""

    @abstractmethod
    def sigma(self, t: Any) -> Any:
        """Standard deviation of the noise in x_t."""

    @abstractmethod
    def drift(self, x: Any, t: Any) -> Any:
        """f(x, t) of dx = f dt + g dw."""

    @abstractmethod
    def diffusion(self, t: Any) -> Any:
        """g(t) of dx = f dt + g dw."""

    def snr(self, t: Any) -> Any:
        """alpha / sigma (not squared)."""
        return self.alpha(t) / self.sigma(t)

    def add_noise(self, x_0: Any, t: Any, noise: Any) -> Any:
        """x_t = alpha x_0 + sigma noise."""
        return _column(self.alpha(t), x_0) * x_0 + _column(self.sigma(t), x_0) * noise

    def score(self, eps: Any, t: Any) -> Any:
        """Score of x_t from the network's noise prediction `eps`."""
        return -eps / _column(self.sigma(t), eps)

    def x0_hat(self, x_t: Any, eps: Any, t: Any) -> Any:
        """Expected clean sample given x_t, from the noise prediction `eps` (Tweedie)."""
        return (x_t - _column(self.sigma(t), x_t) * eps) / _column(self.alpha(t), x_t)

    def reverse_drift(self, x: Any, t: Any, score: Any, probability_flow: bool = False) -> Any:
        """Drift of the reverse SDE, or of the probability-flow ODE."""
        g_squared = _column(self.diffusion(t) ** 2, x)
        return self.drift(x, t) - g_squared * score * (0.5 if probability_flow else 1.0)

    def discretise(self, x: Any, t: Any, steps: int = NUM_STEPS) -> tuple[Any, Any]:
        """f, G of one of N = `steps` steps x' = x + f + G z; Euler-Maruyama unless overridden."""
        return self.drift(x, t) / steps, self.diffusion(t) * math.sqrt(1.0 / steps)

    def reverse_discretise(
        self, x: Any, t: Any, score: Any, steps: int = NUM_STEPS
    ) -> tuple[Any, Any]:
        """f, G of one of N = `steps` reverse steps x' = x - f + G z (ancestral sampling)."""
        f, g = self.discretise(x, t, steps)
        return f - _column(g**2, x) * score, g

    def prior_logp(self, z: Any) -> Any:
        """Log density (B,) of latents (B, D) at t = 1."""
        return -z.shape[-1] / 2.0 * math.log(2 * math.pi) - (z**2).sum(-1) / 2.0


class LinearBeta(SDE):
    """Processes whose noise rate beta(t) grows linearly."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.beta_min = beta_min
        self.beta_max = beta_max

    def beta(self, t: Any) -> Any:
        """Noise rate at time t."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_alpha(self, t: Any) -> Any:
        """Logarithm of alpha."""
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def alpha(self, t: Any) -> Any:
        return _exp(self.log_alpha(t))

    def drift(self, x: Any, t: Any) -> Any:
        return -0.5 * _column(self.beta(t), x) * x


class SubVP(LinearBeta):
    """The sub-variance-preserving process of the paper: sigma = 1 - alpha^2 (no square root)."""

    def sigma(self, t: Any) -> Any:
        return 1.0 - _exp(2.0 * self.log_alpha(t))

    def diffusion(self, t: Any) -> Any:
        discount = 1.0 - _exp(-2.0 * self.beta_min * t - (self.beta_max - self.beta_min) * t**2)
        return _sqrt(self.beta(t) * discount)


class VP(LinearBeta):
    """The variance-preserving process (DDPM in continuous time)."""

    def sigma(self, t: Any) -> Any:
        return _sqrt(1.0 - _exp(2.0 * self.log_alpha(t)))

    def diffusion(self, t: Any) -> Any:
        return _sqrt(self.beta(t))

    def discretise(self, x: Any, t: Any, steps: int = NUM_STEPS) -> tuple[Any, Any]:
        # The discrete chain of DDPM: the continuous betas over N, on N grid points.
        step = _label_floor(t, steps)
        beta = (self.beta_min + step * (self.beta_max - self.beta_min) / (steps - 1)) / steps
        return _column(_sqrt(1.0 - beta), x) * x - x, _sqrt(beta)


class VE(SDE):
    """The variance-exploding process: the sample keeps its size, sigma grows geometrically."""

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def alpha(self, t: Any) -> Any:
        return t * 0.0 + 1.0

    def sigma(self, t: Any) -> Any:
        return self.sigma_min * _exp(t * math.log(self.sigma_max / self.sigma_min))

    def drift(self, x: Any, t: Any) -> Any:
        return x * 0.0

    def diffusion(self, t: Any) -> Any:
        return self.sigma(t) * math.sqrt(2.0 * math.log(self.sigma_max / self.sigma_min))

    def discretise(self, x: Any, t: Any, steps: int = NUM_STEPS) -> tuple[Any, Any]:
        step = _label_floor(t, steps)
        grid = steps - 1
        now = self.sigma(step / grid)
        before = self.sigma((step - 1) / grid) * (step > 0)
        return x * 0.0, _sqrt(now**2 - before**2)

    def prior_logp(self, z: Any) -> Any:
        variance = self.sigma_max**2
        return -z.shape[-1] / 2.0 * math.log(2 * math.pi * variance) - (z**2).sum(-1) / (
            2.0 * variance
        )


def _label_floor(t: Any, steps: int) -> Any:
    """Grid index (0 to steps - 1) of time t, as a number of the same kind as t."""
    scaled = t * (steps - 1)
    return scaled.floor() if hasattr(scaled, 'floor') else np.floor(scaled)
