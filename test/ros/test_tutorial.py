"""The programs of docs/TUTORIAL.md, run as they stand, with the real node between them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dposer_ros.demo.clips import find_clip
from dposer_ros.demo.processes import own_domain

pytestmark = pytest.mark.ros
TUTORIAL = (Path(__file__).parents[2] / 'docs' / 'TUTORIAL.md').read_text()
PROGRAMS = re.findall(r'```python\n"""(\w+\.py).*?```', TUTORIAL, re.DOTALL)
SPEED = re.compile(r'^speed (\d\.\d\d) \((.*)\)$', re.MULTILINE)


def write(name: str, folder: Path) -> Path:
    text = re.search(rf'```python\n("""{name}.*?)```', TUTORIAL, re.DOTALL)[1]
    path = folder / name
    path.write_text(text)
    return path


def test_programs_compile(tmp_path: Path) -> None:
    assert PROGRAMS == ['my_detector.py', 'slow_down.py']
    for name in PROGRAMS:
        compile(write(name, tmp_path).read_text(), name, 'exec')


@pytest.mark.slow
def test_detector_node_and_robot_work_together(tmp_path: Path) -> None:
    from dposer_core.body_model import open_body_path

    if not open_body_path().is_file():
        pytest.skip('the open body is not built (dposer body build)')
    pytest.importorskip('mediapipe')
    detector, robot = (write(name, tmp_path) for name in PROGRAMS)
    log = tmp_path / 'robot.log'
    with own_domain() as domain, log.open('w') as output:
        environment = os.environ | {'ROS_DOMAIN_ID': str(domain)}
        up = [sys.executable, '-m', 'dposer_ros.cli', 'up', 'wholebody', 'autostart:=true']
        commands = (
            (up, None),
            ([sys.executable, str(robot), '0.0', '-1.2', '9.5'], output),
            ([sys.executable, str(detector), str(find_clip('demo').video)], None),
        )
        processes = []
        try:
            for command, target in commands:
                processes.append(subprocess.Popen(command, env=environment, stdout=target))
            end = time.monotonic() + 90.0
            while 'seen)' not in log.read_text() and time.monotonic() < end:
                time.sleep(0.2)
            time.sleep(4.0)
            camera = processes.pop()  # is unplugged
            camera.kill()
            camera.wait()
            time.sleep(4.0)
        finally:
            for process in reversed(processes):
                process.send_signal(signal.SIGINT)
                process.wait(10.0)
    said = SPEED.findall(log.read_text())
    assert said[0] == ('0.00', 'no states')
    seen = [float(speed) for speed, why in said if why.endswith('seen')]
    print(f'{len(said)} speeds, {len(seen)} for hands that are seen: {min(seen)} to {max(seen)}')
    assert len(seen) > 5 and min(seen) < 1.0
    assert any('hidden' in why for _, why in said)
    assert said[-1] == ('0.00', 'no states')  # a silent node is no empty room
