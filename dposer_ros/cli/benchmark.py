"""`dposer benchmark`: how fast this machine fits, from recorded keypoints, without a detector."""

import resource
from pathlib import Path
from typing import Annotated, Any

import typer

from dposer_core.errors import ConfigError
from dposer_ros.report_file import check_writable, write_json

app = typer.Typer(no_args_is_help=True, help='Measure how fast this machine is.')

DEMO_BAG = Path('out/demo/demo.mcap')
MOTION = Path(__file__).resolve().parents[1] / 'data' / 'benchmark_keypoints.npz'

# One frame of a 30 fps camera.
FRAME_MS = 1000 / 30


@app.callback()
def _benchmark() -> None:
    """Measure how fast this machine is."""


@app.command()
def latency(
    bag: Annotated[
        Path | None,
        typer.Option(
            help='Keypoints to replay: a bag, or what `dposer fit` reads. Default: the bag of the '
            'last `dposer demo`, if there is one, else --motion.'
        ),
    ] = None,
    motion: Annotated[
        bool, typer.Option('--motion', help='Replay the built-in motion: real, projected, noisy.')
    ] = False,
    frames: Annotated[int, typer.Option(min=10, help='Stop after so many frames.')] = 100_000,
    people: Annotated[int, typer.Option(min=1, max=16, help='Copies of the person.')] = 1,
    window: Annotated[
        int | None, typer.Option(min=1, max=64, help='Frames estimated together (fit.window).')
    ] = None,
    prior: Annotated[bool, typer.Option(help='Use the diffusion prior.')] = True,
    params: Annotated[
        Path | None, typer.Option(help='Parameters (YAML), as for the node.')
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option('--json', help='Write the figures to this file, too.')
    ] = None,
) -> None:
    """Fit recorded keypoints one by one and report how long each frame takes.

    No detector, no ROS and no deadline: every frame gets all its iterations.
    """
    from dposer_core.config import from_mapping
    from dposer_ros.cli.fit import figures, progress_bar
    from dposer_ros.replay import (
        CameraChoice,
        crowd,
        load_fitter,
        read_clip,
        read_config,
        replay,
        warm_up,
    )

    if bag is not None and motion:
        raise ConfigError(f'--bag {bag} and --motion exclude each other: leave one out')
    if json_file is not None:
        check_writable(json_file)
    config = read_config(params)
    changes: dict[str, Any] = {'input.max_people': max(people, config.input.max_people)}
    if window is not None:
        changes['fit.window'] = window
    config = from_mapping(changes, config)
    source = bag or (DEMO_BAG if DEMO_BAG.exists() and not motion else MOTION)
    clip = read_clip(source, CameraChoice(), config)
    clip_frames = list(crowd(clip.frames[:frames], people)) if people > 1 else clip.frames[:frames]
    typer.echo(f'{source}: {clip.source}, {len(clip_frames)} frames')
    memory_before = _memory_mb()
    make, model = load_fitter(config, prior)
    warm_up(make, clip_frames)
    memory_loaded = _memory_mb()
    with progress_bar('fitting', len(clip_frames)) as advance:
        outcome = replay(make(), clip_frames, advance)
    report = {
        'input': str(source),
        'people': people,
        'window': config.fit.window,
        'model': model,
        'prior': config.prior.checkpoint if prior else None,
        **figures(outcome),
        **_details(outcome),
        'memory_mb': {
            'before_loading': memory_before,
            'ready': memory_loaded,
            'after': _memory_mb(),
            'peak': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        },
        'machine': machine(),
    }
    _print(report)
    if json_file is not None:
        write_json(json_file, report)


def _details(outcome: Any) -> dict[str, Any]:
    """Warm and cold frames apart, stages per person, and what a 30 fps camera would see."""
    import numpy as np

    from dposer_ros.cli.fit import milliseconds

    times_ms = 1e3 * np.array(outcome.fit_seconds)
    return {
        'warm_ms': milliseconds(outcome.warm_seconds),
        'cold_ms': milliseconds(outcome.cold_seconds),
        'cpu_ms': milliseconds(outcome.cpu_seconds),
        'stages_ms': {name: milliseconds(s) for name, s in outcome.stage_seconds.items()},
        'within_30_fps': float((times_ms <= FRAME_MS).mean()) if times_ms.size else None,
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import os
    import platform

    import psutil

    return {
        'cpu': _cpu_name() or platform.processor() or platform.machine(),
        'cores': len(os.sched_getaffinity(0)),
        'memory_gb': round(psutil.virtual_memory().total / 2**30, 1),
        'python': platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return ''
    return next((line.split(':', 1)[1].strip() for line in lines if 'model name' in line), '')


def _memory_mb() -> float:
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from dposer_ros.cli.fit import print_figures

    table = Table('ms', 'p50', 'p95', 'p99', 'max')
    rows = {
        'frame, all': report['fit_ms'],
        'frame, tracking': report['warm_ms'],
        'frame, cold start': report['cold_ms'],
        'frame, CPU time': report['cpu_ms'],
        **{f'  {name}, per person': values for name, values in report['stages_ms'].items()},
    }
    for name, values in rows.items():
        if values:
            table.add_row(name, *(f'{values[key]:.1f}' for key in ('p50', 'p95', 'p99', 'max')))
    Console().print(table)
    print_figures({**report, 'fit_ms': None})
    memory, computer = report['memory_mb'], report['machine']
    if report['within_30_fps'] is not None:
        typer.echo(f'{100 * report["within_30_fps"]:.1f} % of frames within {FRAME_MS:.1f} ms')
    typer.echo(f'memory: {memory["ready"]:.0f} MB ready, {memory["peak"]:.0f} MB peak')
    typer.echo(f'{computer["cpu"]}, {computer["cores"]} cores, {computer["memory_gb"]} GB')
