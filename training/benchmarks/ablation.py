"""Tables S-15, S-16, S-17 and figure S-5: normalisation, form of rotations, size, loss of points.

Small networks are trained here that differ in one thing and share data, draws and budget; then
each fills in hidden legs of held-out poses, by the optimisation behind all of the paper's columns.
The paper's mesh recovery needs its images, which are not free.
"""

import copy
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dposer_core.errors import ConfigError
from dposer_core.files import whole, write_json
from dposer_core.prior.network import TimeFC
from dposer_core.prior.normalizer import Normalizer
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.sampling import normal_draw
from dposer_core.rotations import rotvec_to_rot6d
from dposer_core.tasks.completion import BODY_PARTS, CompletionProtocol, body_mask, complete, hide
from dposer_core.tasks.optimise import Stages
from training.augment import AugmentConfig, Augmenter
from training.benchmarks.generation import BODY_NEED, PACKED_NEED, packed_path
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, table
from training.data.archives import DEFAULT_ROOT, HELD_OUT
from training.evaluate import body_joints, open_body_offsets
from training.losses import LossConfig
from training.settings import read_settings
from training.sources import draw_step
from training.train import Trainer, make_fabric
from training.train_config import TrainConfig

SETTINGS = Path(__file__).parents[1] / 'configs' / 'ablation' / 'body.yaml'
AUXILIARY = SETTINGS.with_name('auxiliary.yaml')
"""Settings of figure S-5."""
RUNS = DEFAULT_ROOT / 'runs' / 'ablation'
_STATISTICS_ROWS = 50_000
_QUANTILE = 1e-3  # ends of min-max, PROTOCOLS 1.5
_HYPOTHESES = 10
_LOOPS = 200  # steps of completion, in two stages
_DENOISE_TIME = 0.2
_POINTS = 8  # of a curve over the training

BEST = Column('MPJPE min', 'lower', 'mm')
MEAN = Column('MPJPE mean', 'lower', 'mm')
STD = Column('MPJPE std', '', 'mm')
ONE_STEP = Column('one-step error', 'lower', 'mm')
RUNTIME = Column('runtime', 'lower', 's')


@dataclass(frozen=True)
class ArmConfig:
    """What is particular about one network."""

    normalization: str = 'z_score'  # 'z_score', 'min_max' (0.1 and 99.9 percent) or 'none'
    rot6d: bool = False
    network: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AblationConfig:
    """The arms and what they share."""

    steps: int
    quick_steps: int
    batch: int
    learning_rate: float
    warmup: int
    ema_decay: float
    low_t: float
    low_t_share: float
    seed: int
    network: dict[str, Any]
    augment: AugmentConfig
    arms: dict[str, ArmConfig]

    def run(self, arm: ArmConfig, is_quick: bool) -> TrainConfig:
        """The training run of an arm."""
        shared = ('batch', 'learning_rate', 'warmup', 'ema_decay', 'low_t', 'low_t_share', 'seed')
        return TrainConfig(
            part='body',
            network={**self.network, **arm.network},
            loss=LossConfig(**arm.loss),
            steps=self.quick_steps if is_quick else self.steps,
            augment=self.augment,
            accelerator='cpu',
            threads=1,
            **{name: getattr(self, name) for name in shared},
        )


class ArmSource:
    """The same widened poses for every arm, in its own form."""

    taught = None

    def __init__(self, data: Augmenter, arm: ArmConfig) -> None:
        self._data = data
        rows = self._raw(_STATISTICS_ROWS, torch.Generator().manual_seed(0))
        self.normalizer = normalizer_of(rows.numpy(), arm)

    @property
    def dim(self) -> int:
        """Size D of a row."""
        return self.normalizer.dim

    def batch(self, count: int, generator: torch.Generator) -> tuple[Tensor, None]:
        """(count, D) normalised rows."""
        return self.normalizer.normalize(self._raw(count, generator)), None

    def _raw(self, count: int, generator: torch.Generator) -> Tensor:
        return self._data.batch(count, generator) * self._data.std + self._data.mean


