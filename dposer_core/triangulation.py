"""Several calibrated cameras: their calibration file, and points seen by them brought to 3D."""

import itertools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from dposer_core.camera import PinholeCamera, undistort
from dposer_core.errors import MediaError


@dataclass(frozen=True)
class View:
    """One camera of a rig."""

    name: str
    camera: PinholeCamera
    distortion: tuple[float, ...]  # plumb_bob k1, k2, p1, p2
    R_cam_world: np.ndarray  # (3, 3); optical frame: x right, y down, z forward
    t_cam_world: np.ndarray  # (3,) metres

    @property
    def projection(self) -> np.ndarray:
        """(3, 4) world to undistorted pixels, homogeneous."""
        return self.camera.matrix @ np.column_stack([self.R_cam_world, self.t_cam_world])

    def to_camera(self, points_world: np.ndarray) -> np.ndarray:
        """(..., 3) world to optical frame, metres."""
        return points_world @ self.R_cam_world.T + self.t_cam_world

    def to_ideal(self, points_px: np.ndarray) -> np.ndarray:
        """(..., 2) raw pixels to those of the distortion-free camera."""
        return undistort(points_px, self.camera, 'plumb_bob', self.distortion)


def read_calibration(path: Path) -> list[View]:
    """The cameras of a Qualisys .qca.txt or a Pose2Sim Calib.toml file, in the file's order.

    Raises:
        MediaError: neither of these formats.
    """
    try:
        if path.suffix == '.toml':
            return _read_toml(tomllib.loads(path.read_text()))
        return [_qualisys_view(camera) for camera in ElementTree.parse(path).iter('camera')]
    except (
        ElementTree.ParseError,
        tomllib.TOMLDecodeError,
        KeyError,
        ValueError,
        OSError,
    ) as error:
        raise MediaError(
            f'{path} is not a camera calibration ({error!r}); give a Pose2Sim Calib.toml or a'
            ' Qualisys .qca.txt file'
        ) from error


def _read_toml(tables: dict) -> list[View]:
    import cv2

    views = []
    for key, table in tables.items():
        if key == 'metadata':
            continue
        (fx, _, cx), (_, fy, cy), _ = table['matrix']
        width, height = (round(side) for side in table['size'])
        rotation, _ = cv2.Rodrigues(np.array(table['rotation'], dtype=np.float64))
        views.append(
            View(
                table.get('name', key),
                PinholeCamera(fx, fy, cx, cy, width, height),
                tuple(table['distortions']),
                rotation,
                np.array(table['translation'], dtype=np.float64),
            )
        )
    return views


def _qualisys_view(element: ElementTree.Element) -> View:
    """Qualisys counts pixels in 1/64, lengths in mm, and looks along -z with y up."""
    field, transform, lens = (
        {name: float(value) for name, value in element.find(tag).attrib.items()}
        for tag in ('fov_video', 'transform', 'intrinsic')
    )
    camera = PinholeCamera(
        fx=lens['focalLengthU'] / 64,
        fy=lens['focalLengthV'] / 64,
        cx=lens['centerPointU'] / 64 - field['left'],
        cy=lens['centerPointV'] / 64 - field['top'],
        width=round(field['right'] - field['left'] + 1),
        height=round(field['bottom'] - field['top'] + 1),
    )
    # The rows are the camera's axes in the world, x, y, z the position of the camera.
    axes = np.array([[transform[f'r{i}{j}'] for j in (1, 2, 3)] for i in (1, 2, 3)])
    R_cam_world = np.diag([1.0, -1.0, -1.0]) @ axes
    position = np.array([transform[axis] for axis in 'xyz']) / 1000
    # The file's distortion is that of the calibration image; Pose2Sim divides it by 64 as well,
    # which changes the reprojection error of this rig by 0.02 px (9.97 against 9.99 px).
    names = (
        'radialDistortion1',
        'radialDistortion2',
        'tangentalDistortion1',
        'tangentalDistortion2',
    )
    return View(
        element.attrib['serial'],
        camera,
        tuple(lens[name] for name in names),
        R_cam_world,
        -R_cam_world @ position,
    )


