"""Share of a mesh's faces that pass through other faces of the same mesh.

What counts: two faces that have no vertex in common, of which an edge of one pierces the other.
Faces that do so in the rest pose already (lips, eyes) never count. Folds of elbows and knees
count, as they do in the official validation, which asks MeshLab for self-intersecting faces.
"""

from functools import cached_property

import numpy as np
from numba import njit

from dposer_core import skeleton
from dposer_core.body_model import Body


class SelfIntersection:
    """Measures poses of one body with mean shape."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._faces = np.ascontiguousarray(body.faces, dtype=np.int64)

    def percent(self, pose_rotvec: np.ndarray) -> np.ndarray:
        """(N,) percent of the faces, for poses (N, 55, 3)."""
        counted = ~self._at_rest
        shares = [
            (crossing_faces(vertices, self._faces) & counted).mean()
            for pose in pose_rotvec
            for vertices in self._body.vertices(pose)
        ]
        return 100 * np.array(shares)

    @cached_property
    def _at_rest(self) -> np.ndarray:
        """(F,) faces that cross others in the rest pose."""
        rest = self._body.vertices(np.zeros((skeleton.NUM_JOINTS, 3)))[0]
        return crossing_faces(rest, self._faces)


def crossing_faces(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) whether each face (F, 3) of a mesh with vertices (V, 3) crosses another."""
    corners = np.asarray(vertices, dtype=np.float64)[faces]
    low, high = corners.min(axis=1), corners.max(axis=1)
    axis = int(np.argmax(high.max(axis=0) - low.min(axis=0)))
    order = np.argsort(low[:, axis])
    return _crossing(corners, faces.astype(np.int64), low, high, order, axis)


@njit(cache=True)
def _crossing(corners, faces, low, high, order, axis):  # pragma: no cover - compiled
    found = np.zeros(len(faces), dtype=np.bool_)
    for i in range(len(order)):
        a = order[i]
        for j in range(i + 1, len(order)):
            b = order[j]
            if low[b, axis] > high[a, axis]:
                break
            if found[a] and found[b]:
                continue
            apart = False
            for k in range(3):
                apart |= low[b, k] > high[a, k] or low[a, k] > high[b, k]
            if apart or _share_vertex(faces[a], faces[b]):
                continue
            if _pierces(corners[a], corners[b]) or _pierces(corners[b], corners[a]):
                found[a] = found[b] = True
    return found


@njit(cache=True)
def _share_vertex(a, b):  # pragma: no cover - compiled
    for i in range(3):
        for j in range(3):
            if a[i] == b[j]:
                return True
    return False


@njit(cache=True)
def _pierces(edges, face):  # pragma: no cover - compiled
    """Whether an edge of triangle `edges` (3, 3) passes through triangle `face` (3, 3)."""
    normal = np.cross(face[1] - face[0], face[2] - face[0])
    height = np.empty(3)
    for i in range(3):
        height[i] = np.dot(edges[i] - face[0], normal)
    for i in range(3):
        j = (i + 1) % 3
        if height[i] * height[j] >= 0:  # both ends on one side, or in the plane
            continue
        hit = edges[i] + (edges[j] - edges[i]) * (height[i] / (height[i] - height[j]))
        inside = True
        for k in range(3):
            side = np.cross(face[(k + 1) % 3] - face[k], hit - face[k])
            inside &= np.dot(side, normal) >= 0
        if inside:
            return True
    return False
