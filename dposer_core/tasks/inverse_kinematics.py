"""Inverse kinematics: the pose of a hand, a face or a body from some of its joints.

Source: PROTOCOLS 3.6 and 3.8 (DPoser-X, inverse kinematics of hand and face, and its code).
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dposer_core.errors import ConfigError
from dposer_core.tasks.optimise import Stages, StageWeight, TimeSchedule, optimise
from dposer_core.tasks.prior_term import Denoising, PriorTerm

HandMode = Literal['sparse', 'fingertip', 'partial', 'noisy']
NUM_HAND_POINTS = 21
_END_POINTS = (0, 4, 8, 12, 16, 20)  # wrist and tips; the paper names the five tips only
_SPARSE_HIDDEN = 13
_FINGERS = tuple(tuple(range(start, start + 4)) for start in (1, 5, 9, 13, 17))


@dataclass(frozen=True)
class IkProtocol:
    """Weights and steps of one task."""

    stages: Stages
    learning_rates: Mapping[str, float]
    """By variable."""
    data: StageWeight
    prior: StageWeight
    schedule: TimeSchedule
    denoising: Denoising


def _hand(data: StageWeight, prior: StageWeight, t_max: float) -> IkProtocol:
    schedule = TimeSchedule('truncated', t_max, 0.05)
    denoising = Denoising('constant', 'mean')
    return IkProtocol(Stages(10, 30), {'pose': 0.05}, data, prior, schedule, denoising)


HAND_HIDDEN = _hand(StageWeight(100.0, 'rising'), StageWeight(0.1, 'falling'), 0.20)
"""Some points hidden, by the released code; the paper's text has t_max = 0.15."""


def hand_noisy(noise_mm: float) -> IkProtocol:
    """All points seen, with noise of 2, 5 or 10 mm."""
    weight = {2: 0.1, 5: 0.5, 10: 1.0}
    if noise_mm not in weight:
        raise ConfigError(f'hand noise of {noise_mm} mm; the protocol has 2, 5 and 10 mm')
    return _hand(StageWeight(10.0), StageWeight(0.1 * weight[noise_mm]), 0.15)


def _face(data: StageWeight, prior_weight: float) -> IkProtocol:
    return IkProtocol(
        Stages(10, 20),
        {'shape': 0.05, 'expression': 0.05, 'jaw': 0.1},
        data,
        StageWeight(1e-3 * prior_weight, 'falling'),
        TimeSchedule('truncated', 0.20, 0.05),
        Denoising('sqrt_snr_squared', 'sum_per_row'),
    )


FACE_HALF = _face(StageWeight(100.0, 'rising'), 0.1)
"""One side of the face is hidden."""


def face_noisy(noise_mm: float) -> IkProtocol:
    """All points seen, with noise of 0, 1, 2 or 5 mm."""
    weight = {0: 0.1, 1: 0.5, 2: 1.0, 5: 2.0}
    if noise_mm not in weight:
        raise ConfigError(f'face noise of {noise_mm} mm; the protocol has 0, 1, 2 and 5 mm')
    return _face(StageWeight(500.0), weight[noise_mm])


def hidden_hand_points(mode: HandMode, seed: int) -> list[int]:
    """Which of the 21 points (wrist, then thumb to little finger) a batch does not show.

    The draws are those of the official code for this seed of Python's generator.
    """
    if mode == 'noisy':
        return []
    if mode == 'fingertip':
        return [point for point in range(NUM_HAND_POINTS) if point not in _END_POINTS]
    rng = random.Random(seed)
    if mode == 'sparse':
        return sorted(rng.sample(range(NUM_HAND_POINTS), _SPARSE_HIDDEN))
    return sorted(point for finger in rng.sample(_FINGERS, 2) for point in finger)


def solve_ik(
    observed: Tensor,
    visible: Tensor,
    start: Mapping[str, Tensor],
    forward: Callable[[Mapping[str, Tensor]], Tensor],
    term: Callable[[Mapping[str, Tensor], int], Tensor],
    protocol: IkProtocol,
) -> dict[str, Tensor]:
    """The variables of `start` that explain the observed points.

    Args:
        observed: (B, P, 3) metres.
        visible: (P,) or (B, P) bool.
        start: variables by name, as in the protocol's learning rates.
        forward: variables -> points (B, P, 3).
        term: the prior's, of variables and step; `pose_term` for a single pose.
        protocol: weights and steps.
    """
    seen = visible.to(observed.dtype)[..., None]

    def loss(variables: dict[str, Tensor], stage: int, step: int) -> Tensor:
        data = (seen * (forward(variables) - observed)).square().mean()
        weight = protocol.prior.at(stage)
        return protocol.data.at(stage) * data + weight * term(variables, step)

    return optimise(start, protocol.learning_rates, protocol.stages, loss)


def pose_term(term: PriorTerm) -> Callable[[Mapping[str, Tensor], int], Tensor]:
    """`term` of the variable 'pose', for `solve_ik`."""
    return lambda variables, step: term(variables['pose'], step)


def face_term(
    shape: PriorTerm, expression: PriorTerm
) -> Callable[[Mapping[str, Tensor], int], Tensor]:
    """Sum of the terms of face shape and of jaw with expression, for `solve_ik`."""

    def term(variables: Mapping[str, Tensor], step: int) -> Tensor:
        value = shape(variables['shape'], step)
        face = torch.cat([variables['jaw'], variables['expression']], dim=-1)
        return value + expression(face, step)

    return term
