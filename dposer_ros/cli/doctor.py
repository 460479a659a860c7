"""`dposer doctor`: is everything here that a live fit needs, and what cures what is missing."""

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dposer_core.config import PriorConfig
from dposer_core.errors import ConfigError, DPoserError
from dposer_core.files import write_json
from dposer_ros.environment import domain_id, require_messages

DETECTOR_VERSION = '0.10.14'  # later mediapipe has neither the models nor `solutions`
_STYLES = {'ok': 'green', 'fail': 'bold red', 'absent': 'yellow'}


@dataclass(frozen=True)
class Row:
    """The outcome of one check."""

    name: str
    required: bool
    status: str  # ok, fail (required and not there), absent (optional and not there)
    detail: str
    remedy: str  # empty if ok


def doctor(
    model_path: str = typer.Option('', help='SMPL-X .npz to check; default: the open body.'),
    prior: str = typer.Option(
        PriorConfig().checkpoint, help='Prior to check: a shipped name or a file.'
    ),
    json_file: Path = typer.Option(None, '--json', help='Write the rows to this file, too.'),
    live: bool = typer.Option(False, '--live', help='Look at the running node as well.'),
    namespace: str = typer.Option('', help='Of the running node.'),
    seconds: float = typer.Option(3.0, min=1.0, max=60.0, help='To listen to the running node.'),
) -> None:
    """Check this machine and say how to cure what is missing; exit status 1 if something is."""
    rows = diagnose(model_path, prior)
    if live:
        domain_id()
        require_messages()
        from dposer_ros.cli.doctor_live import diagnose_live

        rows += diagnose_live(namespace, seconds)
    _print(rows)
    healthy = all(row.status != 'fail' for row in rows)
    if json_file is not None:
        content = {'healthy': healthy, 'rows': [asdict(row) for row in rows]}
        write_json(json_file, content)
    if not healthy:
        raise typer.Exit(1)


def diagnose(model_path: str = '', prior: str = PriorConfig().checkpoint) -> list[Row]:
    """Run all checks; none of them raises."""
    setup = 'run `make setup`'
    source = 'source /opt/ros/<distro>/setup.bash, or run `make setup`'
    robot = 'comes with a full ROS 2; stand-ins are used meanwhile'
    return [
        _row('Python', True, _python, 'use Python 3.11'),
        _row('ROS 2', True, _ros, source),
        _row('messages', True, _messages, 'run `make messages`'),
        _row('ROS domain', True, _domain, 'correct the variable'),
        _row('body model', True, lambda: _body(model_path), 'run `dposer body build`'),
        _row('prior', True, lambda: _prior(prior), 'get the file again'),
        _row('device', True, _device, setup),
        _row('detector', False, _detector, f'{setup}; needed by `dposer demo` only'),
        _row('cv_bridge', False, lambda: _module('cv_bridge'), robot),
        _row('message_filters', False, lambda: _module('message_filters'), robot),
        _row('launch', False, lambda: _module('launch_ros'), 'use `dposer up wholebody` instead'),
    ]


def _row(name: str, required: bool, check: Callable[[], str], remedy: str) -> Row:
    try:
        return Row(name, required, 'ok', check(), '')
    except DPoserError as error:
        detail = str(error)
    except Exception as error:
        detail = f'{type(error).__name__}: {error}'
    return Row(name, required, 'fail' if required else 'absent', detail, remedy)


def _python() -> str:
    version = '.'.join(str(part) for part in sys.version_info[:3])
    return f'{version}, {sys.executable}'


def _ros() -> str:
    import rclpy

    distribution = os.environ.get('ROS_DISTRO') or 'from pip wheels'
    return f'{distribution}, {rclpy.get_rmw_implementation_identifier()}'


def _messages() -> str:
    require_messages()
    import dposer_ros.msg

    return str(Path(dposer_ros.msg.__file__).parent)


def _domain() -> str:
    reach = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE', 'SUBNET').lower()
    return f'{domain_id()}, discovery: {reach}'


def _body(model_path: str) -> str:
    from dposer_core.body_model import load_body

    tables = load_body(model_path).tables
    return f'{tables.name}, sha256 {tables.sha256[:8]}, {tables.num_expression} expressions'


def _prior(name: str) -> str:
    from dposer_core.prior.runtime import load_prior

    return ', '.join(f'{key} {value}' for key, value in load_prior(name).info().items())


def _device() -> str:
    import torch

    cores = f'{len(os.sched_getaffinity(0))} CPU cores'
    if not torch.cuda.is_available():
        return f'{cores}, no CUDA device (none is needed)'
    return f'{cores}, {torch.cuda.get_device_name()}'


def _detector() -> str:
    """Without importing mediapipe: that takes seconds and half a gigabyte."""
    version = importlib.metadata.version('mediapipe')
    if version != DETECTOR_VERSION:
        raise ConfigError(f'mediapipe {version}; install {DETECTOR_VERSION}')
    folder = Path(importlib.util.find_spec('mediapipe').submodule_search_locations[0])
    network = folder / 'modules' / 'pose_landmark' / 'pose_landmark_full.tflite'
    if not network.is_file():
        raise ConfigError(f'{network} is missing; install mediapipe {DETECTOR_VERSION} again')
    return f'mediapipe {version} with its networks'


def _module(name: str) -> str:
    if importlib.util.find_spec(name) is None:
        raise ConfigError('not installed')
    return 'found'


def _print(rows: list[Row]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(style='bold')
    table.add_column(overflow='fold')
    for row in rows:
        told = not row.remedy or row.remedy in row.detail
        remedy = '' if told else f'\n[bold]remedy:[/] {row.remedy}'
        optional = '' if row.required else ' (optional)'
        style = _STYLES[row.status]
        table.add_row(
            f'[{style}]{row.status}[/]', f'{row.name}{optional}', escape(row.detail) + remedy
        )
    Console().print(table)
