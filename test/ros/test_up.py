"""`dposer up` ends what it started, whatever ends it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dposer_core.errors import ConfigError
from dposer_ros.cli import up

# Like the node: ends with 0 on SIGINT. Says in a file that it is ready.
POLITE = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
pathlib.Path(sys.argv[1]).write_text(str(__import__('os').getpid()))
time.sleep(60)
"""
# As a shell starts a background job.
SUPERVISE = """
import signal, sys
from dposer_ros.cli import up
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.exit(up._supervise([sys.executable, '-c', *sys.argv[1:]], respawn=False))
"""


def wait_for(file: Path) -> int:
    """The process id in `file`, once it is there."""
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        if file.exists() and file.read_text():
            return int(file.read_text())
        time.sleep(0.02)
    raise TimeoutError(f'{file} was not written')


def is_alive(pid: int) -> bool:
    """Also not a dead one whom the init process, which has taken it over, has yet to bury."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_child_and_is_no_failure(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / 'pid'
    supervisor = subprocess.Popen([sys.executable, '-c', SUPERVISE, POLITE, str(file)])
    try:
        child = wait_for(file)
        supervisor.send_signal(number)
        assert supervisor.wait(10) == 0
        assert not is_alive(child)
    finally:
        supervisor.kill()
        supervisor.wait()


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux tells a child of this')
def test_killed_supervisor_leaves_no_node_behind(tmp_path: Path) -> None:
    file = tmp_path / 'pid'
    supervisor = subprocess.Popen([sys.executable, '-c', SUPERVISE, POLITE, str(file)])
    child = wait_for(file)
    supervisor.kill()
    supervisor.wait()
    deadline = time.monotonic() + 5.0
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(child)


def test_stubborn_child_is_killed(monkeypatch) -> None:
    monkeypatch.setattr(up, 'STOP_SECONDS', 0.2)
    code = (
        'import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN);'
        'print("deaf", flush=True); time.sleep(60)'
    )
    child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    with child:
        child.stdout.readline()
        up._stop(child)
        assert child.returncode == -signal.SIGKILL


def test_exit_status_of_the_node_is_passed_on() -> None:
    code = 'import sys; sys.exit(3)'
    command = [sys.executable, '-c', SUPERVISE, code]
    assert subprocess.run(command).returncode == 3


@pytest.mark.ros
def test_second_node_of_the_same_name_is_refused(ros_domain: int) -> None:
    code = (
        'import rclpy, time; rclpy.init(); n = rclpy.create_node("dposer_wholebody");'
        'print("up", flush=True); time.sleep(60)'
    )
    other = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(ConfigError, match=f'already runs in ROS domain {ros_domain}'):
            up._refuse_second_node('')
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
