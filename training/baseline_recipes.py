"""How each competing prior is trained: its losses, its draws and its held-out figures.

A recipe makes one step at a time; the loop, files and resuming are those of training.baselines.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dposer_core import rotations, skeleton
from dposer_core.baselines import new_network
from dposer_core.baselines.distance_field import kinematic_parents, quat_wxyz
from dposer_core.baselines.gan_s import GanS
from dposer_core.baselines.gmm import Gmm
from dposer_core.baselines.motion import (
    KIND_WEIGHT,
    KINDS,
    KL_WEIGHT,
    MotionVae,
    squared_errors,
)
from dposer_core.baselines.vposer import VPoser
from dposer_core.errors import ConfigError
from dposer_core.generation_metrics import fid
from training.baseline_data import PairConfig, PoseData, load_pairs, random_rotations
from training.lifting import LiftingData
from training.motion_data import MotionData

_FID_ROWS = 2000
_SEED_FIGURES = 7


@dataclass(frozen=True)
class VaeTerms:
    """Weights of VPoser's loss. Source: its code, version 2 (PROTOCOLS 5)."""

    kl: float = 0.005
    points: float = 4.0
    """Of the mean absolute error of points on the body, in `unit_m`."""
    rotations: float = 2.0
    """Of the mean angle between matrices, rad; in the first `extra_share` of the steps."""
    joints: float = 2.0
    """Of the mean absolute error of the joints, in `unit_m`; like `rotations`."""
    extra_share: float = 0.5
    """The authors' first 15 epochs."""
    coefficients: float = 4.0
    """Of the mean absolute error of what is no rotation (expression)."""
    unit_m: float = 1.0
    """Metres in a unit of length; small for hands, whose errors are small beside a body's."""


@dataclass(frozen=True)
class GanTerms:
    """GAN-S's game. Source: its code (PROTOCOLS 5)."""

    each_weight: float = 21.0
    """Of the verdicts on single joints against that on all."""
    rounds: int = 10
    """Steps of the discriminators for one of the generator."""


@dataclass(frozen=True)
class FieldTerms:
    """Weights of a distance field's loss. Source: NRDF's code (PROTOCOLS 5)."""

    distance: float = 0.5
    manifold: float = 0.1
    """Of the predicted distance of training poses, which should be none."""
    manifold_share: float = 0.25
    """Training poses for each noisy one."""


@dataclass(frozen=True)
class MixtureTerms:
    """Fit of the mixture by expectation and maximisation."""

    rows: int = 60_000
    """Training poses."""
    variance_floor: float = 1e-3
    """rad^2, added to each variance: joints that hardly move would get none."""


@dataclass(frozen=True)
class MotionTerms:
    """Of HuMoR and MVAE; shares are of the steps. Source: HuMoR's settings, for both."""

    frames: int = 10
    """States of a stretch."""
    body: float = 1.0
    """Of the squared error of the joints of the rotations, m^2."""
    agreement: float = 1.0
    """Of the squared distance, m^2, between these and the joints of the state."""
    anneal_share: float = 0.25
    """In these the weight of the divergence rises from 0."""
    given_share: float = 0.05
    """In these every step begins at the true state ..."""
    rolled_share: float = 0.10
    """... and from here on none."""
    statistics: int = 2000
    """Stretches that means and scales are of."""
    start_steps: int = 20
    """Of expectation and maximisation, for the mixture over first states."""


@dataclass(frozen=True)
class RecipeConfig:
    """What a recipe needs to know."""

    method: str
    """A key of `_RECIPES`."""
    part: str
    """'body', 'hand', 'face' or 'wholebody'."""
    steps: int
    """Of the network; of the generator for GAN-S; iterations for GMM."""
    batch: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    seed: int = 42


class Recipe(Protocol):
    """One method's training."""

    network: Any
    data: PoseData | MotionData

    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        """Make one step; returns its losses."""
        ...

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        ...

    def measure(self) -> dict[str, float]:
        """Figures on held-out poses; the network is in eval mode."""
        ...


def new_recipe(
    config: RecipeConfig,
    network: Mapping[str, Any],
    terms: Mapping[str, Any],
    data: PoseData | MotionData,
    cache: Path,
) -> Recipe:
    """The recipe of `config.method`.

    Args:
        config: the run.
        network: sizes that differ from the method's defaults.
        terms: of every method by its key in TERMS.
        data: poses; motions for the methods of MOTION_METHODS.
        cache: folder for distances that take long to measure.

    Raises:
        ConfigError: the method is unknown or does not exist for the part.
    """
    method = config.method
    if method not in _RECIPES:
        raise ConfigError(f"unknown method '{method}'; known: {', '.join(_RECIPES)}")
    recipe, parts = _RECIPES[method]
    if config.part not in parts:
        raise ConfigError(f"'{method}' exists for {', '.join(parts)}, not for '{config.part}'")
    torch.manual_seed(config.seed)
    return recipe(config, network, terms, data, cache)


