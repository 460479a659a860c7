"""Diffusion times of an optimisation, one per step: the strategies of the paper, as arrays."""

import numpy as np

MIN_TIME = 1e-3  # smallest time that random and uniform strategies use


def truncated_times(t_max: float, t_min: float, steps: int) -> np.ndarray:
    """(steps,) falling from just below `t_max` to `t_min`: the paper's strategy.

    The official code divides by `steps`, the paper's Eq. 11 by `steps - 1`; this is the code's.
    """
    return t_min + np.arange(steps - 1, -1, -1) / steps * (t_max - t_min)


def uniform_times(steps: int) -> np.ndarray:
    """(steps,) the whole range from 1 downwards, not truncated."""
    return truncated_times(1.0, MIN_TIME, steps)


def random_times(steps: int, rng: np.random.Generator) -> np.ndarray:
    """(steps,) independent and uniform in [0.001, 1)."""
    return MIN_TIME + (1.0 - MIN_TIME) * rng.random(steps)


def fixed_times(t: float, steps: int) -> np.ndarray:
    """(steps,) all `t`; the paper uses 0.1."""
    return np.full(steps, float(t))
