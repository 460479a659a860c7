"""Recorded keypoints as values: what every file reader returns and `dposer fit` replays."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dposer_core.camera import PinholeCamera, Undistort
from dposer_core.errors import ObservationError
from dposer_core.keypoints import clean, layout_for_count, to_hub
from dposer_core.observation import Observation


@dataclass(frozen=True)
class Person:
    """One detected person in the hub layout."""

    points: np.ndarray
    """(133, 2) raw pixels or (133, 3) metres."""
    confidence: np.ndarray
    """(133,) in [0, 1]; 0: absent."""
    track_id: str = ''
    """Identity given by the detector; empty if it has none."""


@dataclass(frozen=True)
class Recording:
    """The people of every frame of one file."""

    source: str
    """What the file turned out to be, for people to read."""
    frames: tuple[tuple[Person, ...], ...]
    """People frame by frame; a frame may be empty."""
    stamps_ns: tuple[int, ...] | None = None
    """Acquisition time of every frame; None: the file has none."""
    size: tuple[int, int] | None = None
    """Width and height of the pictures in pixels; None: the file does not say."""
    camera: PinholeCamera | None = None
    """Of 2D keypoints without distortion; None: the file does not say."""

    @property
    def dim(self) -> int:
        """2 (pixels) or 3 (metres); 2 if nobody is in it."""
        return next((p.points.shape[1] for people in self.frames for p in people), 2)

    def observations(
        self, camera: PinholeCamera | None, undistort: Undistort | None, fps: float
    ) -> Iterator[tuple[int, list[Observation]]]:
        """Time stamp and observations of each frame.

        Args:
            camera: for 2D keypoints; not used for 3D ones.
            undistort: brings raw pixels to `camera`; None: the keypoints have no distortion.
            fps: frame rate to assume where the file has no time stamps.
        """
        for index, people in enumerate(self.frames):
            # A stamp of 0 means "no time" in ROS, so the clock starts one frame later.
            stamp = self.stamps_ns[index] if self.stamps_ns else round((index + 1) * 1e9 / fps)
            yield stamp, [_observation(stamp, person, camera, undistort) for person in people]


def _observation(
    stamp_ns: int, person: Person, camera: PinholeCamera | None, undistort: Undistort | None
) -> Observation:
    points, confidence = person.points, person.confidence
    if points.shape[1] == 3:
        camera = None
    elif undistort is not None:
        points, confidence = clean(undistort(points), confidence)
    return Observation(stamp_ns, points, confidence, camera, track_id=person.track_id)


def read_npz(path: Path, layout: str | None = None) -> Recording:
    """Keypoints saved with numpy.

    The file holds `points` (N, K, 2|3) or (N, P, K, 2|3), pixels or metres, NaN for absent; and
    where known `confidence` of the same shape without the last axis, `layout` (a name), `stamp_ns`
    (N,), `size` (width, height) and `camera` (fx, fy, cx, cy), pixels.

    Args:
        path: the .npz file.
        layout: overrules the one in the file; both absent: told from K.

    Raises:
        ObservationError: not such a file; says what it holds.
    """
    arrays = _load(path)
    if 'points' not in arrays:
        raise ObservationError(
            f"{path}: no array 'points'; it holds {', '.join(arrays) or 'nothing'}. "
            'Expected points (N, K, 2|3) and, where known, confidence, layout, stamp_ns, size, '
            'camera'
        )
    points = _as_people(arrays['points'], 4, f'{path}: points')
    if points.shape[3] not in (2, 3):
        raise ObservationError(
            f'{path}: points have shape {points.shape}; the last axis must be 2 or 3'
        )
    confidence = np.full(points.shape[:3], np.nan)
    if 'confidence' in arrays:
        confidence = _as_people(arrays['confidence'], 3, f'{path}: confidence')
    if confidence.shape != points.shape[:3]:
        raise ObservationError(
            f'{path}: confidence has shape {confidence.shape}, expected {points.shape[:3]}'
        )
    layout = layout or (str(arrays['layout']) if 'layout' in arrays else None)
    layout = layout or layout_for_count(points.shape[2])
    frames = tuple(
        tuple(
            Person(*to_hub(p, c, layout))
            for p, c in zip(people, confidences, strict=True)
            if np.isfinite(p).any()  # a slot that is not used in this frame
        )
        for people, confidences in zip(points, confidence, strict=True)
    )
    stamps, size = _stamps(path, arrays, len(frames)), _size(path, arrays)
    return Recording(f'npz, {layout}', frames, stamps, size, _camera(path, arrays, size))


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open('rb') as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise ObservationError(f'{path} does not exist') from error
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ObservationError(f'{path} is not a readable .npz file: {error}') from error


def _as_people(values: np.ndarray, ndim: int, what: str) -> np.ndarray:
    """(N, K, ...) -> (N, 1, K, ...); an array that has people already stays."""
    if values.dtype.kind not in 'fiu' or values.ndim not in (ndim - 1, ndim):
        raise ObservationError(
            f'{what} is {values.dtype} of shape {values.shape}; '
            f'expected numbers with {ndim - 1} or {ndim} axes'
        )
    return (values[:, None] if values.ndim == ndim - 1 else values).astype(np.float64)


def _stamps(path: Path, arrays: dict[str, np.ndarray], num_frames: int) -> tuple[int, ...] | None:
    if 'stamp_ns' not in arrays:
        return None
    stamps = arrays['stamp_ns']
    if stamps.dtype.kind not in 'iu' or stamps.shape != (num_frames,):
        raise ObservationError(
            f'{path}: stamp_ns is {stamps.dtype} of shape {stamps.shape}; '
            f'expected integers of shape ({num_frames},)'
        )
    return tuple(int(stamp) for stamp in stamps)


def _size(path: Path, arrays: dict[str, np.ndarray]) -> tuple[int, int] | None:
    if 'size' not in arrays:
        return None
    size = arrays['size']
    if size.shape != (2,) or size.dtype.kind not in 'fiu' or not (size > 0).all():
        raise ObservationError(
            f'{path}: size is {size.tolist()}; expected width and height in pixels'
        )
    return int(size[0]), int(size[1])


def _camera(
    path: Path, arrays: dict[str, np.ndarray], size: tuple[int, int] | None
) -> PinholeCamera | None:
    if 'camera' not in arrays:
        return None
    values = arrays['camera']
    if values.shape != (4,) or values.dtype.kind not in 'fiu' or not (values[:2] > 0).all():
        raise ObservationError(
            f'{path}: camera is {values.tolist()}; expected fx, fy, cx, cy in pixels'
        )
    fx, fy, cx, cy = (float(value) for value in values)
    return PinholeCamera(fx, fy, cx, cy, *(size or (0, 0)))
