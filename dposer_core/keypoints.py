"""Detector layouts and the way from each of them to the hub, COCO-WholeBody-133.

A layout is the list of its point names. Names of the hub (`POINT_NAMES`) are taken over, every
other name says what the point is and is left out: a neck or a clavicle is nobody's keypoint 1:1.
"Left" is the person's left everywhere.

Sources of the orders: COCO-WholeBody and Halpe data set definitions (as in mmpose), OpenPose's
output documentation, MediaPipe's landmark enumerations, hri_msgs/Skeleton2D, the ZED body formats,
XR_EXT_hand_tracking, UBody as in OSX.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dposer_core import skeleton
from dposer_core.errors import ObservationError

NEUTRAL_CONFIDENCE = 0.7
"""For a point whose detector reports none: above the threshold, below a sure detection."""

MAX_COORDINATE = 1e6
"""Larger coordinates, pixels or metres, are no measurement: the point counts as absent."""


def _words(text: str) -> tuple[str, ...]:
    """Names from a table: l_x -> left_x, r_x -> right_x."""
    side = {'l_': 'left_', 'r_': 'right_'}
    return tuple(side.get(word[:2], word[:2]) + word[2:] for word in text.split())


def _hand(side: str) -> tuple[str, ...]:
    """21 points of a hand: its root at the wrist, then from thumb to little finger, tip last."""
    fingers = ('thumb', 'index', 'middle', 'ring', 'pinky')
    return (
        f'{side}_hand_root',
        *(f'{side}_{finger}{i}' for finger in fingers for i in (1, 2, 3, 4)),
    )


_HANDS = _hand('left') + _hand('right')
_FACE = tuple(f'face_{i}' for i in range(68))  # iBUG-68: contour 0-16, brows, nose, eyes, mouth
_PUPILS = _words('r_pupil l_pupil')

_COCO17 = _words(
    'nose l_eye r_eye l_ear r_ear l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist '
    'l_hip r_hip l_knee r_knee l_ankle r_ankle'
)
_COCO_FEET = _words('l_big_toe l_small_toe l_heel r_big_toe r_small_toe r_heel')
# Toes by kind, not by side: unlike COCO-WholeBody.
_HALPE26 = _COCO17 + _words(
    'head_top neck mid_hip l_big_toe r_big_toe l_small_toe r_small_toe l_heel r_heel'
)
_TRUNK18 = _words(
    'nose neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist '
    'r_hip r_knee r_ankle l_hip l_knee l_ankle'
)
_OPENPOSE18 = _TRUNK18 + _words('r_eye l_eye r_ear l_ear')
# hri_msgs says "OpenPose order", but its constants put the left eye and ear first.
_HRI18 = _TRUNK18 + _words('l_eye r_eye l_ear r_ear')
_OPENPOSE25 = _words(
    'nose neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist '
    'mid_hip r_hip r_knee r_ankle l_hip l_knee l_ankle r_eye l_eye r_ear l_ear '
    'l_big_toe l_small_toe l_heel r_big_toe r_small_toe r_heel'
)
# The finger points of the body network are too rough to steer a wrist.
_MEDIAPIPE33 = _words(
    'nose l_eye_inner l_eye l_eye_outer r_eye_inner r_eye r_eye_outer l_ear r_ear '
    'l_mouth r_mouth l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist '
    'l_pinky_rough r_pinky_rough l_index_rough r_index_rough l_thumb_rough r_thumb_rough '
    'l_hip r_hip l_knee r_knee l_ankle r_ankle l_heel r_heel l_big_toe r_big_toe'
)
_ZED34 = _words(
    'pelvis naval_spine chest_spine neck l_clavicle l_shoulder l_elbow l_wrist l_hand l_handtip '
    'l_thumb r_clavicle r_shoulder r_elbow r_wrist r_hand r_handtip r_thumb l_hip l_knee l_ankle '
    'l_foot r_hip r_knee r_ankle r_foot head nose l_eye l_ear r_eye r_ear l_heel r_heel'
)
# Knuckles of index and little finger, but tips of thumb and middle finger.
_ZED38 = _words(
    'pelvis spine1 spine2 spine3 neck nose l_eye r_eye l_ear r_ear l_clavicle r_clavicle '
    'l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hip r_hip l_knee r_knee '
    'l_ankle r_ankle l_big_toe r_big_toe l_small_toe r_small_toe l_heel r_heel '
    'l_thumb4 r_thumb4 l_index1 r_index1 l_middle4 r_middle4 l_pinky1 r_pinky1'
)

_K4ABT32 = _words(
    'pelvis naval_spine chest_spine neck l_clavicle l_shoulder l_elbow l_wrist l_hand l_handtip '
    'l_thumb r_clavicle r_shoulder r_elbow r_wrist r_hand r_handtip r_thumb l_hip l_knee l_ankle '
    'l_foot r_hip r_knee r_ankle r_foot head nose l_eye l_ear r_eye r_ear'
)

_UBODY137 = (
    *_words(
        'pelvis l_hip r_hip l_knee r_knee l_ankle r_ankle neck l_shoulder r_shoulder '
        'l_elbow r_elbow l_wrist r_wrist'
    ),
    *_COCO_FEET,
    *_words('l_ear r_ear l_eye r_eye nose'),
    *(name for name in _HANDS if not name.endswith('hand_root')),
    # SMPL-X's joints of the face, then iBUG without its contour, and the contour last.
    *_words('jaw head l_eyeball r_eyeball'),
    *_FACE[17:],
    *_FACE[:17],
)


def _openxr(side: str) -> tuple[str, ...]:
    """26 joints of XR_EXT_hand_tracking; the metacarpals of the fingers have no place here."""
    names = [f'{side}_palm', f'{side}_hand_root', *(f'{side}_thumb{i}' for i in (1, 2, 3, 4))]
    for finger in ('index', 'middle', 'ring', 'pinky'):
        names.append(f'{side}_{finger}_metacarpal')
        names += [f'{side}_{finger}{i}' for i in (1, 2, 3, 4)]
    return tuple(names)


# Vertices of MediaPipe's 468-point face mesh nearest to the 68 iBUG points, in their order:
# contour, brows, nose, eyes, mouth.
_FACE_MESH_OF_IBUG = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),
)  # fmt: skip
_IBUG_OF_MESH = {vertex: f'face_{i}' for i, vertex in enumerate(_FACE_MESH_OF_IBUG)}
_FACE_MESH = tuple(_IBUG_OF_MESH.get(vertex, f'mesh_{vertex}') for vertex in range(468))

POINT_NAMES: tuple[str, ...] = _COCO17 + _COCO_FEET + _FACE + _HANDS
"""The hub: body 0-16, feet 17-22, face 23-90, left hand 91-111, right hand 112-132."""

NUM_POINTS = len(POINT_NAMES)
POINT_INDEX: dict[str, int] = {name: index for index, name in enumerate(POINT_NAMES)}

BODY_POINTS = slice(0, 17)
FEET_POINTS = slice(17, 23)
FACE_POINTS = slice(23, 91)
LEFT_HAND_POINTS = slice(91, 112)
RIGHT_HAND_POINTS = slice(112, 133)


@dataclass(frozen=True)
class Layout:
    """The points that one kind of detector gives, and how it says that a point is absent."""

    names: tuple[str, ...]
    """Name of each point; names outside of `POINT_NAMES` have no place in the hub."""
    sizes: tuple[int, ...] = ()
    """Other lengths that occur: points beyond the named ones are left out (padding, irises)."""
    origin_is_absent: bool = False
    """A point with all coordinates exactly 0 was not detected."""
    unscored_from: int | None = None
    """From this point on the detector has no confidence and reports 0: it means unknown."""

    @cached_property
    def source(self) -> np.ndarray:
        """(133,) index of the point that each hub point is taken from; -1: none."""
        index = {name: i for i, name in enumerate(self.names)}
        return np.array([index.get(name, -1) for name in POINT_NAMES])

    def accepts(self, num_points: int) -> bool:
        """Whether a person of this layout can have `num_points` points."""
        return num_points == len(self.names) or num_points in self.sizes


_OPENPOSE137 = _OPENPOSE25 + _HANDS + _FACE + _PUPILS
_ZED_SLOTS = (70,)  # zed_msgs has always 70 slots

LAYOUTS: dict[str, Layout] = {
    'coco_wholebody133': Layout(POINT_NAMES),
    'h3wb133': Layout(POINT_NAMES),
    'coco17': Layout(_COCO17),
    'halpe26': Layout(_HALPE26),
    'halpe136': Layout(_HALPE26 + _FACE + _HANDS),
    'openpose18': Layout(_OPENPOSE18, origin_is_absent=True),
    'openpose25': Layout(_OPENPOSE25, origin_is_absent=True),
    'openpose135': Layout(_OPENPOSE137[:135], origin_is_absent=True),
    'openpose_full137': Layout(_OPENPOSE137, origin_is_absent=True),
    'hri18': Layout(_HRI18, origin_is_absent=True),
    'mediapipe33': Layout(_MEDIAPIPE33),
    'mediapipe_holistic': Layout(
        _MEDIAPIPE33 + _HANDS + _FACE_MESH,
        sizes=(33 + 42 + 478,),
        origin_is_absent=True,
        unscored_from=33,
    ),
    'zed18': Layout(_OPENPOSE18, sizes=_ZED_SLOTS),
    'zed34': Layout(_ZED34, sizes=_ZED_SLOTS),
    'zed38': Layout(_ZED38, sizes=_ZED_SLOTS),
    'k4abt32': Layout(_K4ABT32),
    'openpose_wholebody134': Layout(_OPENPOSE18 + _COCO_FEET + _FACE + _HANDS),
    'ubody137': Layout(_UBODY137),
    'left_hand21': Layout(_hand('left')),
    'right_hand21': Layout(_hand('right')),
    'openxr_left26': Layout(_openxr('left')),
    'openxr_right26': Layout(_openxr('right')),
    'smplx55': Layout(skeleton.JOINT_NAMES),
}
"""Layouts by name; `custom` is the one that brings its own names."""

_KNOWN_NAMES = frozenset(POINT_NAMES).union(*(layout.names for layout in LAYOUTS.values()))


def get_layout(layout: str, names: Sequence[str] | None = None) -> Layout:
    """The layout called `layout`; `names` are looked at only for `custom`.

    Raises:
        ObservationError: no such layout, or `custom` with missing, unknown or repeated names.
    """
    if layout == 'custom':
        return _custom_layout(tuple(names) if names is not None else ())
    if layout not in LAYOUTS:
        near = difflib.get_close_matches(str(layout), [*LAYOUTS, 'custom'], n=1, cutoff=0.0)
        raise ObservationError(
            f"unknown keypoint layout '{layout}'; did you mean '{near[0]}'? "
            f'Known: {", ".join(LAYOUTS)}, custom'
        )
    return LAYOUTS[layout]


def layout_for_count(num_points: int) -> str:
    """The layout that `num_points` points can only be.

    Raises:
        ObservationError: none, or several that differ.
    """
    fitting = [name for name, layout in LAYOUTS.items() if layout.accepts(num_points)]
    if not fitting:
        raise ObservationError(f'no known keypoint layout has {num_points} points')
    if any((LAYOUTS[name].source != LAYOUTS[fitting[0]].source).any() for name in fitting):
        raise ObservationError(
            f'{num_points} keypoints can be {" or ".join(fitting)}; say which with --layout'
        )
    return fitting[0]


def to_hub(
    points: np.ndarray,
    confidence: np.ndarray | None,
    layout: str,
    names: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One person's keypoints in the hub layout.

    Args:
        points: (K, 2) or (K, 3), pixels or metres; NaN means absent.
        confidence: (K,); NaN means unknown and becomes `NEUTRAL_CONFIDENCE`, 0 means absent, the
            rest is clipped to [0, 1] (ViTPose reaches 1.055). None: unknown for all.
        layout: a name of `LAYOUTS`, or 'custom'.
        names: the K names of a custom layout.

    Returns:
        (133, dim) points and (133,) confidence in [0, 1], float64 and finite; an absent point has
        confidence 0 and lies at the origin.

    Raises:
        ObservationError: unknown layout, or arrays whose shape does not fit it.
    """
    table = get_layout(layout, names)
    points = _float_array(points, 'points')
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise ObservationError(f'keypoints have shape {points.shape}; expected (K, 2) or (K, 3)')
    if not table.accepts(len(points)):
        raise ObservationError(_wrong_count(layout, table, len(points)))
    if confidence is None:
        confidence = np.full(len(points), np.nan)
    confidence = _float_array(confidence, 'confidence')
    if confidence.shape != points.shape[:1]:
        raise ObservationError(
            f'confidence has shape {confidence.shape}; expected one value for each of the '
            f'{len(points)} points'
        )
    confidence = _known_confidence(confidence, table)
    if table.origin_is_absent:
        confidence = np.where((points == 0).all(axis=1), 0.0, confidence)
    is_given = table.source >= 0
    return clean(points[table.source], np.where(is_given, confidence[table.source], 0.0))


