"""Every adapter: golden points, left and right, what is missing, damaged messages."""

import json
import re
from types import SimpleNamespace as Message

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from dposer_ros.msg import KeypointFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from std_msgs.msg import Float32MultiArray, Header, MultiArrayDimension, String

from dposer_core.config import InputConfig, parameters
from dposer_core.errors import ConfigError
from dposer_core.keypoints import LAYOUTS, MIRROR, POINT_INDEX, POINT_NAMES, to_hub
from dposer_ros import adapters, hri_bodies
from dposer_ros.adapters import ADAPTERS, AUTO, NATIVE, Context, convert, detected, message_class
from dposer_ros.refusals import Refused

pytestmark = pytest.mark.ros
CONTEXT = Context(Time(sec=7), 'camera_optical')
HEADER = Header(stamp=Time(sec=3), frame_id='sensor')


def place(name: str) -> np.ndarray:
    """Where a point of the test person is: one of its own, left points at positive x."""
    index = POINT_INDEX[name]
    side = 1.0 if name.startswith('left') else -1.0 if name.startswith('right') else 0.0
    return np.array([side * (100.0 + index), 10.0 + index, 1.0 + index / 100.0])


def hub(frame: KeypointFrame, person: int = 0) -> tuple[np.ndarray, np.ndarray]:
    dim = frame.dim
    who = frame.people[person]
    points = np.array(who.points).reshape(-1, dim)
    confidence = np.array(who.confidence) if len(who.confidence) else None
    return to_hub(points, confidence, frame.layout, list(frame.names) or None)


def expect_places(frame: KeypointFrame, names: list[str], person: int = 0) -> None:
    points, confidence = hub(frame, person)
    for name in names:
        index = POINT_INDEX[name]
        np.testing.assert_allclose(points[index], place(name)[: frame.dim], rtol=1e-6)
        assert confidence[index] > 0, name
    others = np.setdiff1d(np.arange(133), [POINT_INDEX[name] for name in names])
    assert not confidence[others].any(), 'points that were not sent'


def xyz(name: str) -> Message:
    return Message(**dict(zip('xyz', place(name).tolist(), strict=True)))


COCO = list(LAYOUTS['coco17'].names)
SEEN = ['nose', 'left_eye', 'right_ear', 'left_shoulder', 'right_wrist', 'left_hip', 'right_ankle']


def yolo(names: list[str] = SEEN) -> Message:
    flat = [Message(id=COCO.index(n) + 1, point=xyz(n), score=0.8) for n in names]
    deep = Message(data=flat, frame_id='base_link')
    person = Message(id='12', score=0.9, keypoints=Message(data=flat), keypoints3d=deep)
    return Message(header=HEADER, detections=[person])


def test_yolo_ids_count_from_one_and_points_may_be_left_out():
    frame = convert('yolo', yolo(), CONTEXT)
    expect_places(frame, SEEN)
    assert (frame.dim, frame.unit, frame.header.frame_id) == (
        2,
        KeypointFrame.UNIT_PIXEL,
        'sensor',
    )
    assert frame.people[0].track_id == '12'
    assert frame.people[0].score == pytest.approx(0.9)


def test_yolo_points_in_space_bring_their_own_frame():
    frame = convert('yolo_3d', yolo(), CONTEXT)
    expect_places(frame, SEEN)
    assert (frame.dim, frame.header.frame_id, frame.header.stamp.sec) == (3, 'base_link', 3)


def test_hri_has_the_left_eye_first_and_c_zero_is_missing():
    order = LAYOUTS['hri18'].names
    points = [
        Message(x=place(n)[0] / 1000, y=place(n)[1] / 1000, c=0.7 if n in SEEN else 0.0)
        if n in POINT_INDEX
        else Message(x=0.0, y=0.0, c=0.0)
        for n in order
    ]
    assert order[14:16] == ('left_eye', 'right_eye')
    frame = convert('hri', Message(header=HEADER, skeleton=points), CONTEXT)
    found, confidence = hub(frame)
    assert {name for name in COCO if confidence[POINT_INDEX[name]] > 0} == set(SEEN)
    for name in SEEN:
        np.testing.assert_allclose(found[POINT_INDEX[name]], place(name)[:2] / 1000, rtol=1e-6)
    assert frame.unit == KeypointFrame.UNIT_NORMALIZED


