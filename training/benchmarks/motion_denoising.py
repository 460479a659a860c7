"""Tables 3 and 9: motion denoising from joints with 20, 40 and 100 mm of noise.

Protocol: `dposer_core.tasks.motion`, the intervals of the paper; 60 frames, mean shape, no root.
Deviations, all rows alike: the start is the mean pose of the prior's data (the paper's is SMPL's),
and the smoothness term sees every 80th vertex (the paper's all).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from dposer_core.baselines import load_baseline
from dposer_core.body_model import Body, load_body
from dposer_core.prior.sampling import normal_draw
from dposer_core.tasks.body_points import BodyPoints
from dposer_core.tasks.motion import NOISY_PAPER, MotionProtocol, denoise_motion
from dposer_core.tasks.optimise import Stages, StageWeight, TimeSchedule
from dposer_core.tasks.prior_term import CompetitorTerm, DiffusionTerm, NoTerm, PriorTerm
from training.benchmarks.generation import BODY_NEED, PACKED_NEED, baselines_need
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, table
from training.benchmarks.task_data import MEASURE_ONLY, load_diffusion, motion_sets, paper_rows

NOISES_MM = (20, 40, 100)
_EVERY_VERTEX = 80
_QUICK_CLIPS = 2
_CLIPS = 20
_AMASS, _HPS = 'AMASS', 'HPS'
_PAPER = {  # tables 3 and S-6: AMASS and HPS at 20, 40, 100 mm
    'w/o prior': (15.33, 24.19, 51.48, 16.26, 23.67, 50.87),
    'VPoser': (15.20, 23.42, 49.10, 17.24, 22.78, 46.69),
    'Pose-NDF': (13.84, 22.13, 46.10, 15.62, 21.60, 47.50),
    'DPoser': (13.64, 19.87, 33.18, 13.45, 20.54, 35.32),
}
_PAPER_SCHEDULES = {  # table 9
    'DPoser, random times': (23.87,),
    'DPoser, fixed times': (22.54,),
    'DPoser, uniform times': (20.80,),
}


@dataclass(frozen=True)
class Method:
    """A row: the prior's term and protocol by noise, and where the search begins."""

    label: str
    term: Callable[[MotionProtocol], PriorTerm]
    protocols: dict[int, MotionProtocol]
    start: np.ndarray
    """(63,) raw."""
    start_noise: float = 0.01
    compare: str = ''


@dataclass
class Denoiser:
    """Observed clips and their truth."""

    body: Body
    clips: dict[str, np.ndarray]
    seed: int

    def __post_init__(self) -> None:
        chosen = np.arange(0, len(self.body.v_template), _EVERY_VERTEX)
        self.points = BodyPoints(self.body, chosen)
        self.results: dict[tuple[str, str, int], float] = {}

    def error_mm(self, method: Method, name: str, noise_mm: int) -> float:
        """Mean joint error of a method on the set `name`; kept, as gains are against 'none'."""
        key = (method.label, name, noise_mm)
        if key not in self.results:
            self.results[key] = self._run(method, name, noise_mm)
        return self.results[key]

    def _run(self, method: Method, name: str, noise_mm: int) -> float:
        clips = torch.from_numpy(self.clips[name])
        truth = self.points.joints(clips.flatten(0, 1))
        draw = normal_draw(self.seed)
        observed = truth + noise_mm / 1000 * draw(tuple(truth.shape))
        start = torch.from_numpy(method.start) + method.start_noise * draw((len(truth), 63))
        protocol = method.protocols[noise_mm]
        found = denoise_motion(
            observed, start, self.points.forward, method.term(protocol), protocol,
            clips=len(clips),
        )  # fmt: skip
        distance = torch.linalg.norm(self.points.joints(found) - truth, dim=-1)
        return float(1000 * distance.mean())

    def row(self, method: Method, without: Method) -> Row:
        """Errors at every noise, and how far they lie below those without prior."""
        values = {}
        for name in self.clips:
            for noise in method.protocols:
                error = self.error_mm(method, name, noise)
                values[_column(name, noise).name] = error
                if method.label != without.label:
                    base = self.error_mm(without, name, noise)
                    values[_gain(name, noise).name] = 100 * (1 - error / base)
        return Row(method.label, values, compare=method.compare)


def _column(name: str, noise: int) -> Column:
    return Column(f'{name} {noise} mm', 'lower', 'mm')


def _gain(name: str, noise: int) -> Column:
    return Column(f'{name} {noise} mm gain', 'higher', '%', 1)


