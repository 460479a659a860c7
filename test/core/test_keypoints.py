"""Every layout against the order in its source, the missing conventions, and arbitrary input."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dposer_core import keypoints
from dposer_core.errors import ObservationError
from dposer_core.keypoints import (
    LAYOUTS,
    MIRROR,
    NEUTRAL_CONFIDENCE,
    POINT_INDEX,
    POINT_NAMES,
    from_mediapipe_holistic,
    layout_for_count,
    mirror_hub,
    to_hub,
)

NONE6 = [-1] * 6
OPENPOSE = [0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11, *range(19, 25)]
MEDIAPIPE = [0, 2, 5, 7, 8, *range(11, 17), *range(23, 29), 31, -1, 29, 32, -1, 30]
# Source index of the hub's points 0-22 (nose, eyes, ears, shoulders, elbows, wrists, hips, knees,
# ankles: left before right; left big toe, small toe, heel; the same of the right), written down
# from the definitions of the layouts and not from our tables.
BODY_AND_FEET = {
    'coco17': [*range(17), *NONE6],
    'coco_wholebody133': [*range(23)],
    'h3wb133': [*range(23)],
    'halpe26': [*range(17), 20, 22, 24, 21, 23, 25],
    'halpe136': [*range(17), 20, 22, 24, 21, 23, 25],
    'openpose18': [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10, *NONE6],
    'zed18': [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10, *NONE6],
    'hri18': [0, 14, 15, 16, 17, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10, *NONE6],
    'openpose25': OPENPOSE,
    'openpose135': OPENPOSE,
    'openpose_full137': OPENPOSE,
    'mediapipe33': MEDIAPIPE,
    'mediapipe_holistic': MEDIAPIPE,
    'zed34': [
        *(27, 28, 30, 29, 31, 5, 12, 6, 13, 7, 14, 18, 22, 19, 23, 20, 24),
        *(-1, -1, 32, -1, -1, 33),
    ],
    'zed38': [5, 6, 7, 8, 9, *range(12, 24), 24, 26, 28, 25, 27, 29],
    'k4abt32': [27, 28, 30, 29, 31, 5, 12, 6, 13, 7, 14, 18, 22, 19, 23, 20, 24, *NONE6],
    'openpose_wholebody134': [
        *(0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10),
        *range(18, 24),
    ],
    'ubody137': [
        *(24, 22, 23, 20, 21, 8, 9, 10, 11, 12, 13, 1, 2, 3, 4, 5, 6),
        *range(14, 20),
    ],
    'left_hand21': [-1] * 23,
    'right_hand21': [-1] * 23,
    'openxr_left26': [-1] * 23,
    'openxr_right26': [-1] * 23,
    'smplx55': [-1, 23, 24, -1, -1, 16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8, *NONE6],
}
# First source index of face, left hand, right hand where they are copied 1:1.
FACE_AND_HANDS = {
    'coco_wholebody133': (23, 91, 112),
    'h3wb133': (23, 91, 112),
    'halpe136': (26, 94, 115),
    'openpose135': (67, 25, 46),
    'openpose_full137': (67, 25, 46),
    'openpose_wholebody134': (24, 92, 113),
}
LEFT_HAND, RIGHT_HAND = keypoints.LEFT_HAND_POINTS, keypoints.RIGHT_HAND_POINTS


def numbered(layout: str, dim: int = 2) -> np.ndarray:
    """Points whose first coordinate is their own index + 1."""
    points = np.full((len(LAYOUTS[layout].names), dim), 7.0)
    points[:, 0] = np.arange(len(points)) + 1
    return points


def test_hub_is_coco_wholebody_133():
    assert len(POINT_NAMES) == len(set(POINT_NAMES)) == 133
    assert [POINT_INDEX[name] for name in ('face_0', 'left_hand_root', 'right_hand_root')] == [
        *(23, 91, 112)
    ]


def test_every_layout_has_a_golden_row():
    assert set(BODY_AND_FEET) == set(LAYOUTS)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dim', [2, 3])
def test_body_and_feet_come_from_the_right_points(layout, dim):
    points, confidence = to_hub(numbered(layout, dim), None, layout)
    golden = np.array(BODY_AND_FEET[layout])
    np.testing.assert_array_equal(points[:23, 0], golden + 1)
    np.testing.assert_array_equal(confidence[:23], np.where(golden < 0, 0, NEUTRAL_CONFIDENCE))


@pytest.mark.parametrize('layout', FACE_AND_HANDS)
def test_face_and_hands_are_copied_in_order(layout):
    points, _ = to_hub(numbered(layout), None, layout)
    face, left, right = FACE_AND_HANDS[layout]
    np.testing.assert_array_equal(points[keypoints.FACE_POINTS, 0], face + 1 + np.arange(68))
    np.testing.assert_array_equal(points[LEFT_HAND, 0], left + 1 + np.arange(21))
    np.testing.assert_array_equal(points[RIGHT_HAND, 0], right + 1 + np.arange(21))


def test_mediapipe_hands_and_face_follow_the_body():
    points, _ = to_hub(numbered('mediapipe_holistic'), None, 'mediapipe_holistic')
    np.testing.assert_array_equal(points[LEFT_HAND, 0], 34 + np.arange(21))
    np.testing.assert_array_equal(points[RIGHT_HAND, 0], 55 + np.arange(21))
    # Chin, bridge of the nose, outer corner of the right and of the left eye, middle of the lips.
    for ibug, vertex in ((8, 152), (27, 168), (36, 33), (45, 263), (62, 13), (66, 14)):
        assert points[POINT_INDEX[f'face_{ibug}'], 0] == 75 + vertex + 1


def test_smplx_fingers_are_reordered_and_tips_stay_absent():
    # SMPL-X: index, middle, pinky, ring, thumb; hub: thumb, index, middle, ring, pinky.
    points, _ = to_hub(numbered('smplx55'), None, 'smplx55')
    left = [37, 38, 39, -1, 25, 26, 27, -1, 28, 29, 30, -1, 34, 35, 36, -1, 31, 32, 33, -1]
    np.testing.assert_array_equal(points[92:112, 0], np.array(left) + 1)
    np.testing.assert_array_equal(
        points[113:133, 0], np.where(np.array(left) < 0, -1, np.array(left) + 15) + 1
    )


def test_ubody_fingers_lack_the_root_and_its_face_ends_with_the_contour():
    points, confidence = to_hub(numbered('ubody137'), None, 'ubody137')
    assert confidence[[91, 112]].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(points[92:112, 0], np.arange(25, 45) + 1)
    np.testing.assert_array_equal(points[113:133, 0], np.arange(45, 65) + 1)
    np.testing.assert_array_equal(points[23:40, 0], np.arange(120, 137) + 1)  # contour
    np.testing.assert_array_equal(points[40:91, 0], np.arange(69, 120) + 1)


@pytest.mark.parametrize(('side', 'first'), [('left', 91), ('right', 112)])
def test_one_hand_alone_fills_one_hand(side, first):
    """21 points 1:1; OpenXR has a palm first and a metacarpal more in each finger."""
    points, confidence = to_hub(numbered(f'{side}_hand21'), None, f'{side}_hand21')
    np.testing.assert_array_equal(points[first : first + 21, 0], np.arange(21) + 1)
    assert np.flatnonzero(confidence).tolist() == list(range(first, first + 21))
    points, confidence = to_hub(numbered(f'openxr_{side}26'), None, f'openxr_{side}26')
    openxr = [1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18, 19, 20, 22, 23, 24, 25]
    np.testing.assert_array_equal(points[first : first + 21, 0], np.array(openxr) + 1)
    assert np.flatnonzero(confidence).tolist() == list(range(first, first + 21))


def test_zed38_has_tips_of_thumb_and_middle_but_knuckles_of_index_and_pinky():
    points, _ = to_hub(numbered('zed38'), None, 'zed38')
    named = {POINT_NAMES[i]: int(points[i, 0]) - 1 for i in np.flatnonzero(points[:, 0] > 30)}
    assert {name: named[name] for name in named if name.startswith('left')} == {
        'left_thumb4': 30, 'left_index1': 32, 'left_middle4': 34, 'left_pinky1': 36,
    }  # fmt: skip


def test_eyes_of_hri_and_openpose_are_swapped():
    points = numbered('hri18')
    hri, openpose = (to_hub(points, None, layout)[0] for layout in ('hri18', 'openpose18'))
    np.testing.assert_array_equal(hri[[1, 2, 3, 4]], openpose[[2, 1, 4, 3]])


@pytest.mark.parametrize(('layout', 'slots'), [('zed18', 70), ('zed34', 70), ('zed38', 70)])
def test_zed_messages_of_70_slots_are_cut(layout, slots):
    points = np.full((slots, 3), np.nan)
    used = len(LAYOUTS[layout].names)
    points[:used] = numbered(layout, 3)
    np.testing.assert_array_equal(
        to_hub(points, None, layout)[0], to_hub(points[:used], None, layout)[0]
    )


def test_refined_face_mesh_with_irises_is_accepted():
    points = np.concatenate([numbered('mediapipe_holistic'), np.full((10, 2), 5.0)])
    expected, _ = to_hub(points[:543], None, 'mediapipe_holistic')
    np.testing.assert_array_equal(to_hub(points, None, 'mediapipe_holistic')[0], expected)


def mirrored_layout(layout: str) -> str:
    """Layouts of one hand have a partner, all others are their own."""
    return re.sub('left|right', lambda side: symmetric_partner(f'{side[0]}_')[:-1], layout)


def symmetric_partner(name: str) -> str:
    side, _, rest = name.partition('_')
    return {'left': 'right_', 'right': 'left_'}.get(side, side + _) + rest


@pytest.mark.parametrize('layout', LAYOUTS)
def test_mirrored_person_is_the_mirrored_hub(layout):
    rng = np.random.default_rng(0)
    names, width = LAYOUTS[layout].names, 640
    place = {name: rng.uniform(10, 600, 2) for name in (*names, *POINT_NAMES)}
    points = np.array([place[name] for name in names])
    # In the flipped picture the detector calls the person's right hand the left one.
    other = mirrored_layout(layout)
    flipped = np.array(
        [place.get(symmetric_partner(name), place.get(name)) for name in LAYOUTS[other].names]
    )
    flipped[:, 0] = width - 1 - flipped[:, 0]
    expected, expected_confidence = mirror_hub(*to_hub(points, None, layout), width)
    got, confidence = to_hub(flipped, None, other)
    body = np.r_[0:23, 91:133]  # names of face points carry no side
    np.testing.assert_allclose(got[body], expected[body])
    np.testing.assert_array_equal(confidence[body], expected_confidence[body])


def test_mirrored_face_is_the_symmetric_ibug_face():
    face = np.zeros((133, 2))
    angle = np.linspace(0, np.pi, 17)
    face[23:40] = np.c_[100 - 50 * np.cos(angle), 100 + 60 * np.sin(angle)]
    face[40:50] = np.c_[[60, 67, 74, 81, 88, 112, 119, 126, 133, 140], [80] * 10]  # brows
    face[50:59] = np.c_[[100] * 4 + [92, 96, 100, 104, 108], [90, 96, 102, 108] + [112] * 5]
    right_eye = [(70, 90), (74, 87), (80, 87), (84, 90), (80, 93), (74, 93)]
    left_eye = [(116, 90), (120, 87), (126, 87), (130, 90), (126, 93), (120, 93)]
    face[59:71] = right_eye + left_eye
    lips = [(80, 130), (86, 126), (94, 124), (100, 125), (106, 124), (114, 126), (120, 130)]
    lips += [(114, 138), (106, 141), (100, 142), (94, 141), (86, 138)]
    lips += [
        (84, 130),
        (94, 129),
        (100, 130),
        (106, 129),
        (116, 130),
        (106, 134),
        (100, 135),
        (94, 134),
    ]
    face[71:91] = lips
    confidence = np.zeros(133)
    confidence[23:91] = 1.0
    mirrored, _ = mirror_hub(face, confidence, 201)  # the axis of this face is x = 100
    np.testing.assert_allclose(mirrored, face, atol=1e-12)


def test_mirroring_twice_gives_the_input():
    rng = np.random.default_rng(1)
    points, confidence = rng.uniform(0, 600, (133, 2)), rng.uniform(0.1, 1, 133)
    twice = mirror_hub(*mirror_hub(points, confidence, 640), 640)
    np.testing.assert_allclose(twice[0], points)
    np.testing.assert_array_equal(twice[1], confidence)


def test_mirroring_3d_flips_the_sign_of_x():
    points = np.random.default_rng(2).normal(size=(133, 3))
    mirrored, _ = mirror_hub(points, np.ones(133))
    np.testing.assert_array_equal(mirrored, points[MIRROR] * [-1, 1, 1])


def test_mirroring_pixels_needs_the_width():
    with pytest.raises(ObservationError, match='image_width'):
        mirror_hub(np.zeros((133, 2)), np.ones(133))


# --- what is absent ---------------------------------------------------------------------------


def present(layout: str, points: np.ndarray, confidence: np.ndarray | None) -> np.ndarray:
    return to_hub(points, confidence, layout)[1] > 0


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf, 1e30])
def test_point_without_a_place_is_absent_and_finite(bad):
    points = numbered('coco17')
    points[3, 1] = bad
    hub, confidence = to_hub(points, np.ones(17), 'coco17')
    assert confidence[3] == 0 and confidence[:17].sum() == 16
    np.testing.assert_array_equal(hub[3], 0)


@pytest.mark.parametrize('layout', ['openpose18', 'openpose25', 'openpose135', 'openpose_full137'])
def test_origin_is_absent_for_openpose_even_with_confidence(layout):
    points = numbered(layout)
    points[5] = 0.0
    absent = np.flatnonzero(~present(layout, points, np.ones(len(points))))
    assert POINT_INDEX['left_shoulder'] in absent


def test_origin_is_a_place_for_coco():
    points = numbered('coco17')
    points[5] = 0.0
    assert present('coco17', points, np.ones(17))[5]


def test_hri_point_with_confidence_zero_is_absent():
    confidence = np.ones(18)
    confidence[4] = 0.0
    assert not present('hri18', numbered('hri18'), confidence)[POINT_INDEX['right_wrist']]


def test_zero_confidence_of_mediapipe_hands_means_unknown():
    points = numbered('mediapipe_holistic')
    confidence = np.zeros(len(points))
    confidence[:33] = 0.9
    _, hub = to_hub(points, confidence, 'mediapipe_holistic')
    np.testing.assert_array_equal(hub[91:133], NEUTRAL_CONFIDENCE)


def test_zero_visibility_of_the_mediapipe_body_means_absent():
    points = numbered('mediapipe_holistic')
    _, hub = to_hub(points, np.zeros(len(points)), 'mediapipe_holistic')
    assert not hub[:23].any()


def test_unknown_confidence_is_neutral_and_large_ones_are_clipped():
    confidence = np.full(17, 0.5)
    confidence[:4] = [np.nan, 1.055, -0.2, np.inf]
    _, hub = to_hub(numbered('coco17'), confidence, 'coco17')
    np.testing.assert_allclose(hub[:5], [NEUTRAL_CONFIDENCE, 1.0, 0.0, 0.0, 0.5])


def test_all_confidences_zero_gives_nothing():
    points, confidence = to_hub(numbered('coco_wholebody133'), np.zeros(133), 'coco_wholebody133')
    assert not points.any() and not confidence.any()


# --- what is refused --------------------------------------------------------------------------


def test_unknown_layout_names_the_nearest():
    with pytest.raises(
        ObservationError, match="'coco_wholebody_133'; did you mean 'coco_wholebody133'"
    ):
        to_hub(np.zeros((133, 2)), None, 'coco_wholebody_133')


def test_wrong_count_names_the_layouts_that_fit():
    with pytest.raises(ObservationError, match="'coco17' has 17 points, got 26; with 26: halpe26"):
        to_hub(np.zeros((26, 2)), None, 'coco17')


@pytest.mark.parametrize('shape', [(17,), (17, 4), (17, 1), (1, 17, 2), (0, 2)])
def test_wrong_shape_of_points_is_refused(shape):
    with pytest.raises(ObservationError):
        to_hub(np.zeros(shape), None, 'coco17')


def test_wrong_shape_of_confidence_is_refused():
    with pytest.raises(ObservationError, match=r'\(16,\); expected one value for each of the 17'):
        to_hub(numbered('coco17'), np.ones(16), 'coco17')


@pytest.mark.parametrize('points', [[['a', 'b']] * 17, [[1.0], [1.0, 2.0]], None])
def test_points_that_are_no_numbers_are_refused(points):
    with pytest.raises(ObservationError):
        to_hub(points, None, 'coco17')


def test_layout_is_told_from_the_count_where_only_one_fits():
    assert layout_for_count(133) == 'coco_wholebody133'
    assert layout_for_count(25) == 'openpose25'
    with pytest.raises(ObservationError, match=r'hri18.*--layout'):
        layout_for_count(18)
    with pytest.raises(ObservationError, match='no known keypoint layout has 99'):
        layout_for_count(99)


# --- custom -----------------------------------------------------------------------------------


def test_custom_layout_goes_by_its_names():
    points, confidence = to_hub(
        [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        None,
        'custom',
        ['right_wrist', 'neck', 'left_index4'],
    )
    assert np.flatnonzero(confidence).tolist() == [
        POINT_INDEX['right_wrist'],
        POINT_INDEX['left_index4'],
    ]
    np.testing.assert_array_equal(points[POINT_INDEX['left_index4']], [5, 6])


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (None, 'needs the names'),
        (['neck'], 'needs the names'),
        (['nose', 'left_wirst'], "'left_wirst'; did you mean 'left_wrist'"),
        (['nose', 'nose'], "'nose' is given 2 times"),
    ],
)
def test_custom_layout_with_bad_names_is_refused(names, message):
    with pytest.raises(ObservationError, match=message):
        to_hub(np.ones((len(names or [0]), 2)), None, 'custom', names)


# --- MediaPipe Holistic in process ------------------------------------------------------------


def test_holistic_results_become_pixels_with_visibility():
    pose = np.tile([0.5, 0.25, 0.0, 0.8], (33, 1))
    hand = np.tile([0.1, 0.2, 0.0], (21, 1))
    points, confidence = from_mediapipe_holistic(pose, None, hand, None, 640, 480)
    np.testing.assert_allclose(points[0], [320, 120])
    assert confidence[0] == 0.8
    np.testing.assert_allclose(points[RIGHT_HAND], np.tile([64, 96], (21, 1)))
    np.testing.assert_array_equal(confidence[RIGHT_HAND], NEUTRAL_CONFIDENCE)
    assert not confidence[LEFT_HAND].any() and not confidence[keypoints.FACE_POINTS].any()


def test_holistic_results_without_anybody_are_absent():
    points, confidence = from_mediapipe_holistic(None, None, None, None, 640, 480)
    assert points.shape == (133, 2) and not points.any() and not confidence.any()


@pytest.mark.parametrize('vertices', [468, 478])
def test_holistic_face_with_and_without_irises(vertices):
    face = np.c_[np.arange(vertices) / 1000 + 0.1, np.full((vertices, 2), 0.5)]
    points, _ = from_mediapipe_holistic(None, None, None, face, 1000, 1000)
    assert points[POINT_INDEX['face_8'], 0] == pytest.approx(152 + 100)


# --- anything at all --------------------------------------------------------------------------

LAYOUT_NAMES = st.sampled_from([*LAYOUTS, 'custom', 'coco', ''])
POINT_LISTS = st.lists(st.sampled_from([*POINT_NAMES, 'neck', 'x']), max_size=5)
VALUES = st.floats(width=64)
COUNTS = st.sampled_from(sorted({len(layout.names) for layout in LAYOUTS.values()}))
ANY_SHAPE = hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=40), elements=VALUES)
RIGHT_SHAPE = COUNTS.flatmap(
    lambda k: hnp.arrays(np.float64, (k, 2), elements=VALUES, fill=st.just(1.0))
)


@settings(max_examples=300, deadline=None)
@given(points=ANY_SHAPE | RIGHT_SHAPE, layout=LAYOUT_NAMES, data=st.data())
def test_arbitrary_arrays_give_finite_points_or_an_observation_error(points, layout, data):
    shape = points.shape[:1] if points.ndim else (1,)
    confidence = data.draw(st.none() | hnp.arrays(np.float64, shape, elements=VALUES))
    names = data.draw(
        st.none() | st.lists(st.sampled_from([*POINT_NAMES, 'neck', 'x']), max_size=5)
    )
    try:
        hub, hub_confidence = to_hub(points, confidence, layout, names)
    except ObservationError:
        return
    assert hub.shape == (133, points.shape[1]) and np.isfinite(hub).all()
    assert ((hub_confidence >= 0) & (hub_confidence <= 1)).all()
    assert not hub[hub_confidence == 0].any()