def triangulate(
    projections: np.ndarray, points_px: np.ndarray, confidence: np.ndarray
) -> np.ndarray:
    """Confidence-weighted direct linear transform of one point.

    Args:
        projections: (N, 3, 4) of undistorted cameras.
        points_px: (N, 2) undistorted pixels.
        confidence: (N,) weight of each camera.

    Returns:
        (3,) metres, world frame; NaN if the rays do not meet in a finite point.

    Source: Hartley and Zisserman, Multiple View Geometry, 12.2.
    """
    rows = points_px[:, :, None] * projections[:, 2:3] - projections[:, :2]  # (N, 2, 4)
    # Unit rows of the third projection line make the algebraic error one of pixels times depth,
    # the same for all cameras.
    scale = confidence / np.linalg.norm(projections[:, 2, :3], axis=1)
    _, _, basis = np.linalg.svd((rows * scale[:, None, None]).reshape(-1, 4))
    homogeneous = basis[-1]
    if abs(homogeneous[3]) < 1e-9 * np.abs(homogeneous).max():
        return np.full(3, np.nan)
    return homogeneous[:3] / homogeneous[3]


@dataclass(frozen=True)
class Triangulated:
    """Points of one instant seen by several cameras."""

    points: np.ndarray  # (K, 3) metres, world frame; NaN where too few cameras agree
    confidence: np.ndarray  # (K,) mean confidence of the cameras used; 0 where NaN
    error_px: np.ndarray  # (K,) mean reprojection error of the cameras used
    cameras: np.ndarray  # (K,) how many cameras were used


def triangulate_points(
    views: Sequence[View],
    points_px: np.ndarray,
    confidence: np.ndarray,
    min_confidence: float = 0.5,
    max_error_px: float = 15.0,
    min_cameras: int = 2,
) -> Triangulated:
    """Triangulate K points and leave out the cameras that contradict the others.

    All cameras that see a point are tried first, then all subsets with one camera less, and so on;
    the first size with a subset whose mean reprojection error is below the limit wins.

    Args:
        views: N cameras.
        points_px: (N, K, 2) raw pixels.
        confidence: (N, K); below `min_confidence` a camera does not see the point.
        min_confidence: see above.
        max_error_px: the limit.
        min_cameras: smallest subset tried. Two cameras nearly always agree on some point, right or
            wrong: on the Pose2Sim rig, three instead of two bring the scatter of the upper arm's
            length from 120 to 10 mm and leave out 13 % of the limb points.
    """
    projections = np.stack([view.projection for view in views])
    ideal = np.stack(
        [view.to_ideal(points) for view, points in zip(views, points_px, strict=True)]
    )
    seen = (confidence >= min_confidence) & np.isfinite(ideal).all(axis=-1)
    count = points_px.shape[1]
    result = Triangulated(
        np.full((count, 3), np.nan), np.zeros(count), np.full(count, np.nan), np.zeros(count, int)
    )
    for k in range(count):
        cameras = np.flatnonzero(seen[:, k])
        best = _agreeing_subset(
            projections, ideal[:, k], confidence[:, k], cameras, max_error_px, min_cameras
        )
        if best is not None:
            result.points[k], result.error_px[k], used = best
            result.confidence[k] = confidence[used, k].mean()
            result.cameras[k] = len(used)
    return result


def _agreeing_subset(
    projections: np.ndarray,
    points_px: np.ndarray,
    confidence: np.ndarray,
    cameras: np.ndarray,
    max_error_px: float,
    min_cameras: int,
) -> tuple[np.ndarray, float, np.ndarray] | None:
    """(point, mean error in pixels, cameras used) of the largest agreeing subset."""
    for size in range(len(cameras), min_cameras - 1, -1):
        candidates = []
        for subset in itertools.combinations(cameras, size):
            used = np.array(subset)
            point = triangulate(projections[used], points_px[used], confidence[used])
            error = _reprojection_error(projections[used], points_px[used], point)
            candidates.append((error, point, used))
        error, point, used = min(candidates, key=lambda candidate: candidate[0])
        if error < max_error_px:
            return point, error, used
    return None


def _reprojection_error(
    projections: np.ndarray, points_px: np.ndarray, point: np.ndarray
) -> float:
    """Mean distance in pixels; infinite for a point behind a camera or without coordinates."""
    homogeneous = projections @ np.append(point, 1.0)
    if not (homogeneous[:, 2] > 0).all():
        return float('inf')
    return float(
        np.linalg.norm(homogeneous[:, :2] / homogeneous[:, 2:] - points_px, axis=1).mean()
    )
