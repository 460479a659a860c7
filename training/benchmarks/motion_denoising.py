"""Tables 3, S-3, S-6 and S-7: a clip's motion from noisy joints, or from some of the joints.

Protocol: `dposer_core.tasks.motion`, the intervals of the paper; 60 frames, mean shape, no root.
Deviations, all rows alike: the start is the mean pose of the prior's data (the paper's is SMPL's),
and the smoothness term sees every 80th vertex (the paper's all).

HuMoR and MVAE are ours: trained on our data, and searched for their first state and codes from
the fit without prior (`dposer_core.tasks.motion_rollout`).

The live fitter knows less: it takes the 12 joints that detectors have, not all 22, and neither
where the root is nor the frames to come. So it has partners, the optimisation of this table on
exactly what the live fitter is given.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dposer_core import rotations
from dposer_core.baselines import load_baseline
from dposer_core.baselines.motion import MotionVae
from dposer_core.body_model import Body, landmark_joints, load_body
from dposer_core.config import from_mapping
from dposer_core.errors import ConfigError
from dposer_core.observation import NUM_POINTS, Observation
from dposer_core.prior.sampling import normal_draw
from dposer_core.tasks.body_points import BodyPoints
from dposer_core.tasks.motion import (
    HIDDEN_JOINTS,
    NOISY_PAPER,
    PARTIAL,
    MotionProtocol,
    denoise_motion,
    smooth_motion,
)
from dposer_core.tasks.motion_rollout import denoise_by_rollout
from dposer_core.tasks.optimise import StageWeight, TimeSchedule
from dposer_core.tasks.prior_term import CompetitorTerm, DiffusionTerm, NoTerm, PriorTerm
from training.benchmarks.generation import BODY_NEED, PACKED_NEED, baselines_need
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, table
from training.benchmarks.task_data import MEASURE_ONLY, load_diffusion, motion_sets, paper_rows

_EVERY_VERTEX = 80
_QUICK_CLIPS = 2
_CLIPS = 20
_CHUNK = 60  # frames whose whole mesh is made at a time
_FPS = 30.0  # of the held-out clips; taken for the published one as well
_NUM_JOINTS = 22
_EVERY_FRAME = 15  # of the rows that compare with the live fitter, from the 15th on
# Of the 22 joints: those that are points of a detector. A finger root is the wrist once more.
_SEEN_BY_DETECTORS = tuple(sorted({j for j in landmark_joints().values() if j < _NUM_JOINTS}))
_PART_NAMES = {'legs': 'legs', 'left_arm': 'left arm'}


@dataclass(frozen=True)
class Case:
    """What is observed of a clip."""

    name: str
    noisy: MotionProtocol
    """Weights and steps; of partial data they belong to the hidden part."""
    noise_mm: float = 0.0
    hidden: tuple[int, ...] = ()
    """Joints."""

    @property
    def visible(self) -> Tensor:
        """(22,) bool."""
        seen = torch.ones(_NUM_JOINTS, dtype=torch.bool)
        seen[list(self.hidden)] = False
        return seen


def noisy(noise_mm: int) -> Case:
    """All joints with noise."""
    return Case(f'{noise_mm} mm', NOISY_PAPER[noise_mm], noise_mm)


def partial(part: str) -> Case:
    """Exact joints, a part of them hidden."""
    return Case(_PART_NAMES[part], PARTIAL[part], hidden=HIDDEN_JOINTS[part])


@dataclass(frozen=True)
class Clips:
    """Motions of one set, seen through a case."""

    case: Case
    truth: Tensor
    """(clips, frames, 22, 3) metres."""
    observed: Tensor
    """As `truth`; arbitrary where the case hides a joint."""
    draw: Callable[[tuple[int, ...]], Tensor]
    """Goes on where the noise of `observed` ended."""


@dataclass(frozen=True)
class Found:
    """What a method makes of clips."""

    joints: Tensor
    """(clips, frames, 22, 3) metres; NaN in frames that were not asked for."""
    poses: Tensor | None = None
    """(clips * frames, 63) raw with the root as in the truth; None: the root was not known."""


class Method(Protocol):
    """A row."""

    def __call__(self, clips: Clips, points: BodyPoints) -> Found:
        """Joints of all frames, or of some."""
        ...


@dataclass(frozen=True)
class Optimised:
    """The optimisation of `dposer_core.tasks.motion` with some prior."""

    term: Callable[[MotionProtocol], PriorTerm]
    start: np.ndarray
    """(63,) raw."""
    start_noise: float = 0.01
    change: Callable[[Case], MotionProtocol] = lambda case: case.noisy

    def __call__(self, clips: Clips, points: BodyPoints) -> Found:
        """Poses of all clips side by side."""
        case, protocol = clips.case, self.change(clips.case)
        observed = clips.observed.flatten(0, 1)
        # Of partial data the search begins at zero, as in the released code.
        centre = torch.zeros(63) if case.hidden else torch.from_numpy(self.start)
        start = centre + self.start_noise * clips.draw((len(observed), 63))
        found = denoise_motion(
            observed, start, points.forward, self.term(protocol), protocol,
            case.visible, len(clips.truth),
        )  # fmt: skip
        if case.hidden:
            each = found.unflatten(0, (len(clips.truth), -1))
            found = torch.cat([smooth_motion(clip) for clip in each])
        return Found(points.joints(found).reshape(clips.truth.shape), found)


@dataclass(frozen=True)
class RolledOut:
    """The optimisation of `dposer_core.tasks.motion_rollout` with a prior of motion."""

    prior: MotionVae
    first: Method
    """Whose poses it begins with."""

    def __call__(self, clips: Clips, points: BodyPoints) -> Found:
        """Poses of all clips side by side."""
        poses = self.first(clips, points).poses
        assert poses is not None
        found = denoise_by_rollout(
            clips.observed, poses.unflatten(0, (len(clips.truth), -1)), points.part, self.prior,
            clips.case.noise_mm / 1000,
        ).flatten(0, 1)  # fmt: skip
        return Found(points.joints(found).reshape(clips.truth.shape), found)


@dataclass(frozen=True)
class AsLive:
    """`Optimised` on what the live fitter is given: 12 joints, and a root to be found."""

    base: Optimised
    sees_future: bool = True
    """Otherwise every frame that counts is fitted with the frames before it, one by one."""

    def __call__(self, clips: Clips, points: BodyPoints) -> Found:
        """Every 15th frame."""
        joints = torch.full_like(clips.truth, torch.nan)
        frames = clips.truth.shape[1]
        counted = range(_EVERY_FRAME - 1, frames, _EVERY_FRAME)
        if self.sees_future:
            joints[:, counted] = self.fit(clips, points)[:, counted]
        else:
            for frame in counted:
                joints[:, frame] = self.fit(clips, points, frame + 1)[:, frame]
        return Found(joints)

    def fit(self, clips: Clips, points: BodyPoints, frames: int | None = None) -> Tensor:
        """(clips, frames, 22, 3) from the first frames, or all of them."""
        frames = frames or clips.truth.shape[1]
        protocol = self.base.change(clips.case)
        observed = clips.observed[:, :frames].flatten(0, 1)
        visible = torch.zeros(_NUM_JOINTS, dtype=torch.bool)
        visible[list(_SEEN_BY_DETECTORS)] = True
        visible &= clips.case.visible
        term = self.base.term(protocol)
        pelvis = points.joints(torch.zeros(1, 63))[0, 0]

        def forward(x: Tensor) -> tuple[Tensor, Tensor]:
            joints, vertices = points.forward(x[:, :63])
            turn = rotations.rotvec_to_rotmat(x[:, 63:66]).transpose(1, 2)
            return tuple(
                (place - pelvis) @ turn + pelvis + x[:, None, 66:] for place in (joints, vertices)
            )

        mean = torch.from_numpy(np.concatenate([self.base.start, np.zeros(6, np.float32)]))
        start = mean + self.base.start_noise * clips.draw((len(observed), len(mean)))
        found = denoise_motion(
            observed, start, forward, lambda x, step: term(x[:, :63], step), protocol,
            visible, len(clips.truth),
        )  # fmt: skip
        return forward(found)[0].detach().reshape(len(clips.truth), frames, _NUM_JOINTS, 3)


@dataclass(frozen=True)
class Live:
    """The live fitter, frame after frame; the shape is known to it as it is to the others."""

    body: Body
    sigma_m: Callable[[Case], float] | None = None
    """Noise of the points that it is told; None: what it takes for granted."""
    lag: int = 0
    """Frames that it may look ahead; it says nothing about as many at the end of a clip."""

    def __call__(self, clips: Clips, points: BodyPoints) -> Found:
        """Every 15th frame of the stream."""
        joints = torch.full_like(clips.truth, torch.nan)
        for index in range(len(clips.truth)):
            for frame, placed in enumerate(self.stream(clips, index)):
                if frame % _EVERY_FRAME == _EVERY_FRAME - 1:
                    joints[index, frame] = placed
        return Found(joints)

    def stream(self, clips: Clips, index: int) -> Iterable[Tensor]:
        """(22, 3) joints of each frame of one of the clips."""
        case = clips.case
        from dposer_core.fitter import PoseFitter
        from dposer_core.prior.runtime import load_prior

        config = from_mapping({})
        fitter = PoseFitter(self.body.tables, load_prior(config.prior.checkpoint), config)
        fitter.fix_shape(np.zeros(10))
        known = {n: j for n, j in landmark_joints().items() if j < _NUM_JOINTS}
        # A hand's first point is the wrist again, and its noise would be the same: not given twice
        places = {j: n for n, j in sorted(known.items(), reverse=True) if j not in case.hidden}
        points, sure = np.zeros((NUM_POINTS, 3)), np.zeros(NUM_POINTS)
        sure[list(places.values())] = 1.0
        sigma = None if self.sigma_m is None else np.full(NUM_POINTS, self.sigma_m(case))
        published = []
        for frame, seen in enumerate(clips.observed[index].double().numpy()):
            points[list(places.values())] = seen[list(places)]
            stamp = 1_000_000_000 + round(frame * 1e9 / _FPS)
            result = fitter.step(Observation(stamp, points.copy(), sure, None, sigma))
            if result is None:
                raise ConfigError('the live fitter found no start in a clip')
            published.append(result.state.joints)
            if frame < self.lag:
                continue
            # After a restart the window does not reach back so far: what was said then stands.
            is_held = result.stats.window_frames > self.lag
            joints = fitter.joints_before(self.lag) if is_held else published[frame - self.lag]
            yield torch.from_numpy(joints[:_NUM_JOINTS]).float()


@dataclass
class Denoiser:
    """Sets of clips and the errors of methods on them."""

    body: Body
    sets: dict[str, np.ndarray]
    """Poses (clips, frames, 63) by name."""
    seed: int
    _kept: dict[tuple[str, str, str], dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chosen = np.arange(0, len(self.body.v_template), _EVERY_VERTEX)
        self.points = BodyPoints(self.body, chosen)
        self._whole = BodyPoints(self.body)

    def errors_mm(self, label: str, method: Method, name: str, case: Case) -> dict[str, float]:
        """Mean errors on the set `name`; kept by label, as gains are against one of the rows.

        'MPJPE', with hidden joints also 'Vis' and 'Occ', and 'MPVPE' where the root was known.
        """
        key = (label, name, case.name)
        if key not in self._kept:
            self._kept[key] = self._measure(method, name, case)
        return self._kept[key]

    def clips(self, name: str, case: Case) -> Clips:
        """The set `name` as it is seen."""
        poses = torch.from_numpy(self.sets[name])
        truth = self.points.joints(poses.flatten(0, 1))
        draw = normal_draw(self.seed)
        observed = truth + case.noise_mm / 1000 * draw(tuple(truth.shape))
        shape = (*poses.shape[:2], _NUM_JOINTS, 3)
        return Clips(case, truth.reshape(shape), observed.reshape(shape), draw)

    def _measure(self, method: Method, name: str, case: Case) -> dict[str, float]:
        poses = torch.from_numpy(self.sets[name])
        clips = self.clips(name, case)
        found = method(clips, self.points)
        distance = 1000 * torch.linalg.norm(found.joints - clips.truth, dim=-1)
        values = {'MPJPE': distance.nanmean()}
        if case.hidden:
            values |= {'Vis': distance[..., case.visible].nanmean()}
            values |= {'Occ': distance[..., ~case.visible].nanmean()}
        if found.poses is not None:
            values['MPVPE'] = 1000 * self._vertex_error(found.poses, poses.flatten(0, 1))
        return {key: float(value) for key, value in values.items()}

    def _vertex_error(self, found: Tensor, truth: Tensor) -> Tensor:
        errors = [
            torch.linalg.norm(
                self._whole.forward(a)[1] - self._whole.forward(b)[1], dim=-1
            ).flatten()
            for a, b in zip(found.split(_CHUNK), truth.split(_CHUNK), strict=True)
        ]
        return torch.cat(errors).mean()


class Motions:
    """What the tables of motion share: the prior, the clips and the rows made of them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.prior, self.normalizer, self.hashes = load_diffusion(options, 'body')
        self.sets = motion_sets(_QUICK_CLIPS if options.is_quick else _CLIPS)
        self.body = load_body('')
        self.denoiser = Denoiser(self.body, self.sets, options.seed)

    def dposer(
        self, change: Callable[[MotionProtocol], MotionProtocol] = lambda p: p
    ) -> Optimised:
        """The paper's protocol of a case, or one made of it."""

        def term(protocol: MotionProtocol) -> PriorTerm:
            times = protocol.schedule.times(protocol.stages.total, self.options.seed)
            draw = normal_draw(self.options.seed + 1)
            return DiffusionTerm(self.prior, self.normalizer, protocol.denoising, times, draw)

        return Optimised(
            term, self.normalizer.offset, change=lambda case: change(case.noisy)
        )  # fmt: skip

    def competitors(self) -> dict[str, Callable[[], Method]]:
        """Rows by label, each made when it is run."""
        zero = np.zeros(63, np.float32)

        def vposer() -> Method:
            network = load_baseline('vposer', 'body')
            weight = StageWeight(0.01, 'rising')
            return Optimised(
                lambda protocol: CompetitorTerm(network), zero, 0.1,
                lambda case: dataclasses.replace(case.noisy, prior=weight, prior_scale=1.0),
            )  # fmt: skip

        def posendf() -> Method:
            network = load_baseline('posendf', 'body')
            settings = {20.0: (1e6, 50), 40.0: (1e7, 60), 100.0: (1e8, 80), 0.0: (1e6, 80)}

            def change(case: Case) -> MotionProtocol:
                weight, steps = settings[case.noise_mm]
                stages = dataclasses.replace(case.noisy.stages, steps=steps)
                return dataclasses.replace(
                    case.noisy, prior=StageWeight(weight, 'rising'), stages=stages,
                    prior_scale=1.0,
                )  # fmt: skip

            return Optimised(
                lambda protocol: CompetitorTerm(network, torch.square), zero, change=change
            )

        return {
            'w/o prior': lambda: Optimised(lambda protocol: NoTerm(), self.normalizer.offset),
            'VPoser': vposer,
            'Pose-NDF': posendf,
            'DPoser': self.dposer,
        }

    def motion_priors(self) -> dict[str, Callable[[], Method]]:
        """Rows of priors of motion, for noisy joints."""
        first = self.competitors()['w/o prior']
        return {
            label: lambda name=name: RolledOut(load_baseline(name, 'body'), first())
            for label, name in (('MVAE', 'mvae'), ('HuMoR', 'humor'))
        }

    def live(self, is_noisy: bool) -> dict[str, Callable[[], Method]]:
        """The live fitter and its partners."""
        rows: dict[str, Callable[[], Method]] = {
            'DPoser, 12 joints, root unknown': lambda: AsLive(self.dposer()),
            'DPoser, 12 joints, root unknown, past only': lambda: AsLive(self.dposer(), False),
            'live fitter': lambda: Live(self.body),
        }
        if is_noisy:
            rows['live fitter, noise known'] = lambda: Live(
                self.body, lambda case: case.noise_mm / 1000
            )
        return rows

    def plan(
        self, columns: Sequence[Column], paper: Sequence[Row], jobs: Sequence[Job], *more: str
    ) -> Plan:
        """A table of these clips."""
        counts = {'CMU': 'held-out CMU clips of 60 frames', 'examples': 'of the published motion'}
        known = [f'{len(clips)} {counts[name]}' for name, clips in self.sets.items()]
        return Plan(
            columns=tuple(columns),
            paper=tuple(paper),
            jobs=tuple(jobs),
            data=', '.join(known),
            checkpoint_sha256=self.hashes,
            settings=(
                *more,
                f'The smoothness term sees every {_EVERY_VERTEX}th vertex, in every row.',
                MEASURE_ONLY
                if 'examples' in self.sets
                else 'The published examples are not here.',
            ),
        )


