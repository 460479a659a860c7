"""Distils a prior into one small network for the small diffusion times that live fits use.

    python -m training.distill training/configs/student.yaml --out data/runs/student
    python -m training.distill --compare data/runs/student/student.safetensors --teacher wholebody

The teacher is any prior that `load_prior` knows; the student is one TimeFC with a Gaussian skip
over the same vector. It learns the teacher's one-step denoised vector at t up to `max_t`, on rows
with the whole noise, as in training, and on rows with a part of it or none, as in the fits, whose
iterates carry errors of their own instead.
"""

import argparse
import dataclasses
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

from dposer_core.errors import ConfigError
from dposer_core.files import write_json
from dposer_core.prior import compose
from dposer_core.prior.architecture import BODY_DIM, TimeFCConfig, WholeBodyLayout
from dposer_core.prior.checkpoint import PriorCheckpoint, load_checkpoint, save_checkpoint
from dposer_core.prior.network import Combiner, TimeFC, WholeBody, from_weights
from dposer_core.prior.normalizer import Normalizer, wholebody_normalizer
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.runtime import LivePrior, load_prior, prior_path
from dposer_core.prior.sde import SubVP
from training.augment import AugmentConfig, Augmenter
from training.composition import Composer, CompositionConfig, mirror_hand, training_parts
from training.evaluate import joint_error_mm, open_body_offsets
from training.pack import PACKED
from training.result import source_commit
from training.run_folder import RunFolder
from training.script import run_script
from training.settings import from_values, read_settings
from training.validation import heldout_rows, without_heldout

TIMES = (0.05, 0.1, 0.15, 0.2, 0.3)
BATCHES = (1, 8)
_MIN_T = 0.01
_MAX_NOISE = 1.5  # sigma / alpha that errors are at most divided by
_GAUSSIAN_ROWS = 50_000
_EMA_DECAY = 0.998
_REPEATS = 400


@dataclass(frozen=True)
class DistillConfig:
    """One distillation."""

    teacher: str  # shipped name or file
    hidden: int = 512
    embed: int = 256
    blocks: int = 2
    steps: int = 3_000
    batch: int = 512
    learning_rate: float = 1e-3
    warmup: int = 100
    clip_norm: float = 1.0
    max_t: float = 0.35  # the fits stay below 0.3
    full_noise_share: float = 0.5  # of rows; the others get a uniform share of the noise
    truth_weight: float = 0.1  # of the clean row beside the teacher, where the noise is whole
    composed_share: float = 0.5  # of rows, when the teacher has a correction
    save_every: int = 250
    seed: int = 42

    def __post_init__(self) -> None:
        if not _MIN_T < self.max_t <= 1.0 or min(self.steps, self.batch, self.save_every) < 1:
            raise ConfigError(
                f'max_t = {self.max_t}, steps = {self.steps}, batch = {self.batch}: max_t lies '
                f'between {_MIN_T} and 1, the others are at least 1'
            )


@dataclass(frozen=True)
class Teacher:
    """A prior in torch and what it was trained with."""

    part: str
    network: nn.Module
    parts: list[PriorCheckpoint]
    normalizer: Normalizer
    has_correction: bool
    licence: str
    hashes: dict[str, str]


def load_teacher(name: str) -> Teacher:
    """The prior of that name or file, in torch."""
    path = prior_path(name)
    if path.suffix == '.safetensors':
        part = load_checkpoint(path)
        network = from_weights(part.weights, scale_by_sigma=part.config.scale_by_sigma)
        hashes = {part.part: part.sha256}
        return Teacher(part.part, network, [part], part.normalizer, False, part.licence, hashes)
    composition = compose.load_composition(path)
    parts, correction = list(composition.parts()), composition.correction()
    network = Combiner(
        *(from_weights(p.weights, scale_by_sigma=p.config.scale_by_sigma) for p in parts)
    )
    hashes = {name: sha256 for name, (_, sha256) in composition.files.items()}
    licences = [part.licence for part in parts]
    if correction is not None:
        network = correction_network(network, correction)
        licences.append(correction.licence)
    return Teacher(
        'wholebody',
        network.eval(),
        parts,
        wholebody_normalizer(*(part.normalizer for part in parts)),
        correction is not None,
        ' '.join(dict.fromkeys(licences)),
        hashes,
    )


