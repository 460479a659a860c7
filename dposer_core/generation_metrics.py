"""How good generated poses are: FID, precision and recall, diversity, distance to training poses.

All on raw vectors, no learned features: N generated or real poses (N, D), axis-angle in rad (or
coefficients). Source: PROTOCOLS section 4; the neighbour searches are exact and work in blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

from dposer_core.rotations import rotvec_to_quat_xyzw

NEIGHBOURS = 3  # k of precision, recall, density and coverage
_BLOCK_ENTRIES = 25_000_000  # of a distance matrix in float32: 100 MB
_CANDIDATES = 8  # nearest in axis-angle, from which the search by angle starts


@dataclass(frozen=True)
class Prdc:
    """Two-sample figures from balls around the real, or generated, samples."""

    precision: float
    """Share of generated samples inside the ball of any real one."""
    recall: float
    """Share of real samples inside the ball of any generated one."""
    density: float
    """Mean number of real balls a generated sample is in, over k."""
    coverage: float
    """Share of real samples whose ball holds a generated one."""


def mean_and_covariance(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D,) mean and (D, D) unbiased covariance of (N, D)."""
    x = np.asarray(x, dtype=np.float64)
    return x.mean(axis=0), np.cov(x, rowvar=False)


def frechet_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """Frechet distance of two normal distributions, (D,) means and (D, D) covariances."""
    # tr (A B)^1/2 through a symmetric matrix of the same eigenvalues, which may be singular.
    values, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance_b @ root), 0.0)).sum()
    traces = np.trace(covariance_a) + np.trace(covariance_b) - 2 * shared
    return float(((mean_a - mean_b) ** 2).sum() + traces)


def fid(real: np.ndarray, generated: np.ndarray) -> float:
    """Frechet distance between samples (N, D) and (M, D)."""
    return frechet_distance(*mean_and_covariance(real), *mean_and_covariance(generated))


def prdc(real: np.ndarray, generated: np.ndarray, neighbours: int = NEIGHBOURS) -> Prdc:
    """Precision, recall, density and coverage of `generated` (M, D) against `real` (N, D).

    A ball reaches to the k-th nearest of the same set, the sample itself left out.
    Source: Kynkaanniemi et al. 2019; Naeem et al. 2020.
    """
    real_radius = _kth_distance(real, neighbours)
    generated_radius = _kth_distance(generated, neighbours)
    in_any_real = np.zeros(len(generated), dtype=bool)
    num_balls = np.zeros(len(generated), dtype=np.int64)
    is_recalled, is_covered = (np.zeros(len(real), dtype=bool) for _ in range(2))
    for rows, distance in _distance_blocks(real, generated):
        in_real = distance < real_radius[rows, None]
        in_any_real |= in_real.any(axis=0)
        num_balls += in_real.sum(axis=0)
        is_recalled[rows] = (distance < generated_radius[None]).any(axis=1)
        is_covered[rows] = distance.min(axis=1) < real_radius[rows]
    return Prdc(
        float(in_any_real.mean()),
        float(is_recalled.mean()),
        float(num_balls.mean() / neighbours),
        float(is_covered.mean()),
    )


def average_pairwise_distance(joints: np.ndarray) -> float:
    """APD: mean over pairs of different poses of the mean distance of their joints.

    Args:
        joints: (N, J, 3).

    Returns:
        The unit of `joints` (the paper's tables: centimetres).
    """
    count = len(joints)
    total = 0.0
    for pose in joints.astype(np.float64):
        total += np.linalg.norm(joints - pose, axis=-1).mean(axis=-1).sum()
    return total / (count * (count - 1))


def nearest_rotation_distance(
    poses: np.ndarray, data: np.ndarray, exclude: np.ndarray | None = None
) -> np.ndarray:
    """d_NN: distance of each pose to its nearest pose of the data, summed over the joints.

    Args:
        poses: (N, 3 J) axis-angle.
        data: (M, 3 J) axis-angle.
        exclude: (N,) row of `data` that a pose must not be compared with, itself for instance.

    Returns:
        (N,) rad, sum over the J joints of the angle between the rotations; the nearest by the
        same sum, found exactly.
    """
    a, b = _quaternions(poses), _quaternions(data)
    skipped = np.full(len(a), -1) if exclude is None else np.asarray(exclude, dtype=np.int64)
    # Near in axis-angle is nearly always near in angle: a good first guess lets the exact search
    # give up a pose after a few joints.
    count = min(_CANDIDATES, len(data))
    _, first = cKDTree(data, balanced_tree=False).query(poses, k=count, eps=0.5)
    first = np.asarray(first, dtype=np.int64).reshape(len(a), -1)
    order = np.argsort(-b.var(axis=0).sum(axis=-1))  # telling joints first
    return _nearest_by_angle(
        np.ascontiguousarray(a[:, order]), np.ascontiguousarray(b[:, order]), first, skipped
    )


