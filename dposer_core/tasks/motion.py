"""Motion denoising: a clip's poses from noisy or partly hidden joints.

Source: PROTOCOLS 3.4 and 3.5 (DPoser-X, motion denoising, and its released code).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dposer_core.tasks.optimise import Stages, StageWeight, TimeSchedule, optimise
from dposer_core.tasks.prior_term import Denoising, PriorTerm

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Body poses (T, 63) raw -> joints (T, 22, 3) and vertices (T, V, 3), metres."""


@dataclass(frozen=True)
class MotionProtocol:
    """Weights and steps; the defaults are those of noisy joints."""

    stages: Stages
    schedule: TimeSchedule
    prior_scale: float = 1.0
    """Factor of the prior's weight; the code has 0.5 for random times, and by part."""
    learning_rate: float = 0.03
    data: StageWeight = StageWeight(100.0, 'falling_squared')
    smooth: StageWeight = StageWeight(10.0, 'rising')
    prior: StageWeight = StageWeight(0.1, 'rising')
    denoising: Denoising = Denoising('constant', 'sum_per_row', t_end_share=1 / 20)


NOISY_CODE = {
    20: MotionProtocol(Stages(3, 40), TimeSchedule('truncated', 0.20, 0.05)),
    40: MotionProtocol(Stages(3, 60), TimeSchedule('truncated', 0.25, 0.05)),
    100: MotionProtocol(Stages(3, 80), TimeSchedule('truncated', 0.25, 0.10)),
}
"""By joint noise in mm, as the released code has it."""
NOISY_PAPER = NOISY_CODE | {
    40: dataclasses.replace(NOISY_CODE[40], schedule=TimeSchedule('truncated', 0.20, 0.05)),
    100: dataclasses.replace(NOISY_CODE[100], schedule=TimeSchedule('truncated', 0.20, 0.10)),
}
"""With the intervals that give the paper's figures (its table S-3)."""


def _partial(t_max: float, scale: float) -> MotionProtocol:
    return MotionProtocol(
        Stages(3, 80, eps=1e-6),
        TimeSchedule('truncated', t_max, 0.01),
        prior_scale=scale,
        data=StageWeight(100.0),
        smooth=StageWeight(20.0, first_stage=2),
        prior=StageWeight(1.0, 'rising'),
        denoising=Denoising('sqrt_snr', 'sum_per_row', t_end_share=1 / 20),
    )


PARTIAL = {
    'legs': _partial(0.2, 0.4),
    'left_arm': _partial(0.3, 0.2),
    'right_body': _partial(0.3, 0.3),
}
"""By hidden part."""
HIDDEN_JOINTS = {
    'legs': (1, 2, 4, 5, 7, 8, 10, 11),
    'left_arm': (13, 16, 18, 20),
    'right_body': (2, 5, 8, 11, 14, 17, 19, 21),
}
"""Of the 22 joints, by hidden part."""


def denoise_motion(
    observed: Tensor,
    start: Tensor,
    forward: Forward,
    term: PriorTerm,
    protocol: MotionProtocol,
    visible: Tensor | None = None,
    clips: int = 1,
) -> Tensor:
    """Body poses (T, 63) raw of a clip, or of `clips` clips of equal length one after another.

    The paper writes squared errors; its code, followed here, has plain distances.

    Args:
        observed: (T, 22, 3) metres, the pelvis as it is without root rotation and translation.
        start: (T, 63) raw.
        forward: the body.
        term: of the prior; its weight is the protocol's.
        protocol: weights and steps.
        visible: (22,) bool; hidden joints count as exact, so they weigh nothing. None: all.
        clips: fitted side by side; losses are means over them, which Adam does not notice.
    """
    seen = torch.ones(observed.shape[1]) if visible is None else visible.to(observed.dtype)

    def loss(variables: dict[str, Tensor], stage: int, step: int) -> Tensor:
        pose = variables['pose']
        joints, vertices = forward(pose)
        data = (seen * torch.linalg.norm(joints - observed, dim=-1)).mean()
        total = protocol.data.at(stage) * data
        if (smooth := protocol.smooth.at(stage)) > 0:
            total = (
                total
                + smooth
                * torch.linalg.norm(vertices.unflatten(0, (clips, -1)).diff(dim=1), dim=-1).mean()
            )
        weight = protocol.prior.at(stage) * protocol.prior_scale
        return total + weight * term(pose, step)

    found = optimise({'pose': start}, {'pose': protocol.learning_rate}, protocol.stages, loss)
    return found['pose']


def smooth_motion(poses: Tensor, window: int = 5, sigma: float = 3.0) -> Tensor:
    """(T, D) of partial denoising smoothed over time; the first and last frames stay."""
    half = window // 2
    smooth = smooth_gaussian(poses, window, sigma)
    return torch.cat([poses[:half], smooth[half : len(poses) - half], poses[len(poses) - half :]])


def smooth_gaussian(poses: Tensor, window: int, sigma: float) -> Tensor:
    """(T, D) under a Gaussian window over time; zeros lie before and after the clip."""
    offsets = torch.arange(window, dtype=poses.dtype) - window // 2
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    return _convolve(poses, kernel / kernel.sum())


def smooth_moving(poses: Tensor, window: int) -> Tensor:
    """(T, D) moving average over time; zeros lie before and after the clip."""
    return _convolve(poses, torch.full((window,), 1.0 / window, dtype=poses.dtype))


def _convolve(poses: Tensor, kernel: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(poses, (0, 0, len(kernel) // 2, len(kernel) // 2))
    return padded.unfold(0, len(kernel), 1) @ kernel
