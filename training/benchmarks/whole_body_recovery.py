"""Tables 8, 11 and S-14: a whole body of one image from 135 keypoints, as on ARCTIC and Fit3D.

Protocol: `dposer_core.tasks.mesh_recovery.WHOLE_BODY`: 150 steps for camera and root, 500 for
everything. The people stand before EHF's camera as in table 2, each of its own shape.

"From scratch" has keypoints as a detector gives them. Its error is that of two detectors compared
on a real picture (BlazePose Holistic and ViTPose, EHF's first image, a person 893 px tall): a
median distance of 10 px on the body, 7 and 13 px on the hands, 6 px on the face. Shared by two,
that is 6 px per axis on body and hands and 3.6 px on the face. One in ten points of head, limbs
and feet is missing, and one in ten hands as a whole.

SMPLer-X has no free stand-in: "initialised" begins at the truth with an error per joint axis that
makes it about as far off as SMPLer-X on ARCTIC, and has exact keypoints, as the paper's rows.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dposer_core import metrics, skeleton
from dposer_core.baselines import load_baseline
from dposer_core.body_model import Body, load_body
from dposer_core.config import Config
from dposer_core.errors import ConfigError
from dposer_core.keypoints import get_layout, to_hub
from dposer_core.observation import Observation
from dposer_core.prior.architecture import BODY_DIM, JAW_DIM
from dposer_core.prior.sampling import normal_draw
from dposer_core.tasks.body_points import WHOLE_BODY_CHAIN, KeypointBody
from dposer_core.tasks.mesh_recovery import (
    WHOLE_BODY,
    Keypoints,
    RecoveryProtocol,
    recover,
    wholebody_term,
)
from dposer_core.tasks.prior_term import CompetitorTerm, DiffusionTerm, NoTerm, PriorTerm
from training.benchmarks.generation import BODY_NEED, PACKED_NEED, baselines_need
from training.benchmarks.mesh_recovery import (
    CAMERA,
    MISSING,
    before_camera,
    standing,
    turned,
    unseen,
    with_middles,
)
from training.benchmarks.predictions import read_predictions
from training.benchmarks.report import PAPER, Column, Row
from training.benchmarks.tables import Job, Need, Options, Plan, table
from training.benchmarks.task_data import MEASURE_ONLY, load_diffusion, wholebody_sets

SCRATCH, INITIALISED = 'scratch', 'initialised'
QUICK_COUNT = 24
_STRONGER = 4.0
LAYOUT = 'openpose135'
_BODY, _HANDS, _FACE = slice(0, 25), (slice(25, 46), slice(46, 67)), slice(67, 135)
_ALWAYS_SEEN = (1, 2, 5, 8, 9, 12)
_NOISE_PX = ((_BODY, 6.0), (_HANDS[0], 6.0), (_HANDS[1], 6.0), (_FACE, 3.6))
_START_SIGMA = {'global_orient': 0.05, 'body': 0.055, 'hands': 0.23, 'jaw': 0.03}  # rad per axis
_JOINTS14 = [
    skeleton.JOINT_INDEX[name]
    for name in ('neck', 'head', 'left_ankle', 'right_ankle', 'left_knee', 'right_knee')
    + ('left_hip', 'right_hip', 'left_wrist', 'right_wrist', 'left_elbow', 'right_elbow')
    + ('left_shoulder', 'right_shoulder')
]
MEASURES = ('PA-MPVPE all', 'PA-MPVPE hands', 'PA-MPVPE face', 'PA-MPJPE body')


@dataclass(frozen=True)
class Prior:
    """A prior over (B, D) raw whole bodies, by protocol."""

    term: Callable[[RecoveryProtocol], PriorTerm]
    protocol: RecoveryProtocol = WHOLE_BODY


class Judge:
    """Errors of whole bodies; their meshes are made once."""

    def __init__(self, body: Body) -> None:
        self._body = body
        owner = body.weights.argmax(axis=1)

        def of(joints: range | tuple[int, ...], *names: str) -> np.ndarray:
            named = [skeleton.JOINT_INDEX[name] for name in names]
            return np.flatnonzero(np.isin(owner, [*joints, *named]))

        left, right = (
            range(part.start, part.stop)
            for part in (skeleton.LEFT_HAND_JOINTS, skeleton.RIGHT_HAND_JOINTS)
        )
        self._hands = [of(left, 'left_wrist'), of(right, 'right_wrist')]
        self._face = of((), 'head', 'jaw', 'left_eye', 'right_eye')

    def shape(self, variables: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Mesh (B, V, 3) and 14 joints (B, 14, 3) of a fit's variables."""
        pose = np.zeros((len(variables['pose']), skeleton.NUM_JOINTS, 3))
        pose[:, skeleton.PRIOR_JOINTS] = variables['pose'].reshape(len(pose), -1, 3).numpy()
        pose[:, 0] = variables['global_orient'].numpy()
        coefficients = variables['betas'].numpy(), variables['expression'].numpy()
        mesh = self._body.vertices(pose, *coefficients)
        return mesh, self._body.joints(pose, *coefficients)[:, _JOINTS14]

    def errors(
        self, found: tuple[np.ndarray, np.ndarray], truth: tuple[np.ndarray, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """(N,) mm by measure, of meshes and joints."""
        (mesh, joints), (true_mesh, true_joints) = found, truth

        def aligned(ids: np.ndarray | slice) -> np.ndarray:
            return metrics.pa_mpjpe(mesh[:, ids], true_mesh[:, ids])

        values = (
            aligned(slice(None)),
            np.mean([aligned(hand) for hand in self._hands], axis=0),
            aligned(self._face),
            metrics.pa_mpjpe(joints, true_joints),
        )
        return {name: 1000 * value for name, value in zip(MEASURES, values, strict=True)}


class Studio:
    """Whole bodies before the camera."""

    def __init__(
        self,
        body: Body,
        sets: dict[str, np.ndarray],
        seed: int,
        predictions: Path | None = None,
    ) -> None:
        """`sets`: rows (n, D) raw by name; they are fitted as one batch and measured apart.

        `predictions`: SMPLer-X's of these images, one set after another; None: the stand-in's.
        """
        self.judge, self.seed, self._predictions = Judge(body), seed, predictions
        self._tables = body.tables
        self._points = KeypointBody(body, get_layout(LAYOUT).names, WHOLE_BODY_CHAIN)
        ends = np.cumsum([0, *(len(rows) for rows in sets.values())])
        self._rows = {name: slice(*ends[i : i + 2]) for i, name in enumerate(sets)}
        rows = torch.from_numpy(np.concatenate(list(sets.values())))
        split = 3 * (len(WHOLE_BODY_CHAIN) - 1)
        # A set stands and is seen alike whichever others stand beside it.
        rngs = [np.random.default_rng(seed) for _ in sets]
        stood = [standing(len(r), rng) for r, rng in zip(sets.values(), rngs, strict=True)]
        self.truth = {name: torch.cat([each[name] for each in stood]) for name in stood[0]}
        self.truth |= {'pose': rows[:, :split], 'expression': rows[:, split:]}
        self._true_shape = self.judge.shape(self.truth)
        blank = unseen(len(rows), len(get_layout(LAYOUT).names))
        exact = with_middles(blank.project(self.forward(self.truth), self.truth['camera']))
        exact = dataclasses.replace(blank, pixels=exact)
        drawn = [
            _detected(exact.of(torch.arange(len(rows))[rows_of]), rng)
            for rows_of, rng in zip(self._rows.values(), rngs, strict=True)
        ]
        pixels, confidence = (
            torch.cat([getattr(each, name) for each in drawn]) for name in ('pixels', 'confidence')
        )
        detected = dataclasses.replace(exact, pixels=pixels, confidence=confidence)
        self.seen = {SCRATCH: detected, INITIALISED: exact}

    def forward(self, variables: dict[str, Tensor]) -> Tensor:
        """Points (B, 135, 3) of a fit's variables."""
        names = ('global_orient', 'pose', 'betas', 'expression')
        return self._points(*(variables[name] for name in names))[1]

    def start(self, kind: str, mean: np.ndarray) -> dict[str, Tensor]:
        """Where a fit of `kind` begins; `mean`: (D,) raw."""
        found = before_camera(self.seen[kind])
        count, split = self.truth['pose'].shape
        average = torch.from_numpy(mean.astype(np.float32)).repeat(count, 1)
        found |= {'pose': average[:, :split], 'expression': average[:, split:]}
        if kind == SCRATCH:
            return found
        if self._predictions is not None:
            return self._predicted(self._predictions, count)
        draw = normal_draw(self.seed + 1)
        sizes = (BODY_DIM, split - BODY_DIM - JAW_DIM, JAW_DIM)
        sigma = torch.cat(
            [
                torch.full((size,), _START_SIGMA[part])
                for part, size in zip(('body', 'hands', 'jaw'), sizes, strict=True)
            ]
        )
        for name, spread in (('global_orient', _START_SIGMA['global_orient']), ('pose', sigma)):
            noise = spread * draw(tuple(self.truth[name].shape))
            found[name] = turned(self.truth[name], noise)
        return found | {'camera': self.truth['camera']}  # a prediction brings its camera along

    def _predicted(self, path: Path, count: int) -> dict[str, Tensor]:
        """What SMPLer-X says of the images."""
        read = read_predictions(path, 'smplerx', count)
        parts = [read[name] for name in ('body_pose', 'left_hand_pose', 'right_hand_pose')]
        dirs = self._tables.joint_dirs[0, :, : skeleton.NUM_BETAS]
        pelvis = self._tables.joint_template[0] + read['betas'] @ dirs.T  # where `transl` is zero
        found = {
            'global_orient': read['global_orient'],
            'pose': np.concatenate([*parts, read['jaw_pose']], axis=1),
            'betas': read['betas'],
            'expression': read['expression'],
            'camera': read['camera'] + pelvis,
        }
        return {name: torch.from_numpy(np.float32(values)) for name, values in found.items()}

    def fit(self, kind: str, prior: Prior, mean: np.ndarray) -> dict[str, np.ndarray]:
        """(N,) mm by measure of what a fit with some prior finds."""
        term = wholebody_term(prior.term(prior.protocol))
        start = self.start(kind, mean)
        found = recover(self.seen[kind], start, self.forward, term, prior.protocol)
        return self.errors(found.variables)

    def errors(self, variables: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """(N,) mm by measure."""
        return self.judge.errors(self.judge.shape(variables), self._true_shape)

    def live(self, body: Body) -> dict[str, np.ndarray]:
        """(N,) mm by measure of the live fitter; each image is the first of a stream."""
        from dposer_core.fitter import PoseFitter
        from dposer_core.prior.runtime import load_prior

        config, seen = Config(), self.seen[SCRATCH]
        prior, states = load_prior(config.prior.checkpoint), []
        for pixels, confidence in zip(seen.pixels, seen.confidence, strict=True):
            points, sure = to_hub(pixels.numpy(), confidence.numpy(), LAYOUT)
            result = PoseFitter(body.tables, prior, config).step(
                Observation(0, points, sure, CAMERA)
            )
            if result is None:
                raise ConfigError('the live fitter found no start in one of the images')
            states.append(result.state)
        pose = np.stack([state.pose_rotvec for state in states])
        found = {
            'global_orient': pose[:, 0],
            'pose': pose[:, skeleton.PRIOR_JOINTS].reshape(len(pose), -1),
            'betas': np.stack([state.betas for state in states]),
            'expression': np.stack([state.expression for state in states]),
        }
        return self.errors({name: torch.from_numpy(value) for name, value in found.items()})

    def means(self, errors: dict[str, np.ndarray], kind: str) -> dict[str, float]:
        """Means over each set by column."""
        return {
            column(name, kind, measure).name: float(values[rows].mean())
            for name, rows in self._rows.items()
            for measure, values in errors.items()
        }


def _detected(exact: Keypoints, rng: np.random.Generator) -> Keypoints:
    """As a detector sees it."""
    count = len(exact.pixels)
    noise = rng.standard_normal(tuple(exact.pixels.shape))
    for points, sigma in _NOISE_PX:
        noise[:, points] *= sigma
    missing = np.zeros(tuple(exact.pixels.shape[:2]), dtype=bool)
    missing[:, _BODY] = rng.random((count, _BODY.stop)) < MISSING
    missing[:, list(_ALWAYS_SEEN)] = False
    for hand in _HANDS:
        missing[:, hand] |= rng.random((count, 1)) < MISSING
    return dataclasses.replace(
        exact,
        pixels=with_middles(exact.pixels + torch.from_numpy(noise).float()),
        confidence=torch.from_numpy(~missing).float(),
    )


def column(name: str, kind: str, measure: str) -> Column:
    """Of a set, a start and a measure."""
    return Column(f'{name} {kind} {measure}', 'lower', 'mm')


@dataclass(frozen=True)
class _GmmAndL2:
    """GMM of the body, and of hands and face the squared distance from their mean."""

    gmm: CompetitorTerm
    mean: Tensor
    """(D,) raw."""

    def __call__(self, pose: Tensor, step: int) -> Tensor:
        rest = (pose - self.mean)[:, BODY_DIM:]
        return self.gmm(pose[:, :BODY_DIM], step) + rest.square().sum(-1).mean()


class WholeBodies:
    """What the tables share: sets of people, priors and the rows made of them."""

    def __init__(self, options: Options, names: tuple[str, ...], count: int) -> None:
        """`names` of the sets to measure on; `count` images of each."""
        self.options = options
        everything = wholebody_sets(options, count)
        self.sets = {name: everything[name] for name in names if name in everything}
        self.hashes: dict[str, str] = {}
        self.body = load_body('')
        self.mean = load_diffusion(options, 'mixed')[1].denormalize(
            np.zeros(next(iter(self.sets.values())).shape[1], np.float32)
        )

    @cached_property
    def studio(self) -> Studio:
        return Studio(self.body, self.sets, self.options.seed, self.options.predictions)

    def dposer(self, name: str = 'mixed', protocol: RecoveryProtocol = WHOLE_BODY) -> Prior:
        """DPoser-X of one training."""
        prior, normalizer, hashes = load_diffusion(self.options, name)
        self.hashes |= {f'{name} {part}': sha256 for part, sha256 in hashes.items()}

        def term(protocol: RecoveryProtocol) -> PriorTerm:
            times = protocol.schedule.times(protocol.total, self.options.seed)
            draw = normal_draw(self.options.seed + 2)
            return DiffusionTerm(prior, normalizer, protocol.denoising, times, draw)

        return Prior(term, protocol)

    def competitors(self) -> dict[str, Callable[[], Prior]]:
        """Priors by label, each made when it is run."""

        def gmm() -> Prior:
            gmm = CompetitorTerm(load_baseline('gmm', 'body'))
            return Prior(lambda protocol: _GmmAndL2(gmm, torch.from_numpy(self.mean)))

        def vposer() -> Prior:
            network = load_baseline('vposer', 'wholebody')
            return Prior(lambda protocol: CompetitorTerm(network, lambda loss: 0.5 * loss))

        return {
            'w/o prior': lambda: Prior(lambda protocol: NoTerm()),
            'GMM & L2': gmm,
            'VPoser-X': vposer,
        }

    def row(self, label: str, prior: Prior, kinds: tuple[str, ...]) -> Row:
        """Errors from each start."""
        values = {}
        for kind in kinds:
            values |= self.studio.means(self.studio.fit(kind, prior, self.mean), kind)
        return Row(label, values)

    def plan(
        self, jobs: list[Job], kinds: tuple[str, ...], paper: dict[str, tuple], on: str, *more: str
    ) -> Plan:
        """A table; the paper's rows are figures on its data set `on`, by start and measure."""
        on_paper = [column(on, kind, m) for kind in kinds for m in MEASURES]
        names = [c.name for c in on_paper]
        return Plan(
            columns=(
                *(column(s, kind, m) for s in self.sets for kind in kinds for m in MEASURES),
                *on_paper,
            ),
            paper=tuple(
                Row(k, {n: v for n, v in zip(names, values, strict=True) if v is not None}, PAPER)
                for k, values in paper.items()
            ),
            jobs=tuple(jobs),
            data=f'{len(next(iter(self.sets.values())))} whole bodies of each: '
            f'{", ".join(self.sets)}; the open body before one camera',
            checkpoint_sha256=self.hashes,
            settings=(
                'Scratch: from the mean pose, keypoints with 6 px of noise per axis on body and '
                f'hands, 3.6 px on the face, {MISSING:.0%} of head, limbs and feet and of whole '
                'hands missing; people are some 900 px tall.',
                '"composed" and "HDM05": recorded bodies with synthetic hands and faces, all left '
                'out of training (HDM05: as a source as well for the body). "examples": recorded '
                'bodies with their own hands, face still.',
                'Errors after rotation, translation and scale of all vertices, each hand (their '
                'mean), the head, and 14 body joints.',
                f"Needs for the paper's own figures: {on}, SMPL-X and keypoints detected in its "
                "images (RTMPose whole body); see its authors' page and smpl-x.is.tue.mpg.de.",
                *more,
                MEASURE_ONLY
                if 'examples' in self.sets
                else 'The published examples are not here.',
            ),
        )


_L2 = '"GMM & L2": L2 about the mean hands and face, our weight 1.'
_STAND_IN = (
    f'Initialised: exact keypoints, and the truth with an error of {_START_SIGMA} rad per axis in '
    f'place of SMPLer-X (mean shape). {_L2}'
)
_KINDS = (SCRATCH, INITIALISED)
_START = 'start'
_NEEDS: tuple[Need, ...] = (
    PACKED_NEED,
    BODY_NEED,
    baselines_need('vposer', part='wholebody'),
    baselines_need('gmm', part='body'),
)


def _priors_plan(
    options: Options, names: tuple[str, ...], paper: dict[str, tuple], on: str
) -> Plan:
    shared = WholeBodies(options, names, QUICK_COUNT if options.is_quick else 100)
    weights = tuple(math.sqrt(_STRONGER) * weight for weight in WHOLE_BODY.prior)
    pulled = dataclasses.replace(WHOLE_BODY, prior=weights)
    stronger = f'DPoser-X, prior x {_STRONGER:g}'
    rows = shared.competitors() | {
        'DPoser-X': shared.dposer,
        stronger: lambda: shared.dposer(protocol=pulled),
    }

    def start() -> Row:
        values = {}
        for kind in _KINDS:
            begun = shared.studio.start(kind, shared.mean)
            values |= shared.studio.means(shared.studio.errors(begun), kind)
        whose = 'stands in for' if options.predictions is None else 'that of'
        return Row(_START, values, note=f'before the fit; {whose} SMPLer-X', compare='SMPLer-X')

    def live() -> Row:
        values = shared.studio.means(shared.studio.live(shared.body), SCRATCH)
        note = 'each image as the first of a stream; noise of 1 % of the height assumed'
        return Row('live fitter', values, note=note, compare='DPoser-X')

    def fit(label: str) -> Row:
        row = shared.row(label, rows[label](), _KINDS)
        if label != stronger:
            return row
        return dataclasses.replace(row, note="not the paper's weight", compare='DPoser-X')

    jobs = [Job(_START, start), *(Job(label, lambda label=label: fit(label)) for label in rows)]
    shared.dposer()  # its hash belongs to the plan
    start_of = (
        _STAND_IN
        if options.predictions is None
        else f'Initialised: exact keypoints, and predictions of {options.predictions.name}. {_L2}'
    )
    return shared.plan([*jobs, Job('live fitter', live)], _KINDS, paper, on, start_of)


@table('8', 'Whole-body mesh recovery', _NEEDS)
def table_8(options: Options) -> Plan:
    """The priors on people composed of held-out parts, and on recorded ones."""
    none = (None,) * 4
    paper = {
        'w/o prior': (72.94, 18.80, 11.60, 86.40, 26.33, 10.34, 2.86, 28.69),
        'GMM & L2': (67.25, 17.93, 10.92, 79.08, 25.60, 9.99, 2.78, 28.12),
        'VPoser-X': (66.74, 17.44, 10.99, 79.88, 25.41, 9.50, 2.83, 28.37),
        'DPoser-X': (60.98, 15.60, 9.75, 73.00, 24.65, 7.33, 2.73, 27.87),
        'SMPLer-X': (*none, 26.15, 11.21, 2.95, 29.31),
    }
    return _priors_plan(options, ('composed', 'examples'), paper, 'ARCTIC')


@table('S-14', 'Whole-body mesh recovery, motion of another origin', _NEEDS)
def table_s14(options: Options) -> Plan:
    """The priors on a source that none was trained on."""
    none = (None,) * 4
    paper = {
        'w/o prior': (89.72, 23.51, 7.26, 91.18, 24.72, 11.92, 2.78, 22.98),
        'GMM & L2': (86.95, 18.22, 5.38, 83.58, 24.28, 11.09, 2.58, 22.95),
        'VPoser-X': (81.96, 17.59, 6.37, 86.50, 24.41, 10.21, 2.65, 23.03),
        'DPoser-X': (70.91, 15.83, 5.27, 74.33, 23.20, 8.91, 2.62, 21.22),
        'SMPLer-X': (*none, 25.49, 18.89, 2.85, 28.30),
    }
    return _priors_plan(options, ('HDM05',), paper, 'Fit3D')


@table('11', 'Whole-body mesh recovery by training', [PACKED_NEED, BODY_NEED])
def table_11(options: Options) -> Plan:
    """Base, fused and mixed."""
    shared = WholeBodies(options, ('HDM05', 'examples'), QUICK_COUNT if options.is_quick else 100)
    paper = {
        'base': (72.79, 17.21, 5.41, 74.68),
        'fused': (72.06, 18.12, 5.35, 75.27),
        'mixed': (70.91, 15.83, 5.27, 74.33),
    }
    priors = {name: shared.dposer(name) for name in paper}
    jobs = [
        Job(f'DPoser-X-{name}', lambda n=name: shared.row(f'DPoser-X-{n}', priors[n], (SCRATCH,)))
        for name in paper
    ]
    return shared.plan(
        jobs, (SCRATCH,), {f'DPoser-X-{name}': v for name, v in paper.items()}, 'Fit3D'
    )
