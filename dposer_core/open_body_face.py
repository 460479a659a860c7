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
    Expression(
        'lips wide - pursed', _both(0.25, 'mouthStretch') | {'mouthPucker': -0.25}
    ),
    Expression('lips apart - pressed', _both(0.25, 'mouthUpperUp', 'mouthLowerDown') | _both(-0.1, 'mouthPress')),
    Expression('brows up - down', {'browInnerUp': 0.25} | _both(0.25, 'browOuterUp') | _both(-0.2, 'browDown')),
    Expression('eyes shut - wide', _both(0.35, 'eyeBlink') | _both(-0.15, 'eyeWide')),
    Expression('inner brows up', {'browInnerUp': 0.35} | _both(-0.2, 'browOuterUp')),
    Expression('mouth to the left - right', {'mouthLeft': 0.25, 'mouthRight': -0.25}),
    Expression('smile on the left - right', _sided(0.25, 'mouthSmile', 'cheekSquint')),
    Expression('left eye shut - right', _sided(0.25, 'eyeBlink')),
    Expression('nose wrinkled', _both(0.3, 'noseSneer', 'cheekSquint')),
)

# Where the landmarks lie on the template seen from the front, as (x, y) in millimetres: x to the
# person's left, y up from the origin. Set by eye on the rendered base mesh; the right half is the
# mirror image. The outline runs from the chin to the ear.
_OUTLINE = (
    (0.0, 616.9), (14.3, 619.5), (28.6, 626.8), (42.9, 639.8), (55.9, 656.7),
    (64.5, 676.2), (68.4, 693.1), (70.7, 710.0), (72.3, 728.2),
)  # fmt: skip
_BROW = ((7.8, 744.3), (15.6, 748.5), (26.0, 750.3), (36.4, 748.5), (44.7, 742.5))  # from the nose
_NOSE_RIDGE = ((0.0, 736.0), (0.0, 724.3), (0.0, 712.6), (0.0, 698.0))
_NOSE_BASE = ((0.0, 679.0), (6.0, 681.7), (14.7, 683.5))  # from the middle
_EYE = (  # inner corner, upper lid, outer corner, lower lid: iBUG's order of the left eye
    (20.8, 728.7), (27.8, 732.6), (38.5, 732.9), (44.7, 728.7), (38.5, 725.1), (28.1, 725.3),
)  # fmt: skip
_LIP_OUTER_TOP = ((0.0, 667.1), (8.05, 670.5), (18.2, 667.3))  # from the middle
_LIP_CORNER = (27.0, 661.4)
_LIP_OUTER_BOTTOM = ((0.0, 652.7), (5.6, 653.0), (16.8, 655.8))
_LIP_INNER_CORNER = (25.2, 661.0)
_LIP_INNER_TOP = ((0.0, 660.9), (8.4, 661.5))
_LIP_INNER_BOTTOM = ((0.0, 660.6), (8.4, 660.7))

_VISIBLE_DEPTH = 0.004


def face_landmarks(
    template: np.ndarray, faces: np.ndarray, base: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The iBUG-68 points as faces (68,) and barycentric coordinates (68, 3): each is a vertex.

    Args:
        template: (N, 3) base mesh, y up, facing +z, metres.
        faces: (F, 3).
        base: (N,) MakeHuman vertex numbers.
        weights: (N, 55) skin weights; the jaw's tell the lower lip from the upper.
    """
    jaw = weights[:, skeleton.JAW_JOINT] / np.maximum(weights.sum(axis=1), 1e-9)
    skin = base < 13380
    vertices = []
    for n, point in enumerate(_targets()):
        lower, upper = n in range(55, 60) or n >= 65, n in range(48, 55) or n in range(60, 65)
        among = skin & (jaw > 0.5 if lower else jaw < 0.5 if upper else True)
        vertices.append(_front_vertex(template, among, point))
    corner = [np.argwhere(faces == v)[0] for v in vertices]
    return np.array([c[0] for c in corner]), np.eye(3)[[c[1] for c in corner]]


def _targets() -> np.ndarray:
    """(68, 2) metres, front view."""
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
    return np.array(points) / 1000.0


def _front_vertex(template: np.ndarray, among: np.ndarray, point: np.ndarray) -> int:
    """The vertex nearest to `point` in the front view that nothing hides."""
    index = np.flatnonzero(among)
    distance = np.linalg.norm(template[index, :2] - point, axis=1)
    near = index[distance < distance.min() + 0.004]
    visible = near[template[near, 2] > template[near, 2].max() - _VISIBLE_DEPTH]
    return int(visible[np.linalg.norm(template[visible, :2] - point, axis=1).argmin()])
