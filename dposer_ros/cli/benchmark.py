"""`dposer benchmark`: how fast this machine fits, from recorded keypoints, without a detector."""

import resource
from pathlib import Path
from typing import Annotated, Any

import typer

from dposer_core.errors import ConfigError
from dposer_core.files import whole, write_json
from dposer_ros.report_file import check_writable

app = typer.Typer(no_args_is_help=True, help='Measure how fast this machine is.')

DEMO_BAG = Path('out/demo/demo.mcap')
MOTION = Path(__file__).resolve().parents[1] / 'data' / 'benchmark_keypoints.npz'

# One frame of a 30 fps camera.
FRAME_MS = 1000 / 30

_REFERENCE_STEPS = 500
_REFERENCE_FRAMES = 3
_SCALING_PEOPLE = (1, 2, 3, 4, 5, 6, 7, 8)
_SCALING_WINDOWS = (3, 4, 8, 16, 32)
_SCALING_FRAMES = 30
_SCALING_REPEATS = 2
_ALLOCATION_FRAMES = 200

_Bag = Annotated[
    Path | None,
    typer.Option(
        help='Keypoints to replay: a bag, or what `dposer fit` reads. Default: the bag of the '
        'last `dposer demo`, if there is one, else --motion.'
    ),
]
_Motion = Annotated[
    bool, typer.Option('--motion', help='Replay the built-in motion: real, projected, noisy.')
]
_Prior = Annotated[bool, typer.Option(help='Use the diffusion prior.')]
_Params = Annotated[Path | None, typer.Option(help='Parameters (YAML), as for the node.')]
_Json = Annotated[Path | None, typer.Option('--json', help='Write the figures to this file, too.')]


@app.callback()
def _benchmark() -> None:
    """Measure how fast this machine is."""


@app.command()
def latency(
    bag: _Bag = None,
    motion: _Motion = False,
    frames: Annotated[int, typer.Option(min=10, help='Stop after so many frames.')] = 100_000,
    people: Annotated[int, typer.Option(min=1, max=16, help='Copies of the person.')] = 1,
    window: Annotated[
        int | None, typer.Option(min=3, max=64, help='Frames estimated together (fit.window).')
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help='Use only the points that this detector layout has, e.g. coco17.'),
    ] = None,
    dim: Annotated[
        int,
        typer.Option(
            min=2,
            max=3,
            help='3: fit to the recording first, then replay the landmarks found as noisy 3D '
            'points, against which the error is known. People are then one.',
        ),
    ] = 2,
    backend: Annotated[
        str | None, typer.Option(help='Denoiser back end (prior.backend), e.g. onnxruntime.')
    ] = None,
    device: Annotated[
        str, typer.Option(help='cpu; the live fit has no other (GPU: `dposer gpu-check`).')
    ] = 'cpu',
    prior: _Prior = True,
    params: _Params = None,
    compare: Annotated[
        bool,
        typer.Option(
            '--compare',
            help='Fit a few of the frames with the 500-step reference, too (needs torch).',
        ),
    ] = False,
    json_file: _Json = None,
) -> None:
    """Fit recorded keypoints one by one and report how long each frame takes.

    No detector, no ROS graph and no deadline: every frame gets all its iterations. Stages per
    person: predict, linearise (residuals and Jacobians), denoise, solve, covariance, report; of
    everybody: adapt (message to observations) and message (results to messages).
    """
    from dposer_core.config import from_mapping
    from dposer_ros import measure
    from dposer_ros.cli.fit import figures, progress_bar
    from dposer_ros.replay import crowd, load_fitter, read_config, replay, warm_up

    if device != 'cpu':
        raise ConfigError(
            f'--device {device}: the live fit runs on the CPU; use --device cpu, and '
            '`dposer gpu-check` for the denoiser on a GPU'
        )
    _check_input(bag, motion, json_file)
    if dim == 3 and people > 1:
        raise ConfigError(f'--dim 3 and --people {people} exclude each other: leave one out')
    config = read_config(params)
    changes: dict[str, Any] = {'input.max_people': max(people, config.input.max_people)}
    if window is not None:
        changes['fit.window'] = window
    if backend is not None:
        changes['prior.backend'] = backend
    config = from_mapping(changes, config)
    source, clip = _clip(bag, motion, config)
    chosen = clip.frames[:frames]
    if layout is not None:
        chosen = measure.of_layout(chosen, layout)
    if people > 1:
        chosen = list(crowd(chosen, people))
    typer.echo(f'{source}: {clip.source}, {len(chosen)} frames')
    memory_before = _memory_mb()
    make, model = load_fitter(config, prior)
    warm_up(make, chosen)
    memory_loaded = _memory_mb()
    truth = None
    if dim == 3 and clip.camera is not None:
        with progress_bar('making 3D points', len(chosen)) as advance:
            made = replay(make(), chosen, advance)
        truth = {r.state.stamp_ns: r.state.joints for r in made.results}
        chosen = measure.in_3d(chosen, made.results)
    with progress_bar('fitting', len(chosen)) as advance:
        outcome = replay(make(), chosen, advance)
    memory_after = _memory_mb()
    with progress_bar('allocations', 1) as advance:
        growth = measure.allocations(make(), chosen[:_ALLOCATION_FRAMES])
        advance()
    report = {
        'input': str(source),
        'people': people,
        'window': config.fit.window,
        'layout': layout or 'as recorded',
        'dim': dim if clip.camera is not None else 3,
        'device': device,
        'model': model,
        'prior': config.prior.checkpoint if prior else None,
        'backend': config.prior.backend if prior else None,
        **figures(outcome),
        **_details(outcome),
        **_messages(clip, chosen, outcome, config),
        'accuracy': measure.accuracy(outcome, truth),
        'allocations': growth,
        'memory_mb': {
            'before_loading': memory_before,
            'ready': memory_loaded,
            'after': memory_after,
            'peak': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        },
        'machine': machine(),
    }
    if compare:
        report['reference'] = _reference(chosen, config, outcome)
    _print(report)
    if json_file is not None:
        write_json(json_file, report)


