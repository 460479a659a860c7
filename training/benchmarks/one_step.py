"""Table 'one-step': what one denoising step makes of poses that the prior never saw.

Not a table of the paper. Whoever uses a prior trained on little free data must know whether it
holds on motion of another origin, so every source is left out once (the network never saw it), and
the network is held against doing nothing, the mean pose and the Gaussian posterior of the very
same training poses.
"""

from collections.abc import Sequence
from dataclasses import replace
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


def run_of(variant: str) -> Path:
    """Where the network of a variant of `training/configs/body.yaml` lies."""
    return DEFAULT_ROOT / 'runs' / f'body_{variant}' / 'body.safetensors'


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

    def trained(variant: str, tests: Sequence[str]) -> list[Row]:
        path = run_of(variant)
        if not path.is_file():
            raise MediaError(
                f'{path.parent.name} is not trained: dposer train training/configs/body.yaml '
                f'--variant {variant} --out data/runs/{path.parent.name}'
            )
        return _rows(load_checkpoint(path, 'body'), data, tests, count, options.seed)

    def left_out(source: str) -> list[Row]:
        rows = trained(f'without_{source}', [source])
        return [replace(row, label=f'without {row.label}') for row in rows]

    def drawn(variant: str) -> list[Row]:
        own = [row for row in trained(variant, unseen) if row.label.endswith(_METHODS['network'])]
        return [
            replace(row, label=f'{row.label}, drawn {variant.replace("_", " ")}') for row in own
        ]

    unseen = [HELD_OUT, *TEST_SOURCES]
    jobs = [
        Job('shipped body prior', lambda: _rows(shipped, data, unseen, count, options.seed)),
        *(Job(f'without {s}', lambda s=s: left_out(s)) for s in SOURCES),
        *(Job(f'drawn {v}', lambda v=v: drawn(v)) for v in ('by_clip', 'by_cluster')),
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
            'The size of the noise in mm depends on the statistics of the training split.',
            '"drawn by clip", "drawn by cluster": the shipped recipe with fewer steps; clips '
            'count by their length up to a cap, or each of 100 kinds of pose counts the same.',
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
