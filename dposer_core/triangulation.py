"""Several calibrated cameras: their calibration file, and points seen by them brought to 3D."""

import itertools
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from dposer_core.camera import PinholeCamera, undistort
from dposer_core.errors import MediaError
from dposer_core.kinematics import exp_many

_REFINEMENTS = 2  # Gauss-Newton steps after the linear first guess
_RIDGE = 1e-6  # m^-2: parallel rays meet nowhere, and say so by a covariance of a kilometre
_MIN_DEPTH = 0.05  # m


@dataclass(frozen=True)
class View:
    """One camera of a rig."""

    name: str
    camera: PinholeCamera
    distortion: tuple[float, ...]  # plumb_bob k1, k2, p1, p2
    R_cam_world: np.ndarray  # (3, 3); optical frame: x right, y down, z forward
    t_cam_world: np.ndarray  # (3,) metres

    @property
    def position(self) -> np.ndarray:
        """(3,) of the camera in the world, metres."""
        return -self.R_cam_world.T @ self.t_cam_world

    def to_camera(self, points_world: np.ndarray) -> np.ndarray:
        """(..., 3) world to optical frame, metres."""
        return points_world @ self.R_cam_world.T + self.t_cam_world

    def project(self, points_world: np.ndarray) -> np.ndarray:
        """(..., 3) world to (..., 2) ideal pixels; NaN for points not in front."""
        return self.camera.project(self.to_camera(points_world))

    def to_ideal(self, points_px: np.ndarray) -> np.ndarray:
        """(..., 2) raw pixels to those of the distortion-free camera."""
        return undistort(points_px, self.camera, 'plumb_bob', self.distortion)


def read_calibration(path: Path) -> list[View]:
    """The cameras of a Qualisys .qca.txt or a Pose2Sim Calib.toml file, in the file's order.

    Raises:
        MediaError: neither of these formats.
    """
    return _read(path, _table_view)


