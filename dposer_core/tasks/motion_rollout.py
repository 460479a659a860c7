"""Motion denoising with a motion prior: the first state and the codes of all steps are searched.

Source: HuMoR (Rempe et al., ICCV 2021), its optimisation at test time; it does the same with MVAE.
The joints' noise is known, as to all rows of the table, so data and prior have the weights of a
posterior (in the authors' settings the prior has about a third of it). The body's shape is known
and there is no ground, so of the further terms one remains: the joints of a state agree with those
of its rotations. Adam takes the place of L-BFGS.

Codes count in standard deviations of the prior, as if these were searched: without the logarithm
of the deviation, that is. With it the search flees to states at which the prior is sure of itself.
On four stretches of training clips, a short training of HuMoR: 21.6 mm with it, rising, after 150
steps; 19.0 mm without, falling.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dposer_core import rotations
from dposer_core.baselines.motion import KINDS, MotionVae
from dposer_core.tasks.body_points import PosedPart
from dposer_core.tasks.motion import smooth_gaussian
from dposer_core.tasks.optimise import Stages, optimise


@dataclass(frozen=True)
class RolloutProtocol:
    """Steps and weights."""

    horizons: int = 4
    """The first quarter of the frames is searched, then the first half and so on: an error of the
    first codes is not carried on to the last. The paper searches its first 15 frames first."""
    stages: Stages = Stages(1, 60, betas=(0.9, 0.95))
    """Adam soon forgets the first steps, whose gradients are large for all that follows."""
    start_rate: float = 0.02
    """Of the first pose, rad."""
    velocity_rate: float = 0.06
    """Of its joints' velocities, m/s."""
    latent_rate: float = 0.05
    smooth_window: int = 15
    """Frames of the Gaussian window that the start is smoothed with. Codes of its jitter, which no
    encoder has seen, let MVAE drift away: 37 to 65 mm after 150 steps where 19 were found now."""
    smooth_sigma: float = 4.0
    """Of that window, frames."""
    agreement_m: float = 0.03
    """Standard deviation of the difference of the joints told in two ways; with the authors'
    weight, which is that of the data, it would be their noise."""


def denoise_by_rollout(
    observed: Tensor,
    start: Tensor,
    part: PosedPart,
    prior: MotionVae,
    noise_m: float,
    protocol: RolloutProtocol = RolloutProtocol(),
) -> Tensor:
    """Body poses (B, T, 63) raw of clips of equal length, at least two frames a horizon.

    Args:
        observed: (B, T, 22, 3) metres, the pelvis as it is without rotation and translation.
        start: (B, T, 63) raw, a fit without this prior; its smoothed form is where to begin.
        part: the body.
        prior: of motion at the clips' frame rate.
        noise_m: standard deviation of `observed` along an axis.
        protocol: weights and steps.
    """
    smooth = torch.stack([_smooth(clip, protocol) for clip in start])
    states = prior.states(torch.cat([smooth[:, :1], smooth], dim=1))
    found = {
        'pose': smooth[:, 0],
        'velocity': states[:, 1, KINDS['velocities']],
        'latents': smooth.new_zeros(len(smooth), 0, prior.config.latent),
    }
    rates = {
        'pose': protocol.start_rate,
        'velocity': protocol.velocity_rate,
        'latents': protocol.latent_rate,
    }

    def rolled(found: Mapping[str, Tensor]) -> Tensor:
        return prior.rollout(prior.state(found['pose'], found['velocity']), found['latents'])

    def loss(found: Mapping[str, Tensor], stage: int, step: int) -> Tensor:
        states, latents = rolled(found), found['latents'].flatten(0, 1)
        seen = observed[:, : states.shape[1]]
        joints = part.place(prior.rotmat(states).flatten(0, 1))[1].reshape(seen.shape)
        told = states[..., KINDS['joints']].reshape(seen[..., 1:, :].shape)
        apart = joints[..., 1:, :] - joints[..., :1, :] - told
        mean, std = prior.expect(states[:, :-1].flatten(0, 1))
        return (
            (joints - seen).square().sum() / (2 * noise_m**2)
            + apart.square().sum() / (2 * protocol.agreement_m**2)
            + 0.5 * ((latents - mean) / std).square().sum()
            + prior.start_cost(found['pose'], found['velocity']).sum()
        )

    frames = observed.shape[1]
    for horizon in torch.linspace(0, frames, protocol.horizons + 1).round().int()[1:].tolist():
        with torch.no_grad():
            known = rolled(found)
            ahead = torch.cat([known[:, -1:], states[:, known.shape[1] : horizon]], dim=1)
            found['latents'] = torch.cat([found['latents'], prior.follow(ahead).latents], dim=1)
        found = optimise(found, rates, protocol.stages, loss)
    with torch.no_grad():
        return rotations.rotmat_to_rotvec(prior.rotmat(rolled(found))).flatten(-2)


def _smooth(poses: Tensor, protocol: RolloutProtocol) -> Tensor:
    """(T, 63) of a clip whose first and last pose go on outside of it."""
    beyond = protocol.smooth_window // 2
    ends = poses[:1].expand(beyond, -1), poses[-1:].expand(beyond, -1)
    longer = torch.cat([ends[0], poses, ends[1]])
    return smooth_gaussian(longer, protocol.smooth_window, protocol.smooth_sigma)[beyond:-beyond]
