"""The pinhole camera, and the way from a real lens to it. Pixel centres are at integers."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dposer_core.errors import ObservationError

Undistort = Callable[[np.ndarray], np.ndarray]
"""(..., 2) raw -> (..., 2) ideal pixels of the same matrix; NaN where there is no inverse."""

# Distortion models of sensor_msgs/CameraInfo and the numbers of coefficients (OpenCV order).
DISTORTION_MODELS: dict[str, tuple[int, ...]] = {
    'plumb_bob': (4, 5),
    'rational_polynomial': (8, 12, 14),
    'equidistant': (4,),
    'fisheye': (4,),  # older name of equidistant
}
_FISHEYE = ('equidistant', 'fisheye')

# An undistorted point must land on its raw pixel again to this precision; beyond the part of the
# image where the lens model can be inverted, OpenCV returns something that does not.
_ROUND_TRIP_PX = 0.05
_WIDEST = 20.0  # tangent of the angle to the optical axis up to which a lens is looked at


@dataclass(frozen=True)
class PinholeCamera:
    """A camera without distortion; optical frame: x right, y down, z forward."""

    fx: float
    """Focal length, pixels."""
    fy: float
    """Focal length, pixels."""
    cx: float
    """Principal point, pixels."""
    cy: float
    """Principal point, pixels."""
    width: int
    """Image width, pixels; 0 if unknown."""
    height: int
    """Image height, pixels; 0 if unknown."""

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3) camera matrix K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres in the optical frame -> (..., 2) pixels; NaN for points not in front."""
        points = np.asarray(points, dtype=np.float64)
        depth = np.where(points[..., 2] > 1e-9, points[..., 2], np.nan)
        return np.stack(
            [
                self.fx * points[..., 0] / depth + self.cx,
                self.fy * points[..., 1] / depth + self.cy,
            ],
            axis=-1,
        )

    def scaled(self, factor: float) -> 'PinholeCamera':
        """The camera of the same picture resized by `factor`."""
        return PinholeCamera(
            fx=self.fx * factor,
            fy=self.fy * factor,
            cx=(self.cx + 0.5) * factor - 0.5,
            cy=(self.cy + 0.5) * factor - 0.5,
            width=round(self.width * factor),
            height=round(self.height * factor),
        )


def assumed_camera(width: int, height: int, focal: float | None = None) -> PinholeCamera:
    """The camera to assume for a picture of unknown origin.

    Args:
        width: image width, pixels.
        height: image height, pixels.
        focal: focal length in pixels; None assumes the image diagonal (a view of 53 degrees across
            it), as the official DPoser-X code does.
    """
    if width <= 0 or height <= 0:
        raise ObservationError(
            f'image size {width}x{height}: both must be positive; give the size of the video'
        )
    focal = float(np.hypot(width, height)) if focal is None else float(focal)
    if not (np.isfinite(focal) and focal > 0):
        raise ObservationError(f'focal length {focal} px: must be positive and finite')
    return PinholeCamera(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)


def camera_from_info(
    k9: Sequence[float], d: Sequence[float], model: str, width: int, height: int
) -> tuple[PinholeCamera, Undistort]:
    """The camera of a `sensor_msgs/CameraInfo` as plain values.

    Args:
        k9: row-major camera matrix, `CameraInfo.k`; for rectified keypoints the left 3x3 of `p`.
        d: distortion coefficients; empty or all zero: none (pass none for rectified keypoints).
        model: one of `DISTORTION_MODELS`; not looked at when there is no distortion.
        width: image width, pixels; 0 if unknown.
        height: image height, pixels; 0 if unknown.

    Returns:
        The distortion-free camera and the function that brings raw pixels to it.

    Raises:
        ObservationError: camera matrix not calibrated, unknown model, or wrong coefficients.
    """
    k = np.asarray(k9, dtype=np.float64).reshape(-1)
    if k.size != 9:
        raise ObservationError(f'camera matrix k has {k.size} numbers; expected 9, row by row')
    fx, fy, cx, cy = (float(k[i]) for i in (0, 4, 2, 5))
    if not (np.isfinite(k).all() and fx > 0 and fy > 0):
        raise ObservationError(
            f'camera_info is not calibrated: fx={fx:g} fy={fy:g} cx={cx:g} cy={cy:g}; '
            'calibrate the camera, or make its driver publish the camera matrix k'
        )
    camera = PinholeCamera(fx, fy, cx, cy, int(width), int(height))
    return camera, _lens(camera, model, np.asarray(d, dtype=np.float64).reshape(-1))