@app.command()
def scaling(
    plot: Annotated[Path, typer.Option(help='Picture to draw.')] = Path('scaling.png'),
    bag: _Bag = None,
    motion: _Motion = False,
    prior: _Prior = True,
    params: _Params = None,
    json_file: _Json = None,
) -> None:
    """Draw the time of a frame over people (1 to 8), window (3 to 32) and cores.

    Median CPU time of a tracking frame, the best of several runs; over cores it is time on the
    clock, because the question is whether more of them help.
    """
    from dposer_ros.replay import read_config

    _check_input(bag, motion, json_file, plot)
    pyplot = _pyplot()
    config = read_config(params)
    source, clip = _clip(bag, motion, config)
    typer.echo(f'{source}: {clip.source}')
    curves = _curves(clip.frames, config, prior)
    _plot_scaling(pyplot, curves, plot)
    for axis, values in curves.items():
        typer.echo(f'{axis}: ' + ', '.join(f'{n}: {ms:.1f} ms' for n, ms in values.items()))
    typer.echo(f'{plot} written')
    if json_file is not None:
        write_json(json_file, {'input': str(source), 'ms': curves, 'machine': machine()})


@app.command()
def load(
    out: Annotated[Path, typer.Option(help='Folder for recordings and logs.')] = Path('out/load'),
    frames: Annotated[
        int, typer.Option(min=60, max=600, help='Of the built-in motion, 30 a second.')
    ] = 300,
    only: Annotated[
        int | None, typer.Option(min=1, help='Measure only this one of the loads.')
    ] = None,
    plot: Annotated[Path | None, typer.Option(help='Picture to draw.')] = None,
    json_file: _Json = None,
) -> None:
    """Run the node over DDS while its machine has other things to do.

    Alone, beside a working detector, with one core less, at four times the rate, and all of it.
    Age is that of a state when it is received, since its keypoints were published: it must not
    grow, whatever the load.
    """
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from dposer_ros import under_load
    from dposer_ros.demo.run import progress_bars
    from dposer_ros.environment import require_messages
    from dposer_ros.report_file import make_folder

    _check_input(None, True, json_file, plot)
    pyplot = _pyplot() if plot is not None else None
    require_messages()
    make_folder(out)
    loads = under_load.LOADS
    if only is not None and only > len(loads):
        raise ConfigError(f'--only {only}: there are {len(loads)} loads')
    chosen = loads if only is None else loads[only - 1 : only]
    console = Console()
    table = Table('load', 'answered', 'age, ms: p50, p95, p99', 'fit: p50, p95', 'reduced')
    found = {}
    with progress_bars(console) as progress:
        for number, one in enumerate(chosen):
            folder = out / f'{number + 1}'
            found[one.name] = under_load.measure(one, MOTION, frames, folder, progress)
    for name, row in found.items():
        age, fit = row['age_ms'], row['fit_ms']
        table.add_row(
            name,
            f'{row["answered"]} of {row["played"]}',
            ', '.join(f'{age[key]:.1f}' for key in ('p50', 'p95', 'p99')),
            ', '.join(f'{fit[key]:.1f}' for key in ('p50', 'p95')),
            f'{row["reduced_share"]:.0%}',
        )
    console.print(table)
    if pyplot is not None:
        _plot_load(pyplot, {name: row['age'] for name, row in found.items()}, plot)
        typer.echo(f'{plot} written')
    if json_file is not None:
        figures = {
            name: {key: value for key, value in row.items() if not isinstance(value, np.ndarray)}
            for name, row in found.items()
        }
        write_json(json_file, {'loads': figures, 'machine': machine()})


