"""Metrics of generation on samples whose figures are known."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dposer_core import generation_metrics as metrics


def samples(count: int, dim: int = 6, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, dim))


def test_frechet_distance_of_shifted_normals_is_the_squared_shift():
    identity = np.eye(3)
    found = metrics.frechet_distance(np.zeros(3), identity, np.full(3, 2.0), identity)
    assert found == pytest.approx(12.0)


def test_frechet_distance_of_a_still_dimension_is_finite():
    x = np.hstack([samples(50, 2), np.zeros((50, 1))])
    assert metrics.fid(x, x) == pytest.approx(0.0, abs=1e-9)


def test_samples_of_one_distribution_are_mostly_precise_and_recalled():
    found = metrics.prdc(samples(2000), samples(2000, seed=1))
    assert found.precision > 0.7
    assert found.recall > 0.7
    assert found.density == pytest.approx(1.0, abs=0.1)


def test_far_samples_have_no_precision():
    found = metrics.prdc(samples(200), samples(200, shift=50.0))
    assert (found.precision, found.recall, found.coverage) == (0.0, 0.0, 0.0)


def test_one_repeated_mode_is_precise_but_recalls_little():
    real = samples(500)
    narrow = real[:1] + 1e-3 * samples(500, seed=2)
    found = metrics.prdc(real, narrow)
    assert found.precision > 0.9
    assert found.recall < 0.05


def test_blocks_do_not_change_the_figures(monkeypatch):
    real, generated = samples(120), samples(90, seed=1)
    whole = metrics.prdc(real, generated)
    monkeypatch.setattr(metrics, '_BLOCK_ENTRIES', 700)
    assert metrics.prdc(real, generated) == whole


def test_apd_of_two_poses_is_their_distance():
    joints = np.zeros((2, 4, 3))
    joints[1, :, 0] = 0.25
    assert metrics.average_pairwise_distance(joints) == pytest.approx(0.25)


def test_nearest_rotation_is_that_of_the_full_table():
    poses, data = samples(7, 63), samples(300, 63, seed=1)

    def angles(a: np.ndarray, b: np.ndarray) -> float:
        turn = (
            Rotation.from_rotvec(a.reshape(-1, 3)) * Rotation.from_rotvec(b.reshape(-1, 3)).inv()
        )
        return turn.magnitude().sum()

    expected = [min(angles(pose, row) for row in data) for pose in poses]
    np.testing.assert_allclose(metrics.nearest_rotation_distance(poses, data), expected, rtol=1e-4)


def test_rotation_by_a_full_turn_is_no_distance():
    pose = np.zeros((1, 63))
    turned = pose.copy()
    turned[0, 3] = 2 * np.pi
    assert metrics.nearest_rotation_distance(turned, pose)[0] == pytest.approx(0.0, abs=2e-3)


@pytest.mark.parametrize('nearest', [metrics.nearest_rotation_distance, metrics.nearest_distance])
def test_excluded_row_is_not_the_nearest(nearest):
    data = samples(20, 6)
    # float32: acos near 1 and differences of squares are good to 1e-3.
    assert nearest(data, data).max() < 2e-2
    assert nearest(data, data, np.arange(20)).min() > 0.1
