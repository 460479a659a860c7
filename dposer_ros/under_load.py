"""The node in a process of its own, over DDS, while its machine has other things to do."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from dposer_core.recording import Recording, read_npz
from dposer_core.state import Quality
from dposer_ros.demo.bag import DemoRecording, read_recording
from dposer_ros.demo.clips import find_clip
from dposer_ros.demo.processes import Children
from dposer_ros.demo.run import keypoint_source, record_run

_PERIOD_NS = 50_000_000  # frames further apart are of another clip


@dataclass(frozen=True)
class Load:
    """What the node has to bear."""

    name: str
    faster: int = 1
    """So many times the frames of the recording, of the same motion."""
    with_detector: bool = False
    cores_less: int = 0


LOADS = (
    Load('alone'),
    Load('detector beside it', with_detector=True),
    Load('one core less', cores_less=1),
    Load('4 x the rate', faster=4),
    Load('4 x, detector, one core less', faster=4, with_detector=True, cores_less=1),
)


def measure(load: Load, keypoints: Path, frames: int, folder: Path, progress: Progress) -> dict:
    """Play 2D or 3D keypoints into the node under a load.

    Args:
        load: beside the player and the recorder, which are always there.
        keypoints: file of `dposer_core.recording.read_npz`, one person.
        frames: of the file, that are played.
        folder: for the recording and the logs.
        progress: shows how far it is.

    Returns:
        Counts, ages in ms and shares, ready for JSON; and `age` (N, 2): s since the first frame,
        ms.

    Raises:
        DPoserError: a process ended with an error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'keypoints.npz'
    count = write_faster(read_npz(keypoints), path, load.faster, frames)
    with _fewer_cores(load.cores_less), _detector(folder) if load.with_detector else nullcontext():
        run = record_run(keypoint_source(path, count), folder / 'run.mcap', [], progress)
    return _figures(read_recording(run.bag), count)


def write_faster(recording: Recording, path: Path, faster: int, frames: int) -> int:
    """Write the first person at `faster` times the rate, interpolated; how many frames it has."""
    people = [people[0] for people in recording.frames[:frames]]
    stamps = np.array(recording.stamps_ns[:frames])
    points = np.stack([person.points for person in people])
    confidence = np.stack([person.confidence for person in people])
    first = np.repeat(np.arange(len(people) - 1), faster)
    share = np.tile(np.arange(faster) / faster, len(people) - 1)
    kept = (share == 0.0) | (np.diff(stamps)[first] < _PERIOD_NS)
    first, share = np.append(first[kept], len(people) - 1), np.append(share[kept], 0.0)
    after = np.minimum(first + 1, len(people) - 1)

    def between(values: np.ndarray) -> np.ndarray:
        weight = share.reshape(-1, *[1] * (values.ndim - 1))
        return np.where(
            weight == 0.0, values[first], (1.0 - weight) * values[first] + weight * values[after]
        )

    known = {'size': recording.size}
    if recording.camera is not None:
        camera = recording.camera
        known['camera'] = (camera.fx, camera.fy, camera.cx, camera.cy)
    np.savez(
        path,
        points=between(points),
        confidence=between(confidence),
        layout='coco_wholebody133',
        stamp_ns=between(stamps).astype(np.int64),
        **{name: value for name, value in known.items() if value is not None},
    )
    return len(first)


def _figures(recording: DemoRecording, played: int) -> dict[str, Any]:
    states = [
        people[0]
        for stamp, people in sorted(recording.states.items())
        if people and stamp in recording.keypoints
    ]
    # The first person is met before everything is warm.
    steady = [state for state in states if state.stats['warm_started']]
    times = np.array([state.stamp_ns for state in steady]) * 1e-9
    age = np.array([(state.received_ns - state.stamp_ns) * 1e-6 for state in steady])
    halves = [float(np.median(half)) for half in np.array_split(age, 2)]
    return {
        'played': played,
        'answered': len(states),
        'age_ms': _quantiles(age),
        'age_by_half_ms': halves,
        'fit_ms': _quantiles(1e3 * np.array([state.stats['fit'] for state in steady])),
        'reduced_share': float(np.mean([state.quality != Quality.FULL for state in steady])),
        'age': np.stack([times - times[0], age], axis=1),
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {'p50': float(p50), 'p95': float(p95), 'p99': float(p99), 'max': float(values.max())}


@contextmanager
def _fewer_cores(count: int) -> Iterator[None]:
    """Every process that is started in the block has `count` cores less; one always stays."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[: max(len(cores) - count, 1)])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def _detector(folder: Path) -> Iterator[None]:
    """A detector works, from its first picture on."""
    children = Children(folder / 'detector', domain=0)
    try:
        video = str(find_clip('demo').video)
        children.start('detector', 'dposer_ros.demo.busy_detector', video)
        while not children.tail('detector', 1).startswith('frame'):
            children.check()
            time.sleep(0.1)
        yield
        children.check()
    finally:
        children.close()
