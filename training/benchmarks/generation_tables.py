"""Tables 1, 6, S-8 and S-11: poses that the priors draw, of body, whole body, hand and face."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dposer_core import generation_metrics as metrics
from dposer_core import skeleton
from dposer_core.body_model import Body, load_body
from dposer_core.errors import ConfigError
from dposer_core.prior import compose
from dposer_core.prior.architecture import BODY_DIM, HAND_DIM, JAW_DIM
from dposer_core.prior.checkpoint import WEIGHTS_DIR
from dposer_core.prior.runtime import load_prior
from training.benchmarks.generation import (
    APD,
    BODY_NEED,
    BODY_TIME,
    CROSSED,
    DNN,
    DNN_FACE,
    FACE_TIME,
    FID,
    PACKED_NEED,
    PRECISION,
    RECALL,
    Counts,
    Judge,
    Reference,
    baseline_draw,
    baselines_need,
    body_crossed,
    body_joints,
    body_reference,
    hand_joints,
    packed_path,
    part_reference,
    prior_path,
    prior_samples,
)
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, table
from training.composition import Composer, CompositionConfig, heldout_parts, training_parts
from training.pack import select_body

_WHOLEBODY_ROWS = 100_000


def _diffusion_jobs(judge: Judge, path: Path, label: str, min_time: float) -> list[Job]:
    """The prior by the paper's sampler, and, as the paper's row with a star, in ten DDIM steps."""

    def draw(steps: int | None) -> Callable[[int], np.ndarray]:
        return lambda count: prior_samples(
            path, count, judge.options.seed, steps, min_time, judge.options.progress
        )

    return [
        judge.sampled(label, draw(None), note='Euler-Maruyama, 1000 steps'),
        judge.sampled(f'{label}*', draw(10), note='DDIM, 10 steps'),
    ]


def _gaussian_job(judge: Judge) -> Job:
    """One normal distribution of the training poses; its FID is zero by construction."""

    def draw(count: int) -> np.ndarray:
        rng = np.random.default_rng([judge.options.seed, 3])
        return rng.multivariate_normal(*judge.reference.statistics, count)

    return judge.sampled('Gaussian', draw, note='not in the paper; FID is zero by construction')


def _sha256(path: Path) -> dict[str, str]:
    return load_prior(path).hashes


def _packed_fingerprint(options: Options) -> str:
    """Size and time of the packed file: enough to notice that it was made anew."""
    status = packed_path(options).stat()
    return f'{status.st_size} {status.st_mtime_ns}'


def _paper(columns: tuple[Column, ...], rows: Mapping[str, tuple]) -> tuple[Row, ...]:
    """The paper's rows; values in the order of `columns`, None where it has none."""
    return tuple(
        Row(
            label,
            {c.name: v for c, v in zip(columns, values, strict=False) if v is not None},
            'paper',
        )
        for label, values in rows.items()
    )


_SETTINGS = (
    'Paper and ours are different data: the paper has AMASS, real hands and scanned faces. Read '
    'ours against our rows of real poses.',
    'dNN: distance of a sample to its nearest training pose. Below that of real held-out poses '
    'it is not better: the prior would repeat what it has seen.',
)


