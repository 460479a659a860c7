"""The rotations of one posed body in the forms that consumers ask for, from one compiled pass.

Between two frames of a camera the processor forgets what it knew, and thirty calls of a general
library cost four times what they cost in a loop; one compiled call does not.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from dposer_core import skeleton

_SMALL = 1e-8  # rad, below which sin(x / 2) / x is 1 / 2
_GIMBAL_LOCK = 1.0 - 1e-9


@dataclass(frozen=True)
class Turns:
    """Rotations of the 55 joints of SMPL-X; quaternions x, y, z, w with w >= 0 up to pi."""

    quats_xyzw: np.ndarray
    """(55, 4) parent-relative."""
    world_quats_xyzw: np.ndarray
    """(55, 4) in the frame of the state."""
    euler_xyz: np.ndarray
    """(55, 3) rad, parent-relative, R = Rx(a) Ry(b) Rz(c); b in [-pi / 2, pi / 2]."""

    @classmethod
    def of(cls, pose_rotvec: np.ndarray) -> 'Turns':
        """Those of parent-relative axis-angle vectors (55, 3) in SMPL-X order."""
        rotvecs = np.ascontiguousarray(pose_rotvec, dtype=np.float64)
        found = np.empty((2, skeleton.NUM_JOINTS, 4))
        euler = np.empty((skeleton.NUM_JOINTS, 3))
        _turn(rotvecs, _PARENTS, found[0], found[1], euler)
        return cls(found[0], found[1], euler)


_PARENTS = np.ascontiguousarray(skeleton.PARENTS, dtype=np.int64)


@njit(cache=True)
def _multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Quaternion product a b, (4,) each; `out` is neither."""
    out[0] = a[3] * b[0] + a[0] * b[3] + a[1] * b[2] - a[2] * b[1]
    out[1] = a[3] * b[1] - a[0] * b[2] + a[1] * b[3] + a[2] * b[0]
    out[2] = a[3] * b[2] + a[0] * b[1] - a[1] * b[0] + a[2] * b[3]
    out[3] = a[3] * b[3] - a[0] * b[0] - a[1] * b[1] - a[2] * b[2]


@njit(cache=True)
def _turned(q: np.ndarray, x: float, y: float, z: float) -> tuple[float, float, float]:
    """The vector turned by a unit quaternion (4,)."""
    s, t, u = (
        2.0 * (q[1] * z - q[2] * y),
        2.0 * (q[2] * x - q[0] * z),
        2.0 * (q[0] * y - q[1] * x),
    )
    return (
        x + q[3] * s + q[1] * u - q[2] * t,
        y + q[3] * t + q[2] * s - q[0] * u,
        z + q[3] * u + q[0] * t - q[1] * s,
    )


@njit('void(f8[:, ::1], i8[::1], f8[:, ::1], f8[:, ::1], f8[:, ::1])', cache=True)
def _turn(
    rotvecs: np.ndarray,
    parents: np.ndarray,
    quats: np.ndarray,
    world: np.ndarray,
    euler: np.ndarray,
) -> None:
    """See `Turns`; compiled when this module is imported, not while a frame waits."""
    for j in range(len(rotvecs)):
        x, y, z = rotvecs[j]
        angle = np.sqrt(x * x + y * y + z * z)
        half = 0.5 if angle < _SMALL else np.sin(0.5 * angle) / angle
        q = quats[j]
        q[0], q[1], q[2], q[3] = half * x, half * y, half * z, np.cos(0.5 * angle)
        if parents[j] < 0:
            world[j] = q
        else:
            _multiply(world[parents[j]], q, world[j])
        x, y, z, w = q
        sine = 2.0 * (x * z + y * w)
        if abs(sine) > _GIMBAL_LOCK:  # x and z turn about one line: give it all to x
            euler[j, 0] = np.arctan2(2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + z * z))
            euler[j, 2] = 0.0
        else:
            euler[j, 0] = np.arctan2(2.0 * (x * w - y * z), 1.0 - 2.0 * (x * x + y * y))
            euler[j, 2] = np.arctan2(2.0 * (z * w - x * y), 1.0 - 2.0 * (y * y + z * z))
        euler[j, 1] = np.arcsin(min(max(sine, -1.0), 1.0))


_PELVIS_CHILDREN = np.flatnonzero(_PARENTS == 0)


