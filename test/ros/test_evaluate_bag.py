"""`dposer evaluate-bag`: the same bytes from two processes, and errors in one line."""

import json
import subprocess
import sys

import pytest

from dposer_core.body_model import load_body
from test.ros.test_fit import keypoint_bag
from test.swaying import swaying


def run(*args) -> subprocess.CompletedProcess:
    command = [sys.executable, '-m', 'dposer_ros.cli', 'evaluate-bag', *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path):
    observations = [seen for _, seen in swaying(load_body().tables, 4, noise=1.0)]
    keypoint_bag(tmp_path / 'bag', observations)
    for name in 'ab':
        done = run(tmp_path / 'bag', '--out', tmp_path / name, '--no-prior')
        assert done.returncode == 0, done.stderr
    for name in ('states.npz', 'metrics.json'):
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()
    metrics = json.loads((tmp_path / 'a' / 'metrics.json').read_text())
    assert metrics['frames'] == 4 and metrics['coverage'] == 1.0
    assert abs(sum(metrics['provenance'].values()) - 1.0) < 1e-9


def test_damaged_bag_is_one_line(tmp_path):
    (tmp_path / 'a.mcap').write_bytes(bytes(range(256)) * 9)
    done = run(tmp_path / 'a.mcap', '--out', tmp_path / 'out')
    assert done.returncode == 2 and 'not a readable ROS 2 bag' in done.stderr
    assert 'Traceback' not in done.stderr
