"""Processes of every kind find the messages, and a missing set-up is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dposer_core.errors import ConfigError
from dposer_ros import environment

LOAD_MESSAGES = 'from dposer_ros.environment import require_messages as r; r(); print("loaded")'


def run_python(code: str, **environ: str) -> str:
    """Output of a fresh Python that inherits nothing of what this one was given for ROS 2."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in (environment.BOOTSTRAP_GUARD, 'LD_LIBRARY_PATH', 'PYTHONPATH')
    }
    result = subprocess.run(
        [sys.executable, '-c', code],
        env=clean | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An install prefix that looks like that of `make messages`."""
    (tmp_path / 'share' / 'dposer_ros').mkdir(parents=True)
    return tmp_path


def test_no_prefix_leaves_the_environment_alone(tmp_path: Path) -> None:
    environ = {'PATH': '/bin', 'AMENT_PREFIX_PATH': '/opt/ros/jazzy'}
    assert environment.ros_environment(tmp_path / 'absent', environ) == environ


def test_prefix_comes_before_what_was_there(prefix: Path) -> None:
    env = environment.ros_environment(prefix, {'LD_LIBRARY_PATH': '/usr/lib/x'})
    parts = env['LD_LIBRARY_PATH'].split(':')
    assert parts[0] == str(prefix / 'lib')
    assert parts[-1] == '/usr/lib/x'
    assert env['AMENT_PREFIX_PATH'].split(':')[0] == str(prefix)


def test_checkout_comes_before_the_prefix_on_the_python_path(prefix: Path) -> None:
    parts = environment.ros_environment(prefix, {})['PYTHONPATH'].split(':')
    assert parts[0] == str(environment.CHECKOUT)
    assert parts[1].startswith(str(prefix))


def test_ros_environment_is_idempotent(prefix: Path) -> None:
    once = environment.ros_environment(prefix, {'PATH': '/bin'})
    assert environment.ros_environment(prefix, once) == once


def test_pth_runs_and_lifts_the_guard_of_an_older_parent(prefix: Path, monkeypatch) -> None:
    path = environment.write_pth(prefix, prefix)
    monkeypatch.setenv(environment.BOOTSTRAP_GUARD, '1')
    monkeypatch.setenv('LD_LIBRARY_PATH', '/usr/lib/x')
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    for line in path.read_text().splitlines():
        if line.startswith('import '):
            exec(line, {})
    assert os.environ['LD_LIBRARY_PATH'] == f'{prefix}/lib:/usr/lib/x'
    assert os.environ['AMENT_PREFIX_PATH'].split(':')[0] == str(prefix)
    assert environment.BOOTSTRAP_GUARD not in os.environ


def test_pth_keeps_the_guard_when_the_library_path_is_complete(prefix: Path, monkeypatch) -> None:
    path = environment.write_pth(prefix, prefix)
    monkeypatch.setenv(environment.BOOTSTRAP_GUARD, '1')
    monkeypatch.setenv('LD_LIBRARY_PATH', f'{prefix}/lib')
    for line in path.read_text().splitlines():
        if line.startswith('import '):
            exec(line, {})
    assert os.environ[environment.BOOTSTRAP_GUARD] == '1'  # else Python would restart for ever


@pytest.mark.ros
@pytest.mark.parametrize(
    ('venv', 'prefix'),
    [
        ('.venv', 'install'), ('.venv-jazzy', 'install-jazzy'), ('env', 'install'),
        ('../elsewhere/.venv-jazzy', 'install'),
    ],
)  # fmt: skip
def test_each_distribution_has_its_prefix_and_all_else_the_usual_one(
    venv: str, prefix: str, monkeypatch
) -> None:
    monkeypatch.setattr(sys, 'prefix', str(environment.CHECKOUT / venv))
    assert environment.message_prefix() == environment.CHECKOUT / prefix


def test_a_fresh_python_loads_the_messages() -> None:
    assert run_python(LOAD_MESSAGES) == 'loaded'


@pytest.mark.ros
def test_a_child_of_a_process_that_knew_no_prefix_loads_the_messages() -> None:
    wheels = str(Path(sys.prefix) / 'lib')
    environ = {environment.BOOTSTRAP_GUARD: '1', 'LD_LIBRARY_PATH': wheels}
    assert run_python(LOAD_MESSAGES, **environ) == 'loaded'


@pytest.mark.parametrize(('text', 'domain'), [('', 0), ('7', 7), ('232', 232)])
def test_domain_id_is_read(text: str, domain: int) -> None:
    assert environment.domain_id({'ROS_DOMAIN_ID': text}) == domain


@pytest.mark.parametrize('text', ['233', '-1', 'seven', '1.5'])
def test_bad_domain_id_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=f"ROS_DOMAIN_ID='{text}'"):
        environment.domain_id({'ROS_DOMAIN_ID': text})