@pytest.mark.parametrize(('body_format', 'layout'), [(0, 'zed18'), (1, 'zed34'), (2, 'zed38')])
def test_zed_has_seventy_slots_and_nan_is_missing(body_format, layout):
    names = LAYOUTS[layout].names
    slots = [Message(kp=place(n).tolist() if n in SEEN else [float('nan')] * 3) for n in names] + [
        Message(kp=[5.0, 5.0, 5.0])
    ] * (70 - len(names))
    person = Message(
        skeleton_available=True,
        body_format=body_format,
        label_id=4,
        confidence=80.0,
        skeleton_3d=Message(keypoints=slots),
    )
    hidden = Message(skeleton_available=False)
    frame = convert('zed', Message(header=HEADER, objects=[hidden, person]), CONTEXT)
    expect_places(frame, [n for n in SEEN if n in names])
    assert frame.layout == layout
    assert (frame.people[0].track_id, frame.people[0].score) == ('4', pytest.approx(0.8))


def openpose_part(name: str) -> Message:
    if name in SEEN or name in ('left_thumb2', 'right_pinky4', 'face_30'):
        return Message(score=0.6, pixel=xyz(name))
    return Message(score=0.0, pixel=Message(x=0.0, y=0.0))


def test_openpose_body_alone_and_with_hands_and_face():
    names = LAYOUTS['openpose_full137'].names
    parts = [openpose_part(n) for n in names]
    empty = Message(bodyParts=parts[:25], leftHandParts=[], rightHandParts=[], faceParts=[])
    frame = convert('openpose', Message(header=HEADER, persons=[empty]), CONTEXT)
    expect_places(frame, SEEN)
    whole = Message(
        bodyParts=parts[:25],
        leftHandParts=parts[25:46],
        rightHandParts=parts[46:67],
        faceParts=parts[67:],
    )
    frame = convert('openpose', Message(header=HEADER, persons=[whole]), CONTEXT)
    expect_places(frame, [*SEEN, 'left_thumb2', 'right_pinky4', 'face_30'])
    with pytest.raises(Refused, match='some people have hands'):
        convert('openpose', Message(header=HEADER, persons=[whole, empty]), CONTEXT)


@pytest.mark.parametrize(
    'spelling', ['left_shoulder', 'LShoulder', 'left shoulder', 'LeftShoulder', 'Left_Shoulder']
)
def test_jsk_limbs_are_placed_by_name(spelling):
    names = [spelling, 'RWrist', 'Nose']
    places = ['left_shoulder', 'right_wrist', 'nose']
    person = Message(
        limb_names=names, poses=[Message(position=xyz(n)) for n in places], scores=[0.5] * 3
    )
    frame = convert('jsk', Message(header=HEADER, poses=[person]), CONTEXT)
    assert frame.dim == 3
    expect_places(frame, places)
    for pose in person.poses:
        pose.position.z = 0.0
    assert convert('jsk', Message(header=HEADER, poses=[person]), CONTEXT).dim == 2


def test_azure_kinect_markers_tell_body_and_joint_by_their_id():
    names = LAYOUTS['k4abt32'].names

    def markers(body: int, seen: list[str]) -> list[Message]:
        return [
            Message(
                header=HEADER,
                id=100 * body + names.index(n),
                action=0,
                pose=Message(position=xyz(n)),
            )
            for n in seen
        ]

    msg = Message(markers=markers(3, SEEN) + markers(1, SEEN[:4]))
    frame = convert('azure_kinect', msg, CONTEXT)
    assert [person.track_id for person in frame.people] == ['1', '3']
    expect_places(frame, SEEN[:4], person=0)
    expect_places(frame, SEEN, person=1)


