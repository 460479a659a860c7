"""Hot-path kinematics: the 55 joints, the 133 landmarks and their exact Jacobians, compiled.

The state of one frame lives in a tangent space of `Kinematics.num_dof` numbers, in this order:

    pelvis position 3 | root rotation 3 | 52 joint rotations x 3 (PRIOR_JOINTS order) |
    betas 10 | expression E

Positions and coefficients add; a rotation is perturbed on the right, R <- R Exp(delta). The eyes
are not estimated. Everything is float64; a frame costs tens of microseconds.

Source: linear blend skinning (SMPL, Loper et al. 2015) collapsed to the few points needed, and the
geometric Jacobian of a kinematic tree; right Jacobian of SO(3): Sola et al. 2018, eq. 143-144.
"""

import itertools
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from dposer_core import skeleton
from dposer_core.observation import NUM_POINTS

if TYPE_CHECKING:
    from dposer_core.body_model import BodyTables

PELVIS = slice(0, 3)
ROOT = slice(3, 6)
ROTATIONS = slice(3, 6 + 3 * len(skeleton.PRIOR_JOINTS))  # root and the 52 joints
PRIOR_ROTATIONS = slice(6, ROTATIONS.stop)
BETAS = slice(ROTATIONS.stop, ROTATIONS.stop + skeleton.NUM_BETAS)
COEFFICIENTS_START = ROTATIONS.stop

_SMALL = 1e-8
_NO_WHITENING = np.empty((0, 0, 0))
_GROUPS = np.array([0, 23, 91, 112, NUM_POINTS])  # body and feet, face, left hand, right hand


@njit(cache=True)
def so3_exp(rotvec: np.ndarray, out: np.ndarray) -> None:
    """Rotation matrix (3, 3) of one axis-angle vector (3,), into `out`."""
    x, y, z = rotvec[0], rotvec[1], rotvec[2]
    angle2 = x * x + y * y + z * z
    angle = np.sqrt(angle2)
    if angle < 1e-6:
        a, b = 1.0 - angle2 / 6.0, 0.5 - angle2 / 24.0
    else:
        a, b = np.sin(angle) / angle, (1.0 - np.cos(angle)) / angle2
    out[0, 0] = 1.0 - b * (y * y + z * z)
    out[0, 1] = b * x * y - a * z
    out[0, 2] = b * x * z + a * y
    out[1, 0] = b * x * y + a * z
    out[1, 1] = 1.0 - b * (x * x + z * z)
    out[1, 2] = b * y * z - a * x
    out[2, 0] = b * x * z - a * y
    out[2, 1] = b * y * z + a * x
    out[2, 2] = 1.0 - b * (x * x + y * y)


@njit(cache=True)
def so3_log(rotation: np.ndarray, out: np.ndarray) -> None:
    """Axis-angle vector (3,), angle in [0, pi], of one rotation matrix (3, 3), into `out`."""
    # Through the quaternion (Shepperd 1978): the one form that keeps its digits up to pi.
    m00, m11, m22 = rotation[0, 0], rotation[1, 1], rotation[2, 2]
    trace = m00 + m11 + m22
    if trace > 0.0:
        w = 1.0 + trace
        x = rotation[2, 1] - rotation[1, 2]
        y = rotation[0, 2] - rotation[2, 0]
        z = rotation[1, 0] - rotation[0, 1]
    elif m00 >= m11 and m00 >= m22:
        w = rotation[2, 1] - rotation[1, 2]
        x = 1.0 + m00 - m11 - m22
        y = rotation[0, 1] + rotation[1, 0]
        z = rotation[0, 2] + rotation[2, 0]
    elif m11 >= m22:
        w = rotation[0, 2] - rotation[2, 0]
        x = rotation[0, 1] + rotation[1, 0]
        y = 1.0 + m11 - m00 - m22
        z = rotation[1, 2] + rotation[2, 1]
    else:
        w = rotation[1, 0] - rotation[0, 1]
        x = rotation[0, 2] + rotation[2, 0]
        y = rotation[1, 2] + rotation[2, 1]
        z = 1.0 + m22 - m00 - m11
    sine = np.sqrt(x * x + y * y + z * z)
    if w < 0.0:
        w, x, y, z = -w, -x, -y, -z
    scale = (
        2.0 / max(w, _SMALL) if sine < 1e-9 * max(w, _SMALL) else 2.0 * np.arctan2(sine, w) / sine
    )
    out[0] = scale * x
    out[1] = scale * y
    out[2] = scale * z


