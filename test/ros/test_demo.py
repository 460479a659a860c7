"""`dposer demo` from end to end, on a second of real video."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dposer_ros.demo.bag import read_recording

pytestmark = [pytest.mark.ros, pytest.mark.slow]  # starts five processes; a minute on two cores


@pytest.fixture(autouse=True)
def _needs_model_and_clip() -> None:
    from dposer_core.body_model import open_body_path

    if not open_body_path().is_file():
        pytest.skip('the open body is not built (dposer body build)')
    for module in ('mediapipe', 'Sports2D'):
        pytest.importorskip(module)


def demo(output: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, '-m', 'dposer_ros.cli', 'demo', '--output', str(output), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_thirty_frames_give_all_results(tmp_path: Path) -> None:
    process = demo(tmp_path, '--first', '20', '--last', '50')
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['frames']['in'] == 30
    assert report['frames']['answered'] > 0
    assert report['latency_ms']['node_fit']['p50'] > 0
    assert 'latency' in text and 'reprojection' in text
    for name in ('demo.mp4', 'demo.png', 'demo.mcap'):
        assert (tmp_path / name).stat().st_size > 10_000
    assert read_recording(tmp_path / 'demo.mcap').states
    assert (tmp_path / 'demo.mcap').stat().st_size < 60e6


def test_ctrl_c_ends_all_processes_and_keeps_the_recording(tmp_path: Path) -> None:
    process = demo(tmp_path, '--clip', 'demo')
    try:
        log = tmp_path / 'log' / 'player.log'
        deadline = time.monotonic() + 240
        while 'frame' not in (log.read_text() if log.exists() else ''):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 4
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)  # an impatient user
        text, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, text
    assert not [child for child in children if is_alive(child)]
    assert read_recording(tmp_path / 'demo.mcap').images


def test_ctrl_c_before_the_first_frame(tmp_path: Path) -> None:
    process = demo(tmp_path, '--clip', 'demo')
    try:
        while not (tmp_path / 'log' / 'player.log').exists():
            assert process.poll() is None
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert not [child for child in children if is_alive(child)]


def is_alive(process: psutil.Process) -> bool:
    """Also not a dead one whom the init process, which has taken it over, has yet to bury."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