def correction_network(base: Combiner, correction: compose.Correction) -> nn.Module:
    """The torch network of a correction over its part networks."""
    network = WholeBody(base, correction.config)
    tensors = {name: torch.from_numpy(value) for name, value in correction.weights.items()}
    network.load_state_dict(tensors, strict=False)
    return network


class Rows:
    """Normalised rows like those that the teacher has learned from."""

    def __init__(
        self, teacher: Teacher, packed: Mapping[str, np.ndarray], composed_share: float
    ) -> None:
        self._sources: list[tuple[Augmenter, PriorCheckpoint, int]] = []
        for part in teacher.parts:
            run = part.notes['run']
            rows = packed if part.part == 'body' else without_heldout(packed, part.part)
            chosen = {k: tuple(run[k]) for k in ('sources', 'unseen') if run.get(k)}
            widening = from_values(AugmentConfig, run['augment'], f'{part.part} checkpoint')
            body = chosen if part.part == 'body' else {}
            source = Augmenter.from_packed(rows, part.part, widening, **body)
            copies = 2 if part.part == 'hand' and teacher.part == 'wholebody' else 1
            self._sources.append((source, part, copies))
        self._normalizer = teacher.normalizer
        self._composer = None
        self._share = composed_share if teacher.has_correction else 0.0
        if self._share:
            self._composer = Composer(training_parts(packed), CompositionConfig())

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, D)."""
        columns = []
        for source, part, copies in self._sources:
            for _ in range(copies):
                raw = source.batch(count, generator) * source.std + source.mean
                columns.append(part.normalizer.normalize(raw))
        x_0 = torch.cat(columns, 1)
        composed = round(self._share * count)
        if self._composer is not None and composed:
            raw = self._composer.samples(composed, generator)
            x_0[:composed] = self._normalizer.normalize(raw)
        return x_0


def loss(
    student: nn.Module, teacher: nn.Module, x_0: Tensor, config: DistillConfig, g: torch.Generator
) -> Tensor:
    """Squared distance of the denoised rows, in units of what the noise does to a row."""
    count = len(x_0)
    t = _MIN_T + (config.max_t - _MIN_T) * torch.rand(count, generator=g)
    whole = torch.rand((count, 1), generator=g) < config.full_noise_share
    share = torch.where(whole, torch.ones(()), torch.rand((count, 1), generator=g))
    x_t = SubVP().add_noise(x_0, t, torch.randn(x_0.shape, generator=g) * share)
    with torch.no_grad():
        target = DiffusionPrior(teacher).denoise(x_t, t)
    found = DiffusionPrior(student).denoise(x_t, t)
    noise = (1.0 / SubVP().snr(t)).clamp(max=_MAX_NOISE)[:, None]
    error = ((found - target) / noise).square() + config.truth_weight * whole * (
        (found - x_0) / noise
    ).square()
    return error.mean()


def distil(config: DistillConfig, packed: Mapping[str, np.ndarray], folder: RunFolder) -> Path:
    """Train a student, or go on with one; writes `student.safetensors` and returns its path."""
    if not folder.settings_file.exists():
        folder.create(dataclasses.asdict(config))
    elif folder.settings() != dataclasses.asdict(config):
        raise ConfigError(
            f'{folder.settings_file} holds other settings; give another --out, or the old ones'
        )
    teacher = load_teacher(config.teacher)
    rows = Rows(teacher, packed, config.composed_share)
    torch.manual_seed(config.seed)
    dim = teacher.normalizer.dim
    network = TimeFCConfig(
        dim, hidden=config.hidden, embed=config.embed, blocks=config.blocks,
        dropout=0.0, scale_by_sigma=False, gaussian_skip=True,
    )  # fmt: skip
    student = TimeFC(network)
    student.gaussian.fit(rows.batch(_GAUSSIAN_ROWS, torch.Generator().manual_seed(config.seed)))
    optimizer = torch.optim.Adam(student.parameters(), lr=config.learning_rate)
    average = {name: p.detach().clone() for name, p in student.named_parameters()}
    step, before = 0, 0.0
    if (state := folder.load_state()) is not None:
        student.load_state_dict(state['network'])
        optimizer.load_state_dict(state['optimizer'])
        average, step, before = state['average'], state['step'], state['seconds']
    began = time.monotonic() - before
    student.train()
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task('distil', total=config.steps, completed=step)
        while step < config.steps:
            g = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group['lr'] = config.learning_rate * _rate(step, config)
            value = loss(student, teacher.network, rows.batch(config.batch, g), config, g)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(student.parameters(), config.clip_norm)
            optimizer.step()
            step += 1
            decay = min(_EMA_DECAY, (1 + step) / (10 + step))
            with torch.no_grad():
                for name, p in student.named_parameters():
                    average[name].lerp_(p, 1.0 - decay)
            shown = value.item()
            progress.update(bar, completed=step, description=f'distil, loss {shown:.4f}')
            if step % config.save_every == 0 or step == config.steps:
                folder.log('metrics', step, {'loss': shown})
                folder.save_state(
                    {
                        'step': step,
                        'network': student.state_dict(),
                        'optimizer': optimizer.state_dict(),
                        'average': average,
                        'seconds': time.monotonic() - began,
                    }
                )
    student.load_state_dict(average, strict=False)
    notes = {
        'steps': step,
        'seconds': round(time.monotonic() - began),
        'run': dataclasses.asdict(config),
        'teacher': {'name': config.teacher, 'sha256': teacher.hashes},
    }
    path = folder.path / 'student.safetensors'
    save_checkpoint(path, _checkpoint(teacher, student, rows, notes), half=False)
    return path


def _rate(step: int, config: DistillConfig) -> float:
    cosine = 0.5 * (1.0 + np.cos(np.pi * step / config.steps))
    return float(cosine * min(1.0, (step + 1) / max(config.warmup, 1)))


def _checkpoint(
    teacher: Teacher, student: TimeFC, rows: Rows, notes: dict[str, Any]
) -> PriorCheckpoint:
    # Statistics of the live prior are those of the mirrored left hand: its own are the hand's.
    mean = np.concatenate([np.tile(part.mean, copies) for _, part, copies in rows._sources])
    std = np.concatenate([np.tile(part.std, copies) for _, part, copies in rows._sources])
    weights = {k: v.numpy() for k, v in student.state_dict().items() if k != 'sigmas'}
    return PriorCheckpoint(
        teacher.part, student.config, weights, mean, std, teacher.licence, source_commit(), notes
    )


# --- what was lost, and what was gained ---


def compare(
    priors: Mapping[str, str], packed: Mapping[str, np.ndarray], seed: int = 0
) -> list[dict[str, Any]]:
    """Errors of one denoising step of each prior on the same held-out rows and noise.

    Returns:
        A row per test set, time and noise: `<prior>_rms` in standard deviations and, where the
        set has a body, `<prior>_mm` of its 21 joints; `noise` 0 is what the fits do, x_t = alpha
        x_0, and its error is how far a prior moves a true pose.
    """
    loaded = {label: load_prior(name) for label, name in priors.items()}
    first = next(iter(loaded.values()))
    has_body = first.dim >= BODY_DIM
    part = 'body' if first.dim == BODY_DIM else 'wholebody' if has_body else 'hand'
    offsets = open_body_offsets() if has_body else None
    tests = {'held out': heldout_rows(packed, part, CompositionConfig())}
    if has_body:
        for name in ('hdm05_asf_amc', 'deepmimic'):
            rows = packed[f'test_{name}'][::20][:2_000]
            whole = np.resize(tests['held out'], (len(rows), first.dim)).copy()
            whole[:, :BODY_DIM] = rows
            tests[name] = whole
    found = []
    for test, raw in tests.items():
        for t in TIMES:
            for share in (1.0, 0.0):
                rng = np.random.default_rng(seed)
                row: dict[str, Any] = {'test': test, 't': t, 'noise': share}
                x_0 = _normalised(first, raw)
                noise = share * rng.standard_normal(x_0.shape).astype(np.float32)
                for label, prior in loaded.items():
                    clean = prior.denoise(x_0, t, noise)
                    row[f'{label}_rms'] = float(np.sqrt(((clean - x_0) ** 2).mean()))
                    if offsets is not None:
                        back = clean[:, :BODY_DIM] * prior.std[:BODY_DIM] + prior.mean[:BODY_DIM]
                        row[f'{label}_mm'] = joint_error_mm(back, raw[:, :BODY_DIM], offsets)
                found.append(row)
    return found


def _normalised(prior: LivePrior, raw: np.ndarray) -> np.ndarray:
    values = raw.astype(np.float32).copy()
    if prior.dim > BODY_DIM:
        left = WholeBodyLayout(prior.num_expression).left_hand
        values[:, left] = mirror_hand(torch.from_numpy(values[:, left])).numpy()
    return (values - prior.mean) / prior.std


def cost(name: str, core: int = 0) -> list[dict[str, Any]]:
    """Milliseconds of a call on one core in ONNX Runtime, beside the time to read the weights."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core if core in own else min(own)})
    try:
        prior = load_prior(name, 'onnxruntime')
        floor = _read_ms(_trunk_bytes(name))
        rows = []
        for batch in BATCHES:
            x = np.random.default_rng(0).standard_normal((batch, prior.dim)).astype(np.float32)
            times = _timed(lambda x=x: prior.denoise(x, 0.1))
            rows.append(
                {
                    'prior': name,
                    'batch': batch,
                    'min_ms': float(times.min()),
                    'p50_ms': float(np.median(times)),
                    'trunk_mb': _trunk_bytes(name) / 1e6,
                    'read_floor_ms': floor,
                }
            )
        return rows
    finally:
        os.sched_setaffinity(0, own)


