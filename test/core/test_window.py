"""The window solver against dense algebra."""

import dataclasses

import numpy as np
import pytest

from dposer_core.elimination import SolveError
from dposer_core.kinematics import BETAS
from dposer_core.window import Pose, Smoothness, Window

NUM_DOF = BETAS.stop + 2


def _pose(rng: np.random.Generator) -> Pose:
    identity = Pose(np.zeros(3), np.tile(np.eye(3), (53, 1, 1)), np.zeros(NUM_DOF - BETAS.start))
    return identity.plus(rng.normal(0, 0.1, NUM_DOF))


def _smoothness() -> Smoothness:
    return Smoothness(
        acceleration=np.full(NUM_DOF, 30.0),
        velocity=np.full(NUM_DOF, 8.0),
        walk=np.full(NUM_DOF, np.inf),
    )


def _fill(frame, rng: np.random.Generator, loose=()) -> None:
    """Random terms, which tie `loose` joints (L, 3) to nothing."""
    rows = rng.normal(size=(NUM_DOF, NUM_DOF))
    frame.hessian[:] = rows.T @ rows / NUM_DOF
    for joint in loose:
        own = frame.hessian[np.ix_(joint, joint)] + np.eye(3)
        frame.hessian[joint, :] = frame.hessian[:, joint] = 0.0
        frame.hessian[np.ix_(joint, joint)] = own
    frame.gradient[:] = rng.normal(size=NUM_DOF)


def _dense_solution(frames, smoothness, stamps) -> np.ndarray:
    """All frames that ever were, solved at once with the same links, in the tangent space."""
    count = len(frames)
    hessian = np.zeros((count * NUM_DOF, count * NUM_DOF))
    gradient = np.zeros(count * NUM_DOF)
    for k, frame in enumerate(frames):
        block = slice(k * NUM_DOF, (k + 1) * NUM_DOF)
        hessian[block, block] += frame.hessian
        gradient[block] += frame.gradient
    identity = np.eye(NUM_DOF)
    for k in range(1, count):
        dt = (stamps[k] - stamps[k - 1]) * 1e-9
        row = np.zeros((NUM_DOF, count * NUM_DOF))
        row[:, k * NUM_DOF : (k + 1) * NUM_DOF] = identity / (8.0 * dt)
        row[:, (k - 1) * NUM_DOF : k * NUM_DOF] = -identity / (8.0 * dt)
        step = frames[k].at.minus(frames[k - 1].at)
        hessian += row.T @ row
        gradient += row.T @ (step / (8.0 * dt))
        if k >= 2:
            dt0 = (stamps[k - 1] - stamps[k - 2]) * 1e-9
            scale = 1.0 / (30.0 * 0.5 * (dt + dt0))
            row = np.zeros((NUM_DOF, count * NUM_DOF))
            row[:, k * NUM_DOF : (k + 1) * NUM_DOF] = identity * scale / dt
            row[:, (k - 1) * NUM_DOF : k * NUM_DOF] = -identity * scale * (1 / dt + 1 / dt0)
            row[:, (k - 2) * NUM_DOF : (k - 1) * NUM_DOF] = identity * scale / dt0
            before = frames[k - 1].at.minus(frames[k - 2].at)
            hessian += row.T @ row
            gradient += row.T @ (scale * (step / dt - before / dt0))
    return -np.linalg.solve(hessian, gradient).reshape(count, NUM_DOF), np.linalg.inv(hessian)


@pytest.mark.parametrize('total', [2, 3, 6, 8])
def test_window_equals_dense_solution_also_after_frames_have_left(total: int) -> None:
    """With fixed linearisation points marginalising loses nothing: same step and covariance."""
    rng = np.random.default_rng(0)
    window = Window(3, _smoothness(), np.float64)
    everything, stamps, stamp = [], [], 0
    for _ in range(total):
        stamp += int(1e9 * rng.uniform(0.02, 0.06))  # irregular on purpose
        stamps.append(stamp)
        frame = window.append(stamp, _pose(rng), None)
        _fill(frame, rng)
        # The window uses the matrices of frames that left again.
        everything.append(dataclasses.replace(frame, hessian=frame.hessian.copy()))
        window.solve(max(0, len(window.frames) - 3))
    window.smooth()
    expected, covariance = _dense_solution(everything, _smoothness(), stamps)
    for frame, delta in zip(window.frames, expected[-len(window.frames) :], strict=True):
        np.testing.assert_allclose(frame.delta, delta, atol=1e-8)
    np.testing.assert_allclose(window.covariance(), covariance[-NUM_DOF:, -NUM_DOF:], atol=1e-9)


def test_loose_joints_change_nothing_nor_does_tying_them() -> None:
    """Some joints are loose; one is tied in the third frame, the others in the seventh."""
    rng = np.random.default_rng(3)
    joints = np.arange(12, 12 + 12).reshape(4, 3)
    window = Window(4, _smoothness(), np.float64)
    everything, stamps = [], []
    for k in range(9):
        stamps.append(int(40e6 * (k + 1)))
        loose = joints if k < 2 else joints[[0, 2, 3]] if k < 6 else joints[:0]
        frame = window.append(stamps[-1], _pose(rng), None, loose)
        _fill(frame, rng, loose)
        everything.append(dataclasses.replace(frame, hessian=frame.hessian.copy()))
        window.solve(max(0, len(window.frames) - 3))
        window.smooth()
        expected, covariance = _dense_solution(everything, _smoothness(), stamps)
        for frame, delta in zip(window.frames, expected[-len(window.frames) :], strict=True):
            np.testing.assert_allclose(frame.delta, delta, atol=1e-8)
        np.testing.assert_allclose(
            window.covariance(), covariance[-NUM_DOF:, -NUM_DOF:], atol=1e-9
        )


def test_plus_and_minus_are_inverse() -> None:
    """(a (+) d) (-) a = d, for steps well below pi."""
    rng = np.random.default_rng(1)
    pose, delta = _pose(rng), rng.normal(0, 0.5, NUM_DOF)
    np.testing.assert_allclose(pose.plus(delta).minus(pose), delta, atol=1e-12)


def test_singular_equations_raise() -> None:
    """No term at all on a frame is an error, not a NaN."""
    window = Window(3, _smoothness(), np.float64)
    window.append(0, _pose(np.random.default_rng(2)), None)
    with pytest.raises(SolveError, match='positive definite'):
        window.solve(0)
