"""Trains the priors that the paper compares with, on the data ours is trained on.

    python -m training.baselines training/configs/baselines/vposer_body.yaml

A run that was stopped goes on where it was, with the same result: every draw of step n comes from
a generator seeded by (seed, n).
"""

import argparse
import dataclasses
import json
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dposer_core.baselines import MOTION_METHODS, build
from dposer_core.baselines.store import BaselineFile, as_stored, save_file, shipped_path
from dposer_core.errors import ConfigError
from dposer_core.files import write_text
from training.baseline_data import PairConfig, PoseData
from training.baseline_recipes import (
    TERMS,
    FieldTerms,
    GanTerms,
    MixtureTerms,
    MotionTerms,
    Recipe,
    RecipeConfig,
    VaeTerms,
    new_recipe,
)
from training.motion_data import MotionData
from training.pack import PACKED
from training.result import source_commit
from training.run_folder import RunFolder, TrainingError
from training.script import run_script
from training.settings import read_settings

_SEED_STEP = 1_000_003  # keeps the generators of different seeds apart
_LOG_EVERY = 20


@dataclass(frozen=True)
class BaselineConfig(RecipeConfig):
    """One run."""

    network: dict[str, Any] = field(default_factory=dict)
    """Sizes that differ from the published ones."""
    vae: VaeTerms = VaeTerms()
    gan: GanTerms = GanTerms()
    field: FieldTerms = FieldTerms()
    mixture: MixtureTerms = MixtureTerms()
    pairs: PairConfig = PairConfig()
    motion: MotionTerms = MotionTerms()
    save_every: int = 200
    threads: int = 1
    half: bool = True
    """Ship matrices in 16 bits; the card says what that changes."""
    licence: str = ''
    remark: str = ''
    """On choices, for the card."""

    def terms(self) -> dict[str, Any]:
        """The weights of every method by name."""
        return {name: getattr(self, name) for name in TERMS}


def train(
    config: BaselineConfig,
    recipe: Recipe,
    folder: RunFolder,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
) -> dict[str, float]:
    """Train to `config.steps`, or go on from the folder's last state.

    Returns:
        Steps, seconds and the held-out figures; the recipe's network is in eval mode.
    """
    step, seconds = 0, 0.0
    state = folder.load_state()
    if state is not None:
        step, seconds = state['step'], state['seconds']
        recipe.restore(state['recipe'])
        folder.trim(step)
    began = time.monotonic() - seconds
    while step < config.steps:
        seed = config.seed * _SEED_STEP + step
        torch.manual_seed(seed)  # dropout
        losses = recipe.step(step, torch.Generator().manual_seed(seed))
        if not np.isfinite(list(losses.values())).all():
            raise TrainingError(f'losses of step {step} are {losses}; lower learning_rate')
        step += 1
        if step % _LOG_EVERY == 0 or step == config.steps:
            folder.log('metrics', step, losses)
        if step % config.save_every == 0 or step == config.steps:
            seconds = time.monotonic() - began
            folder.save_state({'step': step, 'seconds': seconds, 'recipe': recipe.state()})
        on_step(step, losses)
    recipe.network.eval()
    return {'steps': step, 'seconds': round(seconds), **recipe.measure()}


def publish(config: BaselineConfig, recipe: Recipe, figures: dict, path: Path) -> str:
    """Write the weights and, beside them, their card; returns the hash."""
    network = recipe.network
    run = dataclasses.asdict(config)
    for name in (*TERMS, 'licence', 'remark', 'network'):
        run.pop(name)
    for name in _TERMS_USED.get(config.method, ()):
        run[name] = dataclasses.asdict(getattr(config, name))
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    weights = {k: v for k, v in weights.items() if not k.endswith('num_batches_tracked')}
    sizes = dataclasses.asdict(network.config)
    figures = figures | {'cost_change_by_storing': storing_error(config, network, weights, recipe)}
    baseline = BaselineFile(
        method=config.method,
        part=config.part,
        config=sizes,
        weights=weights,
        licence=config.licence,
        source_commit=source_commit(),
        notes={'run': run, 'figures': figures, 'remark': config.remark},
    )
    sha256 = save_file(path, baseline, half=config.half)
    write_text(path.with_suffix('.md'), card_of(network.name, baseline, sha256, path))
    return sha256


_TERMS_USED = {
    'gmm': ('mixture',),
    'vposer': ('vae',),
    'cvposer': ('vae',),
    'gan_s': ('gan',),
    'posendf': ('field', 'pairs'),
    'nrdf': ('field', 'pairs'),
    'humor': ('motion', 'mixture'),
    'mvae': ('motion', 'mixture'),
}


@torch.no_grad()
def storing_error(
    config: BaselineConfig, network: Any, weights: dict[str, np.ndarray], recipe: Recipe
) -> float:
    """Relative change of the cost of held-out poses by the type that weights are stored in."""
    stored = as_stored(weights, config.half)
    file = BaselineFile(config.method, config.part, dataclasses.asdict(network.config), stored)
    rows = recipe.data.heldout[:1000]
    before, after = network.loss(rows), build(file).eval().loss(rows)
    return float((after - before).abs() / before.abs())


