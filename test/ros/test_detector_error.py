"""The measured error of a detector is that of a detector whose error is known."""

import numpy as np
import pytest

from dposer_core.camera import PinholeCamera
from dposer_core.triangulation import View
from dposer_ros.demo import detector_error

CAMERA = PinholeCamera(fx=1500.0, fy=1500.0, cx=540.0, cy=960.0, width=1080, height=1920)
FRAMES, SIGMA, OUTLIERS = 60, 0.006, 0.05


def ring() -> list[View]:
    """Four cameras four metres around the origin, upright."""
    views = []
    for i in range(4):
        angle = 0.5 * np.pi * i
        forward = np.array([-np.cos(angle), 0.0, -np.sin(angle)])
        down = np.array([0.0, -1.0, 0.0])
        rotation = np.stack([np.cross(down, forward), down, forward])
        views.append(View(str(i), CAMERA, (0.0,) * 4, rotation, np.array([0.0, 0.0, 4.0])))
    return views


def detections(views: list[View], rng) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.uniform((-0.3, -0.8, -0.3), (0.3, 0.8, 0.3), (FRAMES, 133, 3))
    points = []
    for view in views:
        height = detector_error.STATURE * CAMERA.fy / view.to_camera(truth)[..., 2:]
        noise = rng.normal(0.0, SIGMA, (FRAMES, 133, 2)) * height
        points.append(view.project(truth) + noise)
    points, confidence = np.stack(points), np.ones((4, FRAMES, 133))
    wild = np.arange(FRAMES) % round(1 / OUTLIERS) == 7
    points[0, wild] += 0.3 * 600.0
    confidence[1, : FRAMES // 2, 0:5] = 0.1
    return points, confidence


def test_sigma_outliers_and_missing_points_are_those_that_were_put_in() -> None:
    views = ring()
    points, confidence = detections(views, np.random.default_rng(3))
    parts = detector_error.report(views, points, confidence)['parts']
    assert set(parts) == set(detector_error.PARTS)
    for name in ('face', 'left hand', 'knees'):
        assert parts[name]['sigma'] == pytest.approx(SIGMA, rel=0.15), name
        assert abs(parts[name]['correlation']) < 0.2
    # Only the wild camera is compared in its wild frames: for the others there is no truth then.
    compared = (4 - 3 * OUTLIERS) * FRAMES
    assert parts['face']['outliers'] == pytest.approx(OUTLIERS * FRAMES / compared, rel=0.02)
    assert parts['head']['missing'] == pytest.approx(1 / 8)
    assert parts['face']['missing'] == 0.0