def test_named_poses_take_openxr_hands_and_their_finger_order():
    sent = {
        'left_WRIST': 'left_hand_root',
        'left_THUMB_METACARPAL': 'left_thumb1',
        'left_LITTLE_TIP': 'left_pinky4',
        'right_INDEX_PROXIMAL': 'right_index1',
        'right_RING_DISTAL': 'right_ring3',
    }
    names = [*sent, 'left_PALM', 'right_INDEX_METACARPAL', 'right_MIDDLE_TIP']
    places = [*sent.values(), 'nose', 'nose', 'right_middle4']
    msg = Message(
        header=HEADER,
        name=names,
        pose=[Message(position=xyz(n)) for n in places],
        is_valid=[True] * (len(names) - 1) + [False],
    )
    expect_places(convert('named_poses', msg, CONTEXT), list(sent.values()))
    msg.is_valid = [False] * len(names)
    with pytest.raises(Refused, match='none of the names is known'):
        convert('named_poses', msg, CONTEXT)


def multiarray(values: np.ndarray) -> Float32MultiArray:
    msg = Float32MultiArray(data=values.astype(np.float32).ravel().tolist())
    msg.layout.dim = [MultiArrayDimension(size=size) for size in values.shape]
    return msg


@pytest.mark.parametrize('dim', [2, 3])
def test_multiarray_rows_are_coordinates_and_score(dim):
    table = np.array([[*place(n)[:dim], 0.9 if n in SEEN else 0.0] for n in COCO])
    frame = convert('multiarray', multiarray(np.stack([table, table])), CONTEXT)
    assert len(frame.people) == 2
    assert (frame.dim, frame.layout) == (dim, 'coco17')
    assert (frame.header.stamp.sec, frame.header.frame_id) == (7, 'camera_optical')
    expect_places(frame, SEEN, person=1)
    with pytest.raises(Refused, match='expected 3 or 4'):
        convert('multiarray', multiarray(table[:, :2]), CONTEXT)


def test_json_text_is_any_dialect_with_one_frame():
    rows = [[*place(n)[:2].tolist(), 0.9 if n in SEEN else 0.0] for n in COCO]
    text = json.dumps([{'keypoints': rows}])
    frame = convert('json', String(data=text), CONTEXT)
    expect_places(frame, SEEN)
    for bad, message in (('{', 'not JSON'), ('[1, 2]', 'no known keypoint file')):
        with pytest.raises(Refused, match=message):
            convert('json', String(data=bad), CONTEXT)
    with pytest.raises(Refused, match='characters'):
        convert('json', String(data=' ' * (adapters.MAX_TEXT + 1)), CONTEXT)


def test_too_many_people_are_refused():
    crowd = yolo()
    crowd.detections = crowd.detections * (adapters.MAX_PEOPLE + 1)
    with pytest.raises(Refused, match='65 people in a message'):
        convert('yolo', crowd, CONTEXT)


# --- every adapter, every point ---------------------------------------------------------------

WRIST_OF_ROOT = {'left_hand_root': 'left_WRIST', 'right_hand_root': 'right_WRIST'}
FINGERS = {
    'thumb': 'THUMB',
    'index': 'INDEX',
    'middle': 'MIDDLE',
    'ring': 'RING',
    'pinky': 'LITTLE',
}
THUMB = ['METACARPAL', 'PROXIMAL', 'DISTAL', 'TIP']
FINGER = ['PROXIMAL', 'INTERMEDIATE', 'DISTAL', 'TIP']
HUB_HANDS = list(POINT_NAMES[91:])


def named(layout: str) -> list[str]:
    """The points of a layout that have a place in the hub."""
    return [name for name in LAYOUTS[layout].names if name in POINT_INDEX]


def dot(xyz, scale: float = 1.0) -> Message:
    return Message(**dict(zip('xyz', (np.array(xyz) * scale).tolist(), strict=True)))


def openxr_name(name: str) -> str:
    """'left_pinky3' -> 'left_LITTLE_DISTAL'."""
    if name in WRIST_OF_ROOT:
        return WRIST_OF_ROOT[name]
    side, _, finger = name.partition('_')
    joints = THUMB if finger.startswith('thumb') else FINGER
    return f'{side}_{FINGERS[finger[:-1]]}_{joints[int(finger[-1]) - 1]}'


