"""Judging what priors draw, on the free data; `generation_tables.py` has the tables.

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
from dposer_core.prior.architecture import BODY_DIM, HAND_DIM, NUM_LABELS, WholeBodyLayout
from dposer_core.prior.checkpoint import PARTS, WEIGHTS_DIR
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.runtime import LivePrior, load_prior
from dposer_core.self_intersection import SelfIntersection
from training.augment import mirror_body
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import FREE, Job, Need, Options
from training.composition import heldout_parts, training_parts
from training.data.archives import HELD_OUT, TEST_SOURCES
from training.pack import PACKED, select_body

BODY_TIME = 5e-3  # where sampling of body, hand and whole body ends, PROTOCOLS 3.0
FACE_TIME = 1e-3
_CHUNK = 1000  # samples drawn at a time

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
    rows = np.concatenate(chunks)
    layout = WholeBodyLayout(live.num_expression)
    if live.dim == layout.dim:  # such a prior keeps left hands as right ones
        rows[:, layout.left_hand] *= np.tile(skeleton.MIRROR_SIGN, HAND_DIM // 3)
    return rows


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


def body_crossed(body: Body) -> Callable[[np.ndarray], np.ndarray]:
    """Raw rows (N, 63 and more) -> percent of faces that pass through others (N,)."""
    measure = SelfIntersection(body)
    return lambda x: measure.percent(_body_pose(x))


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
