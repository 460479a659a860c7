"""Tables S-5 and S-18: body completion, several hypotheses of the hidden part.

Protocol: `dposer_core.tasks.completion` and `.solvers`. All hypotheses of a pose start from the
same noise in the hidden entries and differ by the noise of the optimisation; competitors differ
by where they start, CVPoser by its code. Errors on the part alone, mean shape, no alignment.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from dposer_core.baselines import load_baseline
from dposer_core.body_model import Body, load_body
from dposer_core.errors import ConfigError
from dposer_core.prior.sampling import normal_draw
from dposer_core.tasks.body_points import BodyPoints
from dposer_core.tasks.completion import (
    BODY_PARTS,
    COMPETITORS,
    CompletionProtocol,
    body_mask,
    complete,
    complete_with_competitor,
    hide,
)
from dposer_core.tasks.solvers import SOLVERS, solve_completion
from training.benchmarks.generation import BODY_NEED, PACKED_NEED, baselines_need
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, table
from training.benchmarks.task_data import MEASURE_ONLY, body_sets, load_diffusion, paper_rows

PARTS = ('left_leg', 'legs', 'arms', 'torso')
HYPOTHESES = 10
_STATISTICS = ('min', 'mean', 'std', 'APD')
_CHUNK = 100  # poses whose vertices are made at a time
# Bones whose vertices belong to a part: the segments named in the official code. The open body
# has no segmentation, so a vertex belongs to the bone that holds most of it.
_BONES = {
    'left_leg': (1, 4, 7, 10),
    'legs': (1, 2, 4, 5, 7, 8, 10, 11),
    'arms': (16, 17, 18, 19),
    'torso': (6, 9, 13, 14),
}
Complete = Callable[[Tensor, Tensor, int], Tensor]
"""Raw poses (N, D), mask (D,), number of hypotheses -> raw (S, N, D)."""


class Judge:
    """Errors of hypotheses on a part."""

    def __init__(
        self,
        body: Body,
        bones: dict[str, Sequence[int]],
        joints: dict[str, Sequence[int]],
        chain: Sequence[int] = range(22),
    ) -> None:
        """By part: the bones whose vertices count, and the joints; `chain`: of the poses."""
        owner = body.weights.argmax(axis=1)
        self._points = {
            part: BodyPoints(body, np.flatnonzero(np.isin(owner, owned)), chain)
            for part, owned in bones.items()
        }
        place = {joint: index for index, joint in enumerate(chain)}
        self._joints = {part: [place[j] for j in known] for part, known in joints.items()}
        self._size = 3 * (len(chain) - 1)

    def errors(self, part: str, found: Tensor, truth: Tensor, joints_only: bool) -> dict:
        """min, mean and std (mm) over hypotheses (S, N, D) of the part's error, and APD (cm)."""
        true_joints, true_vertices = self._forward(part, truth)
        per_hypothesis, positions = [], []
        for hypothesis in found:
            placed, vertices = self._forward(part, hypothesis)
            near, true = (placed, true_joints) if joints_only else (vertices, true_vertices)
            per_hypothesis.append(1000 * torch.linalg.norm(near - true, dim=-1).mean(dim=-1))
            positions.append(placed)
        error = torch.stack(per_hypothesis)
        apart = torch.stack(positions)
        distance = torch.linalg.norm(apart[:, None] - apart[None], dim=-1).mean(dim=-1)
        count = len(found)
        values = {
            'min': error.amin(0),
            'mean': error.mean(0),
            'std': error.std(0, correction=0),
            'APD': 100 * distance.sum(dim=(0, 1)) / (count * (count - 1)),
        }
        return {key: float(value.mean()) for key, value in values.items()}

    def joints(self, part: str, found: Tensor) -> Tensor:
        """(S, N, J, 3) metres: the part's joints of hypotheses (S, N, D) raw."""
        return torch.stack([self._forward(part, hypothesis)[0] for hypothesis in found])

    def _forward(self, part: str, poses: Tensor) -> tuple[Tensor, Tensor]:
        chunks = poses[:, : self._size].split(_CHUNK)
        found = [self._points[part].forward(chunk) for chunk in chunks]
        joints = torch.cat([j for j, _ in found])[:, self._joints[part]]
        return joints, torch.cat([v for _, v in found])


def body_judge() -> Judge:
    """Of the parts of a body."""
    joints = {part: [1 + place for place in BODY_PARTS[part]] for part in _BONES}
    return Judge(load_body(''), _BONES, joints)


def diffusion(
    options: Options,
    name: str = 'body',
    solver: str = '',
    protocol: CompletionProtocol | None = None,
) -> tuple[Complete, dict]:
    """Completion by DPoser, or by another solver with the same network; and the hashes."""
    prior, normalizer, hashes = load_diffusion(options, name)

    def run(poses: Tensor, mask: Tensor, count: int) -> Tensor:
        draw = normal_draw(options.seed)
        observation = hide(normalizer.normalize(poses), mask, draw)
        if solver == 'dps' or solver == 'mcg':  # their step depends on the batch: as in the paper
            found = [
                solve_completion(solver, prior, observation, mask, draw) for _ in range(count)
            ]
            x = torch.cat(found)
        elif solver:
            x = solve_completion(solver, prior, observation.repeat(count, 1), mask, draw)
        else:
            x = complete(prior, observation.repeat(count, 1), mask, draw, protocol)
        raw = torch.where(mask, poses.repeat(count, 1), normalizer.denormalize(x))
        return raw.reshape(count, *poses.shape)

    return run, hashes


