"""Table S-13: shape, jaw and expression of a face from noisy points, or from half of them.

Protocol: `dposer_core.tasks.inverse_kinematics`. The head of the open body, on its neck, stands
for FLAME: 68 landmarks and three joints (FLAME has the eyes as well, which do not turn here). It
has no shape space of its own and its truth takes the ten betas of the body as standard normal;
so the ideal shape network is known in closed form, and it is what DPoser has for the shape.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from dposer_core import skeleton
from dposer_core.baselines import load_baseline
from dposer_core.body_model import Body, load_body
from dposer_core.keypoints import FACE_POINTS, POINT_NAMES
from dposer_core.prior.architecture import NUM_LABELS
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.sampling import normal_draw
from dposer_core.prior.sde import SubVP
from dposer_core.tasks.body_points import KeypointBody
from dposer_core.tasks.inverse_kinematics import (
    FACE_HALF,
    IkProtocol,
    face_noisy,
    face_term,
    solve_ik,
)
from dposer_core.tasks.prior_term import CompetitorTerm, DiffusionTerm, NoTerm, PriorTerm
from training.benchmarks.generation import BODY_NEED, PACKED_NEED, baselines_need
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, table
from training.benchmarks.task_data import face_sets, load_diffusion, paper_rows

_BATCH = 100
_MAX_BETA = 2.0
_CHAIN = [skeleton.JOINT_INDEX[name] for name in ('neck', 'head', 'jaw')]
_MIDDLE = 0.002  # m: landmarks nearer to the plane of symmetry belong to no side
_NOISES_MM = (1, 2, 5)
_HALF = 'half face'
_WEIGHTS = {'l2': 1.0, 'vposer': 0.5}  # of the competitors' own losses, relative to DPoser's
_MEASURES = ('MPVPE', 'MPJPE')

Terms = Callable[[IkProtocol], tuple[PriorTerm, PriorTerm]]
"""Protocol -> terms of the shape, and of jaw with expression."""


class StandardNormal(nn.Module):
    """The noise predictor of a standard normal distribution."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Expected noise (B, D) in x (B, D) at label (B,)."""
        t = label[:, None] / (NUM_LABELS - 1)
        sde = SubVP()
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        return sigma * x / (alpha**2 + sigma**2)


@dataclass(frozen=True)
class Method:
    """A row."""

    terms: Terms
    scale: float = 1.0
    """Of the weight of both terms, relative to DPoser's."""


class Solver:
    """Heads of which points are seen, and the errors of what is found."""

    def __init__(self, body: Body, seed: int) -> None:
        self._body, self._seed = body, seed
        self._head = KeypointBody(body, POINT_NAMES[FACE_POINTS], _CHAIN)
        owner = body.weights.argmax(axis=1)
        bones = [skeleton.JOINT_INDEX[name] for name in ('head', 'jaw', 'left_eye', 'right_eye')]
        self._vertices = np.flatnonzero(np.isin(owner, bones))

    def points(self, variables: Mapping[str, Tensor]) -> Tensor:
        """(B, 71, 3) metres from the neck: joints, then landmarks."""
        jaw = variables['jaw']
        pose = torch.cat([torch.zeros_like(jaw), jaw], dim=-1)
        found = self._head(
            torch.zeros_like(jaw), pose, variables['shape'], variables['expression']
        )
        return torch.cat(found, dim=1)

    def sides(self) -> Tensor:
        """(2, 71) bool: what remains visible when the left, or the right half is hidden."""
        zero = {name: torch.zeros(1, n) for name, n in (('shape', 10), ('jaw', 3))}
        zero['expression'] = torch.zeros(1, self._body.tables.num_expression)
        x = self.points(zero)[0, :, 0]
        return torch.stack([x < _MIDDLE, x > -_MIDDLE])

    def errors_mm(self, faces: np.ndarray, method: Method, noise_mm: int) -> dict[str, float]:
        """Means over `faces` (N, 3 + E) of vertices and points; `noise_mm` 0: half is hidden."""
        batches = [
            self._batch(torch.from_numpy(faces[i : i + _BATCH]), method, noise_mm, i)
            for i in range(0, len(faces), _BATCH)
        ]
        return {key: float(np.mean([batch[key] for batch in batches])) for key in _MEASURES}

    def _batch(self, faces: Tensor, method: Method, noise_mm: int, index: int) -> dict[str, float]:
        protocol = face_noisy(noise_mm) if noise_mm else FACE_HALF
        prior = replace(protocol.prior, base=protocol.prior.base * method.scale)
        protocol = replace(protocol, prior=prior)
        draw = normal_draw(self._seed + index)
        shape = draw((len(faces), skeleton.NUM_BETAS)).clamp(-_MAX_BETA, _MAX_BETA)
        truth = {'shape': shape, 'jaw': faces[:, :3], 'expression': faces[:, 3:]}
        exact = self.points(truth)
        observed = exact + noise_mm / 1000 * draw(tuple(exact.shape))
        visible = torch.ones(exact.shape[:2], dtype=torch.bool)
        if not noise_mm:
            visible = self.sides()[torch.arange(len(faces)) % 2]
        start = {name: torch.zeros_like(value) for name, value in truth.items()}
        term = face_term(*method.terms(protocol))
        found = solve_ik(observed, visible, start, self.points, term, protocol)
        near = torch.linalg.norm(self.points(found) - exact, dim=-1).mean()
        mesh = np.linalg.norm(self._mesh(found) - self._mesh(truth), axis=-1).mean()
        return {'MPVPE': 1000 * float(mesh), 'MPJPE': 1000 * float(near)}

    def _mesh(self, variables: Mapping[str, Tensor]) -> np.ndarray:
        """(B, V, 3) vertices of the head, metres from the neck."""
        pose = np.zeros((len(variables['jaw']), skeleton.NUM_JOINTS, 3))
        pose[:, skeleton.JAW_JOINT] = variables['jaw'].numpy()
        shape = variables['shape'].numpy(), variables['expression'].numpy()
        neck = self._body.joints(pose, *shape)[:, _CHAIN[:1]]
        return self._body.vertices(pose, *shape)[:, self._vertices] - neck


