"""Conversions between rotation forms, for numpy arrays (results in float64) and torch tensors.

Forms: `rotvec` (..., 3) axis times angle in rad; `rotmat` (..., 3, 3); `quat_xyzw` (..., 4) unit,
scalar last; `rot6d` (..., 6) the first two columns of the matrix, stored row by row.
Any leading axes. A rotation vector that comes back has an angle in [0, pi].
"""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dposer_core.skeleton import MIRROR_SIGN


def rotvec_to_rotmat(rotvec: Any) -> Any:
    """(..., 3) -> (..., 3, 3)."""
    if isinstance(rotvec, np.ndarray):
        flat = Rotation.from_rotvec(rotvec.reshape(-1, 3)).as_matrix()
        return flat.reshape(*rotvec.shape, 3)
    import roma

    return roma.rotvec_to_rotmat(rotvec)


def rotmat_to_rotvec(rotmat: Any) -> Any:
    """(..., 3, 3) -> (..., 3)."""
    if isinstance(rotmat, np.ndarray):
        flat = Rotation.from_matrix(rotmat.reshape(-1, 3, 3)).as_rotvec()
        return flat.reshape(rotmat.shape[:-1])
    import roma

    return roma.rotmat_to_rotvec(rotmat)


def rotvec_to_quat_xyzw(rotvec: Any) -> Any:
    """(..., 3) -> (..., 4), scalar part not negative for angles up to pi."""
    if isinstance(rotvec, np.ndarray):
        flat = Rotation.from_rotvec(rotvec.reshape(-1, 3)).as_quat()
        return flat.reshape(*rotvec.shape[:-1], 4)
    import roma

    return roma.rotvec_to_unitquat(rotvec)


def quat_xyzw_to_rotvec(quat_xyzw: Any) -> Any:
    """(..., 4) unit quaternions -> (..., 3)."""
    if isinstance(quat_xyzw, np.ndarray):
        flat = Rotation.from_quat(quat_xyzw.reshape(-1, 4)).as_rotvec()
        return flat.reshape(*quat_xyzw.shape[:-1], 3)
    import roma

    return roma.unitquat_to_rotvec(quat_xyzw)


def multiply_quat_xyzw(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(4,) unit quaternion of a b, each (4,): in a thirtieth of the time of scipy's objects."""
    ax, ay, az, aw = a.tolist()
    bx, by, bz, bw = b.tolist()
    return np.array(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ]
    )


def rotmat_to_rot6d(rotmat: Any) -> Any:
    """(..., 3, 3) -> (..., 6)."""
    return rotmat[..., :, :2].reshape(*rotmat.shape[:-2], 6)


def rot6d_to_rotmat(rot6d: Any) -> Any:
    """(..., 6) -> (..., 3, 3) by Gram-Schmidt on the two columns; any six numbers are allowed.

    Source: Zhou et al., CVPR 2019.
    """
    columns = rot6d.reshape(*rot6d.shape[:-1], 3, 2)
    if isinstance(rot6d, np.ndarray):
        x = _unit(columns[..., 0])
        y = _unit(columns[..., 1] - (x * columns[..., 1]).sum(-1, keepdims=True) * x)
        return np.stack([x, y, np.cross(x, y)], axis=-1)
    import roma

    return roma.special_gramschmidt(columns)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def rotvec_to_rot6d(rotvec: Any) -> Any:
    """(..., 3) -> (..., 6)."""
    return rotmat_to_rot6d(rotvec_to_rotmat(rotvec))


def rot6d_to_rotvec(rot6d: Any) -> Any:
    """(..., 6) -> (..., 3)."""
    return rotmat_to_rotvec(rot6d_to_rotmat(rot6d))


def mirror_rotvec(rotvec: Any) -> Any:
    """The rotations (..., 3) seen in a mirror that swaps left and right (its normal is x)."""
    if isinstance(rotvec, np.ndarray):
        return rotvec * MIRROR_SIGN
    return rotvec * rotvec.new_tensor(MIRROR_SIGN)
