"""The face of the open body: its expression coefficients and its 68 landmarks."""

from dataclasses import dataclass

import numpy as np

from dposer_core import skeleton


@dataclass(frozen=True)
class Expression:
    """One expression coefficient: facial actions (ARKit names) that it adds up."""

    name: str
    actions: dict[str, float]
    """Action -> strength at coefficient +1."""


def _both(strength: float, *names: str) -> dict[str, float]:
    return {f'{name}{side}': strength for name in names for side in ('Left', 'Right')}


def _sided(strength: float, *names: str) -> dict[str, float]:
    return {f'{n}{side}': s * strength for n in names for side, s in (('Left', 1), ('Right', -1))}


# Coefficients of +-2 are strong but still human; the negative half does the opposite. jawOpen and
# the gaze are no expressions: they are the jaw's and the eyes' rotations.
EXPRESSIONS: tuple[Expression, ...] = (
    Expression('smile - frown', _both(0.3, 'mouthSmile') | _both(-0.15, 'mouthFrown')),
    Expression('lips wide - pursed', _both(0.25, 'mouthStretch') | {'mouthPucker': -0.25}),
    Expression(
        'lips apart - pressed',
        _both(0.25, 'mouthUpperUp', 'mouthLowerDown') | _both(-0.1, 'mouthPress'),
    ),
    Expression(
        'brows up - down',
        {'browInnerUp': 0.35} | _both(0.35, 'browOuterUp') | _both(-0.25, 'browDown'),
    ),
    Expression('eyes shut - wide', _both(0.25, 'eyeBlink') | _both(-0.05, 'eyeWide')),
    Expression('inner brows up', {'browInnerUp': 0.5} | _both(-0.3, 'browOuterUp')),
    Expression('mouth to the left - right', {'mouthLeft': 0.25, 'mouthRight': -0.25}),
    Expression('smile on the left - right', _sided(0.25, 'mouthSmile', 'cheekSquint')),
    Expression('left eye shut - right', _sided(0.2, 'eyeBlink')),
    Expression('nose wrinkled', _both(0.4, 'noseSneer', 'cheekSquint')),
)

# Where the landmarks lie on the mean face seen from the front, millimetres from the middle between
# the eyes: x to the person's left, y up. Set by eye on the rendered mesh and compared with what a
# detector (MediaPipe's face mesh) finds on the picture: see docs/BODY.md. The right half is the
# mirror image. The outline runs from the chin to the ear.
_OUTLINE = (
    (0.0, -112.0), (13.0, -110.2), (31.5, -100.0), (48.0, -85.5), (56.5, -73.0),
    (62.5, -58.0), (66.0, -33.0), (67.5, -16.0), (68.0, 7.0),
)  # fmt: skip
_BROW = ((11.0, 15.0), (23.0, 17.5), (34.5, 18.0), (45.0, 15.5), (53.0, 10.5))  # from the nose
_NOSE_RIDGE = ((0.0, 1.0), (0.0, -12.0), (0.0, -25.0), (0.0, -36.5))
_NOSE_BASE = ((0.0, -49.0), (6.0, -47.3), (12.5, -44.0))  # from the middle
_EYE = (  # inner corner, upper lid, outer corner, lower lid: iBUG's order of the left eye
    (18.0, -3.0), (26.7, 1.9), (37.4, 1.8), (44.5, -1.5), (37.8, -5.1), (27.2, -5.2),
)  # fmt: skip
_LIP_OUTER_TOP = ((0.0, -64.5), (8.0, -62.4), (16.5, -65.0))  # from the middle
_LIP_CORNER = (24.2, -69.8)
_LIP_OUTER_BOTTOM = ((0.0, -79.6), (6.5, -79.2), (13.5, -77.4))
_LIP_INNER_CORNER = (22.2, -69.8)
_LIP_INNER_TOP = ((0.0, -69.5), (7.5, -69.3))
_LIP_INNER_BOTTOM = ((0.0, -70.8), (7.5, -70.9))

_CENTRE, _UPPER_LIP, _LOWER_LIP = -40.0, -66.0, -76.0  # heights of their middles
_VERTEX_DEPTH = 0.004  # metres
_MILLIMETRE = 0.001