_DATA = {
    'body': """\
Recorded motion of the CMU archives, without subjects 02 and 03 and without clips that repeat
theirs; drawn by the weights of our own body prior and mirrored at random, with none of its
widening. The data used in this project was obtained from mocap.cs.cmu.edu. The database was
created with funding from NSF EIA-0196217. Held out: CMU subjects 02 and 03.""",
    'motion': """\
Recorded motion of the CMU archives at 30 frames a second, without its root, and without subjects
02 and 03 and without clips that repeat theirs; mirrored at random. The data used in this project
was obtained from mocap.cs.cmu.edu. The database was created with funding from NSF EIA-0196217.
Held out: 20 excerpts of 2 s of CMU subjects 02 and 03.""",
    'hand': """\
Synthetic hands around 110 snapshots of the Handy project (MIT, (c) 2020-2021 Stewart Smith).
Held out: every 50th, of the same generator.""",
    'face': """\
Synthetic faces (jaw and the open body's ten expression coefficients). Held out: every 50th, of
the same generator.""",
    'wholebody': """\
Synthetic whole bodies: CMU bodies (mocap.cs.cmu.edu, created with funding from NSF EIA-0196217)
composed with synthetic hands and faces. Held out: compositions of held-out parts. Figures say how
the network learned this composition, not people.""",
}
_LIMITS = """\
A stand-in for the published network, trained on the data named here in minutes on a CPU, so that
it can be compared with our prior on equal terms. It has seen far less than the published one."""


def card_of(name: str, baseline: BaselineFile, sha256: str, path: Path) -> str:
    """The model card in Markdown."""
    notes = baseline.notes
    figures = dict(notes['figures'])
    run = notes['run']
    steps, seconds = figures.pop('steps'), figures.pop('seconds')
    count = sum(value.size for value in baseline.weights.values())
    rows = '\n'.join(f'| {key} | {value:.4g} |' for key, value in figures.items())
    remark = f'\n{textwrap.fill(notes["remark"], 99)}\n' if notes['remark'] else ''
    return f"""# {name}, {baseline.part}

{textwrap.fill(baseline.licence, 99)}

| | |
|---|---|
| network | {json.dumps(baseline.config)} |
| numbers stored | {count:,} |
| file | {path.stat().st_size / 1024:.0f} KiB, matrices in {16 if run['half'] else 32} bits, \
sha256 of the tensors `{sha256[:16]}` |
| run | `training/configs/baselines/{path.stem}.yaml`, seed {run['seed']}, {steps} steps |
| time | {seconds / 60:.1f} minutes of wall clock, one thread, on a CPU shared with other work |
| code | commit `{baseline.source_commit}` |

## Data

{_DATA['motion' if baseline.method in MOTION_METHODS else baseline.part]}

## Held-out figures

| figure | value |
|---|---|
{rows}
{remark}
## Limits

{_LIMITS}
"""


def main() -> None:
    """Command line: train, or go on with, the run of one YAML file and write its weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', type=Path, help='training/configs/baselines/*.yaml')
    parser.add_argument('--data', type=Path, default=PACKED, help='file of training.pack')
    parser.add_argument('--out', type=Path, help='folder; default: data/runs/baselines/<name>')
    parser.add_argument('--ship', action='store_true', help='write to dposer_core/weights, too')
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.config, arguments.data, arguments.out, arguments.ship)))


def run(path: Path, data: Path = PACKED, out: Path | None = None, ship: bool = False) -> dict:
    """Train the run of the YAML file `path`; returns its figures."""
    config = read_settings(path, BaselineConfig)
    if not data.is_file():
        raise ConfigError(f'{data} not found; make it with `dposer data pack`, or give --data')
    torch.set_num_threads(config.threads)
    home = data.parent / 'runs' / 'baselines'
    folder = RunFolder(out or home / path.stem)
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    if not folder.settings_file.exists():
        folder.create({'config': settings})
    elif _without_texts(folder.settings()['config']) != _without_texts(settings):
        raise ConfigError(
            f'{folder.path} holds a run with other settings; delete it or give another --out'
        )
    with np.load(data) as packed:
        rows = (
            MotionData(packed, data.parent, home)
            if config.method in MOTION_METHODS
            else PoseData(packed, config.part, config.seed)
        )
    recipe = new_recipe(config, config.network, config.terms(), rows, home)
    columns = (
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns) as bar:
        task = bar.add_task(path.stem, total=config.steps)

        def show(step: int, losses: dict[str, float]) -> None:
            total = sum(losses.values())
            bar.update(task, completed=step, description=f'{path.stem} loss {total:.3f}')

        figures = train(config, recipe, folder, show)
    files = [folder.path / f'{config.method}_{config.part}.safetensors']
    if ship:
        files.append(shipped_path(config.method, config.part))
    hashes = [publish(config, recipe, figures, file) for file in files]
    return {'file': str(files[-1]), 'sha256': hashes[-1], **figures}


def _without_texts(settings: dict[str, Any]) -> dict[str, Any]:
    """What a run's result depends on; texts of the card may be improved afterwards."""
    return {key: value for key, value in settings.items() if key not in ('licence', 'remark')}


if __name__ == '__main__':
    run_script(main)