_AMASS, _HPS = 'AMASS', 'HPS'
_PAPER = {  # tables 3 and S-6: AMASS and HPS at 20, 40, 100 mm
    'w/o prior': {20: (15.33, 16.26), 40: (24.19, 23.67), 100: (51.48, 50.87)},
    'VPoser': {20: (15.20, 17.24), 40: (23.42, 22.78), 100: (49.10, 46.69)},
    'Pose-NDF': {20: (13.84, 15.62), 40: (22.13, 21.60), 100: (46.10, 47.50)},
    'DPoser': {20: (13.64, 13.45), 40: (19.87, 20.54), 100: (33.18, 35.32)},
    'MVAE': {40: (26.80,)},
    'HuMoR': {40: (22.69,)},
}
_WITH_GAIN = ('VPoser', 'Pose-NDF', 'DPoser', 'MVAE', 'HuMoR')
_OF_LIVE = (
    'live fitter: every 15th frame of the stream, after that frame and those before it; 12 joints '
    'as 3D points, no root, mean shape; noise of 10 mm assumed, or told where the row says so. '
    'The rows "12 joints, root unknown" are DPoser on the same points and frames, with all 60 '
    'frames or only with the past.'
)
_OF_MOTION = (
    'MVAE, HuMoR: small ones trained on half an hour of our motion; they begin with the fit '
    "without prior, smoothed. The paper's figures are of large ones trained on AMASS."
)


