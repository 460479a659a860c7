"""Table 'whole-body': base, fused, mixed and the student on whole bodies, and on a hidden hand.

Not a table of the paper. The held-out compositions are synthetic: what a correction gains on them,
it gains on the generator's own habits. The published examples are recorded bodies with hands;
their expressions belong to another face model and stay at the mean.
"""

import numpy as np
import torch
from torch import Tensor, nn

from dposer_core.prior.architecture import WholeBodyLayout
from dposer_core.prior.checkpoint import WEIGHTS_DIR
from dposer_core.prior.normalizer import Normalizer
from dposer_core.prior.prior import DiffusionPrior
from training.benchmarks.generation import PACKED_NEED, packed_path
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, table
from training.benchmarks.task_data import EVAL_ONLY, MEASURE_ONLY, read_wholebodies
from training.composition import Composer, CompositionConfig, heldout_parts
from training.distill import load_teacher
from training.evaluate import angle_error_deg

TIMES = (0.1, 0.2, 0.3)
PRIORS = ('base', 'fused', 'mixed', 'student')
EXAMPLES = 'toy_wholebody_data.npz'
_ROWS, _QUICK_ROWS = 5_000, 1_000
_HIDDEN_TIMES = tuple(np.linspace(0.3, 0.05, 20))  # of the loop that completes a hidden hand
_SETTINGS = (
    'Mean angle per joint, degrees. body and hands: after one denoising step at t.',
    'hidden once, hidden: the right hand is hidden; after one step from the mean pose, and after '
    'twenty of falling t that put the known parts back.',
)


@table('whole-body', 'Whole bodies and a hidden hand by the whole-body priors', [PACKED_NEED])
def plan(options: Options) -> Plan:
    """Jobs: one per prior."""
    torch.set_num_threads(1)
    count = _QUICK_ROWS if options.is_quick else _ROWS
    with np.load(packed_path(options)) as packed:
        composer = Composer(heldout_parts(packed), CompositionConfig())
    composed = composer.samples(count, torch.Generator().manual_seed(options.seed)).numpy()
    tests = {'composed': (composed, True)}
    if (EVAL_ONLY / EXAMPLES).is_file():
        tests['examples'] = (
            read_wholebodies(EVAL_ONLY / EXAMPLES, composed.shape[1])[:count],
            False,
        )

    def rows(name: str) -> list[Row]:
        prior = load_teacher(name)
        return [
            Row(f'{test}: {name}', measure(prior.network, prior.normalizer, *data))
            for test, data in tests.items()
        ]

    known = [name for name in PRIORS if list(WEIGHTS_DIR.glob(f'{name}.*'))]
    names = known if options.checkpoint is None else [*known, str(options.checkpoint)]
    keys = [f'{part}, t = {t}' for t in TIMES for part in ('body', 'hands')]
    columns = (*keys, 'hidden once', 'hidden')
    return Plan(
        columns=tuple(Column(name, 'lower', 'deg') for name in columns),
        paper=(),
        jobs=tuple(Job(name, lambda name=name: rows(name)) for name in names),
        data=', '.join(f'{len(raw)} {test} rows' for test, (raw, _) in tests.items()),
        checkpoint_sha256={name: str(load_teacher(name).hashes) for name in names},
        settings=(*_SETTINGS, MEASURE_ONLY) if 'examples' in tests else _SETTINGS,
    )


def measure(
    network: nn.Module, normalizer: Normalizer, raw: np.ndarray, has_face: bool
) -> dict[str, float]:
    """Mean angles in degrees by what is measured.

    Args:
        network: of normalised vectors.
        normalizer: of its vectors.
        raw: (N, D) truth.
        has_face: whether jaw and expression mean something; otherwise they stay at the mean.
    """
    layout = WholeBodyLayout(normalizer.dim - WholeBodyLayout(0).dim)
    x_0 = torch.from_numpy(normalizer.normalize(raw.astype(np.float32)))
    if not has_face:
        x_0[:, layout.face] = 0.0
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    prior = DiffusionPrior(network)
    found = {}
    for t in TIMES:
        with torch.no_grad():
            x0_hat = prior.denoise(prior.sde.add_noise(x_0, t, noise), t)
        found[f'body, t = {t}'] = _degrees(x0_hat, raw, normalizer, layout.body)
        hands = [
            _degrees(x0_hat, raw, normalizer, part)
            for part in (layout.left_hand, layout.right_hand)
        ]
        found[f'hands, t = {t}'] = float(np.mean(hands))
    once, completed = hidden_hand(prior, x_0, raw, normalizer, layout)
    return found | {'hidden once': once, 'hidden': completed}


def hidden_hand(
    prior: DiffusionPrior,
    x_0: Tensor,
    raw: np.ndarray,
    normalizer: Normalizer,
    layout: WholeBodyLayout,
) -> tuple[float, float]:
    """Degrees of the right hand when it is hidden: after one step from the mean, and completed.

    Completion: twenty denoising steps of falling t, the known parts put back after each.
    """
    hidden = torch.zeros(x_0.shape[1], dtype=torch.bool)
    hidden[layout.right_hand] = True
    x = torch.where(hidden, torch.zeros_like(x_0), x_0)
    errors = []
    with torch.no_grad():
        for t in _HIDDEN_TIMES:
            # Without noise on x_t, as the live fit does it: the mean of what the rest suggests.
            x0_hat = prior.denoise(prior.sde.alpha(t) * x, t)
            x = torch.where(hidden, x0_hat, x_0)
            errors.append(_degrees(x, raw, normalizer, layout.right_hand))
    return errors[0], errors[-1]


def _degrees(x: Tensor, raw: np.ndarray, normalizer: Normalizer, part: slice) -> float:
    back = normalizer.denormalize(x.numpy())
    return angle_error_deg(back[:, part].astype(np.float64), raw[:, part].astype(np.float64))
