"""Rotations of a body in one compiled pass, against scipy."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dposer_core import skeleton
from dposer_core.turns import Frames, Turns, pelvis_angular_velocity


def _pose(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 1.0, (skeleton.NUM_JOINTS, 3))


def _world(pose: np.ndarray) -> list[Rotation]:
    world: list[Rotation] = []
    for joint, parent in enumerate(skeleton.PARENTS):
        own = Rotation.from_rotvec(pose[joint])
        world.append(own if parent < 0 else world[parent] * own)
    return world


@pytest.mark.parametrize('seed', range(3))
def test_quaternions_and_angles_are_those_of_scipy(seed: int) -> None:
    pose = _pose(seed)
    turns = Turns.of(pose)
    own = Rotation.from_rotvec(pose)
    np.testing.assert_allclose(turns.quats_xyzw, own.as_quat(), atol=1e-12)
    assert (own.inv() * Rotation.from_euler('XYZ', turns.euler_xyz)).magnitude().max() < 1e-7
    for quat, rotation in zip(turns.world_quats_xyzw, _world(pose), strict=True):
        assert (rotation.inv() * Rotation.from_quat(quat)).magnitude() < 1e-12


def test_no_rotation_and_a_tiny_one() -> None:
    pose = np.zeros((skeleton.NUM_JOINTS, 3))
    pose[3] = (1e-10, 0.0, -2e-10)
    turns = Turns.of(pose)
    np.testing.assert_array_equal(turns.quats_xyzw[0], (0.0, 0.0, 0.0, 1.0))
    np.testing.assert_allclose(turns.quats_xyzw[3], (0.5e-10, 0.0, -1e-10, 1.0), atol=1e-20)
    np.testing.assert_allclose(turns.euler_xyz[3], pose[3], atol=1e-15)


def test_frames_are_placed_as_their_definition_says() -> None:
    rng, pose = np.random.default_rng(5), _pose(5)
    joints, rest = rng.normal(size=(2, skeleton.NUM_JOINTS, 3))
    fixed = Rotation.random(3, random_state=6)
    frames = Frames(
        np.array([0, 16, 18]), np.array([[1, 2], [16, 16], [18, 20]]), fixed.as_quat(),
        np.array([-1, 0, 1]),
    )  # fmt: skip
    found = frames.relative(Turns.of(pose), joints, rest)
    world = _world(pose)
    rotations = [world[j] * turn for j, turn in zip((0, 16, 18), fixed, strict=True)]
    positions = [
        joints[[1, 2]].mean(axis=0), joints[16],
        joints[18] + world[18].apply(rest[[18, 20]].mean(axis=0) - rest[18]),
    ]  # fmt: skip
    for row, parent in enumerate(frames.parent):
        position, rotation = positions[row], rotations[row]
        if parent >= 0:
            back = rotations[parent].inv()
            position, rotation = back.apply(position - positions[parent]), back * rotation
        np.testing.assert_allclose(found[row, :3], position, atol=1e-12)
        assert (rotation.inv() * Rotation.from_quat(found[row, 3:])).magnitude() < 1e-7


def test_the_spin_of_a_rigid_pelvis_is_found() -> None:
    rng = np.random.default_rng(7)
    joints = rng.normal(size=(skeleton.NUM_JOINTS, 3))
    omega, speed = np.array([0.3, -2.0, 1.1]), np.array([0.5, 0.1, -0.7])
    velocities = speed + np.cross(omega, joints - joints[0])
    np.testing.assert_allclose(pelvis_angular_velocity(joints, velocities), omega)


def test_the_spin_of_joints_on_a_line_is_not_a_number() -> None:
    joints = np.zeros((skeleton.NUM_JOINTS, 3))
    assert np.isnan(pelvis_angular_velocity(joints, joints)).all()
