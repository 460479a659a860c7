"""Hot-path kinematics: the 55 joints, the 133 landmarks and their exact Jacobians, compiled.

The state of one frame lives in a tangent space of `Kinematics.num_dof` numbers, in this order:

    pelvis position 3 | root rotation 3 | 52 joint rotations x 3 (PRIOR_JOINTS order) |
    betas 10 | expression E

Positions and coefficients add; a rotation is perturbed on the right, R <- R Exp(delta). The eyes
are not estimated. Everything is float64; a frame costs tens of microseconds.

Source: linear blend skinning (SMPL, Loper et al. 2015) collapsed to the few points needed, and the
geometric Jacobian of a kinematic tree; right Jacobian of SO(3): Sola et al. 2018, eq. 143-144.
"""

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
def _point_rows(
    n, world, position, position_dirs, bones, weights, offsets, offset_dirs, chain, chain_length,
    below, coefficients, num_coefficients, joint_dof, coefficient_dof, slots, point, rows, columns,
):  # fmt: skip
    """Point n, its Jacobian rows (3, m) and their tangent columns (m,), ascending; returns m."""
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
    for i in range(3):
        columns[i] = i
        for r in range(3):
            rows[r, i] = 1.0 if r == i else 0.0
    m = 3
    for a in range(chain_length[n]):
        joint = chain[n, a]
        lx = ly = lz = 0.0  # lever arm: what hangs below this joint, seen from it
        for k in range(bones.shape[1]):
            if below[n, a, k]:
                lx += weights[n, k] * (slots[k, 0] - position[joint, 0])
                ly += weights[n, k] * (slots[k, 1] - position[joint, 1])
                lz += weights[n, k] * (slots[k, 2] - position[joint, 2])
        for c in range(3):
            ax, ay, az = world[joint, 0, c], world[joint, 1, c], world[joint, 2, c]
            rows[0, m] = ay * lz - az * ly
            rows[1, m] = az * lx - ax * lz
            rows[2, m] = ax * ly - ay * lx
            columns[m] = joint_dof[joint] + c
            m += 1
    for index in range(num_coefficients[n]):
        c = coefficients[n, index]
        for r in range(3):
            value = 0.0
            for k in range(bones.shape[1]):
                if weights[n, k] != 0.0:
                    b = bones[n, k]
                    value += weights[n, k] * (
                        position_dirs[b, r, c]
                        + world[b, r, 0] * offset_dirs[n, k, 0, c]
                        + world[b, r, 1] * offset_dirs[n, k, 1, c]
                        + world[b, r, 2] * offset_dirs[n, k, 2, c]
                    )
            rows[r, m] = value
        columns[m] = coefficient_dof + c
        m += 1
    return m