def _check_input(bag: Path | None, motion: bool, *outputs: Path | None) -> None:
    if bag is not None and motion:
        raise ConfigError(f'--bag {bag} and --motion exclude each other: leave one out')
    for file in outputs:
        if file is not None:
            check_writable(file)


def _clip(bag: Path | None, motion: bool, config: Any) -> tuple[Path, Any]:
    from dposer_ros.replay import CameraChoice, read_clip

    source = bag or (DEMO_BAG if DEMO_BAG.exists() and not motion else MOTION)
    return source, read_clip(source, CameraChoice(), config)


def _messages(clip: Any, frames: list[Any], outcome: Any, config: Any) -> dict[str, Any]:
    """CPU time of the conversions from and to messages, if those are built."""
    from dposer_ros.cli.fit import milliseconds
    from dposer_ros.measure import message_stages

    measure = message_stages(clip, frames, config)
    if measure is None:
        return {'messages_ms': {}}
    results: dict[int, list[Any]] = {}
    for result in outcome.results:
        results.setdefault(result.state.stamp_ns, []).append(result)
    pairs = [
        measure(stamp, people, results[stamp])
        for stamp, people in frames
        if people and stamp in results
    ]
    adapt, message = zip(*pairs, strict=True) if pairs else ((), ())
    return {
        'messages_ms': {
            'adapt': milliseconds(list(adapt)),
            'message': milliseconds(list(message)),
        }
    }


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


