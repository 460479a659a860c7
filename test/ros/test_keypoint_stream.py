"""A 30 fps keypoint stream through the real node, in its own process, over DDS."""

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

import dposer_ros
from dposer_core.recording import read_npz
from dposer_ros.demo.bag import read_recording
from dposer_ros.demo.run import keypoint_source, record_run

pytestmark = [pytest.mark.ros, pytest.mark.slow]
KEYPOINTS = Path(dposer_ros.__file__).parent / 'data' / 'benchmark_keypoints.npz'


def test_every_frame_of_a_30_fps_stream_is_answered(tmp_path) -> None:
    """Held-out motion as 2D keypoints, default parameters. Prints times, gates only answers:
    times are those of the machine and of what else runs on it.
    """
    frames = len(read_npz(KEYPOINTS).frames)
    with Progress(disable=True) as progress:
        run = record_run(keypoint_source(KEYPOINTS, frames), tmp_path / 'run.mcap', [], progress)
    recording = read_recording(run.bag)
    answered = [s for stamp in recording.keypoints for s in recording.states.get(stamp, ())]
    fit = 1e3 * np.array([s.stats['fit'] for s in answered])
    total = [(s.received_ns - s.stamp_ns) * 1e-6 for s in answered]
    tracking = fit[[bool(s.stats['warm_started']) for s in answered]]
    for name, values in (
        ('fit', fit),
        ('fit while tracking', tracking),
        ('keypoints to state at the recorder', total),
    ):
        p50, p95, p99 = np.percentile(values, [50, 95, 99])
        print(f'{name}: p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms')
    print(f'{len(answered)} of {frames} frames answered; memory {run.memory_mib}')
    assert len(recording.keypoints) == frames
    # Ten people are met anew; a cold start may cost one frame.
    assert len(answered) >= frames - 10
