"""Error measures of joints."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dposer_core.metrics import (
    LIMB_HIPS,
    LIMB_JOINTS,
    LIMB_POINTS,
    acceleration,
    acceleration_error,
    mpjpe,
    pa_mpjpe,
    rigid_align,
)


@pytest.fixture
def joints() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 12, 3))


def test_mpjpe_is_the_mean_distance(joints: np.ndarray) -> None:
    assert mpjpe(joints + np.array([0.0, 0.03, 0.04]), joints) == pytest.approx(np.full(4, 0.05))


def test_mpjpe_with_a_root_ignores_a_shift(joints: np.ndarray) -> None:
    moved = joints + np.array([1.0, 2.0, 3.0])
    assert mpjpe(moved, joints, root=0) == pytest.approx(np.zeros(4), abs=1e-12)
    assert mpjpe(moved, joints, root=LIMB_HIPS) == pytest.approx(np.zeros(4), abs=1e-12)


def test_unknown_true_joints_do_not_count(joints: np.ndarray) -> None:
    truth = joints.copy()
    truth[:, 5:] = np.nan
    assert mpjpe(joints + np.array([0.1, 0.0, 0.0]), truth) == pytest.approx(np.full(4, 0.1))
    assert pa_mpjpe(joints * 2.0, truth) == pytest.approx(np.zeros(4), abs=1e-12)


def test_a_frame_without_true_joints_has_no_error(joints: np.ndarray) -> None:
    truth = joints.copy()
    truth[1] = np.nan
    assert np.isnan(mpjpe(joints, truth)).tolist() == [False, True, False, False]
    assert np.isnan(pa_mpjpe(joints, truth)).tolist() == [False, True, False, False]


def test_pa_mpjpe_ignores_similarity_transforms(joints: np.ndarray) -> None:
    rotation = Rotation.from_rotvec([0.5, -1.0, 2.0]).as_matrix()
    moved = 1.7 * joints @ rotation.T + [1.0, -2.0, 0.5]
    assert pa_mpjpe(moved, joints) == pytest.approx(np.zeros(4), abs=1e-12)


def test_rigid_align_never_mirrors(joints: np.ndarray) -> None:
    mirrored = joints[0] * [-1.0, 1.0, 1.0]
    assert pa_mpjpe(mirrored, joints[0]) > 0.1
    aligned = rigid_align(mirrored, joints[0])
    handedness = [np.linalg.det(x[1:4] - x[0]) for x in (mirrored, aligned)]
    assert handedness[0] * handedness[1] > 0


def test_rigid_align_is_the_least_squares_optimum(joints: np.ndarray) -> None:
    source, target = joints[0], joints[1]
    aligned = rigid_align(source, target)
    best = ((aligned - target) ** 2).sum()
    for vector in np.eye(3) * 1e-3:
        turned = Rotation.from_rotvec(vector).apply(aligned - target.mean(0)) + target.mean(0)
        assert ((turned - target) ** 2).sum() >= best
    assert ((1.001 * (aligned - target.mean(0)) + target.mean(0) - target) ** 2).sum() >= best


def test_acceleration_of_free_fall() -> None:
    time = np.arange(10) / 30
    fall = np.zeros((10, 2, 3))
    fall[..., 1] = 0.5 * 9.81 * time[:, None] ** 2
    assert acceleration(fall, 1 / 30) == pytest.approx(np.full((8, 2), 9.81))
    assert acceleration_error(fall, np.zeros_like(fall), 1 / 30) == pytest.approx(9.81)


def test_limb_joints_and_points_name_the_same_places() -> None:
    from dposer_core.keypoints import POINT_NAMES
    from dposer_core.skeleton import JOINT_NAMES

    assert [JOINT_NAMES[j] for j in LIMB_JOINTS] == [POINT_NAMES[p] for p in LIMB_POINTS]
    assert [JOINT_NAMES[LIMB_JOINTS[i]] for i in LIMB_HIPS] == ['left_hip', 'right_hip']
