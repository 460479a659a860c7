"""Errors of estimated joints, as papers report them. Metres in, metres out."""

import numpy as np

from dposer_core import skeleton


def mpjpe(
    predicted: np.ndarray, truth: np.ndarray, root: int | tuple[int, ...] | None = None
) -> np.ndarray:
    """Mean per-joint position error of each frame; joints that are NaN in `truth` do not count.

    Args:
        predicted: (..., J, 3) metres.
        truth: (..., J, 3) metres.
        root: joint, or joints whose middle (such as both hips), moved onto its true place before;
            None compares absolute positions.

    Returns:
        (...) metres; NaN where no joint counts.
    """
    if root is not None:
        joints = list(np.atleast_1d(root))
        predicted = predicted - predicted[..., joints, :].mean(axis=-2, keepdims=True)
        truth = truth - truth[..., joints, :].mean(axis=-2, keepdims=True)
    return _mean_known(np.linalg.norm(predicted - truth, axis=-1))


def pa_mpjpe(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`mpjpe` after the best rotation, translation and scale of each frame.

    Args:
        predicted: (..., J, 3) metres.
        truth: (..., J, 3) metres; NaN joints do not count.

    Returns:
        (...) metres; NaN for frames with fewer than three joints.
    """
    shape = truth.shape[:-2]
    errors = np.full(int(np.prod(shape)), np.nan)
    joints = truth.shape[-2]
    pairs = zip(predicted.reshape(-1, joints, 3), truth.reshape(-1, joints, 3), strict=True)
    for index, (a, b) in enumerate(pairs):
        known = np.isfinite(a).all(axis=-1) & np.isfinite(b).all(axis=-1)
        if known.sum() >= 3:
            errors[index] = mpjpe(rigid_align(a[known], b[known]), b[known])
    return errors.reshape(shape)


def rigid_align(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`source` (N, 3) moved, turned and scaled onto `target` (N, 3) in the least-squares sense.

    Source: Umeyama, TPAMI 1991 (PROTOCOLS 4.1).
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_mean
    u, singular, vt = np.linalg.svd(centred.T @ (target - target_mean) / len(source))
    rotation = vt.T @ u.T
    if np.linalg.det(rotation) < 0:  # a mirror image fits better: take the nearest rotation
        singular[-1] *= -1
        vt[-1] *= -1
        rotation = vt.T @ u.T
    scale = singular.sum() / (centred**2).sum(axis=1).mean()
    return scale * centred @ rotation.T + target_mean


def acceleration(positions: np.ndarray, period: float = 1.0) -> np.ndarray:
    """Size of the second difference over time, the usual measure of jitter.

    Args:
        positions: (T, J, 3) metres, evenly spaced in time.
        period: seconds between frames; 1.0 gives metres per frame squared.

    Returns:
        (T - 2, J) m/s^2.
    """
    return np.linalg.norm(np.diff(positions, n=2, axis=0), axis=-1) / period**2


def accelerations(positions: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Second derivative over uneven time: of the parabola through three samples.

    Args:
        positions: (T, ..., 3) metres.
        seconds: (T,) increasing.

    Returns:
        (T - 2, ..., 3) m/s^2, at the middle samples.
    """
    steps = np.diff(seconds).reshape(-1, *[1] * (positions.ndim - 1))
    velocities = np.diff(positions, axis=0) / steps
    return 2.0 * np.diff(velocities, axis=0) / (steps[1:] + steps[:-1])


def acceleration_error(predicted: np.ndarray, truth: np.ndarray, period: float = 1.0) -> float:
    """Mean size of the difference of the two accelerations (T, J, 3), m/s^2."""
    difference = np.diff(predicted - truth, n=2, axis=0)
    return float(np.nanmean(np.linalg.norm(difference, axis=-1)) / period**2)


# The 12 limb joints: SMPL-X joint and COCO point, in the same order.
_LIMBS = [
    f'{s}_{j}'
    for j in ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
    for s in ('left', 'right')
]
LIMB_JOINTS = [skeleton.JOINT_INDEX[name] for name in _LIMBS]
LIMB_POINTS = list(range(5, 17))
LIMB_HIPS = (6, 7)
"""Where both hips are among the 12; their middle stands for a pelvis."""


def _mean_known(distances: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN where all are."""
    known = np.isfinite(distances)
    total = np.where(known, distances, 0.0).sum(axis=-1)
    with np.errstate(invalid='ignore'):
        return total / known.sum(axis=-1)