def _column(name: str, noise: int) -> Column:
    return Column(f'{name} {noise} mm', 'lower', 'mm')


def _gain(name: str, noise: int) -> Column:
    return Column(f'{name} {noise} mm gain', 'higher', '%', 1)


def _noisy_plan(options: Options, noises: tuple[int, ...]) -> Plan:
    motions = Motions(options)
    rows = motions.competitors() | motions.live(is_noisy=True)
    if noises == (40,):  # the only noise for which the paper has them
        rows |= motions.motion_priors()
    without = rows['w/o prior']

    def run(label: str) -> Row:
        values = {}
        for name in motions.sets:
            for noise in noises:
                errors = motions.denoiser.errors_mm
                error = errors(label, rows[label](), name, noisy(noise))['MPJPE']
                values[_column(name, noise).name] = error
                if label in _WITH_GAIN:
                    base = errors('w/o prior', without(), name, noisy(noise))['MPJPE']
                    values[_gain(name, noise).name] = 100 * (1 - error / base)
        return Row(label, values)

    on_paper = [_column(name, noise) for noise in noises for name in (_AMASS, _HPS)]
    paper = {
        label: [v for noise in noises for v in figures.get(noise, ())]
        for label, figures in _PAPER.items()
        if set(noises) <= set(figures)
    }
    return motions.plan(
        [
            *(_column(name, noise) for name in motions.sets for noise in noises),
            *(_gain(name, noise) for name in motions.sets for noise in noises),
            *on_paper,
        ],
        paper_rows(on_paper, paper),
        [Job(label, lambda label=label: run(label)) for label in rows],
        'MPJPE of 22 joints, no alignment. Gain: how far below the same fit without prior.',
        _OF_LIVE,
        _OF_MOTION if noises == (40,) else 'Noise per axis.',
    )