@table(
    '1',
    'Body pose generation',
    [
        PACKED_NEED,
        BODY_NEED,
        baselines_need('gmm', 'vposer', 'gan_s', 'posendf', 'nrdf', part='body'),
    ],
)
def table_1(options: Options) -> Plan:
    """Bodies: every prior that can sample, and self-intersection of their meshes."""
    counts = Counts.of(options)
    body = load_body('')
    judge = Judge(
        body_reference(options, counts), BODY_DIM, body_joints(body), body_crossed(body), options
    )
    columns = (APD, FID, PRECISION, RECALL, DNN, CROSSED)
    paper = _paper(
        columns,
        {
            'real, training': (15.44, 0.005, 0.86, 0.90, 0.001),
            'GMM': (16.28, 1.02, 0.13, 0.34, 4.37),
            'VPoser': (10.75, 0.66, 0.29, 0.42, 3.74),
            'GAN-S': (15.68, 0.18, 0.61, 0.41, 2.98),
            'Pose-NDF': (18.75, 5.92, 0.02, 0.00, 9.08),
            'NRDF': (22.82, 0.64, 0.03, 0.99, 6.69),
            'DPoser': (14.28, 0.07, 0.72, 0.80, 2.63),
            'DPoser*': (19.03, 0.58, 0.10, 0.95, 2.95),
        },
    )
    path = prior_path(options, 'body')
    names = {
        'GMM': 'gmm',
        'VPoser': 'vposer',
        'GAN-S': 'gan_s',
        'Pose-NDF': 'posendf',
        'NRDF': 'nrdf',
    }
    return Plan(
        columns,
        paper,
        (
            *judge.real_jobs(),
            _gaussian_job(judge),
            *_baseline_jobs(judge, names, 'body'),
            *_diffusion_jobs(judge, path, 'DPoser', BODY_TIME),
        ),
        f'free CMU motion of {len(judge.reference.training)} training poses with their mirror '
        'images; held out: CMU subjects 02 and 03, and HDM05 with DeepMimic',
        _sha256(path),
        (
            counts.sentence(),
            *_SETTINGS,
            f'Self-intersection: faces of the open body (mean shape, {counts.crossed} samples) '
            'that pass through another with no vertex in common, less those of the rest pose.',
        ),
        fingerprint=_packed_fingerprint(options),
    )


@table(
    'S-8',
    'Hand pose generation',
    [PACKED_NEED, BODY_NEED, baselines_need('vposer', 'nrdf', part='hand')],
)
def table_s8(options: Options) -> Plan:
    """Right hands."""
    counts = Counts.of(options)
    judge = Judge(
        part_reference(options, 'hand', counts),
        HAND_DIM,
        hand_joints(load_body('')),
        options=options,
    )
    columns = (APD, FID, PRECISION, RECALL, DNN)
    paper = _paper(
        columns,
        {
            'VPoser': (1.99, 0.21, 0.68, 0.65, 1.85),
            'NRDF': (1.76, 5.20, 0.17, 0.65, 5.37),
            'DPoser-hand': (2.36, 0.01, 0.82, 0.87, 1.45),
        },
    )
    path = prior_path(options, 'hand')
    return Plan(
        columns,
        paper,
        (
            *judge.real_jobs(),
            _gaussian_job(judge),
            *_baseline_jobs(judge, {'VPoser': 'vposer', 'NRDF': 'nrdf'}, 'hand'),
            *_diffusion_jobs(judge, path, 'DPoser-hand', BODY_TIME),
        ),
        f"SYNTHETIC: {len(judge.reference.training)} hands of this project's generator; the rows "
        'called real are its own draws, none of them recorded',
        _sha256(path),
        (counts.sentence(), *_SETTINGS),
        fingerprint=_packed_fingerprint(options),
    )


@table('S-11', 'Face generation', [PACKED_NEED, baselines_need('vposer', part='face')])
def table_s11(options: Options) -> Plan:
    """Jaw and expression; there is no free data of face shapes."""
    counts = Counts.of(options)
    judge = Judge(part_reference(options, 'face', counts), None, options=options)
    columns = (FID, PRECISION, RECALL, DNN_FACE)
    paper = _paper(
        columns,
        {
            'VPoser (shape)': (31.91, 0.984, 0.105, 6.52),
            'DPoser-face (shape)': (5.331, 0.689, 0.396, 8.29),
            'VPoser (expression)': (0.888, 0.993, 0.019, 0.79),
            'DPoser-face (expression)': (0.156, 0.818, 0.697, 1.01),
        },
    )
    path = prior_path(options, 'face')
    names = {'VPoser (expression)': 'vposer'}
    return Plan(
        columns,
        paper,
        (
            *judge.real_jobs(),
            _gaussian_job(judge),
            *_baseline_jobs(judge, names, 'face'),
            *_diffusion_jobs(judge, path, 'DPoser-face (expression)', FACE_TIME),
            Job('DPoser-face (shape)', _no_face_shapes),
        ),
        f"SYNTHETIC: {len(judge.reference.training)} faces of this project's generator (jaw 3 and "
        f'expression {judge.reference.training.shape[1] - JAW_DIM} of the open body, not FLAME)',
        _sha256(path),
        (counts.sentence(), *_SETTINGS),
        fingerprint=_packed_fingerprint(options),
    )


def _no_face_shapes() -> Row:
    raise ConfigError('no free data of FLAME face shapes; train face_shape on MICA data first')


