"""Tables 4 and S-10: a hand's pose from some, or from noisy, joints.

Protocol: `dposer_core.tasks.inverse_kinematics`. The right hand of the open body, mean shape,
stands for MANO. The released code has no competitors here; their weights are `_WEIGHTS`.

The live fitter knows no lone hands. It is shown the hand on a body that stands still and of which
all other points are exact, each hand as the first frame of a stream.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dposer_core import skeleton
from dposer_core.baselines import load_baseline
from dposer_core.body_model import Body, load_body
from dposer_core.config import Config
from dposer_core.errors import ConfigError
from dposer_core.keypoints import RIGHT_HAND_POINTS
from dposer_core.observation import NUM_POINTS, Observation
from dposer_core.prior.architecture import HAND_DIM
from dposer_core.prior.sampling import Draw, normal_draw
from dposer_core.state import BodyState
from dposer_core.tasks.body_points import HandPoints
from dposer_core.tasks.inverse_kinematics import (
    HAND_HIDDEN,
    IkProtocol,
    hand_noisy,
    hidden_hand_points,
    pose_term,
    solve_ik,
)
from dposer_core.tasks.prior_term import CompetitorTerm, DiffusionTerm, NoTerm, PriorTerm
from training.benchmarks.generation import BODY_NEED, PACKED_NEED, baselines_need
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, table
from training.benchmarks.task_data import MEASURE_ONLY, hand_sets, load_diffusion, paper_rows

_BATCH = 100
_START = 0.01  # rad, size of the noise that the search begins with
_EXACT = 0.001  # m: noise that the live fitter is told of points without any
_FINGERS = range(skeleton.NUM_JOINTS)[skeleton.RIGHT_HAND_JOINTS]
_HIDDEN_MODES = ('sparse', 'fingertip', 'partial')
_NOISES_MM = (2, 5, 10)
# Of the competitors' own losses in stage 0, relative to DPoser's weight of a mean over B x 45
# entries with the factor 1/2: L2 is a sum over 45.
_WEIGHTS = {'l2': 1 / 90, 'vposer': 0.01, 'nrdf': 0.01, 'gmm': 1e-3}
_NAMES = {'l2': 'L2', 'vposer': 'VPoser', 'nrdf': 'NRDF', 'gmm': 'GMM'}
_MEASURES = ('Vis', 'Occ', 'All', 'MPVPE')


@dataclass(frozen=True)
class Found:
    """Hands as they were found, metres; the true wrist is where the body at rest has it."""

    joints: Tensor
    """(B, 16, 3)."""
    points: Tensor
    """(B, 21, 3)."""
    vertices: Tensor
    """(B, V, 3)."""

    @staticmethod
    def of(hand: HandPoints, pose: Tensor) -> 'Found':
        """Of poses (B, 45) raw on a fixed wrist."""
        return Found(hand.joints(pose), hand.points(pose), hand.vertices(pose))


class Method(Protocol):
    """A row."""

    def __call__(
        self, hand: HandPoints, observed: Tensor, visible: Tensor, noise_mm: int, draw: Draw
    ) -> Found:
        """Hands from points (B, 21, 3), of which `visible` (21,) are seen."""
        ...


@dataclass(frozen=True)
class Optimised:
    """The optimisation of the paper with some prior."""

    term: Callable[[IkProtocol], PriorTerm]
    scale: float = 1.0
    """Of the prior's weight, relative to DPoser's."""

    def __call__(
        self, hand: HandPoints, observed: Tensor, visible: Tensor, noise_mm: int, draw: Draw
    ) -> Found:
        """A batch of hands (B, 21, 3) at once."""
        protocol = hand_noisy(noise_mm) if noise_mm else HAND_HIDDEN
        prior = replace(protocol.prior, base=protocol.prior.base * self.scale)
        protocol = replace(protocol, prior=prior)
        start = {'pose': _START * draw((len(observed), HAND_DIM))}
        term = pose_term(self.term(protocol))
        found = solve_ik(
            observed, visible, start, lambda v: hand.points(v['pose']), term, protocol
        )
        return Found.of(hand, found['pose'])


@dataclass(frozen=True)
class Live:
    """The live fitter on a body whose other points are exact."""

    body: Body
    is_noise_known: bool
    """Otherwise it takes for granted what it is configured to: 10 mm."""

    def __call__(
        self, hand: HandPoints, observed: Tensor, visible: Tensor, noise_mm: int, draw: Draw
    ) -> Found:
        """Hand after hand; `draw` is not used."""
        from dposer_core.fitter import PoseFitter
        from dposer_core.prior.runtime import load_prior

        config = Config()
        prior = load_prior(config.prior.checkpoint)
        rest = np.zeros((1, skeleton.NUM_JOINTS, 3))
        points, sure = self.body.landmarks(rest)[0], np.ones(NUM_POINTS)
        sure[RIGHT_HAND_POINTS] = visible.numpy()
        sigma = None
        if self.is_noise_known:
            sigma = np.full(NUM_POINTS, _EXACT)
            sigma[RIGHT_HAND_POINTS] = max(noise_mm / 1000, _EXACT)
        states = []
        for seen in observed.double().numpy():
            points[RIGHT_HAND_POINTS] = seen
            fitter = PoseFitter(self.body.tables, prior, config)
            fitter.fix_shape(np.zeros(skeleton.NUM_BETAS))
            result = fitter.step(Observation(0, points.copy(), sure, None, sigma))
            if result is None:
                raise ConfigError('the live fitter found no start')
            states.append(result.state)
        joints = np.stack([state.joints for state in states])
        chain = [skeleton.JOINT_INDEX['right_wrist'], *_FINGERS]
        meshes = [self._mesh(state, hand.vertex_ids) for state in states]
        marks = np.stack([state.landmarks[RIGHT_HAND_POINTS] for state in states])
        found = (joints[:, chain], marks, np.stack(meshes))
        return Found(*(torch.from_numpy(value).float() for value in found))

    def _mesh(self, state: BodyState, ids: np.ndarray) -> np.ndarray:
        placed = self.body.vertices(state.pose_rotvec, state.betas, state.expression, state.transl)
        return placed[0, ids]


class Solver:
    """Hands that are observed in part, and the errors of what is found."""

    def __init__(self, body: Body, seed: int) -> None:
        self.hand = HandPoints(body)
        self.seed = seed

    def errors_mm(
        self, poses: np.ndarray, method: Method, mode: str, noise_mm: int = 0
    ) -> dict[str, float]:
        """Means over `poses` (N, 45): visible, hidden and all of 21 points, and vertices.

        With noise: the 16 joints in place of the points, as the released code has it.
        """
        batches = [
            self._batch(torch.from_numpy(poses[i : i + _BATCH]), method, mode, noise_mm, i)
            for i in range(0, len(poses), _BATCH)
        ]
        return {key: float(np.mean([batch[key] for batch in batches])) for key in batches[0]}

    def _batch(
        self, poses: Tensor, method: Method, mode: str, noise_mm: int, index: int
    ) -> dict[str, float]:
        visible = torch.ones(21, dtype=torch.bool)
        visible[hidden_hand_points(mode, self.seed + index)] = False
        draw = normal_draw(self.seed + index)
        truth = Found.of(self.hand, poses)
        observed = truth.points + noise_mm / 1000 * draw(tuple(truth.points.shape))
        found = method(self.hand, observed, visible, noise_mm, draw)
        values = {'MPVPE': _distance(found.vertices, truth.vertices).mean()}
        if noise_mm:
            values['All'] = _distance(found.joints, truth.joints).mean()
        else:
            points = _distance(found.points, truth.points)
            values |= {'Vis': points[:, visible].mean(), 'Occ': points[:, ~visible].mean()}
            values['All'] = points.mean()
        return {key: 1000 * float(value) for key, value in values.items()}


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.norm(a - b, dim=-1)


def methods(options: Options, body: Body) -> tuple[dict[str, Callable[[], Method]], dict]:
    """Rows by label, each made when it is run, and the hashes of the prior."""
    prior, normalizer, hashes = load_diffusion(options, 'hand')

    def diffusion() -> Method:
        def term(protocol: IkProtocol) -> PriorTerm:
            times = protocol.schedule.times(protocol.stages.total)
            draw = normal_draw(options.seed + 1)
            return DiffusionTerm(prior, normalizer, protocol.denoising, times, draw)

        return Optimised(term)

    def competitor(name: str) -> Callable[[], Method]:
        def made() -> Method:
            network = load_baseline(name, 'hand')
            return Optimised(lambda protocol: CompetitorTerm(network), _WEIGHTS[name])

        return made

    rows = {'w/o prior': lambda: Optimised(lambda protocol: NoTerm())}
    rows |= {_NAMES[name]: competitor(name) for name in _NAMES}
    rows |= {
        'DPoser-hand': diffusion,
        'live fitter': lambda: Live(body, is_noise_known=False),
        'live fitter, noise known': lambda: Live(body, is_noise_known=True),
    }
    return rows, hashes


def _hidden_columns(sets: tuple[str, ...], mode: str) -> list[Column]:
    return [Column(f'{s} {mode} {m}', 'lower', 'mm') for s in sets for m in _MEASURES]


def _noisy_columns(sets: tuple[str, ...]) -> list[Column]:
    return [
        Column(f'{s} {noise} mm {m}', 'lower', 'mm')
        for s in sets
        for noise in _NOISES_MM
        for m in ('MPVPE', 'All')
    ]


def _plan(options: Options, noisy: bool) -> Plan:
    body = load_body('')
    rows, hashes = methods(options, body)
    solver = Solver(body, options.seed)
    poses = hand_sets(options, _BATCH if options.is_quick else 5 * _BATCH)
    cases = [('noisy', n) for n in _NOISES_MM] if noisy else [(m, 0) for m in _HIDDEN_MODES]
    sets = tuple(poses)

    def run(label: str) -> Row:
        method, values = rows[label](), {}
        for name, hands in poses.items():
            for mode, noise in cases:
                found = solver.errors_mm(hands, method, mode, noise)
                kind = f'{noise} mm' if noise else mode
                values |= {f'{name} {kind} {key}': value for key, value in found.items()}
        return Row(label, values)

    if noisy:
        columns = _noisy_columns(sets)
        paper_columns = _noisy_columns(('ReInterHand',))
        paper = {
            'w/o prior': (3.95, 1.50, 5.82, 3.46, 8.62, 5.97),
            'L2': (2.10, 1.43, 4.06, 2.92, 6.06, 4.27),
            'VPoser': (2.47, 1.36, 4.15, 2.85, 6.32, 4.40),
            'NRDF': (2.67, 1.40, 4.57, 3.11, 7.18, 5.06),
            'DPoser-hand': (1.71, 1.17, 3.30, 2.39, 5.39, 3.87),
        }
    else:
        columns = [c for mode in _HIDDEN_MODES for c in _hidden_columns(sets, mode)]
        paper_columns = [
            c for mode in _HIDDEN_MODES[:2] for c in _hidden_columns(('ReInterHand',), mode)
        ]
        paper = {
            'w/o prior': (0.07, 14.46, 8.98, 10.07, 0.13, 4.00, 2.89, 4.59),
            'L2': (0.84, 13.84, 8.89, 8.94, 1.02, 3.58, 2.85, 3.15),
            'VPoser': (0.37, 13.10, 8.25, 8.84, 0.48, 4.35, 3.25, 3.93),
            'NRDF': (0.11, 13.92, 8.66, 9.53, 0.15, 3.95, 2.93, 3.95),
            'DPoser-hand': (0.06, 5.15, 3.21, 3.43, 0.07, 2.40, 1.74, 1.99),
        }
    return Plan(
        columns=(*columns, *paper_columns),
        paper=paper_rows(paper_columns, paper),
        jobs=tuple(Job(label, lambda label=label: run(label)) for label in rows),
        data=f'{len(poses["generated"])} synthetic hands that training left out'
        + (
            f', {len(poses["examples"])} published left hands, mirrored'
            if 'examples' in poses
            else ''
        ),
        checkpoint_sha256=hashes,
        settings=(
            'Right hand of the open body, wrist fixed; 21 points with finger tips, no alignment.',
            f'Weights of the competitors relative to DPoser, our choice: {_WEIGHTS}.',
            'The synthetic hands are of the same generator as the training hands.',
            'live fitter: the hand on a body at rest, all other points exact, shape known, the '
            'wrist to be found like everything else; 10 mm of noise assumed, or told what it is '
            f'({1000 * _EXACT:g} mm for exact points).',
            MEASURE_ONLY if 'examples' in poses else 'The published examples are not here.',
        ),
    )


_NEEDS = (PACKED_NEED, BODY_NEED, baselines_need('gmm', 'vposer', 'nrdf', part='hand'))


@table('4', 'Hand inverse kinematics from some of the joints', _NEEDS)
def table_4(options: Options) -> Plan:
    """Sparse, finger tips only, and two fingers hidden."""
    return _plan(options, noisy=False)


@table('S-10', 'Hand inverse kinematics from noisy joints', _NEEDS)
def table_s10(options: Options) -> Plan:
    """2, 5 and 10 mm of noise."""
    return _plan(options, noisy=True)
