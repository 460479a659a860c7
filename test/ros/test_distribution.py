"""The other ROS 2 distribution that pip offers: set up from nothing, all fast ROS tests there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OTHER = 'jazzy'
# Of this Python's own ROS 2; the other one must find its own.
OURS = (
    '_ROS_WHEELS_BOOTSTRAP_COMPLETE', 'LD_LIBRARY_PATH', 'AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH',
    'PYTHONPATH', 'ROS_DISTRO', 'VIRTUAL_ENV',
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.skipif(
    Path(sys.prefix) != ROOT / '.venv', reason='this is not the virtual environment of `make`'
)
def test_all_fast_ros_tests_pass_on_the_other_distribution():
    environment = {key: value for key, value in os.environ.items() if key not in OURS}
    subprocess.run(
        ['make', f'DISTRO={OTHER}', 'setup'], cwd=ROOT, env=environment, check=True, timeout=1200
    )
    python = ROOT / f'.venv-{OTHER}' / 'bin' / 'python'
    done = subprocess.run(
        [python, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-m', 'not slow', 'test/ros'],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(f'{OTHER}: {done.stdout.splitlines()[-1]}')
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.search(r'(\d+) passed', done.stdout)[1]) > 800
