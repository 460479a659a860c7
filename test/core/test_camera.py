"""Lens models against OpenCV, and what a camera_info can get wrong."""

import cv2
import numpy as np
import pytest

from dposer_core.camera import (
    PinholeCamera,
    assumed_camera,
    camera_from_info,
    project_raw,
    undistort,
)
from dposer_core.errors import ObservationError

K9 = [600.0, 0.0, 322.0, 0.0, 610.0, 238.0, 0.0, 0.0, 1.0]
RAYS = np.c_[np.random.default_rng(0).uniform(-0.55, 0.55, (200, 2)), np.ones(200)]
LENSES = {
    'plumb_bob': [-0.3, 0.12, 0.001, -0.002, 0.01],
    'rational_polynomial': [0.5, 0.2, 0.001, 0.0002, 0.05, 0.8, 0.3, 0.1],
    'equidistant': [-0.02, 0.01, -0.003, 0.001],
    'fisheye': [-0.02, 0.01, -0.003, 0.001],
}


def raw_pixels(rays: np.ndarray, model: str, coefficients: list[float]) -> np.ndarray:
    is_fisheye = model in ('equidistant', 'fisheye')
    project = cv2.fisheye.projectPoints if is_fisheye else cv2.projectPoints
    zero, matrix = np.zeros(3), np.reshape(K9, (3, 3))
    return project(rays[:, None], zero, zero, matrix, np.array(coefficients))[0][:, 0]


@pytest.mark.parametrize('model', LENSES)
def test_undistorting_what_opencv_distorted_gives_the_pinhole_pixels(model):
    camera, to_ideal = camera_from_info(K9, LENSES[model], model, 640, 480)
    raw = raw_pixels(RAYS, model, LENSES[model])
    assert np.abs(raw - camera.project(RAYS)).max() > 3.0  # the lens does something
    # 1e-6 px: the inverse is iterated to convergence
    np.testing.assert_allclose(to_ideal(raw), camera.project(RAYS), atol=1e-6)


@pytest.mark.parametrize('model', LENSES)
def test_points_are_projected_as_the_lens_takes_them(model):
    camera, _ = camera_from_info(K9, LENSES[model], model, 640, 480)
    points = np.concatenate([RAYS * 2.5, [[0.1, 0.2, -1.0]]])
    raw = project_raw(points, camera, model, LENSES[model])
    np.testing.assert_allclose(raw[:-1], raw_pixels(RAYS, model, LENSES[model]), atol=1e-9)
    assert np.isnan(raw[-1]).all()  # behind the camera
    np.testing.assert_array_equal(project_raw(points, camera, '', ()), camera.project(points))


def test_what_a_lens_would_fold_back_is_not_in_its_picture():
    camera, barrel = PinholeCamera(600.0, 600.0, 320.0, 240.0, 640, 480), [-0.3, 0.0, 0.0, 0.0]
    fold = 1.0 / np.sqrt(0.9)  # where t - 0.3 t^3 turns back
    points = np.array([[0.99 * fold, 0.0, 1.0], [1.01 * fold, 0.0, 1.0]])
    raw = project_raw(points, camera, 'plumb_bob', barrel)
    assert np.isfinite(raw[0]).all() and np.isnan(raw[1]).all()


def test_four_coefficient_plumb_bob_is_accepted():
    camera, to_ideal = camera_from_info(K9, LENSES['plumb_bob'][:4], 'plumb_bob', 640, 480)
    raw = raw_pixels(RAYS, 'plumb_bob', LENSES['plumb_bob'][:4])
    np.testing.assert_allclose(to_ideal(raw), camera.project(RAYS), atol=1e-6)


def test_undistort_function_is_the_callable_of_camera_from_info():
    camera, to_ideal = camera_from_info(K9, LENSES['plumb_bob'], 'plumb_bob', 640, 480)
    raw = raw_pixels(RAYS, 'plumb_bob', LENSES['plumb_bob'])
    np.testing.assert_array_equal(
        undistort(raw, camera, 'plumb_bob', LENSES['plumb_bob']), to_ideal(raw)
    )


@pytest.mark.parametrize('model', ['', 'plumb_bob', 'anything'])
@pytest.mark.parametrize('coefficients', [[], [0.0] * 5])
def test_no_distortion_leaves_pixels_as_they_are(model, coefficients):
    _, to_ideal = camera_from_info(K9, coefficients, model, 640, 480)
    np.testing.assert_array_equal(to_ideal([[1.5, 2.5]]), [[1.5, 2.5]])


def test_points_outside_of_the_picture_are_undistorted_too():
    """A detector places a hand that the picture cuts off: up to 40 degrees off the axis."""
    rays = np.c_[np.random.default_rng(2).uniform(-0.6, 0.6, (300, 2)), np.ones(300)]
    for model, coefficients in LENSES.items():
        camera, to_ideal = camera_from_info(K9, coefficients, model, 640, 480)
        raw = raw_pixels(rays, model, coefficients)
        outside = ((raw < 0) | (raw >= (640, 480))).any(axis=1)
        assert outside.sum() > 30
        np.testing.assert_allclose(to_ideal(raw), camera.project(rays), atol=1e-6)