def _timed(call: Any) -> np.ndarray:
    call()
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - began))
    return np.array(times)


def _trunk_bytes(name: str) -> int:
    """Of the matrices that every call reads; a hand's are read once for both hands."""
    path = prior_path(name)
    if path.suffix == '.safetensors':
        networks = [load_checkpoint(path).weights]
    else:
        composition = compose.load_composition(path)
        parts = list(composition.parts())
        networks = [part.weights for part in parts]
        if (correction := composition.correction()) is not None:
            first = [compose.first_layer(parts[i]) for i in (0, 1, 1, 2)]
            networks.append(compose.fold(correction, first).weights)
    return sum(
        4 * value.size
        for weights in networks
        for key, value in weights.items()
        if value.ndim == 2 and '_t.' not in key and 'time_embed' not in key
    )


def _read_ms(size: int) -> float:
    values = np.ones(size // 4, np.float32)
    return float(_timed(values.max).min())


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(v if isinstance(v, str) else f'{v:.4g}' for v in row.values()))
    Console().print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', type=Path, nargs='?', help='YAML file of DistillConfig')
    parser.add_argument('--variant', default='', help='named values of the file')
    parser.add_argument('--out', type=Path, help='folder of the run; an old one goes on')
    parser.add_argument('--data', type=Path, default=PACKED, help='file of training.pack')
    parser.add_argument('--compare', help='student to hold against --teacher; trains nothing')
    parser.add_argument('--teacher', default='wholebody')
    parser.add_argument('--steps', type=int, help="instead of the file's")
    parser.add_argument('--json', type=Path, help='write the figures here')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.compare is None and (arguments.config is None or arguments.out is None):
        parser.error('give a configuration and --out, or --compare with a student')
    student = arguments.compare
    with np.load(arguments.data) as packed:
        if student is None:
            config = read_settings(arguments.config, DistillConfig, arguments.variant)
            if arguments.steps:
                config = dataclasses.replace(config, steps=arguments.steps)
            arguments.teacher = config.teacher
            student = str(distil(config, packed, RunFolder(arguments.out)))
        priors = {'teacher': arguments.teacher, 'student': student}
        figures = {
            'one_step': compare(priors, packed),
            'cost': [row for name in priors.values() for row in cost(name)],
        }
    _print('one denoising step on held-out rows', figures['one_step'])
    _print('one call on one core', figures['cost'])
    if arguments.json:
        write_json(arguments.json, figures)


if __name__ == '__main__':
    run_script(main)
