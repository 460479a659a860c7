"""`dposer fit`: recorded keypoints -> the states of a whole recording in one file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dposer_core.camera import PinholeCamera
from dposer_core.errors import ConfigError, ObservationError
from dposer_core.files import write_json
from dposer_ros.report_file import check_writable

if TYPE_CHECKING:
    from dposer_ros.replay import CameraChoice, Clip, Replay


def fit(
    source: Annotated[
        Path,
        typer.Argument(
            metavar='INPUT',
            help='Keypoints: JSON file, folder of JSON files, .npz, or a ROS 2 bag (.mcap, .db3, '
            'folder).',
        ),
    ],
    output: Annotated[
        Path, typer.Option('--output', '-o', help='Where the states go (.npz).')
    ] = Path('states.npz'),
    camera: Annotated[
        str, typer.Option(help='Camera of 2D keypoints in pixels: fx,fy,cx,cy.')
    ] = '',
    focal: Annotated[
        float | None, typer.Option(help='Focal length in pixels, if no --camera; needs --size.')
    ] = None,
    size: Annotated[str, typer.Option(help='Size of the video in pixels: WIDTHxHEIGHT.')] = '',
    layout: Annotated[
        str, typer.Option(help='Keypoint layout, where neither file nor number of points tell.')
    ] = '',
    fps: Annotated[float, typer.Option(help='Frame rate of files without time stamps.')] = 30.0,
    topic: Annotated[str, typer.Option(help='Keypoint topic, if a bag has several.')] = '',
    camera_topic: Annotated[
        str, typer.Option(help='camera_info topic, if a bag has several.')
    ] = '',
    prior: Annotated[bool, typer.Option(help='Use the diffusion prior.')] = True,
    params: Annotated[
        Path | None, typer.Option(help='Parameters (YAML), as for the node.')
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option('--json', help='Write the figures to this file, too.')
    ] = None,
) -> None:
    """Fit recorded keypoints (JSON, npz or ROS 2 bag) and write the states to a file.

    Every frame gets all its iterations, so the result depends on the input alone.

    Example: dposer fit keypoints.json -o states.npz --size 1280x720 --fps 25
    """
    from dposer_core.states_io import states_from_results, write_states
    from dposer_ros.replay import load_fitter, read_clip, read_config, replay, warm_up

    config = read_config(params)
    check_writable(output)
    if json_file is not None:
        check_writable(json_file)
    choice = camera_choice(camera, focal, size)
    clip = read_clip(source, choice, config, layout or None, fps, topic, camera_topic)
    typer.echo(f'{source}: {clip.source}, {len(clip.frames)} frames, {_camera_text(clip)}')
    for cause, count in clip.refused.most_common(5):
        typer.secho(f'warning: {count} x {cause}', fg='yellow', err=True)
    if not any(people for _, people in clip.frames):
        raise ObservationError(f'{source}: nobody in any of the {len(clip.frames)} frames')
    make, model = load_fitter(config, prior)
    warm_up(make, clip.frames)
    with progress_bar('fitting', len(clip.frames)) as advance:
        outcome = replay(make(), clip.frames, advance)
    if not outcome.results:
        raise ObservationError(
            f'{source}: nobody could be fitted in {outcome.frames_with_people} frames; a person '
            f'needs {config.track.min_points} body points (track.min_points) of confidence '
            f'{config.input.confidence_threshold} or more (input.confidence_threshold)'
        )
    write_states(output, states_from_results(outcome.results, model, clip.camera))
    report = {
        'input': str(source),
        'output': str(output),
        'model': model,
        'prior': config.prior.checkpoint if prior else None,
        'refused': dict(clip.refused),
        **figures(outcome),
    }
    print_figures(report)
    typer.echo(f'{len(outcome.results)} states written to {output}')
    if json_file is not None:
        write_json(json_file, report)


def camera_choice(camera: str, focal: float | None, size: str) -> 'CameraChoice':
    """The camera options as values.

    Raises:
        ConfigError: an option that cannot be read, or two that exclude each other.
    """
    from dposer_ros.replay import CameraChoice

    picture = _numbers('--size', size, 'x', 2, 'WIDTHxHEIGHT, such as 1280x720') if size else None
    width, height = (int(n) for n in picture) if picture else (0, 0)
    if camera and focal is not None:
        raise ConfigError('--camera holds the focal length already: leave out --focal')
    if focal is not None and not picture:
        raise ConfigError(f'--focal {focal:g} needs --size WIDTHxHEIGHT for the principal point')
    pinhole = None
    if camera:
        fx, fy, cx, cy = _numbers('--camera', camera, ',', 4, 'fx,fy,cx,cy in pixels')
        if min(fx, fy) <= 0:
            raise ConfigError(f'--camera {camera}: fx and fy must be positive')
        pinhole = PinholeCamera(fx, fy, cx, cy, width, height)
    return CameraChoice(pinhole, focal, (width, height) if picture else None)


def _numbers(option: str, text: str, separator: str, count: int, expected: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(separator)]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(abs(number) < 1e6 for number in numbers):
        raise ConfigError(f"{option} '{text}': expected {expected}")
    return numbers


def _camera_text(clip: 'Clip') -> str:
    camera = clip.camera
    if camera is None:
        return '3D'
    return (
        f'2D, camera fx={camera.fx:.1f} fy={camera.fy:.1f} cx={camera.cx:.1f} cy={camera.cy:.1f}'
    )


def figures(outcome: 'Replay') -> dict[str, Any]:
    """The figures of a replay: counts, frame rate, step times in ms, residuals."""
    import numpy as np

    stats = [r.stats for r in outcome.results if r.stats.iterations]
    px = np.array([s.reprojection_rms_px for s in stats if np.isfinite(s.reprojection_rms_px)])
    mm = 1e3 * np.array([s.residual_rms_m for s in stats if np.isfinite(s.residual_rms_m)])
    return {
        'frames': outcome.frames,
        'frames_with_people': outcome.frames_with_people,
        'answered': outcome.answered,
        'states': len(outcome.results),
        'cold_starts': len(outcome.cold_seconds),
        'frames_per_second': outcome.frames / max(outcome.wall_seconds, 1e-9),
        'fit_ms': milliseconds(outcome.fit_seconds),
        'reprojection_rms_px': float(np.median(px)) if px.size else None,
        'residual_rms_mm': float(np.median(mm)) if mm.size else None,
    }


def milliseconds(seconds: list[float]) -> dict[str, float] | None:
    """p50, p95, p99 and largest in milliseconds; None without values."""
    import numpy as np

    if not seconds:
        return None
    values = 1e3 * np.array(seconds)
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {'p50': float(p50), 'p95': float(p95), 'p99': float(p99), 'max': float(values.max())}


def print_figures(report: dict[str, Any]) -> None:
    """One row per figure."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    table.add_row('frames', f'{report["frames"]}, {report["frames_with_people"]} with people')
    table.add_row('answered', f'{report["answered"]} of {report["frames_with_people"]}')
    table.add_row('cold starts', str(report['cold_starts']))
    table.add_row('rate', f'{report["frames_per_second"]:.1f} frames/s')
    if report['fit_ms']:
        table.add_row('fit per frame', percentiles(report['fit_ms']))
    if report['reprojection_rms_px'] is not None:
        table.add_row('reprojection (median rms)', f'{report["reprojection_rms_px"]:.2f} px')
    if report['residual_rms_mm'] is not None:
        table.add_row('residual (median rms)', f'{report["residual_rms_mm"]:.1f} mm')
    Console().print(table)


def percentiles(values: dict[str, float]) -> str:
    """`milliseconds` for people."""
    return ' / '.join(f'{name} {value:.1f}' for name, value in values.items()) + ' ms'


def progress_bar(text: str, total: int) -> '_Progress':
    """A progress bar as a context that gives the function to call after each step."""
    return _Progress(text, total)


class _Progress:
    def __init__(self, text: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self._bar = Progress(
            '{task.description}',
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(text, total=total)

    def __enter__(self) -> Any:
        self._bar.start()
        return lambda: self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
