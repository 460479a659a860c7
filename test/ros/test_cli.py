"""What a newcomer meets first: quick help, and one line for an error."""

import errno
import subprocess
import sys
import time

import pytest

from dposer_core.errors import ConfigError
from dposer_ros import cli


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, '-m', 'dposer_ros.cli', *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_help_lists_every_command() -> None:
    result = run('--help')
    assert result.returncode == 0
    assert all(name in result.stdout for name in cli.COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    code = (
        'import sys; from dposer_ros.cli import build_app; build_app();'
        'sys.exit(" ".join({"numpy", "torch", "rclpy", "cv2"} & set(sys.modules)) or 0)'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow  # a figure of time: not beside other tests on a busy machine
def test_help_takes_less_than_a_second() -> None:
    start = time.monotonic()
    run('--help')
    assert time.monotonic() - start < 1.0


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = run(name, '--help')
    assert result.returncode == 0, result.stderr
    assert 'Usage: dposer' in result.stdout


def test_error_is_one_line_without_traceback() -> None:
    result = run('up', 'nothing')
    assert result.returncode == 2
    assert result.stderr.strip() == "error: 'nothing' cannot be started; choose one of wholebody"


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    for arguments in (('--debug', 'up', 'nothing'), ('up', 'nothing', '--debug')):
        result = run(*arguments)
        assert result.returncode == 1
        assert 'Traceback' in result.stderr


def test_missing_optional_package_names_the_extra(monkeypatch, capsys) -> None:
    def missing(command: str) -> None:
        raise ModuleNotFoundError("No module named 'av'", name='av')

    monkeypatch.setattr(cli, 'build_app', missing)
    with pytest.raises(SystemExit, match='2'):
        cli.main(['render'])
    assert "'av' is missing" in capsys.readouterr().err


def test_missing_module_of_our_own_is_a_fault_and_shown_as_one(monkeypatch) -> None:
    def missing(command: str) -> None:
        raise ModuleNotFoundError('gone', name='dposer_core.gone')

    monkeypatch.setattr(cli, 'build_app', missing)
    with pytest.raises(ModuleNotFoundError):
        cli.main(['fit'])


@pytest.mark.parametrize('option', ['-h', '--help'])
def test_both_spellings_of_help(option: str) -> None:
    assert run('up', option).returncode == 0


def test_errors_of_the_tree_are_caught(monkeypatch, capsys) -> None:
    def fail(command: str) -> None:
        raise ConfigError('fit.window = 0: must lie in [1, 64]')

    monkeypatch.setattr(cli, 'build_app', fail)
    with pytest.raises(SystemExit, match='2'):
        cli.main(['fit'])
    assert capsys.readouterr().err == 'error: fit.window = 0: must lie in [1, 64]\n'


def test_place_that_cannot_be_written_is_named_in_one_line(tmp_path, capsys) -> None:
    (tmp_path / 'file').touch()
    place = tmp_path / 'file' / 'doctor.json'
    with pytest.raises(SystemExit, match='2'):
        cli.main(['doctor', '--json', str(place)])
    assert capsys.readouterr().err.startswith(f'error: {place} cannot be written: File exists')


def test_fault_that_is_not_of_a_file_is_shown_as_one(monkeypatch) -> None:
    def fail(command: str) -> None:
        raise ConnectionResetError(errno.ECONNRESET, 'reset')

    monkeypatch.setattr(cli, 'build_app', fail)
    with pytest.raises(ConnectionResetError):
        cli.main(['fit'])