def project_raw(
    points: np.ndarray, camera: PinholeCamera, model: str, coefficients: Sequence[float]
) -> np.ndarray:
    """(N, 3) metres in the optical frame -> (N, 2) pixels as the lens takes them; NaN if not."""
    coefficients = np.asarray(coefficients, dtype=np.float64).reshape(-1)
    ideal = camera.project(points)
    if not coefficients.any():
        return ideal
    seen = np.isfinite(ideal).all(axis=1)
    rays = np.where(seen[:, None], points / np.where(seen, points[:, 2], 1.0)[:, None], 0.0)
    rays[:, 2] = 1.0
    seen &= np.hypot(rays[:, 0], rays[:, 1]) <= _first_fold(model, coefficients)
    raw = _distort(rays, camera.matrix, model, coefficients)
    return np.where(seen[:, None], raw, np.nan)


def undistort(
    points_px: np.ndarray, camera: PinholeCamera, model: str, coefficients: Sequence[float]
) -> np.ndarray:
    """(..., 2) raw -> (..., 2) ideal pixels of `camera`; NaN where the lens has no inverse."""
    return _lens(camera, model, np.asarray(coefficients, dtype=np.float64).reshape(-1))(points_px)


def _lens(camera: PinholeCamera, model: str, coefficients: np.ndarray) -> Undistort:
    if not np.isfinite(coefficients).all():
        raise ObservationError(
            f'distortion coefficients {coefficients.tolist()}: all must be finite; calibrate again'
        )
    if not coefficients.any():
        return _as_float
    if model not in DISTORTION_MODELS:
        near = difflib.get_close_matches(model, DISTORTION_MODELS, n=1, cutoff=0.0)
        raise ObservationError(
            f"distortion model '{model}' is not supported (nearest: '{near[0]}'); use one of "
            f'{", ".join(DISTORTION_MODELS)}, or feed rectified keypoints'
        )
    if coefficients.size not in DISTORTION_MODELS[model]:
        expected = ' or '.join(str(n) for n in DISTORTION_MODELS[model])
        raise ObservationError(
            f"distortion model '{model}' takes {expected} coefficients, got {coefficients.size}"
        )
    limit = _first_fold(model, coefficients)
    return partial(
        _undistort, matrix=camera.matrix, model=model, coefficients=coefficients, limit=limit
    )


def _first_fold(model: str, coefficients: np.ndarray) -> float:
    """Tangent of the angle to the axis from which on the lens model folds the picture back.

    Beyond it a raw pixel has a second ray, which no lens means but OpenCV sometimes finds: 48 of
    400 random lenses gave such rays, for points outside of the picture and a few in its corners.
    """
    tangent = np.linspace(0.0, _WIDEST, 20_000)
    if model in _FISHEYE:
        angle = np.arctan(tangent)
        raw = angle * (1.0 + sum(k * angle ** (2 * i + 2) for i, k in enumerate(coefficients)))
    else:
        k1, k2, _, _, k3, k4, k5, k6 = np.resize(np.append(coefficients, np.zeros(8)), 8)
        squared = tangent**2
        with np.errstate(divide='ignore', invalid='ignore'):
            raw = tangent * (1.0 + squared * (k1 + squared * (k2 + squared * k3)))
            raw = raw / (1.0 + squared * (k4 + squared * (k5 + squared * k6)))
    folds = np.flatnonzero(~(np.diff(raw) > 0.0))
    return float(tangent[folds[0]]) if folds.size else np.inf


def _as_float(points_px: np.ndarray) -> np.ndarray:
    return np.array(points_px, dtype=np.float64)


def _undistort(
    points_px: np.ndarray, matrix: np.ndarray, model: str, coefficients: np.ndarray, limit: float
) -> np.ndarray:
    import cv2

    points_px = np.asarray(points_px, dtype=np.float64)
    raw = points_px.reshape(-1, 1, 2)
    seen = np.isfinite(raw).all(axis=(1, 2))
    ideal = np.full_like(raw, np.nan)
    if seen.any():
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-10)
        inverse = cv2.fisheye.undistortPoints if model in _FISHEYE else cv2.undistortPoints
        rays = inverse(raw[seen], matrix, coefficients, criteria=criteria)[:, 0]
        rays = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
        with np.errstate(all='ignore'):
            again = _distort(rays, matrix, model, coefficients)
            is_inverse = np.abs(again - raw[seen, 0]).max(axis=1) < _ROUND_TRIP_PX
            is_inverse &= np.hypot(rays[:, 0], rays[:, 1]) <= limit
            ideal[seen, 0] = np.where(is_inverse[:, None], (rays @ matrix.T)[:, :2], np.nan)
    return ideal.reshape(points_px.shape)


def _distort(
    rays: np.ndarray, matrix: np.ndarray, model: str, coefficients: np.ndarray
) -> np.ndarray:
    """(N, 3) rays with z = 1 -> (N, 2) raw pixels."""
    import cv2

    zero = np.zeros(3)
    forward = cv2.fisheye.projectPoints if model in _FISHEYE else cv2.projectPoints
    pixels, _ = forward(rays[:, None], zero, zero, matrix, coefficients)
    return pixels.reshape(-1, 2)