def methods(options: Options) -> tuple[dict[str, Callable[[], Method]], dict]:
    """Rows by label, each made when it is run, and the hashes of the prior."""
    prior, normalizer, hashes = load_diffusion(options, 'face')
    shape = DiffusionPrior(StandardNormal())

    def diffusion() -> Method:
        def terms(protocol: IkProtocol) -> tuple[PriorTerm, PriorTerm]:
            times = protocol.schedule.times(protocol.stages.total)
            how, seed = protocol.denoising, options.seed
            return (
                DiffusionTerm(shape, None, how, times, normal_draw(seed + 1)),
                DiffusionTerm(prior, normalizer, how, times, normal_draw(seed + 2)),
            )

        return Method(terms)

    def competitor(name: str) -> Callable[[], Method]:
        def made() -> Method:
            of_shape = CompetitorTerm(load_baseline('l2', 'face'))
            of_face = CompetitorTerm(load_baseline(name, 'face'))
            return Method(lambda protocol: (of_shape, of_face), _WEIGHTS[name])

        return made

    return {
        'w/o prior': lambda: Method(lambda protocol: (NoTerm(), NoTerm())),
        'L2': competitor('l2'),
        'VPoser': competitor('vposer'),
        'DPoser-face': diffusion,
    }, hashes


def _columns(sets: tuple[str, ...]) -> list[Column]:
    cases = (*(f'{noise} mm' for noise in _NOISES_MM), _HALF)
    return [
        Column(f'{s} {c} {m}', 'lower', 'mm', 3) for s in sets for c in cases for m in _MEASURES
    ]


@table(
    'S-13',
    'Face inverse kinematics',
    [PACKED_NEED, BODY_NEED, baselines_need('vposer', part='face')],
)
def table_s13(options: Options) -> Plan:
    """Three levels of noise, and half of the face."""
    rows, hashes = methods(options)
    solver = Solver(load_body(''), options.seed)
    sets = face_sets(options, _BATCH if options.is_quick else 5 * _BATCH)

    def run(label: str) -> Row:
        method, values = rows[label](), {}
        for name, faces in sets.items():
            for noise in (*_NOISES_MM, 0):
                case = f'{noise} mm' if noise else _HALF
                errors = solver.errors_mm(faces, method, noise)
                values |= {f'{name} {case} {key}': value for key, value in errors.items()}
        return Row(label, values)

    on_paper = _columns(('WCPA',))
    paper = {
        'w/o prior': (1.460, 0.878, 2.230, 1.702, 4.701, 4.028, 0.752, 0.632),
        'L2': (1.121, 0.865, 1.626, 1.288, 2.570, 2.344, 0.698, 0.512),
        'VPoser': (1.153, 0.803, 1.688, 1.480, 2.716, 2.688, 0.671, 0.361),
        'DPoser-face': (0.784, 0.584, 1.098, 0.963, 1.902, 1.936, 0.427, 0.228),
    }
    return Plan(
        columns=(*_columns(tuple(sets)), *on_paper),
        paper=paper_rows(on_paper, paper),
        jobs=tuple(Job(label, lambda label=label: run(label)) for label in rows),
        data=f'{len(next(iter(sets.values())))} synthetic faces that training left out, each of '
        'its own shape',
        checkpoint_sha256=hashes,
        settings=(
            'Errors of the vertices of the head (MPVPE) and of 71 points (MPJPE), from the neck, '
            'no alignment. Half face: every other face shows its right half only, the others the '
            'left.',
            'Shape: ten betas, standard normal in truth. DPoser has their exact denoiser, L2 and '
            'VPoser their squared length. The paper has a network for 100.',
            f"Weights of the competitors' losses, our choice: {_WEIGHTS}.",
            "Needs for the paper's own figures: FLAME (flame.is.tue.mpg.de) and the fits of WCPA "
            'by the authors of DPoser-X. Expressions of the published examples belong to FLAME '
            'and cannot be shown on this head.',
        ),
    )
