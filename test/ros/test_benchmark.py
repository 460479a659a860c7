"""`dposer benchmark`: what it reports beside times, and what it refuses."""

import json
import os

import numpy as np
import pytest

from dposer_core.config import from_mapping
from dposer_core.keypoints import POINT_INDEX
from dposer_ros import cli, measure
from dposer_ros.cli import benchmark
from dposer_ros.cli.benchmark import MOTION
from dposer_ros.replay import CameraChoice, load_fitter, read_clip, replay

FAST = from_mapping({'fit.max_iterations': 1, 'fit.cold_iterations': 8})


@pytest.fixture(scope='module')
def frames():
    """A second of the built-in motion, one person."""
    return read_clip(MOTION, CameraChoice(), FAST).frames[:30]


@pytest.fixture(scope='module')
def outcome(frames):
    """Those frames, fitted."""
    make, _ = load_fitter(FAST, with_prior=False)
    return replay(make(), frames)


def test_layout_keeps_the_points_that_its_detectors_see(frames) -> None:
    (_, people), *_ = measure.of_layout(frames, 'coco17')
    assert people[0].confidence[POINT_INDEX['left_knee']] > 0.0
    assert people[0].confidence[23:].max() == 0.0


def test_3d_points_are_the_landmarks_found(frames, outcome) -> None:
    made = measure.in_3d(frames, outcome.results)
    stamp, people = made[-1]
    truth = {r.state.stamp_ns: r.state.landmarks for r in outcome.results}[stamp]
    distance = np.linalg.norm(people[0].points - truth, axis=-1)
    # Noise of 5 mm per axis: 8 mm on average.
    assert people[0].dim == 3 and 0.006 < distance.mean() < 0.010


def test_accuracy_of_the_truth_itself_is_zero(outcome) -> None:
    truth = {r.state.stamp_ns: r.state.joints for r in outcome.results}
    figures = measure.accuracy(outcome, truth)
    assert figures['mpjpe_mm'] == 0.0 and figures['jitter_m_s2'] > 0.0
    shifted = {stamp: joints + [0.01, 0.0, 0.0] for stamp, joints in truth.items()}
    assert measure.accuracy(outcome, shifted)['mpjpe_mm'] == pytest.approx(10.0)


def test_allocations_of_a_leak_are_seen(frames) -> None:
    kept = []

    class Leaking:
        def step(self, stamp, people) -> None:
            kept.append(np.ones(1000))

    grown = measure.allocations(Leaking(), [*frames, *frames, *frames])
    assert 8000 <= grown['growth_bytes_per_frame'] < 9000


def test_report_holds_stages_messages_and_accuracy(tmp_path) -> None:
    report = tmp_path / 'report.json'
    arguments = ['--motion', '--frames', '12', '--dim', '3', '--json', str(report)]
    with pytest.raises(SystemExit) as done:
        cli.main(['benchmark', 'latency', *arguments])
    assert done.value.code == 0
    figures = json.loads(report.read_text())
    assert {'predict', 'linearise', 'solve'} <= figures['stages_ms'].keys()
    assert figures['messages_ms']['adapt']['p50'] > 0.0
    # The points carry 5 mm of noise.
    assert figures['dim'] == 3 and figures['accuracy']['mpjpe_mm'] < 30.0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--device', 'cuda'], 'runs on the CPU'),
        (['--layout', 'coco71'], 'unknown keypoint layout'),
        (['--dim', '3', '--people', '2'], 'exclude each other'),
    ],
)
def test_options_that_cannot_be_met_are_refused(options, message, capsys) -> None:
    with pytest.raises(SystemExit) as refused:
        cli.main(['benchmark', 'latency', '--motion', '--frames', '10', *options])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_scaling_draws_people_window_and_cores(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(benchmark, '_SCALING_PEOPLE', (1, 3))
    monkeypatch.setattr(benchmark, '_SCALING_WINDOWS', (3, 4))
    monkeypatch.setattr(benchmark, '_SCALING_FRAMES', 4)
    plot, report = tmp_path / 'scaling.png', tmp_path / 'scaling.json'
    arguments = ['--motion', '--no-prior', '--plot', str(plot), '--json', str(report)]
    before = os.sched_getaffinity(0)
    with pytest.raises(SystemExit) as done:
        cli.main(['benchmark', 'scaling', *arguments])
    assert done.value.code == 0 and os.sched_getaffinity(0) == before
    curves = json.loads(report.read_text())['ms']
    assert curves.keys() == {'people', 'window', 'cores'}
    # Three cost more than one, however noisy the machine.
    assert curves['people']['3'] > 1.2 * curves['people']['1'] > 0.0
    assert plot.read_bytes().startswith(b'\x89PNG')
