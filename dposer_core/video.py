"""Video files: read any, write H.264 that a browser plays."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core.errors import MediaError


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a video says."""

    width: int
    height: int
    rate: float  # frames per second
    frames: int  # 0 if the file does not say


def video_info(path: Path) -> VideoInfo:
    """Size and rate of the video at `path`; decodes its first frame to be sure.

    Raises:
        MediaError: missing, empty, or not a video.
    """
    for _, frame, stream in decode(path):
        rate = float(stream.average_rate or stream.guessed_rate or 30)
        frames = stream.frames or int(float(stream.duration or 0) * (stream.time_base or 0) * rate)
        return VideoInfo(frame.width, frame.height, rate, frames)
    raise MediaError(f'{path} has no frames; give a video file such as an .mp4')


def decode(path: Path) -> Iterator[tuple[int, Any, Any]]:
    """Frame number, av.VideoFrame and av.VideoStream of every frame."""
    import av

    if not path.is_file():
        raise MediaError(f'{path}: no such video file; check the path')
    if path.stat().st_size == 0:
        raise MediaError(f'{path} is empty (0 bytes); copy or download it again')
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(
                    f'{path} holds no video stream; give a video file such as an .mp4'
                )
            stream = container.streams.video[0]
            stream.thread_type = 'AUTO'
            for index, frame in enumerate(container.decode(stream)):
                yield index, frame, stream
    except av.error.FFmpegError as error:
        raise MediaError(
            f'{path} is not a readable video ({error.strerror}); give a video such as an .mp4'
        ) from error


class VideoWriter:
    """H.264, yuv420p, index at the front. The file appears at its path when it is complete."""

    def __init__(self, path: Path, width: int, height: int, rate: float, crf: int = 23) -> None:
        """Open `path`; `width` and `height` must be even, `rate` is in frames per second."""
        import av

        if path.suffix != '.mp4':
            raise MediaError(f'{path}: videos are written as .mp4; change the ending')
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._partial = path.with_name(f'.{path.stem}.{os.getpid()}.partial.mp4')
        self._container = av.open(str(self._partial), 'w', options={'movflags': 'faststart'})
        rate_fraction = Fraction(rate).limit_denominator(1001)
        self._stream = self._container.add_stream('libx264', rate=rate_fraction)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = 'yuv420p'
        self._stream.options = {'crf': str(crf), 'preset': 'veryfast'}

    def write(self, image: np.ndarray) -> None:
        """Append one (H, W, 3) uint8 BGR image."""
        import av

        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='bgr24')
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)
