"""`dposer benchmark load`: the same motion at a higher rate, and the node that answers it."""

import json

import numpy as np
import pytest

from dposer_core.recording import read_npz
from dposer_ros import cli
from dposer_ros.cli.benchmark import MOTION
from dposer_ros.under_load import write_faster

pytestmark = pytest.mark.ros


def test_faster_frames_lie_between_the_old_ones_and_never_between_two_clips(tmp_path) -> None:
    path, old = tmp_path / 'faster.npz', read_npz(MOTION)
    first_gap = int(np.argmax(np.diff(old.stamps_ns) > 10**9))
    count = write_faster(old, path, 4, first_gap + 3)
    new = read_npz(path)
    assert len(new.frames) == count == 4 * (first_gap + 1) + 2
    assert new.camera == old.camera and new.size == old.size
    steps = np.diff(new.stamps_ns)
    assert steps.min() > 0 and sorted(steps)[-1] > 10**9 > 9 * 10**6 > sorted(steps)[-3]
    before, after = (old.frames[i][0].points for i in (5, 6))
    for quarter in range(4):
        there = 0.25 * quarter * after + (1.0 - 0.25 * quarter) * before
        np.testing.assert_allclose(new.frames[20 + quarter][0].points, there, atol=1e-3)


@pytest.mark.slow
def test_every_load_is_measured(tmp_path, capsys) -> None:
    file = tmp_path / 'load.json'
    arguments = ['load', '--out', str(tmp_path), '--frames', '60', '--json', str(file),
                 '--plot', str(tmp_path / 'load.png')]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        cli.main(['benchmark', *arguments])
    assert not end.value.code
    print(capsys.readouterr().out)
    loads = json.loads(file.read_text())['loads']
    assert len(loads) == 5
    assert loads['4 x the rate']['played'] > 3 * loads['alone']['played']
    for load in loads.values():
        assert load['answered'] > 5 and load['age_ms']['p50'] > 0.0
    assert (tmp_path / 'load.png').stat().st_size > 10_000