@table(
    '6',
    'Whole-body pose generation',
    [PACKED_NEED, BODY_NEED, baselines_need('vposer', part='wholebody')],
)
def table_6(options: Options) -> Plan:
    """Whole bodies: what each way of putting the parts together loses of their dependence."""
    counts = Counts.of(options)
    reference = wholebody_reference(options, counts)
    judge = WholeBodyJudge(reference, BODY_DIM, options=options, body=load_body(''))
    columns = (APD_BODY, APD_HANDS, FID, PRECISION, RECALL, DNN)
    paper = _paper(
        columns,
        {
            'VPoser-X': (7.79, 1.16, 14.52, 0.64, 0.07),
            'DPoser-X-base': (14.45, 2.34, 90.78, 0.0, 0.0),
            'DPoser-X-fused': (11.78, 1.93, 3.71, 0.32, 0.77),
            'DPoser-X-mixed': (14.08, 2.04, 13.97, 0.02, 0.81),
        },
    )
    jobs = [*judge.real_jobs(), *_baseline_jobs(judge, {'VPoser-X': 'vposer'}, 'wholebody')]
    hashes = {}
    for kind in compose.MODELS:
        label, path = f'DPoser-X-{kind}', WEIGHTS_DIR / f'{kind}.json'
        hashes |= {f'{kind} {part}': h for part, h in _sha256(path).items()}
        jobs.append(
            judge.sampled(
                label,
                lambda count, path=path: prior_samples(
                    path, count, options.seed, progress=options.progress
                ),
                note='Euler-Maruyama, 1000 steps',
            )
        )
    return Plan(
        columns,
        paper,
        tuple(jobs),
        f'SYNTHETIC: {len(reference.training)} free CMU bodies composed with hands and faces of '
        "this project's generators; figures tell of those generators' dependence between parts",
        hashes,
        (counts.sentence(), *_SETTINGS, 'dNN over the 21 body joints only.'),
        fingerprint=_packed_fingerprint(options),
    )


APD_BODY = Column('APD body', 'higher', 'cm')
APD_HANDS = Column('APD hands', 'higher', 'cm')


@dataclass
class WholeBodyJudge(Judge):
    """Adds the diversity of body and hands."""

    body: Body | None = None

    def values(self, x: np.ndarray, exclude: np.ndarray | None = None) -> dict[str, float]:
        """As `Judge.values`; hands: mean of the left, mirrored, and the right."""
        assert self.body is not None
        values = super().values(x, exclude)
        few = x[: self.reference.counts.apd]
        values[APD_BODY.name] = 100 * metrics.average_pairwise_distance(
            body_joints(self.body)(few)
        )
        left = few[:, BODY_DIM : BODY_DIM + HAND_DIM]
        right = few[:, BODY_DIM + HAND_DIM : BODY_DIM + 2 * HAND_DIM]
        mirrored = left * np.tile(skeleton.MIRROR_SIGN, HAND_DIM // 3)
        apd = [
            metrics.average_pairwise_distance(hand_joints(self.body)(hand))
            for hand in (mirrored, right)
        ]
        values[APD_HANDS.name] = 100 * float(np.mean(apd))
        return values


def wholebody_reference(options: Options, counts: Counts) -> Reference:
    """Whole bodies of the composing generator, and of its held-out parts."""
    generator = torch.Generator().manual_seed(options.seed)
    with np.load(packed_path(options)) as packed:
        arrays = {name: packed[name] for name in packed.files if name != 'report'}
    body, weight = select_body(arrays)
    sets = {}
    for name, parts, count in (
        (
            'training',
            training_parts(arrays) | {'body': body, 'body_weight': weight},
            _WHOLEBODY_ROWS,
        ),
        ('heldout', heldout_parts(arrays), counts.samples),
    ):
        sets[name] = Composer(parts, CompositionConfig()).samples(count, generator).numpy()
    heldout = {'composed of held-out parts': sets['heldout']}
    weights = np.ones(_WHOLEBODY_ROWS)
    return Reference(sets['training'], weights, heldout, counts, options.seed)


def _baseline_jobs(judge: Judge, names: Mapping[str, str], part: str) -> list[Job]:
    """One row per competitor; `names`: label -> method."""
    seed = judge.options.seed
    return [
        judge.sampled(label, baseline_draw(method, part, seed)) for label, method in names.items()
    ]
