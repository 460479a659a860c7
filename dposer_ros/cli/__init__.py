"""The command line `dposer`: which commands exist, and how errors are shown.

A command lives in `dposer_ros/cli/<name>.py`, those of researchers in `training/cli/<name>.py`, as
a function `<name>` or, with subcommands, as a Typer `app`. Modules are found by name, so neither
package imports the other. Only the module of the command that was asked for is imported, so the
help is quick and a missing optional package hurts no other command.
"""

import errno
import importlib
import sys

import typer

from dposer_core.errors import DPoserError

# Of the machine and the paths given, not of this code.
_FILE_FAULTS = {errno.EACCES, errno.EDQUOT, errno.EISDIR, errno.ENOENT, errno.ENOSPC}
_FILE_FAULTS |= {errno.EEXIST, errno.ENOTDIR, errno.EPERM, errno.EROFS}

COMMANDS = {
    'demo': 'Run the whole job on a video: detector, fit, recorder over ROS 2, then a film.',
    'up': 'Start the live node and keep it running until Ctrl-C.',
    'doctor': 'Check this machine and say how to cure what is missing.',
    'body': 'Build the open body model, or look at a body model file.',
    'fit': 'Fit recorded keypoints (JSON, npz or ROS 2 bag) and write the states to a file.',
    'evaluate-bag': 'Fit a bag without a clock; write its states and figures.',
    'render': 'Turn fitted states into a picture or a film.',
    'view': 'Show the people of a bag or of a running node in a browser.',
    'inject': 'Make keypoints on a topic go wrong on purpose, to test who reads them.',
    'benchmark': 'Measure how fast this machine is.',
    'gpu-check': 'Build, verify and time the denoiser in every GPU back end.',
    'weights': 'List, check, fetch and import the weights of priors.',
    'data': 'Prepare, pack and look at motion data for training.',
    'train': 'Train a prior, or go on with a run that was stopped.',
    'bench': 'Reproduce a table of the paper.',
}
RESEARCH = ('data', 'train', 'bench')

# The extra of pyproject.toml that brings what a command needs beyond the core.
EXTRAS = {
    'demo': 'demo,detector', 'body': 'body', 'render': 'demo', 'up': 'ros', 'view': 'view',
}  # fmt: skip
EXTRAS |= dict.fromkeys(RESEARCH, 'training')

HELP = """Whole-body human pose (SMPL-X body, hands and face) from keypoints, live over ROS 2.

First time here: `dposer doctor`, then `dposer demo`. Every command explains itself with --help.
"""


def main(argv: list[str] | None = None) -> None:
    """Run the command line; exits with 0, or 2 and one line for an error of the user's."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = '--debug' in argv
    if debug:
        argv.remove('--debug')
    command = next((arg for arg in argv if not arg.startswith('-')), '')
    try:
        build_app(command)(args=argv, prog_name='dposer')
    except DPoserError as error:
        if debug:
            raise
        _fail(str(error))
    except ModuleNotFoundError as error:
        if debug or _is_ours(error.name or ''):
            raise
        _fail(_missing_module(command, error.name or str(error)))
    except OSError as error:
        if debug or error.errno not in _FILE_FAULTS:
            raise
        place = error.filename or 'a file'
        _fail(f'{place}: {error.strerror}; give a path that can be used (--debug: where)')


def build_app(command: str = '') -> typer.Typer:
    """The Typer application with `command` loaded and only the help lines of the others."""
    app = typer.Typer(
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={'help_option_names': ['-h', '--help']},
    )
    app.callback()(_options)
    for name, text in COMMANDS.items():
        if name == command:
            _load(app, name, text)
        else:
            app.command(name, help=text)(_not_loaded)
    return app


def _load(app: typer.Typer, name: str, text: str) -> None:
    package = 'training' if name in RESEARCH else 'dposer_ros'
    python_name = name.replace('-', '_')
    module = importlib.import_module(f'{package}.cli.{python_name}')
    function = getattr(module, python_name, None)
    if callable(function):
        app.command(name)(function)
    else:
        app.add_typer(module.app, name=name, help=text, no_args_is_help=True)


def _options(
    debug: bool = typer.Option(False, '--debug', help='Show the traceback of an error.'),
) -> None:
    """Options before the command."""
    # `main` has taken --debug out, wherever it stood; it is declared here for the help alone.


def _not_loaded() -> None:
    raise AssertionError('only the asked-for command is run')


def _is_ours(module: str) -> bool:
    """Whether a missing module is a fault of this code; the messages are built, not shipped."""
    package = module.split('.')[0]
    return package in ('dposer_core', 'dposer_ros', 'training') and 'dposer_ros.msg' not in module


def _missing_module(command: str, module: str) -> str:
    if module.startswith('dposer_ros.msg'):
        return 'the messages are not built: run `make messages`'
    if module == 'rclpy':
        return 'rclpy is missing: source /opt/ros/<distro>/setup.bash, or run `make setup`'
    extra = f"`pip install 'dposer_ros[{EXTRAS[command]}]'`" if command in EXTRAS else 'it'
    return f"the Python package '{module}' is missing: run `make setup`, or install {extra}"


def _fail(message: str) -> None:
    typer.secho(f'error: {message}', fg='red', err=True)
    sys.exit(2)