def _reference(frames: list[Any], config: Any, outcome: Any) -> dict[str, float]:
    """CPU time and residual of the 500-step fit of a few frames, beside those of the live fit."""
    import time

    import numpy as np
    import torch

    from dposer_core.body_model import load_body
    from dposer_core.offline import OfflineFitter
    from dposer_core.prior.runtime import load_prior
    from dposer_ros.cli.fit import progress_bar

    torch.set_num_threads(1)
    body = load_body(config.model.path)
    prior = load_prior(config.prior.checkpoint, config.prior.backend, body.tables.num_expression)
    live = {r.state.stamp_ns: r.state for r in outcome.results}
    with_people = [people[0] for stamp, people in frames if people and stamp in live]
    # Of the last third, where the live fit has seen the person for a while.
    start = 2 * len(with_people) // 3
    observations = with_people[start :: max(len(with_people) // 12, 1)][:_REFERENCE_FRAMES]
    seconds, errors = [], []
    with progress_bar('reference fit', len(observations)) as advance:
        for observation in observations:
            clock = time.process_time()
            fitted = OfflineFitter(body, prior, _REFERENCE_STEPS).fit([observation])
            seconds.append(time.process_time() - clock)
            state = live[observation.stamp_ns]
            errors.append(
                [_residual(observation, p) for p in (fitted.landmarks[0], state.landmarks)]
            )
            advance()
    reference_error, live_error = np.median(errors, axis=0)
    cpu = float(np.median(seconds))
    return {
        'steps': _REFERENCE_STEPS,
        'frames': len(observations),
        'cpu_ms': 1e3 * cpu,
        'times_live': cpu / float(np.median(outcome.cpu_seconds)),
        'residual': float(reference_error),
        'live_residual': float(live_error),
        'residual_unit': 'px' if observations[0].dim == 2 else 'm',
    }


def _residual(observation: Any, landmarks: Any) -> float:
    """Median distance of the landmarks (133, 3) to the points that are seen, px or m."""
    import numpy as np

    points = landmarks
    if observation.dim == 2:
        points = observation.camera.project(landmarks)
    distance = np.linalg.norm(points - observation.points, axis=-1)
    return float(np.median(distance[observation.confidence > 0.3]))


def _curves(frames: list[Any], config: Any, with_prior: bool) -> dict[str, dict[str, float]]:
    """Milliseconds of a tracking frame over the number of people, the window and the cores."""
    import os

    import numpy as np

    from dposer_core.config import from_mapping
    from dposer_ros.cli.fit import progress_bar
    from dposer_ros.replay import crowd, load_fitter, replay

    cores = sorted(os.sched_getaffinity(0))
    runs = len(_SCALING_PEOPLE) + len(_SCALING_WINDOWS) + len(cores)
    with progress_bar('scaling', runs) as advance:

        def median_ms(people: int, window: int, on_clock: bool = False) -> float:
            settings = {'fit.window': window, 'input.max_people': people}
            make, _ = load_fitter(from_mapping(settings, config), with_prior)
            # Enough frames to fill the window and still have as many with a full one.
            chosen = list(crowd(frames[: window + _SCALING_FRAMES], people))
            medians = []
            for _ in range(_SCALING_REPEATS):
                outcome = replay(make(), chosen)
                seconds = outcome.warm_seconds if on_clock else outcome.cpu_seconds
                medians.append(float(np.median(seconds[window:])))
            advance()
            return 1e3 * min(medians)

        def with_cores(count: int) -> float:
            os.sched_setaffinity(0, cores[:count])
            try:
                return median_ms(1, config.fit.window, on_clock=True)
            finally:
                os.sched_setaffinity(0, cores)

        return {
            'people': {str(n): median_ms(n, config.fit.window) for n in _SCALING_PEOPLE},
            'window': {str(w): median_ms(1, w) for w in _SCALING_WINDOWS},
            'cores': {str(n + 1): with_cores(n + 1) for n in range(len(cores))},
        }


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError(f'a plot needs matplotlib ({error}); pip install matplotlib') from error
    matplotlib.use('Agg')
    from matplotlib import pyplot

    return pyplot


def _plot_scaling(pyplot: Any, curves: dict[str, dict[str, float]], file: Path) -> None:
    figure, axes = pyplot.subplots(1, len(curves), figsize=(11, 3.5), layout='constrained')
    for axis, (name, values) in zip(axes, curves.items(), strict=True):
        axis.plot([int(n) for n in values], list(values.values()), marker='o')
        axis.set(xlabel=name, ylabel='time of a frame [ms]', ylim=(0, None))
        axis.grid(alpha=0.3)
    _save(pyplot, figure, file)


def _plot_load(pyplot: Any, ages: dict[str, Any], file: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(9, 4), layout='constrained')
    for name, age in ages.items():
        axes.plot(age[:, 0], age[:, 1], '.', markersize=3, label=name)
    axes.set(xlabel='time [s]', ylabel='age of a state when received [ms]', ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    _save(pyplot, figure, file)


def _save(pyplot: Any, figure: Any, file: Path) -> None:
    with whole(file) as partial:
        figure.savefig(partial, dpi=120, format=file.suffix.lstrip('.') or 'png')
    pyplot.close(figure)


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
        **{f'  {name}, of all': values for name, values in report['messages_ms'].items()},
    }
    for name, values in rows.items():
        if values:
            table.add_row(name, *(f'{values[key]:.2f}' for key in ('p50', 'p95', 'p99', 'max')))
    Console().print(table)
    print_figures({**report, 'fit_ms': None})
    memory, computer = report['memory_mb'], report['machine']
    for name, value in report['accuracy'].items():
        typer.echo(f'{name}: {value:.2f}')
    if report['allocations'] is not None:
        grown = report['allocations']['growth_bytes_per_frame']
        typer.echo(f'allocations: {grown:.0f} bytes per frame stay after warm-up')
    if 'reference' in report:
        reference = report['reference']
        typer.echo(
            f'reference fit, {reference["steps"]} steps: {reference["cpu_ms"]:.0f} ms of CPU time '
            f'per frame, {reference["times_live"]:.0f} times the live one; median residual '
            f'{reference["residual"]:.3g} {reference["residual_unit"]}, live '
            f'{reference["live_residual"]:.3g}'
        )
    if report['within_30_fps'] is not None:
        typer.echo(f'{100 * report["within_30_fps"]:.1f} % of frames within {FRAME_MS:.1f} ms')
    typer.echo(f'memory: {memory["ready"]:.0f} MB ready, {memory["peak"]:.0f} MB peak')
    typer.echo(f'{computer["cpu"]}, {computer["cores"]} cores, {computer["memory_gb"]} GB')