@njit(cache=True)
def so3_right_jacobian_inverse(rotvec: np.ndarray, out: np.ndarray) -> None:
    """J_r^-1 (3, 3): d Log(R Exp(delta)) / d delta at delta = 0, for R = Exp(rotvec)."""
    x, y, z = rotvec[0], rotvec[1], rotvec[2]
    angle2 = x * x + y * y + z * z
    angle = np.sqrt(angle2)
    if angle < 1e-4:
        c = 1.0 / 12.0
    else:
        c = 1.0 / angle2 - (1.0 + np.cos(angle)) / (2.0 * angle * np.sin(angle) + 1e-300)
    out[0, 0] = 1.0 - c * (y * y + z * z)
    out[0, 1] = c * x * y - 0.5 * z
    out[0, 2] = c * x * z + 0.5 * y
    out[1, 0] = c * x * y + 0.5 * z
    out[1, 1] = 1.0 - c * (x * x + z * z)
    out[1, 2] = c * y * z - 0.5 * x
    out[2, 0] = c * x * z - 0.5 * y
    out[2, 1] = c * y * z + 0.5 * x
    out[2, 2] = 1.0 - c * (x * x + y * y)


@njit(cache=True)
def exp_many(rotvecs: np.ndarray) -> np.ndarray:
    """Rotation matrices (N, 3, 3) of axis-angle vectors (N, 3)."""
    out = np.empty((rotvecs.shape[0], 3, 3))
    for i in range(rotvecs.shape[0]):
        so3_exp(rotvecs[i], out[i])
    return out


@njit(cache=True)
def log_many(rotations: np.ndarray) -> np.ndarray:
    """Axis-angle vectors (N, 3) of rotation matrices (N, 3, 3)."""
    out = np.empty((rotations.shape[0], 3))
    for i in range(rotations.shape[0]):
        so3_log(rotations[i], out[i])
    return out