def face_landmarks(
    mesh: np.ndarray, faces: np.ndarray, base: np.ndarray, weights: np.ndarray, joints: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The iBUG-68 points as faces (68,) and barycentric coordinates (68, 3).

    Args:
        mesh: (N, 3) mean rest mesh, y up, facing +z, metres.
        faces: (F, 3).
        base: (N,) MakeHuman vertex numbers; beyond the skin's are the eyeballs.
        weights: (N, 55) skin weights; the jaw's tell the lower lip from the upper.
        joints: (55, 3) rest joints.
    """
    eyes = joints[skeleton.EYE_JOINTS].mean(axis=0)
    # Behind the jaw's hinge are ears and neck, which the front view shows beside the face.
    face = (base < 13380) & (mesh[:, 2] > joints[skeleton.JAW_JOINT, 2] + 0.01)
    jaw = weights[:, skeleton.JAW_JOINT] > 0.5
    found = []
    for n, target in enumerate(eyes[:2] + _targets() * _MILLIMETRE):
        lower, upper = n in range(55, 60) or n >= 65, n in range(48, 55) or n in range(60, 65)
        among = face & (jaw if lower else ~jaw if upper else True)
        middle = _LOWER_LIP if lower else _UPPER_LIP if upper else _CENTRE
        centre = eyes[:2] + np.array([0.0, middle]) * _MILLIMETRE
        if 36 <= n < 48:
            found.append(_nearest_vertex(mesh, faces, among, target))  # the edge of the lid
        else:
            found.append(_front_point(mesh, faces, among, target, centre))
    return np.array([f for f, _ in found]), np.array([bary for _, bary in found])


def _targets() -> np.ndarray:
    """(68, 2) millimetres, front view."""

    def right(points: tuple[tuple[float, float], ...]) -> list[tuple[float, float]]:
        return [(-x, y) for x, y in points]

    top, bottom = _LIP_OUTER_TOP, _LIP_OUTER_BOTTOM
    inner, lower = _LIP_INNER_TOP, _LIP_INNER_BOTTOM
    eye = _EYE
    points = [
        *right(_OUTLINE[:0:-1]), *_OUTLINE,
        *right(_BROW[::-1]), *_BROW,
        *_NOSE_RIDGE,
        *right(_NOSE_BASE[:0:-1]), *_NOSE_BASE,
        # The right eye starts at its outer corner, the left one at its inner corner.
        *right((eye[3], eye[2], eye[1], eye[0], eye[5], eye[4])), *eye,
        *right((_LIP_CORNER,)), *right(top[:0:-1]), *top, _LIP_CORNER,
        *bottom[::-1], *right(bottom[1:]),
        *right((_LIP_INNER_CORNER,)), *right(inner[:0:-1]), *inner, _LIP_INNER_CORNER,
        *lower[::-1], *right(lower[1:]),
    ]  # fmt: skip
    return np.array(points)


def _front_point(
    mesh: np.ndarray,
    faces: np.ndarray,
    among: np.ndarray,
    target: np.ndarray,
    centre: np.ndarray,
) -> tuple[int, np.ndarray]:
    """Where the line of sight to `target` first meets the vertices `among`.

    A target beside the face moves towards its `centre` until it meets it: the outline.
    """
    candidates = np.flatnonzero(among[faces].all(axis=1))
    a, b, c = np.moveaxis(mesh[faces[candidates]], 1, 0)
    area = _cross(b - a, c - a)
    for share in np.arange(0.0, 0.3, 0.005):
        point = target + share * (centre - target)
        with np.errstate(divide='ignore', invalid='ignore'):
            v = _cross(point - a[:, :2], c - a) / area
            w = _cross(b - a, point - a[:, :2]) / area
        bary = np.stack([1.0 - v - w, v, w], axis=1)
        hit = np.flatnonzero((bary >= -1e-9).all(axis=1))
        if len(hit):
            depth = np.einsum('hk,hk->h', bary[hit], np.stack([a, b, c], 1)[hit, :, 2])
            # On an edge two faces tie: rounding makes it the first one, on every machine.
            best = hit[np.round(depth, 6).argmax()]
            return int(candidates[best]), np.clip(bary[best], 0.0, 1.0) / bary[best].clip(0).sum()
    raise AssertionError(f'no face near the landmark at {target}')


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _nearest_vertex(
    mesh: np.ndarray, faces: np.ndarray, among: np.ndarray, target: np.ndarray
) -> tuple[int, np.ndarray]:
    """The vertex nearest to `target` in the front view that nothing hides."""
    index = np.flatnonzero(among)
    distance = np.linalg.norm(mesh[index, :2] - target, axis=1)
    near = index[distance < distance.min() + 0.004]
    visible = near[mesh[near, 2] > mesh[near, 2].max() - _VERTEX_DEPTH]
    vertex = visible[np.linalg.norm(mesh[visible, :2] - target, axis=1).argmin()]
    face, corner = np.argwhere(faces == vertex)[0]
    return int(face), np.eye(3)[corner]