def competitor(options: Options, name: str, part: str = 'body') -> Complete:
    """Completion by another prior."""
    network = load_baseline(name, part)
    if name not in COMPETITORS and name != 'cvposer':
        raise ConfigError(f'{name} has no protocol of completion')

    def run(poses: Tensor, mask: Tensor, count: int) -> Tensor:
        many = poses.repeat(count, 1)
        if name == 'cvposer':
            generator = torch.Generator().manual_seed(options.seed)
            found = network.complete(many, mask, generator)
        else:
            draw = normal_draw(options.seed)
            found = complete_with_competitor(network, many, mask, draw, COMPETITORS[name])
        return found.reshape(count, *poses.shape)

    return run


def _columns(sets: Sequence[str]) -> list[Column]:
    units = {'APD': ('higher', 'cm'), 'std': ('', 'mm')}
    return [
        Column(f'{name} {part} {statistic}', *units.get(statistic, ('lower', 'mm')))
        for name in sets
        for part in PARTS
        for statistic in _STATISTICS
    ]


def _plan(
    options: Options,
    methods: dict[str, Callable[[], Complete]],
    hashes: dict,
    paper: dict[str, tuple],
    count: int,
    joints_only: bool,
) -> Plan:
    poses = body_sets(options, count)
    judge = body_judge()

    def run(label: str) -> Row:
        method, values = methods[label](), {}
        for name, truth in poses.items():
            for part in PARTS:
                truths = torch.from_numpy(truth)
                found = method(truths, body_mask(part), HYPOTHESES)
                errors = judge.errors(part, found, truths, joints_only)
                values |= {f'{name} {part} {key}': value for key, value in errors.items()}
        return Row(label, values)

    paper_columns = _columns(('AMASS',))
    if joints_only:
        paper_columns = [c for c in paper_columns if not c.name.endswith('APD')]
    measured = 'joints' if joints_only else 'vertices'
    return Plan(
        columns=(*_columns(tuple(poses)), *paper_columns),
        paper=paper_rows(paper_columns, paper),
        jobs=tuple(Job(label, lambda label=label: run(label)) for label in methods),
        data=f'{count} poses of each: {", ".join(poses)}; evenly spread, none trained on',
        checkpoint_sha256=hashes,
        settings=(
            f"{HYPOTHESES} hypotheses; error of the part's {measured}, of the best, the mean "
            'and the deviation over hypotheses; APD: mean distance between hypotheses.',
            'Vertices of a part: those that its bones hold most of, not the SMPL-X segments.',
            "GMM and L2 are not in the paper's table; their step is our choice.",
            MEASURE_ONLY if 'examples' in poses else 'The published examples are not here.',
        ),
    )


_NAMES = {
    'L2': 'l2', 'GMM': 'gmm', 'VPoser': 'vposer', 'CVPoser': 'cvposer', 'Pose-NDF': 'posendf',
}  # fmt: skip


@table(
    'S-5',
    'Body completion',
    [PACKED_NEED, BODY_NEED, baselines_need(*list(_NAMES.values())[1:], part='body')],
)
def table_s5(options: Options) -> Plan:
    """DPoser and the competitors, vertices."""
    ours, hashes = diffusion(options)
    methods: dict[str, Callable[[], Complete]] = {
        label: lambda name=name: competitor(options, name) for label, name in _NAMES.items()
    }
    paper = {
        'Pose-NDF': (154.21, 168.45, 8.66, 1.95, 159.75, 169.86, 6.12, 1.97)
        + (252.90, 260.94, 4.81, 1.20, 105.87, 114.97, 5.43, 0.93),
        'VPoser': (182.31, 200.51, 12.20, 2.41, 195.76, 221.34, 16.40, 5.44)
        + (186.55, 206.72, 12.91, 4.08, 47.31, 58.71, 7.38, 1.56),
        'CVPoser': (113.48, 128.04, 10.36, 1.91, 121.00, 134.35, 10.17, 2.43)
        + (153.12, 162.82, 5.58, 1.08, 45.16, 51.23, 4.32, 0.57),
        'DPoser': (38.79, 78.31, 27.13, 6.53, 63.65, 102.46, 25.39, 7.75)
        + (64.72, 104.94, 26.44, 5.69, 22.63, 44.60, 14.65, 2.21),
    }
    count = 60 if options.is_quick else 500
    methods = methods | {'DPoser': lambda: ours}
    return _plan(options, methods, hashes, paper, count, joints_only=False)


@table('S-18', 'Body completion by other diffusion solvers', [PACKED_NEED, BODY_NEED])
def table_s18(options: Options) -> Plan:
    """The same network under other solvers, joints."""
    ours, hashes = diffusion(options)
    methods: dict[str, Callable[[], Complete]] = {
        label: lambda solver=solver: diffusion(options, solver=solver)[0]
        for solver, label in SOLVERS.items()
    }
    paper = {
        'ScoreSDE': (48.73, 106.32, 41.30, 74.68, 128.32, 37.27)
        + (66.89, 127.86, 48.15, 16.69, 34.54, 12.21),
        'DPS': (40.51, 104.32, 54.57, 64.26, 113.46, 33.71)
        + (60.63, 119.85, 42.78, 15.10, 33.90, 13.27),
        'MCG': (49.04, 106.37, 41.07, 74.90, 128.53, 37.40)
        + (66.17, 127.72, 48.15, 16.69, 34.66, 12.23),
        'DPoser': (35.37, 74.01, 26.47, 59.25, 96.77, 24.55)
        + (51.27, 81.76, 20.04, 13.95, 28.57, 9.85),
    }
    methods = methods | {'DPoser': lambda: ours}
    count = 4 if options.is_quick else 100
    return _plan(options, methods, hashes, paper, count, joints_only=True)