def yolo_of(where) -> Message:
    flat = [Message(id=i + 1, point=dot(where(n)), score=0.8) for i, n in enumerate(COCO)]
    deep = Message(data=flat, frame_id='base_link')
    person = Message(id='1', score=0.9, keypoints=Message(data=flat), keypoints3d=deep)
    return Message(header=HEADER, detections=[person])


def hri_of(where) -> Message:
    points = [
        Message(x=where(n)[0], y=where(n)[1], c=0.7)
        if n in POINT_INDEX
        else Message(x=0, y=0, c=0)
        for n in LAYOUTS['hri18'].names
    ]
    return Message(header=HEADER, skeleton=points)


def zed_of(body_format: int):
    names = LAYOUTS[f'zed{(18, 34, 38)[body_format]}'].names

    def build(where) -> Message:
        slots = [Message(kp=list(where(n) if n in POINT_INDEX else [9.0] * 3)) for n in names]
        slots += [Message(kp=[float('nan')] * 3)] * (70 - len(names))
        person = Message(
            skeleton_available=True, body_format=body_format, label_id=4, confidence=80.0,
            skeleton_3d=Message(keypoints=slots),
        )  # fmt: skip
        return Message(header=HEADER, objects=[person])

    return build


def openpose_of(where) -> Message:
    parts = [
        Message(score=0.6, pixel=dot(where(n) if n in POINT_INDEX else (9.0, 9.0, 9.0)))
        for n in LAYOUTS['openpose_full137'].names
    ]
    person = Message(
        bodyParts=parts[:25], leftHandParts=parts[25:46], rightHandParts=parts[46:67],
        faceParts=parts[67:],
    )  # fmt: skip
    return Message(header=HEADER, persons=[person])


def trt_pose_of(where) -> Message:
    absent = Message(x=float('nan'), y=float('nan'), confidence=float('nan'))
    parts = {
        n: Message(x=where(n)[0], y=where(n)[1], confidence=0.0) if n in POINT_INDEX else absent
        for n in LAYOUTS['openpose18'].names
    }
    return Message(num_people_detected=1, person_id=0, chest=absent, **parts)


def jsk_of(where) -> Message:
    poses = [Message(position=dot(where(n))) for n in COCO]
    return Message(
        header=HEADER, poses=[Message(limb_names=COCO, poses=poses, scores=[0.5] * len(COCO))]
    )


def azure_of(where) -> Message:
    markers = [
        Message(header=HEADER, id=100 + i, action=0, pose=Message(position=dot(where(n))))
        for i, n in enumerate(LAYOUTS['k4abt32'].names)
        if n in POINT_INDEX
    ]
    return Message(markers=markers)


def named_poses_of(where) -> Message:
    names = COCO + HUB_HANDS
    sent = [n if n in COCO else openxr_name(n) for n in names]
    poses = [Message(position=dot(where(n))) for n in names]
    return Message(header=HEADER, name=sent, pose=poses, is_valid=[True] * len(names))


def multiarray_of(layout: str):
    def build(where) -> Float32MultiArray:
        rows = [
            [*where(n), 0.9] if n in POINT_INDEX else [9.0, 9.0, 9.0, 0.9]
            for n in LAYOUTS[layout].names
        ]
        return multiarray(np.array(rows))

    return build


def json_of(where) -> String:
    rows = [[*map(float, where(n)[:2]), 0.9] for n in POINT_NAMES]
    return String(data=json.dumps([{'keypoints': rows}]))


CONVERSIONS = {
    'yolo': ('yolo', yolo_of, COCO),
    'yolo_3d': ('yolo_3d', yolo_of, COCO),
    'hri': ('hri', hri_of, COCO),
    **{f'zed {n}': ('zed', zed_of(i), named(f'zed{n}')) for i, n in enumerate((18, 34, 38))},
    'openpose': ('openpose', openpose_of, named('openpose_full137')),
    'trt_pose': ('trt_pose', trt_pose_of, COCO),
    'jsk': ('jsk', jsk_of, COCO),
    'azure_kinect': ('azure_kinect', azure_of, named('k4abt32')),
    'named_poses': ('named_poses', named_poses_of, COCO + HUB_HANDS),
    'json': ('json', json_of, list(POINT_NAMES)),
    **{f'multiarray {name}': ('multiarray', multiarray_of(name), named(name)) for name in LAYOUTS},
}