@njit(cache=True)
def relative_log(base: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Log(base^T other) per rotation; both (N, 3, 3); returns (N, 3)."""
    out = np.empty((base.shape[0], 3))
    relative = np.empty((3, 3))
    for n in range(base.shape[0]):
        for i in range(3):
            for j in range(3):
                relative[i, j] = (
                    base[n, 0, i] * other[n, 0, j]
                    + base[n, 1, i] * other[n, 1, j]
                    + base[n, 2, i] * other[n, 2, j]
                )
        so3_log(relative, out[n])
    return out


@njit(cache=True)
def perturb(rotations: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """R Exp(delta) per rotation; (N, 3, 3) and (N, 3)."""
    out = np.empty_like(rotations)
    step = np.empty((3, 3))
    for n in range(rotations.shape[0]):
        so3_exp(deltas[n], step)
        for i in range(3):
            for j in range(3):
                out[n, i, j] = (
                    rotations[n, i, 0] * step[0, j]
                    + rotations[n, i, 1] * step[1, j]
                    + rotations[n, i, 2] * step[2, j]
                )
    return out


@njit(cache=True)
def _forward(local, pelvis, rest, rest_dirs, parents, world, position, position_dirs):
    num_joints, num_coefficients = rest.shape[0], rest_dirs.shape[2]
    for j in range(num_joints):
        p = parents[j]
        if p < 0:
            world[j] = local[j]
            position[j] = pelvis
            position_dirs[j] = 0.0
            continue
        for i in range(3):
            for k in range(3):
                world[j, i, k] = (
                    world[p, i, 0] * local[j, 0, k]
                    + world[p, i, 1] * local[j, 1, k]
                    + world[p, i, 2] * local[j, 2, k]
                )
            position[j, i] = position[p, i]
            for k in range(3):
                position[j, i] += world[p, i, k] * (rest[j, k] - rest[p, k])
        for i in range(3):
            for c in range(num_coefficients):
                value = position_dirs[p, i, c]
                for k in range(3):
                    value += world[p, i, k] * (rest_dirs[j, k, c] - rest_dirs[p, k, c])
                position_dirs[j, i, c] = value


@njit(cache=True)
def _place_point(n, world, position, bones, weights, offsets, slots, point):
    """Landmark n and the slots that it is the weighted mean of."""
    point[:] = 0.0
    for k in range(bones.shape[1]):
        b = bones[n, k]
        for i in range(3):
            slots[k, i] = (
                position[b, i]
                + world[b, i, 0] * offsets[n, k, 0]
                + world[b, i, 1] * offsets[n, k, 1]
                + world[b, i, 2] * offsets[n, k, 2]
            )
            point[i] += weights[n, k] * slots[k, i]


@njit(cache=True, fastmath={'reassoc', 'contract'})
def _point_rows(
    n, world, position, position_dirs, bones, weights, offset_dirs, chain, chain_column,
    chain_length, below, slots, rows, num_columns, num_coefficients,
):  # fmt: skip
    """Jacobian rows (3, num_columns) of landmark n over the columns of its group.

    The coefficients are the last `num_coefficients` columns.
    """
    rows[:, :num_columns] = 0.0
    for i in range(3):
        rows[i, i] = 1.0
    for a in range(chain_length[n]):
        joint, m = chain[n, a], chain_column[n, a]
        lx = ly = lz = 0.0  # lever arm: what hangs below this joint, seen from it
        for k in range(bones.shape[1]):
            if below[n, a, k]:
                lx += weights[n, k] * (slots[k, 0] - position[joint, 0])
                ly += weights[n, k] * (slots[k, 1] - position[joint, 1])
                lz += weights[n, k] * (slots[k, 2] - position[joint, 2])
        for c in range(3):
            ax, ay, az = world[joint, 0, c], world[joint, 1, c], world[joint, 2, c]
            rows[0, m + c] = ay * lz - az * ly
            rows[1, m + c] = az * lx - ax * lz
            rows[2, m + c] = ax * ly - ay * lx
    start = num_columns - num_coefficients
    for k in range(bones.shape[1]):
        w = weights[n, k]
        if w == 0.0:
            continue
        b = bones[n, k]
        for r in range(3):
            w0, w1, w2 = w * world[b, r, 0], w * world[b, r, 1], w * world[b, r, 2]
            for c in range(num_coefficients):
                rows[r, start + c] += (
                    w * position_dirs[b, r, c]
                    + w0 * offset_dirs[n, k, 0, c]
                    + w1 * offset_dirs[n, k, 1, c]
                    + w2 * offset_dirs[n, k, 2, c]
                )


@njit(cache=True)
def _whiten(
    dim, point, target, precision, whitening, n, robust_scale, camera, rows, num_columns, out,
    residual,
):  # fmt: skip
    """Weighted Jacobian rows and residual of point n into `out` and `residual`.

    Returns:
        IRLS weight, error, robust cost; weight -1 for a point behind the camera, which has no say.
    """
    if dim == 2:
        depth = point[2]
        if depth < 0.05:
            return -1.0, 0.0, 0.0
        inverse = 1.0 / depth
        x, y = point[0] * inverse, point[1] * inverse
        residual[0] = camera[0] * x + camera[2] - target[0]
        residual[1] = camera[1] * y + camera[3] - target[1]
        fx, fy = camera[0] * inverse, camera[1] * inverse
        for c in range(num_columns):
            out[0, c] = fx * (rows[0, c] - x * rows[2, c])
            out[1, c] = fy * (rows[1, c] - y * rows[2, c])
    else:
        for i in range(3):
            residual[i] = point[i] - target[i]
            for c in range(num_columns):
                out[i, c] = rows[i, c]
    squared = 0.0
    for i in range(dim):
        squared += residual[i] * residual[i]
    distance = np.sqrt(squared)
    if whitening.shape[0] > 0:
        squared = 0.0
        for i in range(dim - 1, -1, -1):  # lower triangular: in place from the last row up
            residual[i] *= whitening[n, i, i]
            for c in range(num_columns):
                out[i, c] *= whitening[n, i, i]
            for j in range(i):
                residual[i] += whitening[n, i, j] * residual[j]
                for c in range(num_columns):
                    out[i, c] += whitening[n, i, j] * out[j, c]
            squared += residual[i] * residual[i]
    whitened = squared * precision
    shrink = 1.0 / (1.0 + whitened / (robust_scale * robust_scale))
    scale = np.sqrt(precision) * shrink  # root of the IRLS weight of Geman-McClure
    for i in range(dim):
        residual[i] *= scale
        for c in range(num_columns):
            out[i, c] *= scale
    return shrink * shrink, distance, 0.5 * whitened * shrink


@njit(cache=True)
def _accumulate(
    target, precision, whitening, robust_scale, camera, world, position, position_dirs, bones,
    weights, offsets, offset_dirs, chain, chain_column, chain_length, below, groups,
    group_columns, group_coefficients, columns, jacobian, product, hessian, gradient, inlier,
    points, error,
):  # fmt: skip
    """Add J^T W J and J^T W r of all present points; returns the robust cost.

    The points of the body, the face and each hand depend on few columns, nearly the same within
    such a group: one small dense product per group.
    """
    dim = target.shape[1]
    rows = np.empty((3, hessian.shape[0]))
    slots = np.empty((bones.shape[1], 3))
    residual = np.empty(dim * target.shape[0])
    cost = 0.0
    for g in range(len(groups) - 1):
        m = group_columns[g]
        tall = jacobian[: (groups[g + 1] - groups[g]) * dim * m].reshape(-1, m)
        count = 0
        for n in range(groups[g], groups[g + 1]):
            _place_point(n, world, position, bones, weights, offsets, slots, points[n])
            inlier[n] = error[n] = 0.0
            if precision[n] <= 0.0:
                continue
            _point_rows(
                n, world, position, position_dirs, bones, weights, offset_dirs, chain,
                chain_column, chain_length, below, slots, rows, m, group_coefficients[g],
            )  # fmt: skip
            weight, distance, loss = _whiten(
                dim, points[n], target[n], precision[n], whitening, n, robust_scale, camera, rows,
                m, tall[count : count + dim], residual[count : count + dim],
            )  # fmt: skip
            if weight < 0.0:
                continue
            inlier[n], error[n] = weight, distance
            cost += loss
            count += dim
        if count == 0:
            continue
        square = product[: m * m].reshape(m, m)
        np.dot(tall[:count].T, tall[:count], square)
        for a in range(m):
            row = columns[g, a]
            for r in range(count):
                gradient[row] += tall[r, a] * residual[r]
            for b in range(a + 1):
                hessian[row, columns[g, b]] += square[a, b]
    return cost


@njit(cache=True)
def prior_terms(rotvecs, mean, inverse_std, target, weight, sign, hessian, gradient, start):
    """Add the DPoser term 0.5 w ||x - sg(x0_hat)||^2 of the joint rotations; returns its cost.

    x = sign * rotvec normalised (left hand mirrored by `sign`); the target is a constant, so
    dx/ddelta = diag(sign / std) J_r^-1 and nothing else (paper, eq. 10).
    """
    inverse = np.empty((3, 3))
    cost = 0.0
    for n in range(rotvecs.shape[0]):
        so3_right_jacobian_inverse(rotvecs[n], inverse)
        dof = start + 3 * n
        for i in range(3):
            d = 3 * n + i
            residual = (sign[d] * rotvecs[n, i] - mean[d]) * inverse_std[d] - target[d]
            cost += 0.5 * weight[d] * residual * residual
            scale = weight[d] * sign[d] * inverse_std[d]
            for a in range(3):
                gradient[dof + a] += scale * inverse[i, a] * residual
                for b in range(a + 1):
                    hessian[dof + a, dof + b] += (
                        weight[d] * inverse_std[d] ** 2 * inverse[i, a] * inverse[i, b]
                    )
    return cost


@njit(cache=True)
def _joint_covariance(
    covariance, world, position, position_dirs, parents, joint_dof, coefficient_dof, out
):
    """Positional covariance (55, 3, 3) of every joint under `covariance` of the state."""
    num_joints, num_coefficients = position.shape[0], position_dirs.shape[2]
    rows = np.empty((covariance.shape[0], 3))
    pushed = np.empty((covariance.shape[0], 3))
    columns = np.empty(covariance.shape[0], dtype=np.int64)
    for joint in range(num_joints):
        for i in range(3):
            columns[i] = i
            for r in range(3):
                rows[i, r] = 1.0 if r == i else 0.0
        m = 3
        a = parents[joint]
        while a >= 0:
            if joint_dof[a] >= 0:
                lx = position[joint, 0] - position[a, 0]
                ly = position[joint, 1] - position[a, 1]
                lz = position[joint, 2] - position[a, 2]
                for c in range(3):
                    ax, ay, az = world[a, 0, c], world[a, 1, c], world[a, 2, c]
                    rows[m, 0] = ay * lz - az * ly
                    rows[m, 1] = az * lx - ax * lz
                    rows[m, 2] = ax * ly - ay * lx
                    columns[m] = joint_dof[a] + c
                    m += 1
            a = parents[a]
        for c in range(num_coefficients):
            for r in range(3):
                rows[m, r] = position_dirs[joint, r, c]
            columns[m] = coefficient_dof + c
            m += 1
        for p in range(m):
            x = y = z = 0.0
            for q in range(m):
                entry = covariance[columns[p], columns[q]]
                x += entry * rows[q, 0]
                y += entry * rows[q, 1]
                z += entry * rows[q, 2]
            pushed[p, 0], pushed[p, 1], pushed[p, 2] = x, y, z
        for r in range(3):
            for s in range(r + 1):
                total = 0.0
                for p in range(m):
                    total += rows[p, r] * pushed[p, s]
                out[joint, r, s] = out[joint, s, r] = total


class Posed:
    """Buffers of one posed body: joints, landmarks and what their Jacobians need."""

    def __init__(self, num_coefficients: int) -> None:
        self.rotations = np.empty((skeleton.NUM_JOINTS, 3, 3))  # world rotation of each joint
        self.joints = np.empty((skeleton.NUM_JOINTS, 3))
        self.joint_dirs = np.empty((skeleton.NUM_JOINTS, 3, num_coefficients))
        self.offsets = np.empty((0, 0, 3))  # landmark slots relative to their bone
        self.rest_pelvis = np.empty(3)  # rest position of joint 0, for SMPL-X `transl`


class Kinematics:
    """Joints, landmarks and normal equations of one body model.

    Args:
        tables: what the body model says about joints and landmarks.
    """

    def __init__(self, tables: 'BodyTables') -> None:
        self.tables = tables
        self.num_coefficients = tables.num_betas + tables.num_expression
        self.coefficient_dof = COEFFICIENTS_START
        self.num_dof = COEFFICIENTS_START + self.num_coefficients
        self.joint_dof = np.full(skeleton.NUM_JOINTS, -1, dtype=np.int64)
        self.joint_dof[0] = ROOT.start
        for index, joint in enumerate(skeleton.PRIOR_JOINTS):
            self.joint_dof[joint] = PRIOR_ROTATIONS.start + 3 * index
        self._bones = np.ascontiguousarray(tables.point_bones, dtype=np.int64)
        self._weights = np.ascontiguousarray(tables.point_weights)
        self._offset_template = tables.point_template - tables.joint_template[self._bones]
        self._offset_dirs = np.ascontiguousarray(
            tables.point_dirs - tables.joint_dirs[self._bones]
        )
        self._offset_template[self._weights == 0.0] = 0.0
        self._offset_dirs[self._weights == 0.0] = 0.0
        self._rest_dirs = np.ascontiguousarray(tables.joint_dirs)
        self._joint_template = tables.joint_template
        # Flat, a product with the coefficients is one call of BLAS instead of hundreds.
        self._flat_rest_dirs = self._rest_dirs.reshape(-1, self.num_coefficients)
        self._flat_offset_dirs = self._offset_dirs.reshape(-1, self.num_coefficients)
        self._index_chains()

    def _index_chains(self) -> None:
        """Per landmark: the joints above it, which slots hang below each, its coefficients."""
        is_used = self._weights != 0.0
        moves_offset = (np.abs(self._offset_dirs) > 1e-12).any(axis=2)  # (133, slots, C)
        moves_rest = (np.abs(self._rest_dirs) > 1e-12).any(axis=1)  # (55, C)
        chains, used_coefficients = [], []
        for n in range(NUM_POINTS):
            above = skeleton.IS_ABOVE[:, self._bones[n, is_used[n]]].any(axis=1)
            chain = np.flatnonzero(above & (self.joint_dof >= 0))
            chains.append(chain[np.argsort(self.joint_dof[chain])])
            moved = moves_offset[n, is_used[n]].any(axis=0) | moves_rest[above].any(axis=0)
            used_coefficients.append(int(np.flatnonzero(moved).max(initial=-1)) + 1)
        self._chain_length = np.array([len(c) for c in chains], dtype=np.int64)
        self._chain = np.zeros((NUM_POINTS, self._chain_length.max()), dtype=np.int64)
        self._below = np.zeros((*self._chain.shape, self._bones.shape[1]), dtype=np.bool_)
        for n, chain in enumerate(chains):
            self._chain[n, : len(chain)] = chain
            self._below[n, : len(chain)] = skeleton.IS_ABOVE[chain][:, self._bones[n]] & is_used[n]
        self._group_columns(chains, used_coefficients)

    def _group_columns(self, chains: list[np.ndarray], used_coefficients: list[int]) -> None:
        """Per group of landmarks: the columns of the tangent space that move any of them."""
        self._chain_column = np.zeros_like(self._chain)
        self._columns = np.zeros((len(_GROUPS) - 1, self.num_dof), dtype=np.int64)
        self._num_columns = np.zeros(len(_GROUPS) - 1, dtype=np.int64)
        self._num_used_coefficients = np.zeros_like(self._num_columns)
        for g, (start, stop) in enumerate(itertools.pairwise(_GROUPS)):
            firsts = sorted(
                {int(self.joint_dof[j]) for n in range(start, stop) for j in chains[n]}
            )
            count = max(used_coefficients[start:stop])
            columns = [0, 1, 2]
            columns += [first + c for first in firsts for c in range(3)]
            columns += [self.coefficient_dof + c for c in range(count)]
            self._columns[g, : len(columns)] = columns
            self._num_columns[g], self._num_used_coefficients[g] = len(columns), count
            for n in range(start, stop):
                for a, joint in enumerate(chains[n]):
                    self._chain_column[n, a] = 3 + 3 * firsts.index(int(self.joint_dof[joint]))
        largest = max(
            3 * (stop - start) * m
            for (start, stop), m in zip(
                itertools.pairwise(_GROUPS), self._num_columns, strict=True
            )
        )
        # Scratch of the normal equations: one body is linearised at a time.
        self._tall = np.empty(largest)
        self._square = np.empty(int(self._num_columns.max()) ** 2)

    def pose(self, pelvis: np.ndarray, local: np.ndarray, coefficients: np.ndarray) -> Posed:
        """Chain the joints.

        Args:
            pelvis: (3,) position of joint 0, output frame, metres.
            local: (55, 3, 3) parent-relative rotations; [0] is the root in the output frame.
            coefficients: (10 + E,) betas, then expression.
        """
        posed = Posed(self.num_coefficients)
        rest = self._joint_template + self._flat_rest_dirs.dot(coefficients).reshape(-1, 3)
        posed.rest_pelvis = rest[0]
        _forward(
            local, pelvis, rest, self._rest_dirs, skeleton.PARENTS, posed.rotations, posed.joints,
            posed.joint_dirs,
        )  # fmt: skip
        posed.offsets = self._offset_template + self._flat_offset_dirs.dot(coefficients).reshape(
            self._offset_template.shape
        )
        if self.tables.point_posedirs is not None:
            # Pose blend shapes of the licensed model. Their own derivative is left out of the
            # Jacobian: millimetres over radians, and each iteration re-evaluates them.
            feature = (local[1:] - np.eye(3)).reshape(-1)
            posed.offsets = posed.offsets + self.tables.point_posedirs @ feature
        return posed

    def landmarks(self, posed: Posed) -> np.ndarray:
        """(133, 3) landmarks in the output frame."""
        slots = posed.joints[self._bones] + np.einsum(
            'nkij,nkj->nki', posed.rotations[self._bones], posed.offsets
        )
        return np.einsum('nk,nki->ni', self._weights, slots)

    def normal_equations(
        self,
        posed: Posed,
        target: np.ndarray,
        precision: np.ndarray,
        robust_scale: float,
        camera: np.ndarray,
        hessian: np.ndarray,
        gradient: np.ndarray,
        whitening: np.ndarray | None = None,
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Add the data term of one frame (Gauss-Newton, IRLS weights of Geman-McClure).

        Args:
            posed: the body.
            target: (133, 2) px or (133, 3) m.
            precision: (133,) 1 / sigma^2; 0 removes a point.
            robust_scale: Geman-McClure scale in sigmas.
            camera: (4,) fx, fy, cx, cy in px; unused in 3D.
            hessian: (num_dof, num_dof), lower triangle added to.
            gradient: (num_dof,), added to.
            whitening: (133, dim, dim) lower triangular, applied to the residual before
                `precision`; None: the identity.

        Returns:
            cost, inlier weight (133,) in [0, 1], landmarks (133, 3), error (133,) in px or m.
        """
        inlier = np.empty(NUM_POINTS)
        points = np.empty((NUM_POINTS, 3))
        error = np.empty(NUM_POINTS)
        if whitening is None:
            whitening = _NO_WHITENING
        cost = _accumulate(
            target, precision, whitening, robust_scale, camera, posed.rotations, posed.joints,
            posed.joint_dirs, self._bones, self._weights, posed.offsets, self._offset_dirs,
            self._chain, self._chain_column, self._chain_length, self._below, _GROUPS,
            self._num_columns, self._num_used_coefficients, self._columns, self._tall,
            self._square, hessian, gradient, inlier, points, error,
        )  # fmt: skip
        return cost, inlier, points, error

    def jacobian(self, posed: Posed) -> np.ndarray:
        """Dense (133, 3, num_dof) Jacobian of the landmarks; for tests and analysis."""
        jacobian = np.zeros((NUM_POINTS, 3, self.num_dof))
        rows = np.empty((3, self.num_dof))
        slots, point = np.empty((self._bones.shape[1], 3)), np.empty(3)
        for g, (start, stop) in enumerate(itertools.pairwise(_GROUPS)):
            m = self._num_columns[g]
            for n in range(start, stop):
                _place_point(
                    n, posed.rotations, posed.joints, self._bones, self._weights, posed.offsets,
                    slots, point,
                )  # fmt: skip
                _point_rows(
                    n, posed.rotations, posed.joints, posed.joint_dirs, self._bones,
                    self._weights, self._offset_dirs, self._chain, self._chain_column,
                    self._chain_length, self._below, slots, rows, m,
                    self._num_used_coefficients[g],
                )  # fmt: skip
                jacobian[n][:, self._columns[g, :m]] = rows[:, :m]
        return jacobian

    def joint_covariance(self, posed: Posed, covariance: np.ndarray) -> np.ndarray:
        """(55, 3, 3) of the joint positions, m^2, from the covariance of the state."""
        found = np.empty((skeleton.NUM_JOINTS, 3, 3))
        _joint_covariance(
            covariance, posed.rotations, posed.joints, posed.joint_dirs, skeleton.PARENTS,
            self.joint_dof, self.coefficient_dof, found,
        )  # fmt: skip
        return found
