"""`dposer train`: train a prior, or go on with a run that was stopped."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import typer
from lightning_fabric import Fabric
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dposer_core.errors import ConfigError
from training.curves import plot_curves
from training.networks import build_network
from training.pack import PACKED
from training.result import write_result
from training.run_folder import RunFolder, TrainingError
from training.settings import from_values, read_settings
from training.sources import Source, draw_step, open_source
from training.throughput import peak_flops, step_flops
from training.train import Trainer, make_fabric
from training.train import train as run_training
from training.train_config import TrainConfig
from training.validation import Validation, heldout_rows


def train(
    config: Path = typer.Argument(None, help='YAML file, see training/configs/.'),
    resume: Path = typer.Option(None, help='Go on with the run in this folder.'),
    out: Path = typer.Option(None, help='Folder of the run; default: data/runs/<name>.'),
    data: Path = typer.Option(None, help='Packed data (dposer data pack); default: data/.'),
    variant: str = typer.Option('', help='Named values of the file, such as paper_text.'),
    steps: int = typer.Option(None, min=1, help="Number of steps instead of the file's."),
    devices: int = typer.Option(None, min=1, help='Processes on this machine.'),
    num_nodes: int = typer.Option(None, min=1, help='Machines (start the command on each).'),
    precision: str = typer.Option(None, help='32, tf32, bf16 or 16.'),
    threads: int = typer.Option(None, min=1, help='Threads of torch on the CPU.'),
    profile: bool = typer.Option(False, help="Also measure the share of the device's peak."),
) -> None:
    """Train a prior, or go on with a run that was stopped."""
    if (config is None) == (resume is None):
        raise ConfigError('give either a YAML file, or --resume with the folder of a run')
    overrides = dict(
        steps=steps, devices=devices, num_nodes=num_nodes, precision=precision, threads=threads
    )
    given = {key: value for key, value in overrides.items() if value is not None}
    if resume is not None:
        if out is not None or variant:
            raise ConfigError('--resume goes on in its own folder; leave out --out and --variant')
        folder = RunFolder(resume)
        settings = folder.settings()
        where = str(folder.settings_file)
        run = from_values(TrainConfig, settings['config'], where)
        data = Path(settings['data']) if data is None else data
    else:
        run = read_settings(config, TrainConfig, variant)
        data = PACKED if data is None else data
        folder = RunFolder(out or PACKED.parent / 'runs' / config.stem)
    run = dataclasses.replace(run, **given)
    fabric = make_fabric(run)
    if resume is None and fabric.is_global_zero:
        folder.create({'config': dataclasses.asdict(run), 'data': str(data.resolve())})
    packed = _load(data)
    source = open_source(run, packed)
    validation = None
    if fabric.is_global_zero:
        rows = heldout_rows(packed, run.part, run.mixed.composition)
        validation = Validation(run.part, rows, source)
    del packed
    report = _profile(run, source, fabric) if profile else {}
    _run(run, source, folder, fabric, validation, report)


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ConfigError(f'{path} not found; make it with `dposer data pack`, or give --data')
    with np.load(path) as packed:
        return dict(packed)


def _run(
    config: TrainConfig,
    source: Source,
    folder: RunFolder,
    fabric: Fabric,
    validation: Validation | None,
    report: dict[str, Any],
) -> None:
    columns = (
        TextColumn('train {task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn('{task.fields[losses]}'),
    )
    with Progress(*columns, disable=not fabric.is_global_zero) as bar:
        task = bar.add_task(config.part, total=config.steps, losses='')

        def on_step(step: int, row: dict[str, float]) -> None:
            bar.update(task, completed=step, losses=_shown(row))

        try:
            network, figures = run_training(config, source, folder, fabric, validation, on_step)
        except KeyboardInterrupt as error:
            raise TrainingError(
                f'stopped; the state of step {folder.saved_step} is kept. Go on with: '
                f'dposer train --resume {folder.path}'
            ) from error
    if not fabric.is_global_zero:
        return
    result = write_result(config, network, source, figures, folder.path)
    plot_curves(folder.path)
    if report and 'samples_per_s' in figures:
        used = report['flops_per_sample'] * figures['samples_per_s'] / report['peak_flops']
        report['share_of_peak'] = round(used, 3)
    print(json.dumps({'file': str(result), **figures, **report}, indent=2))


def _shown(row: dict[str, float]) -> str:
    if not row:
        return ''
    known = ('learning_rate', 'samples_per_s', 'seconds', 'gradient_norm')
    losses = [f'{key} {value:.3f}' for key, value in row.items() if key not in known]
    return ', '.join([*losses, f'{row["samples_per_s"]:.0f} samples/s'])


def _profile(config: TrainConfig, source: Source, fabric: Fabric) -> dict[str, float]:
    """What a step costs on a fresh network of this run, and what the device can do."""
    trainer = Trainer(config, build_network(config, source), source.normalizer, fabric)
    draw = fabric.to_device(draw_step(source, config, 0))
    flops = step_flops(trainer, draw) / config.batch
    peak = peak_flops(fabric.device, config.precision) * fabric.world_size
    return {'flops_per_sample': round(flops), 'peak_flops': peak}