_NOISY_NEEDS = (PACKED_NEED, BODY_NEED, baselines_need('vposer', 'posendf', part='body'))
_MOTION_NEED = baselines_need('humor', 'mvae', part='body')


@table('3', 'Motion denoising, 40 mm of noise', (*_NOISY_NEEDS, _MOTION_NEED))
def table_3(options: Options) -> Plan:
    """The priors, of poses and of motion, and the live fitter."""
    return _noisy_plan(options, (40,))


@table('S-6', 'Motion denoising, 20 and 100 mm of noise', _NOISY_NEEDS)
def table_s6(options: Options) -> Plan:
    """The same at other noise."""
    return _noisy_plan(options, (20, 100))


@table('S-3', 'Intervals of diffusion times, motion denoising', [PACKED_NEED, BODY_NEED])
def table_s3(options: Options) -> Plan:
    """DPoser with four intervals."""
    motions = Motions(options)
    noises = (40, 100)
    paper = {
        (0.15, 0.05): (19.83, 36.13),
        (0.2, 0.05): (19.87, 34.15),
        (0.2, 0.1): (21.68, 33.18),
        (0.25, 0.1): (22.14, 33.83),
    }

    def run(t_max: float, t_min: float) -> Row:
        schedule = TimeSchedule('truncated', t_max, t_min)
        method = motions.dposer(lambda p: dataclasses.replace(p, schedule=schedule))
        label = str([t_max, t_min])
        errors = {
            (name, noise): motions.denoiser.errors_mm(label, method, name, noisy(noise))
            for name in motions.sets
            for noise in noises
        }
        return Row(label, {_column(*key).name: value['MPJPE'] for key, value in errors.items()})

    on_paper = [_column(_AMASS, noise) for noise in noises]
    return motions.plan(
        [*(_column(name, noise) for name in motions.sets for noise in noises), *on_paper],
        paper_rows(on_paper, {str(list(interval)): v for interval, v in paper.items()}),
        [Job(str(list(i)), lambda i=i: run(*i)) for i in paper],
        'MPJPE of 22 joints, no alignment; rows: [t_max, t_min].',
    )