def methods(options: Options) -> tuple[dict[str, Callable[[], Method]], dict]:
    """Rows by label, each made when it is run, and the hashes of the prior."""
    prior, normalizer, hashes = load_diffusion(options, 'body')
    mean = normalizer.offset

    def diffusion(
        label: str, change: Callable[[MotionProtocol], MotionProtocol] = lambda p: p, **row: str
    ) -> Method:
        def term(protocol: MotionProtocol) -> PriorTerm:
            times = protocol.schedule.times(protocol.stages.total, options.seed)
            draw = normal_draw(options.seed + 1)
            return DiffusionTerm(prior, normalizer, protocol.denoising, times, draw)

        protocols = {noise: change(NOISY_PAPER[noise]) for noise in NOISES_MM}
        return Method(label, term, protocols, mean, **row)

    def scheduled(name: str, scale: float = 1.0) -> Callable[[], Method]:
        def change(protocol: MotionProtocol) -> MotionProtocol:
            return dataclasses.replace(protocol, schedule=TimeSchedule(name), prior_scale=scale)

        return lambda: _only(diffusion(f'DPoser, {name} times', change), 40)

    def vposer() -> Method:
        network = load_baseline('vposer', 'body')
        weight = StageWeight(0.01, 'rising')
        protocols = {n: dataclasses.replace(NOISY_PAPER[n], prior=weight) for n in NOISES_MM}
        zero = np.zeros(63, np.float32)
        return Method('VPoser', lambda p: CompetitorTerm(network), protocols, zero, 0.1)

    def posendf() -> Method:
        network = load_baseline('posendf', 'body')
        protocols = {
            noise: dataclasses.replace(
                NOISY_PAPER[noise], prior=StageWeight(weight, 'rising'), stages=Stages(3, steps)
            )
            for noise, weight, steps in ((20, 1e6, 50), (40, 1e7, 60), (100, 1e8, 80))
        }
        zero = np.zeros(63, np.float32)
        return Method('Pose-NDF', lambda p: CompetitorTerm(network, torch.square), protocols, zero)

    rows = {
        'w/o prior': lambda: Method('w/o prior', lambda p: NoTerm(), dict(NOISY_PAPER), mean),
        'DPoser': lambda: diffusion('DPoser'),
        'VPoser': vposer,
        'Pose-NDF': posendf,
        'DPoser, random times': scheduled('random', 0.5),
        'DPoser, fixed times': scheduled('fixed'),
        'DPoser, uniform times': scheduled('uniform'),
    }
    return rows, hashes


def _only(method: Method, noise: int) -> Method:
    return dataclasses.replace(method, protocols={noise: method.protocols[noise]})


def plan(options: Options) -> Plan:
    """The rows of table 3, with the schedules of table 9 at 40 mm."""
    rows, hashes = methods(options)
    clips = motion_sets(_QUICK_CLIPS if options.is_quick else _CLIPS)
    denoiser = Denoiser(load_body(''), clips, options.seed)
    names = list(clips)
    columns = [_column(name, noise) for name in names for noise in NOISES_MM]
    columns += [_gain(name, noise) for name in names for noise in NOISES_MM]
    paper_columns = [_column(name, noise) for name in (_AMASS, _HPS) for noise in NOISES_MM]

    def job(label: str) -> Job:
        return Job(label, lambda: denoiser.row(rows[label](), rows['w/o prior']()))

    return Plan(
        columns=(*columns, *paper_columns),
        paper=(
            *paper_rows(paper_columns, _PAPER),
            *paper_rows([_column(_AMASS, 40)], _PAPER_SCHEDULES),
        ),
        jobs=tuple(job(label) for label in rows),
        data=f'{len(clips["CMU"])} held-out CMU clips of 60 frames'
        + (
            f', {len(clips["examples"])} of the published example motion'
            if 'examples' in clips
            else ''
        ),
        checkpoint_sha256=hashes,
        settings=(
            'MPJPE of 22 joints, no alignment. Gain: how far below the same fit without prior.',
            f'The smoothness term sees every {_EVERY_VERTEX}th vertex, in every row.',
            MEASURE_ONLY if 'examples' in clips else 'The published examples are not here.',
        ),
    )


@table(
    '3',
    'Motion denoising (with the schedules of table 9)',
    [PACKED_NEED, BODY_NEED, baselines_need('vposer', 'posendf', part='body')],
)
def table_3(options: Options) -> Plan:
    """Motion denoising."""
    return plan(options)