def normalizer_of(raw: np.ndarray, arm: ArmConfig) -> Normalizer:
    """The arm's normaliser from the statistics of raw poses (N, 63)."""
    x = raw
    if arm.rot6d:
        x = rotvec_to_rot6d(raw.reshape(len(raw), -1, 3).astype(np.float64)).reshape(len(raw), -1)
    if arm.normalization == 'z_score':
        return Normalizer.z_score(x.mean(0), x.std(0), rot6d=arm.rot6d)
    if arm.normalization == 'min_max':
        low, high = np.quantile(x, [_QUANTILE, 1 - _QUANTILE], axis=0)
        return Normalizer.min_max(low, high, rot6d=arm.rot6d)
    if arm.normalization == 'none':
        dim = x.shape[1]
        return Normalizer.z_score(np.zeros(dim), np.ones(dim), rot6d=arm.rot6d)
    raise ConfigError(
        f"normalization = '{arm.normalization}' is unknown; use z_score, min_max or none"
    )


class Ablation:
    """Trains the arms that are asked for and measures them on held-out poses."""

    def __init__(self, options: Options, settings: Path = SETTINGS) -> None:
        self.options = options
        self.config = read_settings(settings, AblationConfig)
        self._nets: dict[str, tuple[TimeFC, Normalizer]] = {}

    @property
    def budget(self) -> int:
        """Training steps of every arm."""
        return self.config.quick_steps if self.options.is_quick else self.config.steps

    @cached_property
    def poses(self) -> np.ndarray:
        """(N, 63) poses of the held-out subjects."""
        with np.load(packed_path(self.options)) as packed:
            poses = packed[f'test_{HELD_OUT}']
        return poses[:: len(poses) // (50 if self.options.is_quick else 500)].astype(np.float32)

    @cached_property
    def offsets(self) -> np.ndarray:
        """(55, 3) bones of the open body."""
        return open_body_offsets()

    @cached_property
    def _data(self) -> Augmenter:
        with np.load(packed_path(self.options)) as packed:
            return Augmenter.from_packed(packed, 'body', self.config.augment)

    def network(self, name: str) -> tuple[TimeFC, Normalizer]:
        """The arm's network in eval mode; trained once per budget and data, then read back."""
        if name not in self._nets:
            self._nets[name] = self._trained(name)
        return self._nets[name]

    def _trained(self, name: str) -> tuple[TimeFC, Normalizer]:
        arm = self.config.arms[name]
        run = self.config.run(arm, self.options.is_quick)
        source = ArmSource(self._data, arm)
        path = RUNS / f'{self._fingerprint(run, arm)}.pt'
        if path.is_file():
            network = TimeFC(run.network_config(source.dim))
            network.load_state_dict(torch.load(path, weights_only=True))
            return network.eval(), source.normalizer
        *_, trainer = self._training(name, source, run)
        averaged = trainer.averaged()
        with whole(path) as partial:
            torch.save(averaged.state_dict(), partial)
        return averaged, source.normalizer

    def _training(self, name: str, source: ArmSource, run: TrainConfig) -> Iterator[Trainer]:
        """The trainer after each of its steps."""
        torch.set_num_threads(1)
        torch.manual_seed(run.seed)
        network = TimeFC(run.network_config(source.dim))
        trainer = Trainer(run, network, source.normalizer, make_fabric(run))
        for step in range(run.steps):
            trainer.update(draw_step(source, run, step))
            if (step + 1) % 200 == 0:
                self.options.progress(f'{name}: {step + 1} of {run.steps} training steps')
            yield trainer

    def evolution(self, name: str) -> dict[int, float]:
        """Training steps -> MPJPE of completed legs, mean of all hypotheses, mm."""
        arm = self.config.arms[name]
        run = self.config.run(arm, self.options.is_quick)
        path = RUNS / f'{self._fingerprint(run, arm)}.legs.json'
        if path.is_file():
            return {int(step): error for step, error in json.loads(path.read_text()).items()}
        source, errors = ArmSource(self._data, arm), {}
        for trainer in self._training(name, source, run):
            if trainer.step % (run.steps // _POINTS) == 0:
                network = copy.deepcopy(trainer.network)
                network.load_state_dict(trainer.ema.shadow, strict=False)
                found = self._leg_errors(network.eval(), source.normalizer, 'legs', _LOOPS)
                errors[trainer.step] = float(found.mean())
        write_json(path, errors)
        return errors

    def _fingerprint(self, run: TrainConfig, arm: ArmConfig) -> str:
        status = packed_path(self.options).stat()
        known = (dataclasses.asdict(run), dataclasses.asdict(arm), status.st_size)
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]

    def values(self, name: str, steps: int = _LOOPS) -> dict[str, float]:
        """Figures of an arm by column."""
        network, normalizer = self.network(name)
        began = time.monotonic()
        per_pose = self._leg_errors(network, normalizer, 'left_leg', steps)
        seconds = (time.monotonic() - began) / _HYPOTHESES
        return {
            BEST.name: float(per_pose.min(0).mean()),
            MEAN.name: float(per_pose.mean()),
            STD.name: float(per_pose.std(0).mean()),
            ONE_STEP.name: self._one_step(DiffusionPrior(network), normalizer),
            RUNTIME.name: seconds,
        }

    def _leg_errors(
        self, network: TimeFC, normalizer: Normalizer, part: str, steps: int
    ) -> np.ndarray:
        """(hypotheses, poses) mean joint error of a completed part, mm."""
        prior = DiffusionPrior(network)
        x_0 = torch.from_numpy(normalizer.normalize(self.poses))
        mask = body_mask(part).reshape(-1, 3)[:, :1]
        mask = mask.expand(-1, normalizer.dim // len(mask)).flatten()
        protocol = CompletionProtocol(stages=Stages(2, steps // 2, betas=(0.9, 0.99)))
        joints_of_part = BODY_PARTS[part]
        truth = body_joints(self.poses, self.offsets)[:, joints_of_part]
        errors = []
        for hypothesis in range(_HYPOTHESES):
            draw = normal_draw(self.options.seed * 1000 + hypothesis)
            found = complete(prior, hide(x_0, mask, draw), mask, draw, protocol)
            joints = body_joints(normalizer.denormalize(found.numpy()), self.offsets)
            distance = np.linalg.norm(joints[:, joints_of_part] - truth, axis=-1)
            errors.append(1000 * distance.mean(axis=1))
        return np.array(errors)

    def _one_step(self, prior: DiffusionPrior, normalizer: Normalizer) -> float:
        """Joint error of x0_hat at one t, mm."""
        x_0 = torch.from_numpy(normalizer.normalize(self.poses))
        noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(self.options.seed))
        with torch.no_grad():
            noisy = prior.sde.add_noise(x_0, _DENOISE_TIME, noise)
            back = normalizer.denormalize(prior.denoise(noisy, _DENOISE_TIME).numpy())
        distance = body_joints(back, self.offsets) - body_joints(self.poses, self.offsets)
        return float(1000 * np.linalg.norm(distance, axis=-1).mean())

    def plan(self, jobs: list[Job], columns: tuple[Column, ...], paper: tuple[Row, ...]) -> Plan:
        """A table of the arms."""
        return Plan(
            columns,
            paper,
            tuple(jobs),
            f'free CMU motion; {len(self.poses)} poses of the held-out subjects 02 and 03',
            settings=(
                f'Every arm: {self.budget} steps of {self.config.batch} poses, the same draws and '
                f'seed {self.config.seed}, {self.config.network["hidden"]} hidden units and '
                f'{self.config.network["blocks"]} blocks where the row does not say otherwise '
                '(paper: 1024 and 2, 800,000 steps): a ranking at this budget, not of the '
                'converged networks.',
                f'MPJPE: hidden left leg filled in, {_HYPOTHESES} hypotheses, joints of that leg '
                'on the open body. One-step error: all joints after one denoising step at '
                f't = {_DENOISE_TIME}, noise in the units of the arm, so it compares arms of one '
                'normalisation only.',
                'Not run: body mesh recovery (its images are not free).',
            ),
            fingerprint=hashlib.sha256(SETTINGS.read_bytes()).hexdigest(),
        )


def _arm_jobs(ablation: Ablation, names: dict[str, str]) -> list[Job]:
    """A row per arm; `names`: label -> arm."""

    def run(label: str, arm: str) -> Row:
        values = ablation.values(arm)
        return Row(
            label, {key: values[key] for key in (BEST.name, MEAN.name, STD.name, ONE_STEP.name)}
        )

    return [
        Job(label, lambda label=label, arm=arm: run(label, arm)) for label, arm in names.items()
    ]


def _completion(label: str, best: float, mean: float, std: float) -> Row:
    return Row(label, {BEST.name: best, MEAN.name: mean, STD.name: std}, 'paper')


@table('S-15', 'Normalisation, axis-angle rotations', [PACKED_NEED, BODY_NEED])
def table_s15(options: Options) -> Plan:
    """Three normalisations."""
    ablation = Ablation(options)
    paper = (
        _completion('w/o norm', 45.37, 102.28, 41.08),
        _completion('min-max', 47.41, 107.00, 43.42),
        _completion('z-score', 34.37, 72.47, 26.32),
    )
    names = {row.label: row.label for row in paper}
    return ablation.plan(_arm_jobs(ablation, names), (BEST, MEAN, STD, ONE_STEP), paper)


@table('S-16', 'Form of rotations, z-score', [PACKED_NEED, BODY_NEED])
def table_s16(options: Options) -> Plan:
    """Axis-angle against 6D."""
    ablation = Ablation(options)
    paper = (
        _completion('axis-angle', 34.76, 72.41, 26.09),
        _completion('6D rotations', 40.89, 81.43, 27.31),
    )
    names = {'axis-angle': 'z-score', '6D rotations': '6D rotations'}
    return ablation.plan(_arm_jobs(ablation, names), (BEST, MEAN, STD, ONE_STEP), paper)


@table('S-17', 'Size of the network and of the loop', [PACKED_NEED, BODY_NEED])
def table_s17(options: Options) -> Plan:
    """Blocks, width and number of steps, on completion."""
    ablation = Ablation(options)
    hmr, runtime = Column('HMR PA-MPJPE', 'lower', 'mm'), Column('HMR runtime', 'lower', 's')
    paper = tuple(
        Row(label, {hmr.name: error, runtime.name: seconds}, 'paper')
        for label, error, seconds in (
            ('2 blocks', 56.05, 17.34),
            ('half the steps', 56.53, 8.44),
            ('twice the steps', 55.74, 34.11),
            ('4 blocks', 56.47, 18.72),
            ('double width', 56.67, 19.12),
        )
    )

    def run(label: str, arm: str, steps: int) -> Row:
        return Row(label, ablation.values(arm, steps), note=f'{steps} steps')

    jobs = [
        Job(label, lambda label=label, arm=arm, steps=steps: run(label, arm, steps))
        for label, arm, steps in (
            ('2 blocks', 'z-score', _LOOPS),
            ('half the steps', 'z-score', _LOOPS // 2),
            ('twice the steps', 'z-score', 2 * _LOOPS),
            ('4 blocks', '4 blocks', _LOOPS),
            ('double width', 'double width', _LOOPS),
        )
    ]
    return ablation.plan(jobs, (hmr, runtime, BEST, MEAN, STD, ONE_STEP, RUNTIME), paper)
