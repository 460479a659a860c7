"""Compiled kinematics: rotations against SciPy, Jacobians against autodiff and differences."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dposer_core import kinematics, skeleton
from dposer_core.body_model import load_body
from dposer_core.kinematics import Kinematics, exp_many, log_many
from dposer_core.window import Pose


@pytest.fixture(scope='module')
def body():
    """The open body, as built by `make setup`."""
    return load_body()


def _random_pose(rng: np.random.Generator, num_coefficients: int) -> Pose:
    return Pose(
        rng.normal(0, 1, 3) + [0, 0, 3],
        exp_many(rng.normal(0, 0.4, (53, 3))),
        rng.normal(0, 1, num_coefficients),
    )


def _local(pose: Pose) -> np.ndarray:
    local = np.tile(np.eye(3), (skeleton.NUM_JOINTS, 1, 1))
    local[0], local[skeleton.PRIOR_JOINTS] = pose.rotations[0], pose.rotations[1:]
    return local


@pytest.mark.parametrize('angle', [0.0, 1e-9, 1e-4, 1.0, 3.0, np.pi - 1e-4, np.pi - 1e-8])
def test_exp_and_log_equal_scipy_up_to_pi(angle: float) -> None:
    """1e-7 rad: near pi the matrix itself holds no more digits."""
    axes = np.random.default_rng(0).normal(size=(50, 3))
    rotvecs = angle * axes / np.linalg.norm(axes, axis=1, keepdims=True)
    matrices = exp_many(rotvecs)
    np.testing.assert_allclose(matrices, Rotation.from_rotvec(rotvecs).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(log_many(matrices), rotvecs, atol=1e-7)


def test_right_jacobian_inverse_is_the_derivative_of_log() -> None:
    """Central differences of Log(R Exp(delta)); 1e-8 is their truncation error."""
    rng, step = np.random.default_rng(1), 1e-5
    for rotvec in rng.normal(0, 0.9, (20, 3)):
        analytic = np.empty((3, 3))
        kinematics.so3_right_jacobian_inverse(rotvec, analytic)
        base = exp_many(rotvec[None])
        for axis in range(3):
            delta = np.zeros((1, 3))
            delta[0, axis] = step
            ahead = log_many(kinematics.perturb(base, delta))
            behind = log_many(kinematics.perturb(base, -delta))
            np.testing.assert_allclose(
                analytic[:, axis], ((ahead - behind) / (2 * step))[0], atol=1e-8
            )


def test_landmark_jacobian_equals_central_differences(body) -> None:
    """Every one of the degrees of freedom; 1e-4 relative is what the issue asks, 1e-7 is met."""
    model, rng = Kinematics(body.tables), np.random.default_rng(2)
    pose = _random_pose(rng, model.num_coefficients)
    analytic = model.jacobian(model.pose(pose.pelvis, _local(pose), pose.coefficients))
    step, scale = 1e-6, np.abs(analytic).max()
    for dof in range(model.num_dof):
        points = []
        for sign in (1, -1):
            delta = np.zeros(model.num_dof)
            delta[dof] = sign * step
            moved = pose.plus(delta)
            points.append(
                model.landmarks(model.pose(moved.pelvis, _local(moved), moved.coefficients))
            )
        numeric = (points[0] - points[1]) / (2 * step)
        np.testing.assert_allclose(analytic[:, :, dof], numeric, atol=1e-7 * scale)


def test_landmark_jacobian_equals_autodiff(body) -> None:
    """Against torch autograd through the body model, in axis-angle: J_tangent = J_rotvec J_r."""
    model, rng = Kinematics(body.tables), np.random.default_rng(3)
    pose = _random_pose(rng, model.num_coefficients)
    analytic = model.jacobian(model.pose(pose.pelvis, _local(pose), pose.coefficients))
    rotvecs = np.zeros((skeleton.NUM_JOINTS, 3))
    rotvecs[[0, *skeleton.PRIOR_JOINTS]] = log_many(pose.rotations)

    def landmarks(rotvec: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
        betas, expression = coefficients[None, :10], coefficients[None, 10:]
        zero = torch.zeros(1, 3, dtype=torch.float64)
        return body.torch_forward(rotvec[None], betas, expression, zero)[1][0]

    by_rotvec, by_coefficient = torch.autograd.functional.jacobian(
        landmarks, (torch.from_numpy(rotvecs), torch.from_numpy(pose.coefficients))
    )
    for index, joint in enumerate([0, *skeleton.PRIOR_JOINTS]):
        inverse = np.empty((3, 3))
        kinematics.so3_right_jacobian_inverse(rotvecs[joint], inverse)
        expected = by_rotvec[:, :, joint].numpy() @ inverse
        start = 3 + 3 * index
        np.testing.assert_allclose(analytic[:, :, start : start + 3], expected, atol=1e-4)
    # The state holds the pelvis, SMPL-X the translation: shape moves the pelvis there.
    pelvis = body.tables.joint_dirs[0]
    expected = by_coefficient.numpy() - pelvis[None]
    np.testing.assert_allclose(
        analytic[:, :, kinematics.COEFFICIENTS_START :], expected, atol=1e-4
    )


def test_normal_equations_equal_dense_algebra(body) -> None:
    """J^T W J and J^T W r in 2D, built densely from the Jacobian, with some points absent."""
    model, rng = Kinematics(body.tables), np.random.default_rng(4)
    pose = _random_pose(rng, model.num_coefficients)
    posed = model.pose(pose.pelvis, _local(pose), pose.coefficients)
    camera = np.array([900.0, 880.0, 480.0, 270.0])
    points = model.landmarks(posed)
    pixels = points[:, :2] / points[:, 2:] * camera[:2] + camera[2:]
    target = pixels + rng.normal(0, 3, pixels.shape)
    precision = np.where(rng.random(133) < 0.7, 0.25, 0.0)
    hessian, gradient = np.zeros((model.num_dof, model.num_dof)), np.zeros(model.num_dof)
    _, inlier, seen, error = model.normal_equations(
        posed, target, precision, 1e9, camera, hessian, gradient
    )
    np.testing.assert_allclose(seen, points, atol=1e-12)
    present = precision > 0
    np.testing.assert_allclose(error[present], np.linalg.norm(pixels - target, axis=1)[present])
    assert inlier[present].min() > 1 - 1e-9 and not inlier[~present].any()
    depth = points[:, 2]
    projection = np.zeros((133, 2, 3))
    projection[:, 0, 0], projection[:, 1, 1] = camera[0] / depth, camera[1] / depth
    projection[:, :, 2] = -(pixels - camera[2:]) / depth[:, None]
    rows = projection @ model.jacobian(posed)
    expected = np.einsum('n,nra,nrb->ab', precision, rows, rows)
    np.testing.assert_allclose(
        hessian, np.tril(expected), rtol=1e-6, atol=1e-6 * np.abs(expected).max()
    )
    expected = np.einsum('n,nra,nr->a', precision, rows, pixels - target)
    np.testing.assert_allclose(gradient, expected, atol=1e-8 * np.abs(expected).max())


def test_whitened_normal_equations_equal_dense_algebra(body) -> None:
    """Points in 3D with a full covariance each: J^T C^-1 J and J^T C^-1 r."""
    model, rng = Kinematics(body.tables), np.random.default_rng(5)
    pose = _random_pose(rng, model.num_coefficients)
    posed = model.pose(pose.pelvis, _local(pose), pose.coefficients)
    residual = rng.normal(0, 0.02, (133, 3))
    factor = np.tril(rng.normal(0, 0.01, (133, 3, 3))) + 0.03 * np.eye(3)
    precision = np.where(rng.random(133) < 0.7, 0.8, 0.0)
    hessian, gradient = np.zeros((model.num_dof, model.num_dof)), np.zeros(model.num_dof)
    _, _, _, error = model.normal_equations(
        posed, model.landmarks(posed) - residual, precision, 1e9, np.zeros(4), hessian, gradient,
        np.linalg.inv(factor),
    )  # fmt: skip
    present = precision > 0
    np.testing.assert_allclose(error[present], np.linalg.norm(residual, axis=1)[present])
    weight = precision[:, None, None] * np.linalg.inv(factor @ factor.transpose(0, 2, 1))
    jacobian = model.jacobian(posed)
    expected = np.einsum('nia,nij,njb->ab', jacobian, weight, jacobian, optimize=True)
    np.testing.assert_allclose(
        hessian, np.tril(expected), rtol=1e-6, atol=1e-6 * np.abs(expected).max()
    )
    expected = np.einsum('nia,nij,nj->a', jacobian, weight, residual)
    np.testing.assert_allclose(gradient, expected, atol=1e-8 * np.abs(expected).max())


def test_point_behind_camera_has_no_say(body) -> None:
    """A body at the camera: points with no depth add nothing and nothing is infinite."""
    model = Kinematics(body.tables)
    pose = Pose(np.zeros(3), np.tile(np.eye(3), (53, 1, 1)), np.zeros(model.num_coefficients))
    posed = model.pose(pose.pelvis, _local(pose), pose.coefficients)
    hessian, gradient = np.zeros((model.num_dof, model.num_dof)), np.zeros(model.num_dof)
    cost, inlier, points, _ = model.normal_equations(
        posed,
        np.zeros((133, 2)),
        np.ones(133),
        4.0,
        np.array([900.0, 900.0, 480.0, 270.0]),
        hessian,
        gradient,
    )
    assert np.isfinite(cost) and np.isfinite(hessian).all() and np.isfinite(gradient).all()
    assert not inlier[points[:, 2] < 0.05].any()
