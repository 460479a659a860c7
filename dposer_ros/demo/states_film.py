"""A states file and a video as a recording, so that both are drawn by the same code."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from dposer_core.camera import PinholeCamera, assumed_camera
from dposer_core.errors import MediaError
from dposer_core.render import BACKGROUND
from dposer_core.states_io import States
from dposer_ros.demo.bag import DemoRecording, StateRecord
from dposer_ros.demo.clips import Clip, read_frames, resized

BLANK_SIZE = (960, 540)


def recording_from_states(
    states: States, video: Path | None = None, start: float | None = None
) -> DemoRecording:
    """What `dposer_ros.demo.film` draws.

    Args:
        states: of a fit.
        video: background; None: an empty picture for every state.
        start: stamp of the video's first frame, seconds; None: that of the first state.

    Raises:
        MediaError: the video cannot be read, or none of the states falls on one of its frames.
    """
    stamps = sorted({int(stamp) for stamp in states.stamp_ns})
    if video is None:
        images, size = _blank_images(stamps, states.camera)
    else:
        start_ns = stamps[0] if start is None else round(start * 1e9)
        images, size = _video_images(video, start_ns, stamps)
    camera = states.camera or _camera_in_front(states, size)
    recording = DemoRecording(
        images=images, camera=_fitting(camera, size), has_pictures=video is not None
    )
    for index in range(len(states)):
        record = _state_record(states, index)
        if record.stamp_ns in images:
            recording.states.setdefault(record.stamp_ns, []).append(record)
    if not recording.states:
        raise MediaError(
            f'no state falls on a frame of {video}; give the stamp of its first frame with --start'
            f' (the first state is of {stamps[0] * 1e-9:.3f} s)'
        )
    return recording


def _video_images(
    video: Path, start_ns: int, stamps: list[int]
) -> tuple[dict[int, bytes], tuple[int, int]]:
    """Frames as JPEG under the stamp of the state nearest in time, or under their own."""
    times, frames = [], []
    for seconds, frame in read_frames(Clip(video.stem, video)):
        times.append(start_ns + round(seconds * 1e9))
        frames.append(_jpeg(frame))
        size = (frame.shape[1], frame.shape[0])
    half_period = 0.5 * float(np.median(np.diff(times))) if len(times) > 1 else 1e9
    known = np.array(stamps)
    images = {}
    for time, frame in zip(times, frames, strict=True):
        nearest = int(known[np.abs(known - time).argmin()])
        images[nearest if abs(nearest - time) <= half_period else time] = frame
    return images, size


def _blank_images(
    stamps: list[int], camera: PinholeCamera | None
) -> tuple[dict[int, bytes], tuple[int, int]]:
    size = (camera.width, camera.height) if camera and camera.width else BLANK_SIZE
    blank = _jpeg(np.full((size[1], size[0], 3), BACKGROUND, np.uint8))
    return dict.fromkeys(stamps, blank), size


def _camera_in_front(states: States, size: tuple[int, int]) -> PinholeCamera:
    """For 3D input: its frame is taken to be an optical one."""
    if not (states.joints[..., 2] > 0).any():
        raise MediaError(
            'the states are of 3D keypoints in a frame that is no optical frame (z forward), so'
            ' there is no picture to draw them in'
        )
    return assumed_camera(*size)


def _fitting(camera: PinholeCamera, size: tuple[int, int]) -> PinholeCamera:
    """`camera` for pictures of `size`; a camera of unknown size is taken as made for them."""
    if not camera.width:
        return replace(camera, width=size[0], height=size[1])
    return resized(camera, *size)


def _state_record(states: States, index: int) -> StateRecord:
    return StateRecord(
        stamp_ns=int(states.stamp_ns[index]),
        received_ns=int(states.stamp_ns[index]),
        body_id=str(states.body_id[index]),
        status=int(states.status[index]),
        pose_rotvec=states.pose_rotvec[index],
        transl=states.transl[index],
        betas=states.betas[index],
        expression=states.expression[index],
        joints=states.joints[index],
        source=states.source[index],
        position_sigma=states.position_sigma[index],
        stats={},
    )


def _jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