def rotation_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) sum over the joints of the angle between poses (N, 3 J) and (N, 3 J), rad."""
    dots = np.abs((_quaternions(a) * _quaternions(b)).sum(axis=-1))
    return (2 * np.arccos(np.minimum(dots, 1.0))).sum(axis=-1)


def nearest_distance(
    x: np.ndarray, data: np.ndarray, exclude: np.ndarray | None = None
) -> np.ndarray:
    """(N,) Euclidean distance of each row of (N, D) to its nearest row of `data` (M, D)."""
    nearest = np.full(len(x), np.inf)
    for rows, distance in _distance_blocks(x, data):
        if exclude is not None:
            distance[np.arange(len(distance)), exclude[rows]] = np.inf
        nearest[rows] = distance.min(axis=1)
    return nearest


def _kth_distance(x: np.ndarray, k: int) -> np.ndarray:
    """(N,) distance to the k-th nearest other row."""
    kth = np.empty(len(x))
    for rows, distance in _distance_blocks(x, x):
        kth[rows] = np.partition(distance, k, axis=1)[:, k]
    return kth


def _distance_blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of `a` and their Euclidean distances (rows, M) to all of `b`, block by block."""
    # About the common mean, so that float32 loses nothing in |a|^2 + |b|^2 - 2ab.
    centre = b.mean(axis=0, dtype=np.float64)
    a, b = ((x - centre).astype(np.float32) for x in (a, b))
    b_square = (b**2).sum(axis=1)
    size = max(1, _BLOCK_ENTRIES // len(b))
    for start in range(0, len(a), size):
        rows = slice(start, start + size)
        part = a[rows]
        square = (part**2).sum(axis=1)[:, None] + b_square - 2 * (part @ b.T)
        yield rows, np.sqrt(np.maximum(square, 0.0, out=square), out=square)


def _quaternions(poses: np.ndarray) -> np.ndarray:
    """(N, 3 J) axis-angle -> (N, J, 4) float32 unit quaternions."""
    joints = np.asarray(poses, dtype=np.float64).reshape(len(poses), -1, 3)
    return rotvec_to_quat_xyzw(joints).astype(np.float32)


@njit(cache=True, fastmath=True)
def _nearest_by_angle(a, b, first, skipped):  # pragma: no cover - compiled
    """Nearest row of b (M, J, 4) to each of a (N, J, 4); `first` (N, K): where to begin."""
    joints = a.shape[1]
    nearest = np.empty(len(a))
    for n in range(len(a)):
        best = np.inf
        for guess in range(-first.shape[1], len(b)):
            m = first[n, guess + first.shape[1]] if guess < 0 else guess
            if m == skipped[n]:
                continue
            total = 0.0
            for j in range(joints):
                dot = abs(
                    a[n, j, 0] * b[m, j, 0]
                    + a[n, j, 1] * b[m, j, 1]
                    + a[n, j, 2] * b[m, j, 2]
                    + a[n, j, 3] * b[m, j, 3]
                )
                # 2 acos(d) >= sqrt(8 (1 - d)): a bound without the costly acos.
                total += np.sqrt(8.0 * max(1.0 - dot, 0.0))
                if total >= best:
                    break
            if total < best:
                exact = 0.0
                for j in range(joints):
                    dot = abs(
                        a[n, j, 0] * b[m, j, 0]
                        + a[n, j, 1] * b[m, j, 1]
                        + a[n, j, 2] * b[m, j, 2]
                        + a[n, j, 3] * b[m, j, 3]
                    )
                    exact += 2.0 * np.arccos(min(dot, 1.0))
                best = min(best, exact)
        nearest[n] = best
    return nearest
