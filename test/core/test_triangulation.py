"""Calibrated rigs: reading their files, and points from several views."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dposer_core.camera import PinholeCamera
from dposer_core.errors import MediaError
from dposer_core.triangulation import (
    View,
    on_ray,
    read_calibration,
    read_placements,
    triangulate_points,
)

QUALISYS = """<calibration><cameras><camera serial="a">
<fov_video left="0" right="1079" top="0" bottom="1919"/>
<transform r11="1" r12="0" r13="0" r21="0" r22="0" r23="1" r31="0" r32="-1" r33="0"
 x="0" y="-3000" z="1000"/>
<intrinsic focalLengthU="64000" focalLengthV="64064" centerPointU="32000" centerPointV="64000"
 radialDistortion1="-0.05" radialDistortion2="0.1"
 tangentalDistortion1="0" tangentalDistortion2="0"/>
</camera></cameras></calibration>"""

TOML = """
[cam_a]
name = "a"
size = [1080, 1920]
matrix = [[1000.0, 0.0, 500.0], [0.0, 1001.0, 1000.0], [0.0, 0.0, 1.0]]
distortions = [-0.05, 0.1, 0.0, 0.0]
rotation = [1.5707963267948966, 0.0, 0.0]
translation = [0.0, 1.0, 3.0]
fisheye = false
[metadata]
error = 0.0
"""


def ring(count: int = 4, distortion: tuple[float, ...] = (0.0,) * 4) -> list[View]:
    """Cameras on a circle of 4 m that look at the origin, y down."""
    views = []
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        rotation = Rotation.from_rotvec([0.0, angle, 0.0]).as_matrix()
        camera = PinholeCamera(1000.0, 1000.0, 500.0, 500.0, 1000, 1000)
        views.append(View(f'{angle:.1f}', camera, distortion, rotation, np.array([0, 0, 4.0])))
    return views


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.8, 0.8, size=(6, 3))


def seen(views: list[View], points: np.ndarray) -> np.ndarray:
    return np.stack([view.camera.project(view.to_camera(points)) for view in views])


def test_triangulation_inverts_projection(points: np.ndarray) -> None:
    views = ring()
    found = triangulate_points(views, seen(views, points), np.ones((4, 6)))
    assert found.points == pytest.approx(points, abs=1e-9)
    assert (found.cameras == 4).all()


def test_a_camera_that_contradicts_the_others_is_left_out(points: np.ndarray) -> None:
    views = ring()
    pixels = seen(views, points)
    pixels[2] += 200.0
    found = triangulate_points(views, pixels, np.ones((4, 6)))
    assert found.points == pytest.approx(points, abs=1e-6)
    assert (found.cameras == 3).all()


def test_a_point_without_enough_cameras_is_absent(points: np.ndarray) -> None:
    views = ring()
    confidence = np.ones((4, 6))
    confidence[1:, 0] = 0.1
    confidence[2:, 1] = 0.1
    pixels = seen(views, points)
    pixels[3, 2] = np.nan
    found = triangulate_points(views, pixels, confidence, min_cameras=3)
    assert np.isnan(found.points).all(axis=1).tolist() == [True, True, *[False] * 4]
    assert found.confidence[:2].tolist() == [0.0, 0.0]


def test_the_more_confident_camera_weighs_more() -> None:
    views = ring(2)
    views[1] = ring(8)[1]
    pixels = seen(views, np.zeros((1, 3)))
    pixels[1, 0, 1] += 10.0  # out of the epipolar plane: the rays no longer meet
    heights = [
        triangulate_points(views, pixels, np.array([[1.0], [weight]]), min_confidence=0.1).points[
            0, 1
        ]
        for weight in (0.1, 0.5, 1.0)
    ]
    assert abs(heights[0]) < abs(heights[1]) < abs(heights[2])


def test_half_of_the_cameras_are_not_believed_against_the_other_half(points: np.ndarray) -> None:
    """Two pairs that agree among themselves, on different places: nobody knows which is right."""
    views = ring()
    pixels = seen(views, points)
    pixels[2:] = seen(views[2:], points + [0.0, 0.5, 0.0])
    found = triangulate_points(views, pixels, np.ones((4, 6)), max_error=0.1)
    assert not found.cameras.any() and np.isnan(found.points).all()


def test_the_covariance_says_how_far_off_the_points_are(points: np.ndarray) -> None:
    """Squared errors in sigmas, three axes: 3 on average, 600 draws (3 +- 0.1)."""
    views, rng = ring(3), np.random.default_rng(1)
    pixels = seen(views, points)
    confidence = np.array([1.0, 0.7, 0.5])[:, None] * np.ones(6)
    sigma_px, squared = np.array([3.0, 5.0, 4.0])[:, None], []
    for _ in range(100):
        noise = rng.normal(size=pixels.shape) * (sigma_px / confidence)[..., None]
        found = triangulate_points(views, pixels + noise, confidence, sigma_px, max_error=9.0)
        # A fit multiplies the precision of a point by its squared confidence.
        information = np.linalg.inv(found.covariance) * found.confidence[:, None, None] ** 2
        error = found.points - points
        squared += np.einsum('ka,kab,kb->k', error, information, error).tolist()
    assert np.mean(squared) == pytest.approx(3.0, abs=0.3)


def test_a_point_of_one_camera_is_uncertain_along_its_ray(points: np.ndarray) -> None:
    view = ring(3)[1]
    pixels = view.project(points)
    depth = view.to_camera(points)[:, 2]
    found, covariance = on_ray(view, pixels, depth, np.full(6, 5.0), 0.3)
    assert found == pytest.approx(points, abs=1e-9)
    for point, matrix in zip(found, covariance, strict=True):
        variances, axes = np.linalg.eigh(matrix)
        ray = point - view.position
        distance = np.linalg.norm(ray)
        assert np.sqrt(variances) == pytest.approx([5e-3 * distance, 5e-3 * distance, 0.3])
        assert abs(axes[:, 2] @ ray) / distance == pytest.approx(1.0)


def test_parallel_rays_say_that_they_meet_nowhere() -> None:
    """Two cameras side by side that see a point straight ahead of both: a kilometre away."""
    camera = PinholeCamera(1000.0, 1000.0, 500.0, 500.0, 1000, 1000)
    views = [View('', camera, (0.0,) * 4, np.eye(3), np.array([x, 0.0, 0.0])) for x in (0.0, 1e-6)]
    found = triangulate_points(views, np.full((2, 1, 2), 500.0), np.ones((2, 1)))
    assert not np.isfinite(found.points).all() or found.covariance[0].max() > 1.0


def test_distortion_is_removed(points: np.ndarray) -> None:
    import cv2

    views = ring(distortion=(-0.05, 0.1, 0.001, -0.001))
    pixels = np.stack(
        [
            cv2.projectPoints(
                v.to_camera(points),
                np.zeros(3),
                np.zeros(3),
                v.camera.matrix,
                np.array(v.distortion),
            )[0][:, 0]
            for v in views
        ]
    )
    found = triangulate_points(views, pixels, np.ones((4, 6)))
    assert found.points == pytest.approx(points, abs=1e-5)


@pytest.mark.parametrize(('name', 'text'), [('a.qca.txt', QUALISYS), ('Calib.toml', TOML)])
def test_both_file_formats_give_the_same_camera(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (view,) = read_calibration(tmp_path / name)
    assert view.camera == PinholeCamera(1000.0, 1001.0, 500.0, 1000.0, 1080, 1920)
    assert view.distortion == (-0.05, 0.1, 0.0, 0.0)
    # The camera stands 3 m in front of the world's xz plane, 1 m up, and looks along y.
    assert view.to_camera(np.array([0.0, 0.0, 1.0])) == pytest.approx([0, 0, 3], abs=1e-9)
    assert view.to_camera(np.array([0.5, 0.0, 2.0])) == pytest.approx([0.5, -1, 3], abs=1e-9)


PLACES = """
a:
  rotation: [1.5707963267948966, 0.0, 0.0]
  translation: [0.0, 1.0, 3.0]
"""


@pytest.mark.parametrize(
    ('name', 'text'), [('a.qca.txt', QUALISYS), ('Calib.toml', TOML), ('rig.yaml', PLACES)]
)
def test_where_a_camera_stands_needs_no_lens(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    ((camera, (rotation, translation)),) = read_placements(tmp_path / name).items()
    assert camera == 'a'
    assert rotation @ [0.5, 0.0, 2.0] + translation == pytest.approx([0.5, -1, 3], abs=1e-9)


@pytest.mark.parametrize(
    'text',
    ['[1, 2]', 'a: 1', 'a: {rotation: [0, 0], translation: [0, 0, 1]}', 'a: {rotation: [0, 0, 0]}',
     'a: {rotation: [.nan, 0, 0], translation: [0, 0, 1]}', 'a: !!python/object:os.system x'],
)  # fmt: skip
def test_a_yaml_file_without_places_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / 'rig.yaml').write_text(text)
    with pytest.raises(MediaError, match=r'rig\.yaml'):
        read_placements(tmp_path / 'rig.yaml')


@pytest.mark.parametrize('name', ['Calib.toml', 'a.qca.txt'])
def test_another_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('hello')
    with pytest.raises(MediaError, match=name):
        read_calibration(tmp_path / name)
