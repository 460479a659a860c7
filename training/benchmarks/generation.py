"""Generation: tables 1 (body), S-8 (hand), S-11 (face) and 6 (whole body) on the free data.

Poses drawn from each prior are compared with the poses that it was trained on. Two rows of real
poses say what the figures can be: training poses themselves, and motion that nobody trained on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dposer_core import generation_metrics as metrics
from dposer_core import skeleton
from dposer_core.baselines import load_baseline
from dposer_core.baselines.base import SamplingPrior
from dposer_core.body_model import Body, load_body
from dposer_core.errors import ConfigError, DPoserError
from dposer_core.evidence import RIGHT_HAND_POINTS
from dposer_core.prior import sampling
from dposer_core.prior.architecture import BODY_DIM, HAND_DIM, JAW_DIM, NUM_LABELS
from dposer_core.prior.checkpoint import PARTS, WEIGHTS_DIR
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.runtime import LivePrior, load_prior
from dposer_core.self_intersection import SelfIntersection
from training.augment import mirror_body
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import FREE, Job, Need, Options, Plan, table
from training.composition import Composer, CompositionConfig, heldout_parts, training_parts
from training.data.archives import HELD_OUT, TEST_SOURCES
from training.pack import PACKED, select_body

BODY_TIME = 5e-3  # where sampling of body, hand and whole body ends, PROTOCOLS 3.0
FACE_TIME = 1e-3
_CHUNK = 1000  # samples drawn at a time
_WHOLEBODY_ROWS = 100_000

APD = Column('APD', 'higher', 'cm')
FID = Column('FID', 'lower', decimals=3)
PRECISION, RECALL = Column('P', 'higher'), Column('R', 'higher')
DNN = Column('dNN', 'lower', 'rad')
DNN_FACE = Column('dNN', 'lower')
CROSSED = Column('self-intersection', 'lower', '% of faces')


@dataclass(frozen=True)
class Counts:
    """How many poses each figure is taken over."""

    samples: int = 10_000  # the paper: 50,000
    reference: int = 10_000  # as in the paper
    nearest: int = 2_000  # for dNN; the paper: all
    apd: int = 500  # as in the paper
    crossed: int = 250  # meshes for self-intersection, as the paper's validation
    steps: int = sampling.NUM_STEPS

    @staticmethod
    def of(options: Options) -> 'Counts':
        """The counts for a full or a quick run."""
        return Counts(2_000, 5_000, 500, 500, 50) if options.is_quick else Counts()

    def sentence(self) -> str:
        """For the table."""
        return (
            f'{self.samples} samples against {self.reference} reference poses (paper: 50,000 '
            f'against 10,000; fewer samples make R smaller and FID larger); dNN of {self.nearest}'
            f' samples to all training poses; APD of {self.apd}; k = {metrics.NEIGHBOURS}.'
        )


@dataclass(frozen=True)
class Reference:
    """Real poses of a part, raw, that samples are compared with."""

    training: np.ndarray
    """(N, D), all of them."""
    weights: np.ndarray
    """(N,) chance of each in training."""
    heldout: Mapping[str, np.ndarray]
    """Name -> (M, D) poses that nobody trained on."""
    counts: Counts
    seed: int

    def draw(self, count: int, stream: int) -> np.ndarray:
        """(count,) different rows of `training`, by weight."""
        rng = np.random.default_rng([self.seed, stream])
        chance = self.weights / self.weights.sum(dtype=np.float64)
        return rng.choice(len(chance), min(count, len(chance)), replace=False, p=chance)

    @cached_property
    def reference(self) -> np.ndarray:
        """(M, D) the reference batch of precision and recall."""
        return self.training[self.draw(self.counts.reference, 0)]

    @cached_property
    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (D,) and covariance (D, D) of the training distribution."""
        x, w = self.training.astype(np.float64), self.weights.astype(np.float64)
        return np.average(x, axis=0, weights=w), np.cov(x, rowvar=False, aweights=w)


