"""Pose completion: the hidden entries of a pose from the visible ones, in several hypotheses.

Source: PROTOCOLS 3.2 and 3.10 (DPoser-X, section on completion, and its released code).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dposer_core.baselines.base import PosePrior
from dposer_core.errors import ConfigError
from dposer_core.prior.architecture import WholeBodyLayout
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.sampling import Draw
from dposer_core.tasks.optimise import Stages, StageWeight, TimeSchedule, optimise
from dposer_core.tasks.prior_term import CompetitorTerm, Denoising, DiffusionTerm

BODY_PARTS: dict[str, tuple[int, ...]] = {
    'left_leg': (0, 3, 6, 9),
    'right_leg': (1, 4, 7, 10),
    'legs': (0, 1, 3, 4, 6, 7, 9, 10),
    'left_arm': (12, 15, 17, 19),
    'right_arm': (13, 16, 18, 20),
    'arms': (12, 13, 15, 16, 17, 18, 19, 20),
    'torso': (2, 5, 8, 15, 16),  # the official code hides the shoulders, not the collars
    'hands': (19, 20),
}
"""Joints hidden with a part: places in the 21-joint body pose, without the root."""
_WRISTS = {'lhand': 19, 'rhand': 20}


@dataclass(frozen=True)
class CompletionProtocol:
    """DPoser's completion; the second version of the official code used t_max 0.3, beta 0.999."""

    stages: Stages = Stages(2, 100, betas=(0.9, 0.99))
    learning_rate: float = 0.1  # of the normalised vector
    data: StageWeight = StageWeight(100.0, 'falling')
    prior: StageWeight = StageWeight(0.1, 'rising')
    schedule: TimeSchedule = TimeSchedule('truncated', 0.15, 0.05)
    denoising: Denoising = Denoising('sqrt_snr', 'mean')


@dataclass(frozen=True)
class CompetitorCompletion:
    """Completion by a competitor, on raw poses; visible entries are put back in every step."""

    learning_rate: float
    is_squared: bool = False
    """The mean distance of Pose-NDF enters squared."""
    stages: Stages = Stages(2, 100)
    start: float = 0.02
    """Size of the noise in the hidden entries at the start, rad."""


COMPETITORS = {
    'vposer': CompetitorCompletion(0.5),
    'posendf': CompetitorCompletion(2e-5, is_squared=True),
    # Not in the paper: our own choice of the step, that of the diffusion prior.
    'gmm': CompetitorCompletion(0.1),
    'l2': CompetitorCompletion(0.1),
    'nrdf': CompetitorCompletion(0.1, is_squared=True),
}
"""The prior is the only term, and Adam does not see its weight."""


def body_mask(part: str) -> Tensor:
    """(63,) bool, False where a part of `BODY_PARTS` is hidden."""
    if part not in BODY_PARTS:
        raise ConfigError(f"unknown part '{part}'; known: {', '.join(BODY_PARTS)}")
    mask = torch.ones(21, 3, dtype=torch.bool)
    mask[list(BODY_PARTS[part])] = False
    return mask.flatten()


def wholebody_mask(part: str, num_expression: int, with_wrist: bool = True) -> Tensor:
    """(D,) bool, False where 'lhand', 'rhand' or 'face' is hidden.

    `with_wrist`: a hidden hand's wrist, an entry of the body, is hidden too (the paper's choice).
    """
    layout = WholeBodyLayout(num_expression)
    names = ('body', 'lhand', 'rhand', 'face')
    if part not in names[1:]:
        raise ConfigError(f"unknown part '{part}'; known: {', '.join(names[1:])}")
    mask = torch.ones(layout.dim, dtype=torch.bool)
    mask[layout.parts[names.index(part)]] = False
    if with_wrist and part in _WRISTS:
        mask[3 * _WRISTS[part] : 3 * _WRISTS[part] + 3] = False
    return mask


def hide(x: Tensor, mask: Tensor, draw: Draw) -> Tensor:
    """`x` (B, D) normalised with standard normal noise in the hidden entries.

    Noise is drawn for these entries only, as (B, number of them).
    """
    hidden = ~mask if mask.ndim == 1 else ~mask[0]
    observation = x.clone()
    observation[:, hidden] = draw((len(x), int(hidden.sum())))
    return observation


def complete(
    prior: DiffusionPrior,
    observation: Tensor,
    mask: Tensor,
    draw: Draw,
    protocol: CompletionProtocol | None = None,
    times: Iterable[float] | None = None,
    seed: int = 0,
) -> Tensor:
    """Completed normalised poses.

    Args:
        prior: in eval mode.
        observation: (B, D) normalised, anything in the hidden entries: there the search begins.
        mask: (B, D) or (D,) bool, True = visible.
        draw: of the diffusion noise.
        protocol: None: the paper's.
        times: (steps,) instead of the protocol's.
        seed: of random times.

    Returns:
        (B, D), visible entries as given.
    """
    protocol = protocol or CompletionProtocol()
    stages = protocol.stages
    chosen = protocol.schedule.times(stages.total, seed) if times is None else list(times)
    term = DiffusionTerm(prior, None, protocol.denoising, chosen, draw)

    def loss(variables: dict[str, Tensor], stage: int, step: int) -> Tensor:
        x = variables['x']
        data = ((x - observation) ** 2 * mask).mean()
        return protocol.data.at(stage) * data + protocol.prior.at(stage) * term(x, step)

    found = optimise({'x': observation}, {'x': protocol.learning_rate}, stages, loss)
    return torch.where(mask, observation, found['x'])


def complete_with_competitor(
    prior: PosePrior, pose: Tensor, mask: Tensor, draw: Draw, protocol: CompetitorCompletion
) -> Tensor:
    """Completed raw poses.

    Args:
        prior: a competitor.
        pose: (B, D) raw; what `mask` hides is not looked at.
        mask: (B, D) or (D,) bool, True = visible.
        draw: of the starting point.
        protocol: an entry of `COMPETITORS`.
    """
    term = CompetitorTerm(prior, torch.square if protocol.is_squared else lambda loss: loss)

    def filled(variables: dict[str, Tensor]) -> Tensor:
        return torch.where(mask, pose, variables['x'])

    start = {'x': protocol.start * draw(tuple(pose.shape))}
    found = optimise(
        start,
        {'x': protocol.learning_rate},
        protocol.stages,
        lambda variables, stage, step: term(filled(variables), step),
    )
    return filled(found)
