"""Table 'one-step': what one denoising step makes of poses that the prior never saw.

Not a table of the paper. Whoever uses a prior trained on little free data must know whether it
holds on motion of another origin, so every source is left out once (the network never saw it), and
the network is held against doing nothing, the mean pose and the Gaussian posterior of the very
same training poses.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dposer_core.errors import MediaError
from dposer_core.prior.checkpoint import WEIGHTS_DIR, PriorCheckpoint, load_checkpoint
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Need, Options, Plan, table
from training.data.archives import DEFAULT_ROOT, HELD_OUT, SOURCES, TEST_SOURCES
from training.evaluate import TIMES, evaluate, open_body_offsets, training_gaussians
from training.pack import PACKED

_METHODS = {
    'identity': 'nothing done',
    'mean': 'mean pose',
    'gaussian': 'Gaussian posterior',
    'widened_gaussian': 'Gaussian posterior, widened data',
    'network': 'DPoser',
}
_QUICK_POSES, _POSES = 1_000, 5_000
_GAIN = 'gain on the better Gaussian (%)'


def left_out_run(source: str) -> Path:
    """Where the network lies that was trained without `source`."""
    return DEFAULT_ROOT / 'runs' / f'body_without_{source}' / 'body.safetensors'


@table(
    'one-step',
    'One-step denoising of unseen poses, every source left out once (body)',
    [Need('packed data', PACKED.is_file, 'dposer data pack')],
)
def plan(options: Options) -> Plan:
    """Jobs: the shipped prior on what it never saw, then one network per source left out."""
    data = PACKED if options.data == 'free' else Path(options.data)
    count = _QUICK_POSES if options.is_quick else _POSES
    shipped = load_checkpoint(options.checkpoint or WEIGHTS_DIR / 'body.safetensors', 'body')

    def left_out(source: str) -> list[Row]:
        path = left_out_run(source)
        if not path.is_file():
            raise MediaError(
                f'{path.parent.name} is not trained: dposer train training/configs/body.yaml '
                f'--variant without_{source} --out data/runs/{path.parent.name}'
            )
        return _rows(load_checkpoint(path, 'body'), data, [source], count, options.seed)

    jobs = [
        Job(
            'shipped body prior',
            lambda: _rows(shipped, data, [HELD_OUT, *TEST_SOURCES], count, options.seed),
        ),
        *(Job(f'without {s}', lambda s=s: left_out(s)) for s in SOURCES),
    ]
    return Plan(
        columns=tuple(Column(f't = {t}', 'lower', 'mm', 1) for t in TIMES),
        paper=(),
        jobs=tuple(jobs),
        data='free motion: CMU (three archives), HDM05, DeepMimic; retargeted to the open body',
        checkpoint_sha256={'body': shipped.sha256},
        settings=(
            f'Up to {count} poses of each test set, evenly spaced; noise drawn once for all.',
            'Mean distance of the 21 body joints with the pelvis fixed.',
            'Both Gaussians have full covariance over the training split of the same network: as '
            'it is, and widened in the way the network was trained.',
            '"without X": trained on the four other sources, and without clips that repeat X.',
        ),
    )


def _rows(
    checkpoint: PriorCheckpoint, data: Path, tests: Sequence[str], count: int, seed: int
) -> list[Row]:
    with np.load(data) as packed:
        gaussians = training_gaussians(checkpoint, packed)
        poses = {name: packed[f'test_{name}'] for name in tests}
    poses = {name: raw[:: max(1, len(raw) // count)] for name, raw in poses.items()}
    found = evaluate(checkpoint, gaussians, poses, open_body_offsets(), seed)
    rows = []
    for test in tests:
        here = [row for row in found if row['test'] == test]
        for method, label in _METHODS.items():
            values = {f't = {row["t"]}': row[f'{method}_mm'] for row in here}
            rows.append(Row(f'{test}: {label}', values))
        gains = [
            100.0 * (1.0 - row['network_mm'] / min(row[f'{g}_mm'] for g in gaussians))
            for row in here
        ]
        text = ', '.join(f'{gain:+.1f}' for gain in gains)
        rows[-1] = Row(rows[-1].label, rows[-1].values, note=f'{_GAIN}: {text}')
    return rows
