"""Rotation conversions: numpy against torch, round trips, angles 0 and pi."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dposer_core import rotations

ANGLES = (0.0, 1e-12, 1e-7, 1e-3, 1.0, 3.0, np.pi - 1e-6, np.pi)


def rotvecs() -> np.ndarray:
    axes = np.random.default_rng(0).standard_normal((6, 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    return np.array(ANGLES)[:, None, None] * axes  # (8, 6, 3)


def same_rotation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(rotations.rotvec_to_rotmat(a) - rotations.rotvec_to_rotmat(b)).max())


PAIRS = [
    ('rotvec_to_rotmat', 'rotmat_to_rotvec'),
    ('rotvec_to_quat_xyzw', 'quat_xyzw_to_rotvec'),
    ('rotvec_to_rot6d', 'rot6d_to_rotvec'),
]


@pytest.mark.parametrize(('there', 'back'), PAIRS)
@pytest.mark.parametrize('kind', [np.asarray, torch.from_numpy], ids=['numpy', 'torch'])
def test_round_trip_keeps_the_rotation(there, back, kind):
    x = rotvecs()
    found = np.asarray(getattr(rotations, back)(getattr(rotations, there)(kind(x))))
    assert found.shape == x.shape
    assert same_rotation(found, x) < 1e-6  # at pi the axis is the root of a rounding error


@pytest.mark.parametrize(('there', '_back'), PAIRS)
def test_numpy_equals_torch(there, _back):
    x = rotvecs()
    convert = getattr(rotations, there)
    np.testing.assert_allclose(convert(x), convert(torch.from_numpy(x)).numpy(), atol=1e-12)


def test_gradient_at_the_identity_is_finite():
    x = torch.zeros(4, 3, requires_grad=True)
    rotations.rotvec_to_rotmat(x).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize('kind', [np.asarray, torch.from_numpy], ids=['numpy', 'torch'])
def test_six_arbitrary_numbers_give_a_rotation(kind):
    rot6d = np.random.default_rng(1).standard_normal((7, 6))
    found = np.asarray(rotations.rot6d_to_rotmat(kind(rot6d)))
    np.testing.assert_allclose(
        found @ found.transpose(0, 2, 1), np.tile(np.eye(3), (7, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(found), 1.0)


def test_mirror_conjugates_by_the_reflection():
    x = rotvecs()
    reflection = np.diag([-1.0, 1.0, 1.0])
    mirrored = rotations.rotvec_to_rotmat(rotations.mirror_rotvec(x))
    np.testing.assert_allclose(
        mirrored, reflection @ rotations.rotvec_to_rotmat(x) @ reflection, atol=1e-12
    )


def test_product_of_quaternions_is_that_of_scipy():
    a, b = Rotation.random(2, random_state=3)
    product = Rotation.from_quat(rotations.multiply_quat_xyzw(a.as_quat(), b.as_quat()))
    assert ((a * b).inv() * product).magnitude() < 1e-12
