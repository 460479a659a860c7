"""Adam in stages with weights that change from stage to stage: the loop under every task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dposer_core.prior import schedule

Change = Literal['constant', 'rising', 'falling', 'falling_squared']


@dataclass(frozen=True)
class StageWeight:
    """Weight of a term in stage it = 0, 1, ..."""

    base: float
    change: Change = 'constant'
    """'rising': times 1 + it; 'falling': over 1 + it; 'falling_squared': over 1 + it^2."""
    first_stage: int = 0
    """Zero before."""

    def at(self, stage: int) -> float:
        """The weight in a stage."""
        if stage < self.first_stage:
            return 0.0
        factor = {
            'constant': 1.0,
            'rising': 1.0 + stage,
            'falling': 1.0 / (1 + stage),
            'falling_squared': 1.0 / (1 + stage**2),
        }
        return self.base * factor[self.change]


@dataclass(frozen=True)
class TimeSchedule:
    """Diffusion times of the prior term, one per step."""

    strategy: Literal['truncated', 'uniform', 'fixed', 'random'] = 'truncated'
    t_max: float = 0.15
    """Where 'truncated' begins."""
    t_min: float = 0.05
    """Where 'truncated' ends."""
    t: float = 0.1
    """Of 'fixed'; the paper's value."""

    def times(self, steps: int, seed: int = 0) -> np.ndarray:
        """(steps,) times; `seed` matters to 'random' only."""
        if self.strategy == 'truncated':
            return schedule.truncated_times(self.t_max, self.t_min, steps)
        if self.strategy == 'uniform':
            return schedule.uniform_times(steps)
        if self.strategy == 'fixed':
            return schedule.fixed_times(self.t, steps)
        return schedule.random_times(steps, np.random.default_rng(seed))


@dataclass(frozen=True)
class Stages:
    """How long and how fast."""

    stages: int
    steps: int
    """Per stage."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    @property
    def total(self) -> int:
        """Steps of all stages."""
        return self.stages * self.steps


def optimise(
    variables: Mapping[str, Tensor],
    learning_rates: Mapping[str, float],
    stages: Stages,
    loss: Callable[[Mapping[str, Tensor], int, int], Tensor],
) -> dict[str, Tensor]:
    """Minimise `loss(variables, stage, step)` from `variables`, which stay as they are.

    Args:
        variables: by name, any shapes.
        learning_rates: by name.
        stages: numbers of stages and steps, and Adam's constants.
        loss: of the variables, the stage from 0 and the step from 0 over all stages.

    Returns:
        The variables after the last step, without gradient.
    """
    found = {name: value.detach().clone().requires_grad_() for name, value in variables.items()}
    groups = [{'params': [value], 'lr': learning_rates[name]} for name, value in found.items()]
    optimiser = torch.optim.Adam(groups, betas=stages.betas, eps=stages.eps)
    for step in range(stages.total):
        value = loss(found, step // stages.steps, step)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return {name: value.detach() for name, value in found.items()}