def random_lens(rng: np.random.Generator, model: str) -> np.ndarray:
    if model == 'equidistant':
        return rng.normal(0.0, 0.15, 4)
    radial, tangential = rng.uniform(-0.8, 0.8, 6), rng.normal(0.0, 0.003, 2)
    count = 5 if model == 'plumb_bob' else 8
    return np.r_[radial[:2], tangential, radial[2:] * 0.4][:count]


@pytest.mark.parametrize('model', ['plumb_bob', 'rational_polynomial', 'equidistant'])
def test_a_ray_that_comes_out_is_the_one_nearest_to_the_axis(model: str) -> None:
    """Lenses that fold: OpenCV's own projection, followed from the centre outwards, is the oracle.

    Between the centre and a ray that comes out, raw pixels must move outwards all the way (0.5 %
    of the steps are given to what tangential distortion adds to the radial fold)."""
    rng = np.random.default_rng(5)
    u, v = np.meshgrid(np.arange(-640, 1281, 64.0), np.arange(-480, 961, 64.0))
    raw, refused, folding = np.stack([u.ravel(), v.ravel()], axis=1), 0, 0
    for _ in range(40):
        coefficients = random_lens(rng, model)
        camera, to_ideal = camera_from_info(K9, coefficients, model, 640, 480)
        ideal = to_ideal(raw)
        found = np.isfinite(ideal).all(axis=1)
        refused += (~found).sum()
        rays = (ideal[found] - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
        for ray in rays[:: max(1, len(rays) // 20)]:
            way = np.linspace(0.0, 1.0, 200)[:, None] * ray
            pixels = raw_pixels(np.c_[way, np.ones(200)], model, coefficients)
            outwards = (pixels - [camera.cx, camera.cy]) / [camera.fx, camera.fy] @ ray
            assert (np.diff(outwards) > 0.0).mean() > 0.995
        folding += not found.all()
    assert folding > 10 and refused > 1000


def test_the_corner_that_a_barrel_lens_cannot_reach_is_absent_and_its_neighbour_is_not() -> None:
    """r (1 - 0.4 r^2) is 0.609 at most: the corners of this picture lie at 0.66."""
    _, to_ideal = camera_from_info(K9, [-0.4, 0.0, 0.0, 0.0, 0.0], 'plumb_bob', 640, 480)
    corners = to_ideal([[0.0, 0.0], [639.0, 479.0], [639.0, 0.0]])
    assert np.isnan(corners).all()
    assert np.isfinite(to_ideal([[0.0, 238.0], [322.0, 0.0], [600.0, 400.0]])).all()


def test_point_that_the_lens_cannot_have_made_is_nan():
    _, to_ideal = camera_from_info(K9, LENSES['fisheye'], 'fisheye', 640, 480)
    ideal = to_ideal([[1e5, 0.0], [322.0, 238.0], [np.nan, 1.0]])
    np.testing.assert_array_equal(np.isnan(ideal[:, 0]), [True, False, True])


def test_unknown_distortion_model_is_refused_by_name():
    with pytest.raises(ObservationError, match=r"'thin_prism' is not supported.*plumb_bob"):
        camera_from_info(K9, [0.1] * 4, 'thin_prism', 640, 480)


@pytest.mark.parametrize(('model', 'count'), [('plumb_bob', 3), ('equidistant', 5)])
def test_wrong_number_of_coefficients_is_refused(model, count):
    with pytest.raises(ObservationError, match=f"'{model}' takes .* got {count}"):
        camera_from_info(K9, [0.1] * count, model, 640, 480)


def test_coefficients_that_are_not_finite_are_refused():
    with pytest.raises(ObservationError, match=r'nan.*calibrate'):
        camera_from_info(K9, [np.nan] * 5, 'plumb_bob', 640, 480)


@pytest.mark.parametrize('k', [[0.0] * 9, [np.nan] * 9, [-600.0, *K9[1:]]])
def test_uncalibrated_camera_matrix_is_refused_with_its_values(k):
    with pytest.raises(ObservationError, match=r'not calibrated: fx=(0|nan|-600) .*calibrate'):
        camera_from_info(k, [], '', 640, 480)


def test_camera_matrix_of_wrong_length_is_refused():
    with pytest.raises(ObservationError, match='8 numbers; expected 9'):
        camera_from_info(K9[:8], [], '', 640, 480)


def test_point_behind_the_camera_projects_to_nan():
    pixels = PinholeCamera(600, 600, 320, 240, 640, 480).project([[0, 0, -1.0], [0, 0, 2.0]])
    np.testing.assert_array_equal(pixels, [[np.nan, np.nan], [320, 240]])


def test_scaled_camera_sees_the_resized_picture():
    camera = PinholeCamera(600, 610, 319.5, 239.5, 640, 480)
    half = camera.scaled(0.5)
    # Pixel centres are integers: the middle of the picture stays its middle.
    assert (half.width, half.height, half.cx, half.cy) == (320, 240, 159.5, 119.5)
    assert (half.fx, half.fy) == (300, 305)


def test_assumed_focal_length_is_the_diagonal():
    assert assumed_camera(600, 800).fx == 1000.0


@pytest.mark.parametrize('size', [(0, 480), (640, -1)])
def test_camera_without_a_picture_size_is_refused(size):
    with pytest.raises(ObservationError, match='size'):
        assumed_camera(*size)


def test_focal_length_must_be_positive():
    with pytest.raises(ObservationError, match='focal length -1'):
        assumed_camera(640, 480, -1.0)