@dataclass
class Judge:
    """Measures samples of one part."""

    reference: Reference
    rotations: int | None
    """First columns that are axis-angle and enter dNN as angles; None: Euclidean dNN."""
    joints: Callable[[np.ndarray], np.ndarray] | None = None
    """(N, D) raw -> (N, J, 3) metres, for the APD."""
    crossed: Callable[[np.ndarray], np.ndarray] | None = None
    """(N, D) raw -> (N,) percent of faces."""
    options: Options = field(default_factory=Options)

    def values(self, x: np.ndarray, exclude: np.ndarray | None = None) -> dict[str, float]:
        """Figures of samples (N, D) by column; `exclude` (N,): their own rows in the data."""
        reference, counts = self.reference, self.reference.counts
        if not np.isfinite(x).all():
            raise ConfigError('the prior drew values that are not finite')
        found = metrics.prdc(reference.reference, x)
        statistics = metrics.mean_and_covariance(x)
        near = slice(0, counts.nearest)
        skipped = None if exclude is None else exclude[near]
        if self.rotations is None:
            distance = metrics.nearest_distance(x[near], reference.training, skipped)
        else:
            part = slice(0, self.rotations)
            distance = metrics.nearest_rotation_distance(
                x[near, part], reference.training[:, part], skipped
            )
        values = {
            FID.name: metrics.frechet_distance(*reference.statistics, *statistics),
            PRECISION.name: found.precision,
            RECALL.name: found.recall,
            DNN.name: float(distance.mean()),
        }
        if self.joints is not None:
            joints = self.joints(x[: counts.apd])
            values[APD.name] = 100 * metrics.average_pairwise_distance(joints)
        if self.crossed is not None:
            values[CROSSED.name] = float(self.crossed(x[: counts.crossed]).mean())
        return values

    def real_jobs(self) -> list[Job]:
        """Rows of real poses: training ones, and each held-out set."""

        def training() -> Row:
            rows = self.reference.draw(self.reference.counts.samples, 1)
            note = (
                'other rows than the reference batch may repeat it; dNN leaves the pose itself out'
            )
            return Row(
                'real, training', self.values(self.reference.training[rows], rows), note=note
            )

        def heldout(name: str) -> Row:
            poses = self.reference.heldout[name]
            count = min(self.reference.counts.samples, len(poses))
            rng = np.random.default_rng([self.reference.seed, 2])
            x = poses[rng.permutation(len(poses))[:count]]
            return Row(f'real, held out: {name}', self.values(x), note=f'{count} poses')

        jobs = [Job('real, training', training)]
        for name in self.reference.heldout:
            jobs.append(Job(f'real, held out: {name}', lambda name=name: heldout(name)))
        return jobs

    def sampled(self, label: str, draw: Callable[[int], np.ndarray], **row: str) -> Job:
        """The row of a prior from which `draw(count)` gives raw samples."""

        def run() -> Row:
            self.options.progress(f'{label}: drawing {self.reference.counts.samples} poses')
            x = draw(self.reference.counts.samples)
            self.options.progress(f'{label}: measuring')
            return Row(label, self.values(np.asarray(x, dtype=np.float32)), **row)

        return Job(label, run)


