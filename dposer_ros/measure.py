"""What `dposer benchmark` measures beside the fit itself: messages, allocations, accuracy."""

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from dposer_core.config import Config
from dposer_core.keypoints import POINT_NAMES, get_layout
from dposer_core.metrics import acceleration
from dposer_core.people import PeopleFitter
from dposer_core.skeleton import BODY_JOINTS
from dposer_core.state import FitResult, Status
from dposer_ros.replay import Clip, Frame, Replay

_NOISE_3D = 0.005  # m, one sigma per axis, of points made from fitted states
_SEED = 0
_SETTLED_FRAMES = 40  # until the window is full, numbers are cached and lists have their length


def of_layout(frames: Iterable[Frame], name: str) -> list[Frame]:
    """`frames` with only those points that detectors of this layout see.

    Raises:
        ObservationError: there is no such layout.
    """
    seen = np.isin(POINT_NAMES, get_layout(name).names)
    return [
        (stamp, [replace(o, confidence=np.where(seen, o.confidence, 0.0)) for o in people])
        for stamp, people in frames
    ]


def in_3d(frames: list[Frame], results: Iterable[FitResult]) -> list[Frame]:
    """Landmarks of fitted states as 3D keypoints, with noise: metres, output frame.

    Args:
        frames: what the states were fitted to; says which points are seen.
        results: one person's.
    """
    rng = np.random.default_rng(_SEED)
    landmarks = {r.state.stamp_ns: r.state.landmarks for r in results if _is_fitted(r)}
    found = []
    for stamp, people in frames:
        if stamp not in landmarks:
            continue
        points = landmarks[stamp] + _NOISE_3D * rng.standard_normal(landmarks[stamp].shape)
        found.append(
            (
                stamp,
                [
                    replace(o, points=points, camera=None, sigma=None, beside=None)
                    for o in people[:1]
                ],
            )
        )
    return found


def accuracy(outcome: Replay, truth: dict[int, np.ndarray] | None = None) -> dict[str, float]:
    """Jitter, and the distance to `truth` (stamp -> (55, 3) joints) where that is known.

    Returns:
        `jitter_m_s2`: mean acceleration of body joints; `mpjpe_mm`: mean distance of body joints.
    """
    tracks: dict[str, list[FitResult]] = {}
    for result in outcome.results:
        if _is_fitted(result):
            tracks.setdefault(result.body_id, []).append(result)
    jitters, errors = [], []
    for track in tracks.values():
        joints = np.array([r.state.joints[: BODY_JOINTS.stop] for r in track])
        stamps = np.array([r.state.stamp_ns for r in track]) * 1e-9
        if len(joints) >= 3:
            period = float(np.median(np.diff(stamps)))
            jitters.append(float(np.median(acceleration(joints, period))))
        if truth is not None:
            known = np.array([truth[r.state.stamp_ns][: BODY_JOINTS.stop] for r in track])
            errors.append(float(np.linalg.norm(joints - known, axis=-1).mean()))
    figures = {'jitter_m_s2': float(np.mean(jitters))} if jitters else {}
    return figures | ({'mpjpe_mm': 1e3 * float(np.mean(errors))} if errors else {})


def message_stages(clip: Clip, frames: list[Frame], config: Config) -> Callable[..., Any] | None:
    """A function that times `adapt` and `message` of a frame; None where messages are not built.

    The function takes the observations of a frame and its results, and returns the seconds from
    keypoint messages to observations and from results to messages.
    """
    try:
        from dposer_ros import conversions
        from dposer_ros.conversions import Cameras, ModelInfo
        from dposer_ros.msg import KeypointFrame, PersonKeypoints
    except ImportError:
        return None
    lens = (clip.camera, np.asarray)
    cameras = Cameras(raw=lens, rectified=lens) if clip.camera is not None else None
    model = ModelInfo('benchmark')

    def as_message(stamp: int, people: list[Any]) -> Any:
        dim = people[0].dim
        message = KeypointFrame(
            header=conversions.header_at(stamp, 'camera'),
            layout='coco_wholebody133',
            dim=KeypointFrame.DIM_2D if dim == 2 else KeypointFrame.DIM_3D,
            unit=KeypointFrame.UNIT_PIXEL if dim == 2 else KeypointFrame.UNIT_METRE,
        )
        message.people = [
            PersonKeypoints(
                track_id=o.track_id,
                points=o.points.astype(np.float32).ravel(),
                confidence=o.confidence.astype(np.float32),
            )
            for o in people
        ]
        return message

    def measure(stamp: int, people: list[Any], results: list[FitResult]) -> tuple[float, float]:
        keypoints = as_message(stamp, people)
        start = time.thread_time()
        conversions.observations_from_msg(keypoints, cameras, config.input)
        adapted = time.thread_time()
        header = conversions.header_at(stamp, 'camera')
        for result in results:
            stats = conversions.stats_msg(result.stats)
            conversions.state_msg(result, header, model, stats)
            conversions.hand_msgs(result, header)
            conversions.joint_state_msg(result.state, header)
        return adapted - start, time.thread_time() - adapted

    return measure


def allocations(fitter: PeopleFitter, frames: list[Frame]) -> dict[str, float] | None:
    """What stays allocated per frame once the fitter has settled; None for too short a clip.

    Python's own and numpy's memory is counted; results are thrown away, as the node does.
    """
    if len(frames) < 2 * _SETTLED_FRAMES:
        return None
    for stamp, people in frames[:_SETTLED_FRAMES]:
        fitter.step(stamp, people)
    tracemalloc.start()
    try:
        # The tracer knows only what is allocated from here on, so one window passes first.
        middle = _SETTLED_FRAMES + (len(frames) - _SETTLED_FRAMES) // 2
        for stamp, people in frames[_SETTLED_FRAMES:middle]:
            fitter.step(stamp, people)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for stamp, people in frames[middle:]:
            fitter.step(stamp, people)
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    count = len(frames) - middle
    return {
        'frames': count,
        'growth_bytes_per_frame': (after - before) / count,
        'peak_kb_within_a_frame': (peak - before) / 1024,
    }


def _is_fitted(result: FitResult) -> bool:
    return result.status not in (Status.PREDICTED, Status.LOST)