def clean(points: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points that are not finite, or absurdly far, become absent; absent points go to the origin.

    For those who move hub points afterwards: a lens has no inverse everywhere (camera.undistort).

    Args:
        points: (..., dim).
        confidence: (...) in [0, 1].
    """
    with np.errstate(invalid='ignore'):
        is_present = (np.abs(points) <= MAX_COORDINATE).all(axis=-1) & (confidence > 0)
    return np.where(is_present[..., None], points, 0.0), np.where(is_present, confidence, 0.0)


def mirror_hub(
    points: np.ndarray, confidence: np.ndarray, width: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Hub points of the picture (or the person) flipped left to right; twice gives the input.

    Args:
        points: (133, 2) pixels, or (133, 3) metres, where x changes its sign.
        confidence: (133,).
        width: image width in pixels; required for 2D.
    """
    flipped = np.array(points, dtype=np.float64)[MIRROR]
    if flipped.shape[1] == 3:
        flipped[:, 0] *= -1.0
    elif width:
        flipped[:, 0] = (width - 1) - flipped[:, 0]
    else:
        raise ObservationError(
            f'mirrored 2D keypoints need the width of their image, got {width}; '
            'set image_width in the keypoint message'
        )
    return clean(flipped, np.asarray(confidence, dtype=np.float64)[MIRROR])


def from_mediapipe_holistic(
    pose: np.ndarray | None,
    left_hand: np.ndarray | None,
    right_hand: np.ndarray | None,
    face: np.ndarray | None,
    width: int,
    height: int,
) -> tuple[np.ndarray, np.ndarray]:
    """MediaPipe Holistic's normalised landmarks as hub pixels.

    Args:
        pose: (33, 4) x, y, z, visibility; None: nobody found.
        left_hand: (21, 2 or more) x, y, ...; None: lost.
        right_hand: (21, 2 or more) x, y, ...; None: lost.
        face: (468 or 478, 2 or more) x, y, ...; None: lost.
        width: image width, pixels.
        height: image height, pixels.

    Returns:
        (133, 2) pixels and (133,) confidence: the visibility of body and feet, a fixed value for
        the points of a found hand or face, 0 for the rest. Small toes have no source.
    """
    points = np.full((33 + 42 + 468, 2), np.nan)
    confidence = np.zeros(len(points))
    if pose is not None:
        points[:33] = np.asarray(pose)[:, :2]
        confidence[:33] = np.asarray(pose)[:, 3]
    for first, size, part in ((33, 21, left_hand), (54, 21, right_hand), (75, 468, face)):
        if part is not None:
            points[first : first + size] = np.asarray(part)[:size, :2]
    return to_hub(points * (width, height), confidence, 'mediapipe_holistic')


def _custom_layout(names: tuple[str, ...]) -> Layout:
    if not any(name in POINT_INDEX for name in names):
        raise ObservationError(
            f"layout 'custom' needs the names of its points, got {list(names)[:5]}; use names of "
            'COCO-WholeBody such as left_shoulder (all: dposer_core.keypoints.POINT_NAMES)'
        )
    for name in names:
        if name not in _KNOWN_NAMES:
            near = difflib.get_close_matches(str(name), POINT_NAMES, n=1, cutoff=0.0)
            raise ObservationError(f"unknown point name '{name}'; did you mean '{near[0]}'?")
        if names.count(name) > 1:
            raise ObservationError(f"point name '{name}' is given {names.count(name)} times")
    return Layout(names)


def _known_confidence(confidence: np.ndarray, layout: Layout) -> np.ndarray:
    is_unknown = np.isnan(confidence)
    if layout.unscored_from is not None:
        is_unknown[layout.unscored_from :] |= confidence[layout.unscored_from :] == 0
    finite = np.where(np.isfinite(confidence), confidence, 0.0)
    return np.where(is_unknown, NEUTRAL_CONFIDENCE, np.clip(finite, 0.0, 1.0))


def _float_array(values: np.ndarray, what: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ObservationError(f'{what} are not an array of numbers: {error}') from error


def _wrong_count(layout: str, table: Layout, num_points: int) -> str:
    expected = ' or '.join(str(n) for n in sorted({len(table.names), *table.sizes}))
    fitting = [name for name, other in LAYOUTS.items() if other.accepts(num_points)]
    hint = f'with {num_points}: {", ".join(fitting)}' if fitting else 'no layout has that many'
    return f"layout '{layout}' has {expected} points, got {num_points}; {hint}"


def _mirror_permutation() -> np.ndarray:
    # iBUG-68 is symmetric in its order: contour and brows reversed, the rest pair by pair.
    face = list(range(68))
    pairs = [(i, 16 - i) for i in range(8)] + [(17 + i, 26 - i) for i in range(5)]
    pairs += [(31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    pairs += [(48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)]
    for right, left in pairs:
        face[right], face[left] = left, right
    swap = {'left': 'right', 'right': 'left'}

    def partner(name: str) -> str:
        side, _, rest = name.partition('_')
        return f'face_{face[int(rest)]}' if side == 'face' else f'{swap.get(side, side)}{_}{rest}'

    return np.array([POINT_INDEX[partner(name)] for name in POINT_NAMES])


MIRROR = _mirror_permutation()
"""(133,) hub index of the same point on the other side of the person."""