@njit(cache=True)
def _accumulate(
    target, precision, robust_scale, camera, world, position, position_dirs, bones, weights,
    offsets, offset_dirs, chain, chain_length, below, coefficients, num_coefficients, joint_dof,
    coefficient_dof, hessian, gradient, inlier, points, error,
):  # fmt: skip
    """Add J^T W J and J^T W r of all present points; returns the robust cost."""
    dim = target.shape[1]
    max_columns = hessian.shape[0]
    rows = np.empty((3, max_columns))
    columns = np.empty(max_columns, dtype=np.int64)
    slots = np.empty((bones.shape[1], 3))
    residual = np.empty(dim)
    cost = 0.0
    for n in range(target.shape[0]):
        m = _point_rows(
            n, world, position, position_dirs, bones, weights, offsets, offset_dirs, chain,
            chain_length, below, coefficients, num_coefficients, joint_dof, coefficient_dof,
            slots, points[n], rows, columns,
        )  # fmt: skip
        inlier[n] = 0.0
        error[n] = 0.0
        if precision[n] <= 0.0:
            continue
        if dim == 2:
            depth = points[n, 2]
            if depth < 0.05:  # behind the camera: this point has no say
                continue
            inverse = 1.0 / depth
            x, y = points[n, 0] * inverse, points[n, 1] * inverse
            residual[0] = camera[0] * x + camera[2] - target[n, 0]
            residual[1] = camera[1] * y + camera[3] - target[n, 1]
            for c in range(m):
                dz = rows[2, c]
                rows[0, c] = camera[0] * inverse * (rows[0, c] - x * dz)
                rows[1, c] = camera[1] * inverse * (rows[1, c] - y * dz)
        else:
            for i in range(3):
                residual[i] = points[n, i] - target[n, i]
        squared = 0.0
        for i in range(dim):
            squared += residual[i] * residual[i]
        error[n] = np.sqrt(squared)
        whitened = squared * precision[n]
        shrink = 1.0 / (1.0 + whitened / (robust_scale * robust_scale))
        inlier[n] = shrink * shrink  # IRLS weight of Geman-McClure
        cost += 0.5 * whitened * shrink
        weight = precision[n] * inlier[n]
        for a in range(m):
            value = 0.0
            for i in range(dim):
                value += rows[i, a] * residual[i]
            gradient[columns[a]] += weight * value
            for b in range(a + 1):
                value = 0.0
                for i in range(dim):
                    value += rows[i, a] * rows[i, b]
                hessian[columns[a], columns[b]] += weight * value
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
def _joint_variance(
    covariance, world, position, position_dirs, parents, joint_dof, coefficient_dof, out
):
    """Mean positional variance (55,) per axis of every joint under `covariance` of the state."""
    num_joints, num_coefficients = position.shape[0], position_dirs.shape[2]
    rows = np.empty((3, covariance.shape[0]))
    columns = np.empty(covariance.shape[0], dtype=np.int64)
    for joint in range(num_joints):
        for i in range(3):
            columns[i] = i
            for r in range(3):
                rows[r, i] = 1.0 if r == i else 0.0
        m = 3
        a = parents[joint]
        while a >= 0:
            if joint_dof[a] >= 0:
                lx = position[joint, 0] - position[a, 0]
                ly = position[joint, 1] - position[a, 1]
                lz = position[joint, 2] - position[a, 2]
                for c in range(3):
                    ax, ay, az = world[a, 0, c], world[a, 1, c], world[a, 2, c]
                    rows[0, m] = ay * lz - az * ly
                    rows[1, m] = az * lx - ax * lz
                    rows[2, m] = ax * ly - ay * lx
                    columns[m] = joint_dof[a] + c
                    m += 1
            a = parents[a]
        for c in range(num_coefficients):
            for r in range(3):
                rows[r, m] = position_dirs[joint, r, c]
            columns[m] = coefficient_dof + c
            m += 1
        total = 0.0
        for r in range(3):
            for p in range(m):
                if rows[r, p] == 0.0:
                    continue
                part = 0.0
                for q in range(m):
                    part += covariance[columns[p], columns[q]] * rows[r, q]
                total += rows[r, p] * part
        out[joint] = max(total / 3.0, 0.0)


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
        self._index_chains()

    def _index_chains(self) -> None:
        """Per landmark: the joints above it, which slots hang below each, its coefficients."""
        num_slots = self._bones.shape[1]
        chains, coefficients = [], []
        for n in range(NUM_POINTS):
            used = [k for k in range(num_slots) if self._weights[n, k] != 0.0]
            joints = sorted(
                {a for k in used for a in skeleton.ancestors(int(self._bones[n, k]))},
                key=lambda a: self.joint_dof[a],
            )
            chains.append([a for a in joints if self.joint_dof[a] >= 0])
            moved = np.zeros(self.num_coefficients, dtype=bool)
            for k in used:
                moved |= np.abs(self._offset_dirs[n, k]).max(axis=0) > 1e-12
            for a in joints:
                moved |= np.abs(self._rest_dirs[a]).max(axis=0) > 1e-12
            coefficients.append(np.flatnonzero(moved))
        self._chain_length = np.array([len(c) for c in chains], dtype=np.int64)
        self._chain = np.zeros((NUM_POINTS, self._chain_length.max()), dtype=np.int64)
        self._below = np.zeros((*self._chain.shape, num_slots), dtype=np.bool_)
        self._num_coefficients = np.array([len(c) for c in coefficients], dtype=np.int64)
        self._coefficients = np.zeros((NUM_POINTS, self.num_coefficients), dtype=np.int64)
        for n in range(NUM_POINTS):
            self._chain[n, : len(chains[n])] = chains[n]
            self._coefficients[n, : len(coefficients[n])] = coefficients[n]
            for a, joint in enumerate(chains[n]):
                for k in range(num_slots):
                    hangs = joint in skeleton.ancestors(int(self._bones[n, k]))
                    self._below[n, a, k] = self._weights[n, k] != 0.0 and hangs

    def pose(self, pelvis: np.ndarray, local: np.ndarray, coefficients: np.ndarray) -> Posed:
        """Chain the joints.

        Args:
            pelvis: (3,) position of joint 0, output frame, metres.
            local: (55, 3, 3) parent-relative rotations; [0] is the root in the output frame.
            coefficients: (10 + E,) betas, then expression.
        """
        posed = Posed(self.num_coefficients)
        rest = self.tables.joint_template + self._rest_dirs @ coefficients
        posed.rest_pelvis = rest[0]
        _forward(
            local, pelvis, rest, self._rest_dirs, skeleton.PARENTS, posed.rotations, posed.joints,
            posed.joint_dirs,
        )  # fmt: skip
        posed.offsets = self._offset_template + self._offset_dirs @ coefficients
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

        Returns:
            cost, inlier weight (133,) in [0, 1], landmarks (133, 3), error (133,) in px or m.
        """
        inlier = np.empty(NUM_POINTS)
        points = np.empty((NUM_POINTS, 3))
        error = np.empty(NUM_POINTS)
        cost = _accumulate(
            target, precision, robust_scale, camera, posed.rotations, posed.joints,
            posed.joint_dirs, self._bones, self._weights, posed.offsets, self._offset_dirs,
            self._chain, self._chain_length, self._below, self._coefficients,
            self._num_coefficients, self.joint_dof, self.coefficient_dof, hessian, gradient,
            inlier, points, error,
        )  # fmt: skip
        return cost, inlier, points, error

    def jacobian(self, posed: Posed) -> np.ndarray:
        """Dense (133, 3, num_dof) Jacobian of the landmarks; for tests and analysis."""
        jacobian = np.zeros((NUM_POINTS, 3, self.num_dof))
        rows = np.empty((3, self.num_dof))
        columns = np.empty(self.num_dof, dtype=np.int64)
        slots, point = np.empty((self._bones.shape[1], 3)), np.empty(3)
        for n in range(NUM_POINTS):
            m = _point_rows(
                n, posed.rotations, posed.joints, posed.joint_dirs, self._bones, self._weights,
                posed.offsets, self._offset_dirs, self._chain, self._chain_length, self._below,
                self._coefficients, self._num_coefficients, self.joint_dof, self.coefficient_dof,
                slots, point, rows, columns,
            )  # fmt: skip
            jacobian[n][:, columns[:m]] = rows[:, :m]
        return jacobian

    def joint_sigma(self, posed: Posed, covariance: np.ndarray) -> np.ndarray:
        """(55,) 1-sigma of the joint positions, metres, from the state covariance."""
        variance = np.empty(skeleton.NUM_JOINTS)
        _joint_variance(
            covariance, posed.rotations, posed.joints, posed.joint_dirs, skeleton.PARENTS,
            self.joint_dof, self.coefficient_dof, variance,
        )  # fmt: skip
        return np.sqrt(variance)