class RuntimeNetwork(nn.Module):
    """The live back end as a noise predictor: 2.5 times as fast as torch on a CPU core.

    All rows of a call have the same time, as they have in every sampler.
    """

    def __init__(self, prior: LivePrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Predicted noise (B, D) of x (B, D) at label (B,), one value repeated."""
        t = float(label[0]) / (NUM_LABELS - 1)
        return torch.from_numpy(self.prior.predict_noise(x.contiguous().numpy(), t))


def prior_samples(
    path: str | Path,
    count: int,
    seed: int,
    steps: int | None = None,
    min_time: float = BODY_TIME,
    progress: Callable[[str], None] = lambda text: None,
) -> np.ndarray:
    """(count, D) raw samples of a diffusion prior.

    Args:
        path: a name or file that `load_prior` takes.
        count: how many.
        seed: of the noise; a chunk has its own stream, so its size does not change the others.
        steps: of DDIM; None: Euler-Maruyama with 1000.
        min_time: where Euler-Maruyama ends.
        progress: told how far it is.
    """
    live = load_prior(path)
    prior = DiffusionPrior(RuntimeNetwork(live))
    chunks = []
    for start in range(0, count, _CHUNK):
        shape = (min(_CHUNK, count - start), live.dim)
        draw = sampling.normal_draw(seed * 1_000_003 + start)
        if steps is None:
            x = sampling.euler_maruyama(prior, shape, draw, min_time=min_time)
        else:
            x = sampling.ddim(prior, shape, draw, steps)
        chunks.append(x.numpy() * live.std + live.mean)
        progress(f'{start + shape[0]} of {count} drawn')
    return np.concatenate(chunks)


def baseline_draw(name: str, part: str, seed: int) -> Callable[[int], np.ndarray]:
    """`draw` of `Judge.sampled` for a competitor; loads it only when called."""

    def draw(count: int) -> np.ndarray:
        prior = load_baseline(name, part)
        if not isinstance(prior, SamplingPrior):
            raise ConfigError(f'{name} cannot draw poses')
        torch.set_num_threads(1)
        generator = torch.Generator().manual_seed(seed)
        chunks = [
            prior.sample(min(_CHUNK, count - start), generator).detach().numpy()
            for start in range(0, count, _CHUNK)
        ]
        return np.concatenate(chunks)

    return draw


def packed_path(options: Options) -> Path:
    """The packed file that the options mean."""
    return PACKED if options.data == FREE else Path(options.data)


def prior_path(options: Options, name: str) -> Path:
    """The prior to measure: the one asked for, or the shipped one of that name."""
    if options.checkpoint is not None:
        return options.checkpoint
    suffix = 'safetensors' if name in PARTS else 'json'
    return WEIGHTS_DIR / f'{name}.{suffix}'


def body_reference(options: Options, counts: Counts) -> Reference:
    """Body poses of the training sources and their mirror images."""
    with np.load(packed_path(options)) as packed:
        poses, weights = select_body(packed)
        heldout = {
            'CMU subjects 02, 03': packed[f'test_{HELD_OUT}'],
            'HDM05, DeepMimic': np.concatenate([packed[f'test_{name}'] for name in TEST_SOURCES]),
        }
    mirrored = mirror_body(torch.from_numpy(poses)).numpy()
    both, chance = np.concatenate([poses, mirrored]), np.concatenate([weights, weights])
    return Reference(both, chance, heldout, counts, options.seed)


def part_reference(options: Options, part: str, counts: Counts) -> Reference:
    """Synthetic hands or faces; every fiftieth, which training leaves out, is held out."""
    with np.load(packed_path(options)) as packed:
        training, heldout = training_parts(packed)[part], heldout_parts(packed)[part]
    heldout = {'of the same generator': heldout}
    return Reference(training, np.ones(len(training)), heldout, counts, options.seed)


def body_joints(body: Body) -> Callable[[np.ndarray], np.ndarray]:
    """(N, 63 or more) raw -> (N, 22, 3) joints of the mean shape, hands flat."""

    def joints(x: np.ndarray) -> np.ndarray:
        return body.joints(_body_pose(x))[:, : skeleton.BODY_JOINTS.stop]

    return joints


def hand_joints(body: Body) -> Callable[[np.ndarray], np.ndarray]:
    """(N, 45) raw right hand -> (N, 21, 3) keypoints, wrist and tips among them."""

    def joints(x: np.ndarray) -> np.ndarray:
        pose = np.zeros((len(x), skeleton.NUM_JOINTS, 3))
        pose[:, skeleton.RIGHT_HAND_JOINTS] = x.reshape(len(x), -1, 3)
        return body.landmarks(pose)[:, RIGHT_HAND_POINTS]

    return joints


def _body_pose(x: np.ndarray) -> np.ndarray:
    pose = np.zeros((len(x), skeleton.NUM_JOINTS, 3))
    pose[:, skeleton.BODY_JOINTS] = x[:, :BODY_DIM].reshape(len(x), -1, 3)
    return pose


def _body_crossed(body: Body) -> Callable[[np.ndarray], np.ndarray]:
    measure = SelfIntersection(body)
    return lambda x: measure.percent(_body_pose(x))


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


PACKED_NEED = Need(
    'the packed free data', PACKED.is_file, 'run `dposer data prepare` and `dposer data pack`'
)
BODY_NEED = Need('the open body', lambda: _is_body_built(), 'run `dposer body build`')


def _is_body_built() -> bool:
    try:
        load_body('')
    except DPoserError:
        return False
    return True


def baselines_need(*names: str, part: str) -> Need:
    """The shipped competitors of a part; without one its row says so."""

    def are_there() -> bool:
        try:
            for name in names:
                load_baseline(name, part)
        except DPoserError:
            return False
        return True

    how = 'python -m training.baselines trains them'
    return Need(f'{", ".join(names)} for the {part}', are_there, how, is_optional=True)


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
        body_reference(options, counts), BODY_DIM, body_joints(body), _body_crossed(body), options
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
    for kind, name in (
        ('base', 'wholebody'),
        ('fused', 'wholebody_fused'),
        ('mixed', 'wholebody_mixed'),
    ):
        label, path = f'DPoser-X-{kind}', WEIGHTS_DIR / f'{name}.json'
        if path.is_file():
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