def pelvis_angular_velocity(joints: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    """(3,) rad/s in the frame of the joints, from those that are rigidly fixed to the pelvis.

    Least squares of v_i - v_0 = omega x (p_i - p_0) over the pelvis' children; NaN where they lie
    on a line.

    Args:
        joints: (55, 3) m.
        velocities: (55, 3) m/s.
    """
    omega = np.empty(3)
    _spin(
        np.ascontiguousarray(joints, dtype=np.float64),
        np.ascontiguousarray(velocities, dtype=np.float64), _PELVIS_CHILDREN, omega,
    )  # fmt: skip
    return omega


@njit('void(f8[:, ::1], f8[:, ::1], i8[::1], f8[::1])', cache=True)
def _spin(
    joints: np.ndarray, velocities: np.ndarray, children: np.ndarray, omega: np.ndarray
) -> None:
    """See `pelvis_angular_velocity`."""
    xx = yy = zz = xy = xz = yz = 0.0  # sum of |arm|^2 I - arm arm^T
    tx = ty = tz = 0.0  # sum of arm x velocity
    for j in children:
        ax, ay, az = joints[j] - joints[0]
        vx, vy, vz = velocities[j] - velocities[0]
        xx += ay * ay + az * az
        yy += ax * ax + az * az
        zz += ax * ax + ay * ay
        xy -= ax * ay
        xz -= ax * az
        yz -= ay * az
        tx += ay * vz - az * vy
        ty += az * vx - ax * vz
        tz += ax * vy - ay * vx
    # Cramer's rule: three unknowns, and the arms of a person span space.
    a, b, c = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    determinant = xx * a + xy * b + xz * c
    if determinant == 0.0:
        omega[:] = np.nan
        return
    omega[0] = (a * tx + b * ty + c * tz) / determinant
    omega[1] = (b * tx + (xx * zz - xz * xz) * ty + (xy * xz - xx * yz) * tz) / determinant
    omega[2] = (c * tx + (xy * xz - xx * yz) * ty + (xx * yy - xy * xy) * tz) / determinant


@dataclass(frozen=True)
class Frames:
    """Frames fixed to a body, each with a parent among them; rows are frames."""

    joint: np.ndarray
    """(N,) joint that moves the frame."""
    origin: np.ndarray
    """(N, 2) its origin is midway between these joints; with a parent, as they are at rest."""
    quat_xyzw: np.ndarray
    """(N, 4) its constant rotation in the joint."""
    parent: np.ndarray
    """(N,) row of its parent, an earlier one or a later; -1: the frame of the state."""

    def relative(self, turns: Turns, joints: np.ndarray, rest_joints: np.ndarray) -> np.ndarray:
        """(N, 7) position in m and quaternion x, y, z, w of each frame in its parent.

        Args:
            turns: of the body.
            joints: (55, 3) m, in the frame of the state.
            rest_joints: (55, 3) m, of the body's shape.
        """
        world, found = np.empty((len(self.joint), 7)), np.empty((len(self.joint), 7))
        _place(
            np.ascontiguousarray(joints, dtype=np.float64), turns.world_quats_xyzw,
            np.ascontiguousarray(rest_joints, dtype=np.float64), self.joint, self.origin,
            self.quat_xyzw, self.parent, world, found,
        )  # fmt: skip
        return found


@njit(
    'void(f8[:, ::1], f8[:, ::1], f8[:, ::1], i8[::1], i8[:, ::1], f8[:, ::1], i8[::1],'
    ' f8[:, ::1], f8[:, ::1])',
    cache=True,
)
def _place(
    joints: np.ndarray,
    quats: np.ndarray,
    rest: np.ndarray,
    moved_by: np.ndarray,
    origins: np.ndarray,
    turned_by: np.ndarray,
    parents: np.ndarray,
    world: np.ndarray,
    out: np.ndarray,
) -> None:
    """See `Frames.relative`; `world` is that in the frame of the state."""
    inverse = np.empty(4)
    for n in range(len(moved_by)):
        j, a, b = moved_by[n], origins[n, 0], origins[n, 1]
        _multiply(quats[j], turned_by[n], world[n, 3:])
        if parents[n] < 0:
            for c in range(3):
                world[n, c] = 0.5 * (joints[a, c] + joints[b, c])
            continue
        way = _turned(
            quats[j],
            0.5 * (rest[a, 0] + rest[b, 0]) - rest[j, 0],
            0.5 * (rest[a, 1] + rest[b, 1]) - rest[j, 1],
            0.5 * (rest[a, 2] + rest[b, 2]) - rest[j, 2],
        )
        for c in range(3):
            world[n, c] = joints[j, c] + way[c]
    for n in range(len(moved_by)):
        m = parents[n]
        if m < 0:
            out[n] = world[n]
            continue
        for c in range(3):
            inverse[c] = -world[m, 3 + c]
        inverse[3] = world[m, 6]
        way = _turned(
            inverse,
            world[n, 0] - world[m, 0],
            world[n, 1] - world[m, 1],
            world[n, 2] - world[m, 2],
        )
        for c in range(3):
            out[n, c] = way[c]
        _multiply(inverse, world[n, 3:], out[n, 3:])