@table(
    'S-7',
    'Motion denoising, hidden legs or arm',
    [PACKED_NEED, BODY_NEED, baselines_need('vposer', 'posendf', part='body')],
)
def table_s7(options: Options) -> Plan:
    """Exact joints, some of them hidden."""
    motions = Motions(options)
    rows = motions.competitors() | motions.live(is_noisy=False)
    measures = {'Vis': 'Vis', 'Occ': 'Occ', 'MPJPE': 'All', 'MPVPE': 'MPVPE'}
    paper = {
        'w/o prior': (0.26, 14.72, 5.52, 5.45, 0.26, 24.87, 4.74, 9.91),
        'VPoser': (1.75, 14.29, 6.31, 7.38, 1.21, 13.23, 3.40, 7.68),
        'Pose-NDF': (0.25, 15.71, 5.87, 5.64, 0.25, 17.70, 3.42, 7.86),
        'DPoser': (0.28, 12.24, 4.63, 3.65, 0.27, 7.80, 1.64, 3.81),
    }

    def column(name: str, part: str, measure: str) -> Column:
        return Column(f'{name} {_PART_NAMES[part]} {measure}', 'lower', 'cm')

    def run(label: str) -> Row:
        values = {}
        for name in motions.sets:
            for part in _PART_NAMES:
                found = motions.denoiser.errors_mm(label, rows[label](), name, partial(part))
                for key, error in found.items():
                    values[column(name, part, measures[key]).name] = error / 10
        return Row(label, values)

    names = [
        column(name, part, measure)
        for name in (*motions.sets, _AMASS)
        for part in _PART_NAMES
        for measure in measures.values()
    ]
    return motions.plan(
        names,
        paper_rows(names[-8:], paper),
        [Job(label, lambda label=label: run(label)) for label in rows],
        'Errors without alignment, in cm as in the paper: joints that are seen, hidden, all, and '
        'all vertices. Seen joints are exact.',
        'Weights of VPoser and Pose-NDF: those of noisy joints, our choice for this table.',
        _OF_LIVE,
    )