class _Gradient:
    """What trainings by Adam share; the rate falls to zero along a cosine.

    VPoser's authors lower it whenever the validation error rests, which takes more epochs than a
    short run has.
    """

    network: nn.Module
    config: RecipeConfig

    def _setup(self, modules: Mapping[str, nn.Module], betas: tuple[float, float]) -> None:
        config = self.config
        self._optimizers = {
            name: torch.optim.Adam(
                module.parameters(), config.learning_rate, betas, weight_decay=config.weight_decay
            )
            for name, module in modules.items()
        }

    def _descend(self, name: str, loss: Tensor, step: int) -> None:
        optimizer = self._optimizers[name]
        for group in optimizer.param_groups:
            share = 0.5 * (1 + math.cos(math.pi * step / self.config.steps))
            group['lr'] = self.config.learning_rate * share
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def state(self) -> dict[str, Any]:
        optimizers = {name: o.state_dict() for name, o in self._optimizers.items()}
        return {'network': self.network.state_dict(), 'optimizers': optimizers}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state['network'])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state['optimizers'][name])


class VaeRecipe(_Gradient):
    """VPoser and CVPoser."""

    network: VPoser

    def __init__(self, config, network, terms, data: PoseData, cache: Path) -> None:
        self.config, self.data, self.terms = config, data, terms['vae']
        joints, extra = _rotations_of(config.part, data.dim)
        sizes = {'joints': joints, 'extra': extra, 'conditional': config.method == 'cvposer'}
        self.network = new_network(config.method, sizes | dict(network))
        self.points = BodyPoints(config.part, self.terms.unit_m)
        self._setup({'network': self.network}, (0.9, 0.999))

    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        self.network.train()
        pose = self.data.batch(self.config.batch, generator)
        condition = self._condition(pose, generator)
        mean, std = self.network.encode(pose, condition)
        latent = mean + std * torch.randn(mean.shape, generator=generator)
        rotmat, extra = self.network.decode_parts(latent, condition)
        true_rotmat, true_extra = self._truth(pose)
        both = self.points(torch.cat([rotmat, true_rotmat]))
        (points, true_points), (joints, true_joints) = (x.chunk(2) for x in both)
        terms = self.terms
        losses = {
            'kl': terms.kl * normal_divergence(mean, std).mean(),
            'points': terms.points * (points - true_points).abs().mean(),
        }
        if extra.shape[1]:
            losses['coefficients'] = terms.coefficients * (extra - true_extra).abs().mean()
        if step < terms.extra_share * self.config.steps:
            losses['rotations'] = terms.rotations * geodesic_angle(rotmat, true_rotmat).mean()
            losses['joints'] = terms.joints * (joints - true_joints).abs().mean()
        self._descend('network', torch.stack(list(losses.values())).sum(), step)
        return {name: float(value.detach()) for name, value in losses.items()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        generator = torch.Generator().manual_seed(_SEED_FIGURES)
        pose = self.data.heldout
        true_rotmat, true_extra = self._truth(pose)
        conditional = self.network.config.conditional
        mean, _ = self.network.encode(pose, pose if conditional else None)
        rotmat, extra = self.network.decode_parts(mean, pose if conditional else None)
        error = (self.points(rotmat)[0] - self.points(true_rotmat)[0]).norm(dim=-1).mean()
        figures = {
            'reconstruction_deg': _degrees(geodesic_angle(rotmat, true_rotmat).mean()),
            'reconstruction_mm': float(error) * self.terms.unit_m * 1000,
            'code_length': float(mean.norm(dim=-1).mean()),
        }
        if extra.shape[1]:
            figures['coefficient_error'] = float((extra - true_extra).abs().mean())
        if conditional:
            for part in ('left_leg', 'left_arm'):
                mask = torch.ones(pose.shape[1])
                mask[_columns(part)] = 0
                completed = self.network.complete(pose, mask, generator)
                hidden = geodesic_angle(self._truth(completed)[0], true_rotmat)
                joints = [column // 3 for column in _columns(part)[::3]]
                figures[f'completed_{part}_deg'] = _degrees(hidden[:, joints].mean())
        return figures | {'fid': _fid(self.network, pose)}

    def _truth(self, pose: Tensor) -> tuple[Tensor, Tensor]:
        turns = 3 * self.network.config.joints
        rotvec, extra = pose[:, :turns], pose[:, turns:]
        return rotations.rotvec_to_rotmat(rotvec.reshape(len(pose), -1, 3)), extra

    def _condition(self, pose: Tensor, generator: torch.Generator) -> Tensor | None:
        """CVPoser: the pose with one random part of the body replaced by noise."""
        if not self.network.config.conditional:
            return None
        part = list(_MASKED)[int(torch.randint(len(_MASKED), (1,), generator=generator))]
        condition = pose.clone()
        hidden = _columns(part)
        condition[:, hidden] = torch.randn((len(pose), len(hidden)), generator=generator)
        return condition


# Body joints (0 = left hip) that CVPoser learns to complete. Source: PROTOCOLS 3.2 and 5.
_MASKED = {
    'trunk': (2, 5, 8, 15, 16),
    'left_leg': (0, 3, 6, 9),
    'right_leg': (1, 4, 7, 10),
    'left_arm': (12, 15, 17, 19),
    'right_arm': (13, 16, 18, 20),
    'hands': (19, 20),
    'legs': (0, 1, 3, 4, 6, 7, 9, 10),
    'arms': (12, 13, 15, 16, 17, 18, 19, 20),
}


def _columns(part: str) -> list[int]:
    return [3 * joint + axis for joint in _MASKED[part] for axis in range(3)]


class GanRecipe(_Gradient):
    """GAN-S: least-squares adversarial training."""

    network: GanS

    def __init__(self, config, network, terms, data: PoseData, cache: Path) -> None:
        self.config, self.data, self.terms = config, data, terms['gan']
        self.network = new_network('gan_s', {'joints': data.dim // 3} | dict(network))
        modules = {
            'generator': self.network.generator,
            'discriminator': self.network.discriminator,
        }
        self._setup(modules, (0.5, 0.999))

    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        self.network.train()
        for _ in range(self.terms.rounds):
            real = self.data.batch(self.config.batch, generator)
            rotmat = rotations.rotvec_to_rotmat(real.reshape(len(real), -1, 3))
            with torch.no_grad():
                made = self._made(generator)
            judged = self._verdict(rotmat, 1.0) + self._verdict(made, 0.0)
            self._descend('discriminator', judged, step)
        fooled = self._verdict(self._made(generator), 1.0)
        self._descend('generator', fooled, step)
        return {'discriminator': float(judged.detach()), 'generator': float(fooled.detach())}

    def measure(self) -> dict[str, float]:
        generator = torch.Generator().manual_seed(_SEED_FIGURES)
        chosen = torch.randperm(len(self.data.heldout), generator=generator)[:200]
        pose = self.data.heldout[chosen]
        latent = self.network.invert(pose, steps=200, generator=generator)
        with torch.no_grad():
            truth = rotations.rotvec_to_rotmat(pose.reshape(len(pose), -1, 3))
            error = geodesic_angle(self.network.generator(latent), truth).mean()
        return {
            'inversion_deg': _degrees(error),
            'fid': _fid(self.network, self.data.heldout),
        }

    def _made(self, generator: torch.Generator) -> Tensor:
        return self.network.generator(self.network.draw_latents(self.config.batch, generator))

    def _verdict(self, rotmat: Tensor, target: float) -> Tensor:
        each, whole = self.network.discriminator(rotmat)
        each_loss = (each - target).square().mean()
        return self.terms.each_weight * each_loss + (whole - target).square().mean()


class FieldRecipe(_Gradient):
    """Pose-NDF and NRDF: distances of noisy poses, and none for training poses."""

    def __init__(self, config, network, terms, data: PoseData, cache: Path) -> None:
        self.config, self.data, self.terms = config, data, terms['field']
        self.pairs = load_pairs(cache, config.method, data, terms['pairs'], config.seed)
        sizes = {'parents': kinematic_parents(config.part)}
        self.network = new_network(config.method, sizes | dict(network))
        self._setup({'network': self.network}, (0.9, 0.999))

    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        self.network.train()
        size = self.config.batch
        rows = torch.randint(len(self.pairs.quat), (size,), generator=generator)
        clean = quat_wxyz(self.data.batch(int(self.terms.manifold_share * size), generator))
        predicted, nothing = self.network(torch.cat([self.pairs.quat[rows], clean])).split(
            [size, len(clean)]
        )
        losses = {
            'distance': self.terms.distance * (predicted - self.pairs.distance[rows]).abs().mean(),
            'manifold': self.terms.manifold * nothing.abs().mean(),
        }
        self._descend('network', losses['distance'] + losses['manifold'], step)
        return {name: float(value.detach()) for name, value in losses.items()}

    def measure(self) -> dict[str, float]:
        # No samples: one costs hundreds of evaluations; the tables of generation draw them.
        generator = torch.Generator().manual_seed(_SEED_FIGURES)
        with torch.no_grad():
            predicted = self.network(self.pairs.heldout_quat)
            clean = self.network.distance(self.data.heldout)
            joints = len(self.network.config.parents)
            wild = self.network.distance(random_rotations(1000, joints, generator))
        true = self.pairs.heldout_distance
        return {
            'distance_error_rad': float((predicted - true).abs().mean()),
            'distance_error_of_mean_rad': float((true - true.mean()).abs().mean()),
            'correlation': float(torch.corrcoef(torch.stack([predicted, true]))[0, 1]),
            'distance_of_poses_rad': float(clean.mean()),
            'distance_of_random_rad': float(wild.mean()),
        }


class MixtureRecipe:
    """GMM by expectation and maximisation; a step is one iteration over all rows."""

    network: Gmm

    def __init__(self, config, network, terms, data: PoseData, cache: Path) -> None:
        generator = torch.Generator().manual_seed(config.seed)
        self.data, self.terms = data, terms['mixture']
        self.rows = data.batch(self.terms.rows, generator)
        self.network = new_network('gmm', {'dim': data.dim} | dict(network))
        count = self.network.config.components
        centres = self.rows[torch.randperm(len(self.rows), generator=generator)[:count]]
        nearest = torch.cdist(self.rows, centres).argmin(dim=1)
        self._maximise(nn.functional.one_hot(nearest, count).double())

    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        log_joint = self._log_joint(self.rows)
        log_density = log_joint.logsumexp(dim=1, keepdim=True)
        self._maximise((log_joint - log_density).exp())
        return {'negative_log_likelihood': -float(log_density.mean()) / self.data.dim}

    def state(self) -> dict[str, Any]:
        return {'network': self.network.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state['network'])

    def measure(self) -> dict[str, float]:
        heldout = self._log_joint(self.data.heldout).logsumexp(dim=1).mean() / self.data.dim
        train = self._log_joint(self.rows).logsumexp(dim=1).mean() / self.data.dim
        return {
            'log_likelihood_per_value': float(heldout),
            'log_likelihood_per_value_training': float(train),
            'fid': _fid(self.network, self.data.heldout),
        }

    def _log_joint(self, rows: Tensor) -> Tensor:
        """(N, K) log of weight times density, float64."""
        gmm, dim = self.network, self.data.dim
        columns = []
        for mean, covar, weight in zip(
            gmm.means.double(), gmm.covars.double(), gmm.mix.double(), strict=True
        ):
            factor = torch.linalg.cholesky(covar)
            white = torch.linalg.solve_triangular(factor, (rows - mean).T, upper=False)
            constant = weight.log() - factor.diagonal().log().sum() - 0.5 * dim * np.log(2 * np.pi)
            columns.append(constant - 0.5 * white.square().sum(dim=0))
        return torch.stack(columns, dim=1)

    def _maximise(self, share: Tensor) -> None:
        """Mixture of greatest likelihood when row n belongs to component k by `share` (N, K)."""
        rows, total = self.rows.double(), share.sum(dim=0) + 1e-6
        means = share.T @ rows / total[:, None]
        floor = self.terms.variance_floor * torch.eye(rows.shape[1], dtype=torch.float64)
        covars = []
        for k, mean in enumerate(means):
            centred = rows - mean
            covars.append((share[:, k : k + 1] * centred).T @ centred / total[k] + floor)
        self.network.load_state_dict(
            {
                'means': means.float(),
                'covars': torch.stack(covars).float(),
                'mix': (total / total.sum()).float(),
            }
        )


class MotionRecipe(_Gradient):
    """HuMoR and MVAE: stretches retold, from early on each step from what was made of the last."""

    network: MotionVae

    def __init__(self, config, network, terms, data: MotionData, cache: Path) -> None:
        from training.evaluate import open_body_offsets

        self.config, self.data, self.terms = config, data, terms['motion']
        self.network = new_network(config.method, network)
        bones = open_body_offsets()[: skeleton.BODY_JOINTS.stop]
        self.network.bones.copy_(torch.from_numpy(bones.flatten()))
        generator = torch.Generator().manual_seed(config.seed)
        motion = data.batch(self.terms.statistics, self.terms.frames + 1, generator)
        self._measure_scales(self.network.states(motion))
        starts = self._measure_starts(motion)
        sizes = {'components': self.network.config.components}
        mixture = MixtureRecipe(config, sizes, terms, starts, cache)
        for step in range(self.terms.start_steps):
            mixture.step(step, generator)
        self.network.start.load_state_dict(mixture.network.state_dict())
        self._setup({'network': self.network}, (0.9, 0.999))

    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        self.network.train()
        terms, count = self.terms, self.config.batch
        states = self.network.states(self.data.batch(count, terms.frames + 1, generator))
        shape, progress = (count, terms.frames - 1), step / self.config.steps
        fading = (terms.rolled_share - progress) / (terms.rolled_share - terms.given_share)
        given = torch.rand(shape, generator=generator) < fading
        noise = torch.randn((*shape, self.network.config.latent), generator=generator)
        followed = self.network.follow(states, noise, given)
        truth, told = (s[..., KINDS['joints']] for s in (states[:, 1:], followed.states))
        placed = self.network.joints(self.network.rotmat(followed.states)).flatten(-2)
        errors = squared_errors(followed.states, states[:, 1:])
        annealed = min(1.0, progress / terms.anneal_share)
        losses = {kind: KIND_WEIGHT[kind] * error.mean() for kind, error in errors.items()} | {
            'body': terms.body * (placed - truth).square().sum(dim=-1).mean(),
            'agreement': terms.agreement * (placed - told).square().sum(dim=-1).mean(),
            'divergence': annealed * KL_WEIGHT * followed.divergence.mean(),
        }
        self._descend('network', torch.stack(list(losses.values())).sum(), step)
        return {name: float(value.detach()) for name, value in losses.items()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        network = self.network
        states = network.states(self.data.heldout)
        followed = network.follow(states)
        before, after = states[:, :-1].flatten(0, 1), states[:, 1:].flatten(0, 1)
        guess = network.decode(before, network.expect(before)[0])

        def error_mm(found: Tensor, truth: Tensor) -> float:
            ours, theirs = (network.joints(network.rotmat(state)) for state in (found, truth))
            return 1000 * float((ours - theirs).norm(dim=-1).mean())

        return {
            'retold_mm': error_mm(followed.states, states[:, 1:]),
            'divergence_nats': float(followed.divergence.mean()),
            'next_mm': error_mm(guess, after),
            'next_if_still_mm': error_mm(before, after),
        }

    def _measure_scales(self, states: Tensor) -> None:
        """Of states (N, T, 252); one for each kind, as joints that never move would get none."""
        network = self.network
        network.mean.copy_(states.mean(dim=(0, 1)))
        for part in KINDS.values():
            network.scale[part] = (states - network.mean)[..., part].square().mean().sqrt()
            network.change_scale[part] = states[..., part].diff(dim=1).square().mean().sqrt()

    def _measure_starts(self, motion: Tensor) -> '_Rows':
        """What the mixture over first states is fitted to, after measuring its scales likewise."""
        network = self.network
        velocity = network.states(motion)[:, 0, KINDS['velocities']]
        network.start_mean.copy_(torch.cat([motion[:, 1], velocity], dim=1).mean(dim=0))
        centred = network.start_row(motion[:, 1], velocity)
        for part in (slice(0, velocity.shape[1]), slice(velocity.shape[1], None)):
            network.start_scale[part] = centred[:, part].square().mean().sqrt()
        return _Rows(network.start_row(motion[:, 1], velocity))


@dataclass(frozen=True)
class _Rows:
    """Rows that a mixture is fitted to."""

    rows: Tensor
    """(N, D)."""

    @property
    def dim(self) -> int:
        """D."""
        return self.rows.shape[1]

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """All of them, as a mixture wants many."""
        return self.rows


class LifterRecipe(_Gradient):
    """GFPose and HuProSO3: bodies given their keypoints."""

    def __init__(self, config, network, terms, data: PoseData, cache: Path) -> None:
        self.config, self.data = config, LiftingData(data)
        self.network = new_network(config.method, dict(network))
        self._setup({'network': self.network}, (0.9, 0.999))

    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        self.network.train()
        rows = self.data.batch(self.config.batch, generator)
        draws = (generator,) if self.config.method == 'gfpose' else ()
        loss = self.network.loss(rows, *draws)
        self._descend('network', loss, step)
        return {'loss': float(loss.detach())}

    def measure(self) -> dict[str, float]:
        with torch.no_grad():
            return {'loss': float(self.network.loss(self.data.heldout))}


_BODY_AND_HAND = ('body', 'hand')
_RECIPES: dict[str, tuple[Callable[..., Recipe], tuple[str, ...]]] = {
    'gmm': (MixtureRecipe, _BODY_AND_HAND),
    'vposer': (VaeRecipe, ('body', 'hand', 'face', 'wholebody')),
    'cvposer': (VaeRecipe, ('body',)),
    'gan_s': (GanRecipe, _BODY_AND_HAND),
    'posendf': (FieldRecipe, _BODY_AND_HAND),
    'nrdf': (FieldRecipe, _BODY_AND_HAND),
    'humor': (MotionRecipe, ('body',)),
    'mvae': (MotionRecipe, ('body',)),
    'gfpose': (LifterRecipe, ('body',)),
    'huproso3': (LifterRecipe, ('body',)),
}


class BodyPoints:
    """Joints and points around them, for losses that see where a body is and how it is turned.

    VPoser's authors compare the vertices of SMPL-X. Three points at each joint, 5 cm along its
    axes (1 cm for fingers), turn with it and serve the same end without a licensed body, at a
    hundredth of the cost.
    """

    def __init__(self, part: str, unit_m: float) -> None:
        from training.evaluate import open_body_offsets

        joints = _joints_of(part)
        index = {joint: place for place, joint in enumerate(joints)}
        self._parents = [index.get(int(skeleton.PARENTS[joint]), -1) for joint in joints]
        offsets = torch.as_tensor(open_body_offsets(), dtype=torch.float32)
        self._offsets = offsets[joints] / unit_m
        first_finger = skeleton.LEFT_HAND_JOINTS.start
        reach = [0.01 if joint >= first_finger else 0.05 for joint in joints]
        self._reach = torch.tensor(reach)[:, None, None] / unit_m

    def __call__(self, rotmat: Tensor) -> tuple[Tensor, Tensor]:
        """(B, J, 3, 3) -> points (B, 4 J, 3), of them joints (B, J, 3); the root is fixed."""
        turns, places = [], []
        for joint, parent in enumerate(self._parents):
            local, offset = rotmat[:, joint], self._offsets[joint]
            if parent < 0:
                turns.append(local)
                places.append(offset.expand(len(rotmat), 3))
            else:
                turns.append(turns[parent] @ local)
                places.append(places[parent] + turns[parent] @ offset)
        joints = torch.stack(places, dim=1)
        around = joints[:, :, None] + torch.stack(turns, dim=1).mT * self._reach
        return torch.cat([joints, around.flatten(1, 2)], dim=1), joints


def _joints_of(part: str) -> list[int]:
    every = list(range(skeleton.NUM_JOINTS))
    return {
        'body': every[skeleton.BODY_JOINTS],
        'hand': every[skeleton.RIGHT_HAND_JOINTS],
        'face': [skeleton.JAW_JOINT],
        'wholebody': skeleton.PRIOR_JOINTS.tolist(),
    }[part]


def _rotations_of(part: str, dim: int) -> tuple[int, int]:
    """How many rotations a row of the part has, and how many values follow them."""
    joints = len(_joints_of(part))
    return joints, dim - 3 * joints


def geodesic_angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle (...) between rotation matrices (..., 3, 3), rad, with a bounded gradient."""
    cosine = ((a * b).sum(dim=(-2, -1)) - 1) / 2
    return torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))


def normal_divergence(mean: Tensor, std: Tensor) -> Tensor:
    """KL divergence (B,) of N(mean, std^2) (B, L) from N(0, I)."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(dim=-1)


def _degrees(angle: Tensor) -> float:
    return float(torch.rad2deg(angle))


def _fid(network: Any, heldout: Tensor) -> float:
    generator = torch.Generator().manual_seed(_SEED_FIGURES)
    samples = network.sample(_FID_ROWS, generator)
    return fid(heldout.numpy().astype(np.float64), samples.numpy().astype(np.float64))


TERMS: dict[str, type] = {
    'vae': VaeTerms,
    'gan': GanTerms,
    'field': FieldTerms,
    'mixture': MixtureTerms,
    'pairs': PairConfig,
    'motion': MotionTerms,
}