def converted(case: str, where) -> KeypointFrame:
    adapter, build, _ = CONVERSIONS[case]
    layout = case.removeprefix('multiarray ') if adapter == 'multiarray' else ''
    return convert(adapter, build(where), Context(Time(sec=7), 'camera_optical', layout))


def test_every_adapter_is_among_the_conversions():
    assert {adapter for adapter, _, _ in CONVERSIONS.values()} == set(ADAPTERS)


@pytest.mark.parametrize('case', CONVERSIONS)
def test_every_point_goes_to_its_place_and_no_other_comes(case):
    """Fingers from thumb to little finger, toes, eyes: each point has a place of its own."""
    expect_places(converted(case, place), CONVERSIONS[case][2])


def partner(name: str) -> str:
    return POINT_NAMES[MIRROR[POINT_INDEX[name]]]


@pytest.mark.parametrize('case', [c for c in CONVERSIONS if not re.search('hand21|openxr', c)])
def test_the_mirrored_person_is_the_mirror_of_the_person(case):
    """Somebody whose left and right are exchanged: left points get what the right ones had."""
    mirrored = converted(case, lambda name: place(partner(name)) * (-1.0, 1.0, 1.0))
    points, confidence = hub(converted(case, place))
    flipped, flipped_confidence = hub(mirrored)
    np.testing.assert_allclose(flipped[:, 0], -points[MIRROR, 0], rtol=1e-6)
    np.testing.assert_allclose(flipped[:, 1:], points[MIRROR, 1:], rtol=1e-6)
    np.testing.assert_array_equal(flipped_confidence > 0, confidence[MIRROR] > 0)


def test_trt_pose_takes_the_first_person_and_nan_is_missing():
    """Its confidence is 0 for what it has found."""
    msg = trt_pose_of(place)
    msg.left_wrist = Message(x=float('nan'), y=float('nan'), confidence=float('nan'))
    frame = convert('trt_pose', msg, CONTEXT)
    expect_places(frame, [name for name in COCO if name != 'left_wrist'])
    assert (frame.header.stamp.sec, frame.header.frame_id) == (7, 'camera_optical')
    msg.person_id = 1
    with pytest.raises(Refused, match='only the first'):
        convert('trt_pose', msg, CONTEXT)


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(['keypoints', 'people', 'pose_keypoints_2d', 'instances', 'image_id']),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(_JUNK)
def test_junk_in_json_is_refused_and_never_breaks(data):
    try:
        frame = convert('json', String(data=json.dumps(data)), CONTEXT)
    except Refused:
        return
    assert isinstance(frame, KeypointFrame)


@pytest.mark.parametrize('name', ADAPTERS)
def test_a_damaged_message_is_refused_by_name(name):
    lists = ('detections', 'skeleton', 'objects', 'persons', 'poses', 'markers', 'name')
    broken = Message(data=None, header=None, **{key: [None] for key in lists})
    with pytest.raises(Refused, match=name):
        convert(name, broken, CONTEXT)


def test_the_parameter_lists_every_adapter():
    choices = next(m['choices'] for n, _, m in parameters(InputConfig()) if n == 'type')
    assert [c for c in choices if c != hri_bodies.TYPE] == [AUTO, NATIVE, *ADAPTERS]
    assert hri_bodies.TYPE in choices


def test_what_is_published_decides():
    assert detected(['std_msgs/msg/String']) == 'json'
    assert detected(['std_msgs/msg/String', 'dposer_ros/msg/KeypointFrame']) == NATIVE
    assert detected(['yolo_msgs/msg/DetectionArray']) == 'yolo'
    assert detected(['sensor_msgs/msg/Image']) == ''


def test_a_missing_message_package_is_named():
    assert message_class('std_msgs/msg/String') is String
    with pytest.raises(ConfigError, match='install the package no_such_msgs'):
        message_class('no_such_msgs/msg/People')