def read_placements(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Camera name -> R_cam_world (3, 3) and t_cam_world (3,) of such a file, or of a .yaml one.

    Tables need no more than `rotation` (axis-angle) and `translation`, of the world in the
    camera's optical frame as Pose2Sim and OpenCV write them.

    Raises:
        MediaError: none of these formats.
    """
    cameras = _read(path, lambda name, table: (table.get('name', name), *_placement(table)))
    return {
        name: (rotation, translation)
        for name, rotation, translation in (
            (c.name, c.R_cam_world, c.t_cam_world) if isinstance(c, View) else c for c in cameras
        )
    }


def _read(path: Path, read_table: Callable[[str, dict], Any]) -> list:
    import yaml

    readers = {'.toml': tomllib.loads, '.yaml': yaml.safe_load, '.yml': yaml.safe_load}
    try:
        if path.suffix not in readers:
            return [_qualisys_view(camera) for camera in ElementTree.parse(path).iter('camera')]
        tables = readers[path.suffix](path.read_text())
        return [read_table(name, table) for name, table in tables.items() if name != 'metadata']
    except (
        ElementTree.ParseError, tomllib.TOMLDecodeError, yaml.YAMLError, AttributeError, KeyError,
        TypeError, ValueError, OSError,
    ) as error:  # fmt: skip
        raise MediaError(
            f'{path} is not a camera calibration ({error!r}); give a Pose2Sim Calib.toml or a'
            ' Qualisys .qca.txt file'
        ) from error


def _table_view(name: str, table: dict) -> View:
    (fx, _, cx), (_, fy, cy), _ = table['matrix']
    width, height = (round(side) for side in table['size'])
    return View(
        table.get('name', name),
        PinholeCamera(fx, fy, cx, cy, width, height),
        tuple(table['distortions']),
        *_placement(table),
    )


def _placement(table: dict) -> tuple[np.ndarray, np.ndarray]:
    """R_cam_world and t_cam_world of a camera's table."""
    rotation, translation = (
        np.array(table[key], dtype=np.float64) for key in ('rotation', 'translation')
    )
    if rotation.shape != (3,) or translation.shape != (3,):
        raise ValueError(f'rotation {table["rotation"]}, translation {table["translation"]}')
    if not np.isfinite([rotation, translation]).all():
        raise ValueError('a number is not finite')
    return exp_many(rotation[None])[0], translation


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


@dataclass(frozen=True)
class Triangulated:
    """Points of one instant seen by several cameras."""

    points: np.ndarray  # (K, 3) metres, world frame; NaN where too few cameras agree
    confidence: np.ndarray  # (K,) mean confidence of the cameras used; 0 where NaN
    covariance: np.ndarray  # (K, 3, 3) m^2, for points of that confidence; NaN where NaN
    error_px: np.ndarray  # (K,) mean reprojection error of the cameras used
    cameras: np.ndarray  # (K,) how many cameras were used


def triangulate_points(
    views: Sequence[View],
    points_px: np.ndarray,
    confidence: np.ndarray,
    sigma_px: np.ndarray | float = 10.0,
    min_confidence: float = 0.5,
    max_error: float = 1.5,
    min_cameras: int = 2,
) -> Triangulated:
    """Triangulate K points and leave out the cameras that contradict the others.

    All cameras that see a point are tried first, then all subsets with one camera less, and so on
    while they are more than half; the first size with a subset whose mean reprojection error is
    below the limit wins.

    Args:
        views: N cameras.
        points_px: (N, K, 2) raw pixels.
        confidence: (N, K); below `min_confidence` a camera does not see the point.
        sigma_px: (N, K) or what broadcasts to it, 1 sigma of a sure point.
        min_confidence: see above.
        max_error: the limit, in sigmas.
        min_cameras: smallest subset tried. Two cameras nearly always agree on some point, right or
            wrong: on the Pose2Sim rig, three instead of two bring the scatter of the upper arm's
            length from 120 to 10 mm and leave out 13 % of the limb points.
    """
    ideal = np.stack(
        [view.to_ideal(points) for view, points in zip(views, points_px, strict=True)]
    )
    seen = (confidence >= min_confidence) & (confidence > 0.0) & np.isfinite(ideal).all(axis=-1)
    sigma_px = np.broadcast_to(sigma_px, seen.shape)
    count = seen.sum(axis=0)
    found = Triangulated(
        np.full((len(count), 3), np.nan), np.zeros(len(count)),
        np.full((len(count), 3, 3), np.nan), np.full(len(count), np.nan),
        np.zeros(len(count), int),
    )  # fmt: skip
    for size in range(len(views), min_cameras - 1, -1):
        is_open = (found.cameras == 0) & (2 * size > count)
        lowest = np.full(len(count), max_error)
        for subset in itertools.combinations(range(len(views)), size):
            used = list(subset)
            k = np.flatnonzero(is_open & seen[used].all(axis=0))
            if not k.size:
                continue
            rows = np.ix_(used, k)
            points, covariance, error_px = intersect(
                [views[i] for i in used], ideal[rows], confidence[rows] / sigma_px[rows]
            )
            error = (error_px / sigma_px[rows]).mean(axis=0)
            is_better = error < lowest[k]
            k = k[is_better]
            lowest[k] = error[is_better]
            found.points[k] = points[is_better]
            found.confidence[k] = confidence[np.ix_(used, k)].mean(axis=0)
            found.covariance[k] = covariance[is_better] * found.confidence[k, None, None] ** 2
            found.error_px[k] = error_px[:, is_better].mean(axis=0)
            found.cameras[k] = size
    return found


def intersect(
    views: Sequence[View], points_px: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the rays of K points come nearest to each other, in pixels.

    Args:
        views: N cameras.
        points_px: (N, K, 2) ideal pixels.
        weight: (N, K) 1 / sigma of each, px^-1.

    Returns:
        (K, 3) points, (K, 3, 3) covariance and (N, K) reprojection errors in pixels; infinite
        errors for a point behind a camera.

    Source: Hartley and Zisserman, Multiple View Geometry, 12.2 (first guess) and 12.5.
    """
    rotations = np.stack([view.R_cam_world for view in views])
    translations = np.stack([view.t_cam_world for view in views])
    focal = np.array([(view.camera.fx, view.camera.fy) for view in views])
    centre = np.array([(view.camera.cx, view.camera.cy) for view in views])
    rays = (points_px - centre[:, None]) / focal[:, None]  # (N, K, 2)
    scale = weight[..., None] * focal[:, None]  # (N, K, 2) of an angle, in sigmas
    transforms = np.concatenate([rotations, translations[..., None]], axis=2)  # (N, 3, 4)
    rows = scale[..., None] * (rays[..., None] * transforms[:, None, 2:] - transforms[:, None, :2])
    _, basis = np.linalg.eigh(np.einsum('nkia,nkib->kab', rows, rows))
    with np.errstate(all='ignore'):  # a point at infinity, or behind a camera, is judged below
        points = basis[:, :3, 0] / basis[:, 3:, 0]
        points = np.where(np.isfinite(points).all(axis=1, keepdims=True), points, 0.0)
        for _ in range(_REFINEMENTS):
            residual, jacobian, _ = _reprojected(points, rotations, translations, rays, scale)
            information = np.einsum('nkia,nkib->kab', jacobian, jacobian) + _RIDGE * np.eye(3)
            gradient = np.einsum('nkia,nki->ka', jacobian, residual)
            points = points - np.linalg.solve(information, gradient[..., None])[..., 0]
        residual, jacobian, depth = _reprojected(points, rotations, translations, rays, scale)
        information = np.einsum('nkia,nkib->kab', jacobian, jacobian) + _RIDGE * np.eye(3)
        errors = np.linalg.norm(residual / weight[..., None], axis=-1)
    is_in_front = np.isfinite(errors).all(axis=0) & (depth > _MIN_DEPTH).all(axis=0)
    return points, np.linalg.inv(information), np.where(is_in_front, errors, np.inf)


def _reprojected(
    points: np.ndarray,
    rotations: np.ndarray,
    translations: np.ndarray,
    rays: np.ndarray,
    scale: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals (N, K, 2) in sigmas, Jacobians (N, K, 2, 3), depths (N, K)."""
    seen = np.einsum('nij,kj->nki', rotations, points) + translations[:, None]
    depth = np.maximum(seen[..., 2], _MIN_DEPTH)  # keeps what is behind a camera finite
    flat = seen[..., :2] / depth[..., None]
    jacobian = rotations[:, None, :2] - flat[..., None] * rotations[:, None, 2:]
    jacobian = scale[..., None] * jacobian / depth[..., None, None]
    return scale * (flat - rays), jacobian, seen[..., 2]


def on_ray(
    view: View, points_px: np.ndarray, depth: np.ndarray, sigma_px: np.ndarray, along: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points of one camera at a guessed depth, with a covariance that is long along their rays.

    Args:
        view: the camera.
        points_px: (K, 2) ideal pixels.
        depth: (K,) along the optical axis, metres.
        sigma_px: (K,) across.
        along: 1 sigma of the distance, metres.

    Returns:
        (K, 3) world frame, metres, and (K, 3, 3).
    """
    camera = view.camera
    rays = (points_px - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    seen = np.column_stack([rays, np.ones(len(rays))]) * depth[:, None]
    distance = np.linalg.norm(seen, axis=1)
    direction = (seen / distance[:, None]) @ view.R_cam_world  # rows: R^T v
    across = np.square(sigma_px * distance / camera.fy)[:, None, None]
    outer = direction[:, :, None] * direction[:, None, :]
    covariance = across * np.eye(3) + np.maximum(along**2 - across, 0.0) * outer
    return (seen - view.t_cam_world) @ view.R_cam_world, covariance
