"""Messages of other detectors as `KeypointFrame`: one small function per message type.

The functions read attributes only, so that a message package that is not installed is needed
neither to import this module nor to test it. Orders of points are those of
`dposer_core.keypoints`; what is particular about a source stands beside it.
"""

import importlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from std_msgs.msg import Header

from dposer_core.errors import ConfigError, ObservationError
from dposer_core.json_keypoints import parse_json
from dposer_core.keypoints import LAYOUTS, POINT_NAMES, layout_for_count
from dposer_ros.msg import KeypointFrame, PersonKeypoints
from dposer_ros.refusals import Refused

_ABSENT = float('nan')
MAX_PEOPLE = 64  # more in one message is no scene but a fault
MAX_TEXT = 4_000_000  # characters of JSON; 16 people with 133 points have 200,000


@dataclass(frozen=True)
class Context:
    """What the message itself does not say."""

    stamp: Any
    """Time of arrival (builtin_interfaces/Time), for messages without a header."""
    frame_id: str = ''
    """`input.frame_id`, for messages without a header."""
    layout: str = ''
    """`input.layout`; empty: told by the message, or from the number of points."""


@dataclass(frozen=True)
class Adapter:
    """A message type that can be read."""

    type: str
    """ROS type, such as 'yolo_msgs/msg/DetectionArray'."""
    convert: Callable[[Any, Context], KeypointFrame]
    help: str
    """What it is, in a few words."""


def convert(name: str, msg: Any, context: Context) -> KeypointFrame:
    """`msg` of the adapter `name` as a KeypointFrame.

    Raises:
        Refused: the message is damaged, or holds what the adapter cannot place.
    """
    try:
        frame = ADAPTERS[name].convert(msg, context)
    except Refused:
        raise
    except ObservationError as error:
        raise Refused('adapter', str(error)) from error
    except (AttributeError, TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
        raise Refused(
            'adapter', f'{name}: damaged message ({type(error).__name__}: {error})'
        ) from error
    if len(frame.people) > MAX_PEOPLE:
        raise Refused(
            'adapter', f'{name}: {len(frame.people)} people in a message, at most {MAX_PEOPLE}'
        )
    return frame


# --- building blocks -----------------------------------------------------------------------------


def _frame(header: Header, layout: str, dim: int, unit: int, **fields: Any) -> KeypointFrame:
    return KeypointFrame(header=header, layout=layout, dim=dim, unit=unit, **fields)


def _metres(header: Header, layout: str, **fields: Any) -> KeypointFrame:
    return _frame(header, layout, KeypointFrame.DIM_3D, KeypointFrame.UNIT_METRE, **fields)


def _pixels(header: Header, layout: str, **fields: Any) -> KeypointFrame:
    return _frame(header, layout, KeypointFrame.DIM_2D, KeypointFrame.UNIT_PIXEL, **fields)


def _person(
    points: np.ndarray,
    confidence: Sequence[float] | np.ndarray | None = None,
    track_id: str = '',
    score: float = math.nan,
) -> PersonKeypoints:
    """One person; a point whose confidence is 0 is absent."""
    points = np.asarray(points, dtype=np.float64)
    values = [] if confidence is None else [float(c) for c in confidence]
    if values:
        points = np.where(np.array(values)[:, None] == 0.0, _ABSENT, points)
    person = PersonKeypoints(track_id=track_id, score=float(score))
    person.bbox = [_ABSENT] * 4
    person.points = points.astype(np.float32).ravel().tolist()
    person.confidence = values
    return person


def _placed(
    names: Sequence[str], found: Iterable[tuple[str, Sequence[float], float]], dim: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points (K, dim) and confidence (K,) in the order of `names`; NaN and 0 where not found."""
    points, confidence = np.full((len(names), dim), _ABSENT), np.zeros(len(names))
    index = {name: i for i, name in enumerate(names)}
    for name, point, score in found:
        if name in index:
            points[index[name]], confidence[index[name]] = point[:dim], score
    return points, confidence


def _xyz(point: Any) -> tuple[float, float, float]:
    return (point.x, point.y, point.z)


def _headless(context: Context) -> Header:
    return Header(stamp=context.stamp, frame_id=context.frame_id)


# --- one function per source ---------------------------------------------------------------------


def from_yolo(msg: Any, context: Context) -> KeypointFrame:
    """yolo_msgs/DetectionArray, 2D: ids count from 1, points under the threshold are left out."""
    people = []
    for detection in msg.detections:
        found = [
            (_COCO[point.id - 1], (point.point.x, point.point.y), point.score)
            for point in detection.keypoints.data
            if 1 <= point.id <= len(_COCO)
        ]
        if found:
            points, confidence = _placed(_COCO, found, 2)
            people.append(_person(points, confidence, str(detection.id), detection.score))
    return _pixels(msg.header, 'coco17', people=people)


def from_yolo_3d(msg: Any, context: Context) -> KeypointFrame:
    """The 3D points of yolo_msgs/DetectionArray, which carry a frame of their own."""
    people, frames = [], set()
    for detection in msg.detections:
        found = [
            (_COCO[point.id - 1], _xyz(point.point), point.score)
            for point in detection.keypoints3d.data
            if 1 <= point.id <= len(_COCO)
        ]
        if found:
            frames.add(detection.keypoints3d.frame_id or msg.header.frame_id)
            points, confidence = _placed(_COCO, found, 3)
            people.append(_person(points, confidence, str(detection.id), detection.score))
    if len(frames) > 1:
        raise Refused('adapter', f'yolo_3d: people in different frames {sorted(frames)}')
    header = Header(stamp=msg.header.stamp, frame_id=frames.pop() if frames else '')
    header.frame_id = header.frame_id or msg.header.frame_id
    return _metres(header, 'coco17', people=people)


def from_hri(msg: Any, context: Context) -> KeypointFrame:
    """hri_msgs/Skeleton2D: one body, normalised, c = 0 is missing; left eye and ear come first."""
    points = [(point.x, point.y) for point in msg.skeleton]
    confidence = [point.c for point in msg.skeleton]
    unit = KeypointFrame.UNIT_NORMALIZED
    people = [_person(np.array(points), confidence)]
    return _frame(msg.header, 'hri18', KeypointFrame.DIM_2D, unit, people=people)


_ZED_LAYOUTS = {0: 'zed18', 1: 'zed34', 2: 'zed38'}


def from_zed(msg: Any, context: Context) -> KeypointFrame:
    """zed_msgs/ObjectsStamped: 70 slots whatever the format, NaN is missing, no confidence."""
    people, formats = [], set()
    for found in msg.objects:
        if not found.skeleton_available:
            continue
        layout = _ZED_LAYOUTS.get(found.body_format)
        if layout is None:
            raise Refused('adapter', f'zed: body_format {found.body_format}: known are 0, 1, 2')
        formats.add(layout)
        points = np.array([list(point.kp) for point in found.skeleton_3d.keypoints])
        points = points[: len(LAYOUTS[layout].names)]
        people.append(_person(points, None, str(found.label_id), found.confidence / 100.0))
    if len(formats) > 1:
        raise Refused('adapter', f'zed: bodies of different formats {sorted(formats)}')
    return _metres(msg.header, formats.pop() if formats else 'zed38', people=people)


def from_openpose(msg: Any, context: Context) -> KeypointFrame:
    """ros_openpose/Frame, its pixels: BODY_25, with hands and face where they are sent."""
    people, layout = [], 'openpose25'
    for person in msg.persons:
        parts = list(person.bodyParts)
        if person.leftHandParts and person.rightHandParts and person.faceParts:
            layout = 'openpose_full137'
            parts += [*person.leftHandParts, *person.rightHandParts, *person.faceParts]
        points = np.array([(part.pixel.x, part.pixel.y) for part in parts])
        people.append(_person(points, [part.score for part in parts]))
    if len({len(person.points) for person in people}) > 1:
        raise Refused('adapter', 'openpose: some people have hands and a face and some have not')
    return _pixels(msg.header, layout, people=people)


def from_trt_pose(msg: Any, context: Context) -> KeypointFrame:
    """pose_msgs/PersonDetection: one person a message, no header, pixels of the network's picture.

    NaN is missing, and the confidence is never filled in. The people of a picture come one after
    the other with nothing that tells whether they are of the same one: the first alone is taken.
    """
    if msg.person_id != 0:
        raise Refused('adapter', f'trt_pose: person {msg.person_id}: only the first is taken')
    parts = [getattr(msg, name) for name in _OPENPOSE18]
    points = np.array([(part.x, part.y) for part in parts])
    return _pixels(_headless(context), 'openpose18', people=[_person(points)])


def from_jsk(msg: Any, context: Context) -> KeypointFrame:
    """jsk_recognition_msgs/PeoplePoseArray: placed by limb name; pixels if all depths are 0."""
    found = [
        [
            (_plain_name(name), _xyz(pose.position), score)
            for name, pose, score in zip(
                person.limb_names, person.poses, person.scores, strict=True
            )
        ]
        for person in msg.poses
    ]
    is_flat = all(point[2] == 0.0 for limbs in found for _, point, _ in limbs)
    people = [_person(*_placed(_COCO, limbs, 2 if is_flat else 3)) for limbs in found]
    build = _pixels if is_flat else _metres
    return build(msg.header, 'coco17', people=people)


def from_azure_kinect(msg: Any, context: Context) -> KeypointFrame:
    """visualization_msgs/MarkerArray of Azure Kinect: marker id = 100 body + joint."""
    bodies: dict[int, list] = {}
    for marker in msg.markers:
        body, joint = divmod(marker.id, 100)
        if marker.action == 0 and 0 <= joint < len(_K4ABT):
            bodies.setdefault(body, []).append((_K4ABT[joint], _xyz(marker.pose.position), 1.0))
    people = []
    for body, found in sorted(bodies.items()):
        points, _ = _placed(_K4ABT, found, 3)
        people.append(_person(points, None, str(body)))
    header = msg.markers[0].header if msg.markers else _headless(context)
    return _metres(header, 'k4abt32', people=people)


def from_named_poses(msg: Any, context: Context) -> KeypointFrame:
    """NamedPoseArray with OpenXR hand names (left_WRIST ... right_LITTLE_TIP) or body names."""
    found = [
        (_OPENXR.get(name, _plain_name(name)), _xyz(pose.position), 1.0)
        for name, pose, is_valid in zip(msg.name, msg.pose, msg.is_valid, strict=True)
        if is_valid
    ]
    points, confidence = _placed(POINT_NAMES, found, 3)
    if not confidence.any():
        raise Refused('adapter', f'named_poses: none of the names is known: {list(msg.name)[:4]}')
    return _metres(msg.header, 'coco_wholebody133', people=[_person(points, confidence)])


def from_multiarray(msg: Any, context: Context) -> KeypointFrame:
    """std_msgs/Float32MultiArray: [people,] points, then (x, y, score) or (x, y, z, score).

    Pixels or metres; the sizes are those of `layout.dim`, the points those of `input.layout`.
    """
    sizes = [dim.size for dim in msg.layout.dim]
    values = np.array(msg.data, dtype=np.float64)[msg.layout.data_offset :]
    if len(sizes) not in (2, 3) or math.prod(sizes) != values.size:
        raise Refused(
            'adapter',
            f'multiarray: layout.dim {sizes} for {values.size} values; expected [people,] points, '
            'values per point',
        )
    table = values.reshape(-1, *sizes[-2:])
    if table.shape[2] not in (3, 4):
        raise Refused('adapter', f'multiarray: {table.shape[2]} values per point; expected 3 or 4')
    layout = context.layout or layout_for_count(table.shape[1])
    build = _pixels if table.shape[2] == 3 else _metres
    people = [_person(rows[:, :-1], rows[:, -1]) for rows in table]
    return build(_headless(context), layout, people=people)


def from_json(msg: Any, context: Context) -> KeypointFrame:
    """std_msgs/String with one frame of any JSON dialect of `dposer_core.json_keypoints`."""
    if len(msg.data) > MAX_TEXT:
        raise Refused('adapter', f'json: {len(msg.data)} characters, at most {MAX_TEXT}')
    try:
        data = json.loads(msg.data)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Refused('adapter', f'json: not JSON: {error}') from error
    recording = parse_json(data, 'json', context.layout or None)
    if len(recording.frames) != 1:
        raise Refused('adapter', f'json: {len(recording.frames)} frames in a message, expected 1')
    people = [_person(p.points, p.confidence, p.track_id) for p in recording.frames[0]]
    build = _pixels if recording.dim == 2 else _metres
    width, height = recording.size or (0, 0)
    fields = {'image_width': width, 'image_height': height} if recording.dim == 2 else {}
    return build(_headless(context), 'coco_wholebody133', people=people, **fields)


_COCO = LAYOUTS['coco17'].names
_K4ABT = LAYOUTS['k4abt32'].names
_OPENPOSE18 = LAYOUTS['openpose18'].names
_OPENXR_FINGERS = {
    'THUMB': ('METACARPAL', 'PROXIMAL', 'DISTAL', 'TIP'),
    **dict.fromkeys(
        ('INDEX', 'MIDDLE', 'RING', 'LITTLE'), ('PROXIMAL', 'INTERMEDIATE', 'DISTAL', 'TIP')
    ),
}


def _openxr_names() -> dict[str, str]:
    """OpenXR hand joint -> hub point; palm and metacarpals of the fingers have no place there."""
    table = {}
    for side in ('left', 'right'):
        table[f'{side}_WRIST'] = f'{side}_hand_root'
        for finger, joints in _OPENXR_FINGERS.items():
            ours = 'pinky' if finger == 'LITTLE' else finger.lower()
            for number, joint in enumerate(joints, start=1):
                table[f'{side}_{finger}_{joint}'] = f'{side}_{ours}{number}'
    return table


_OPENXR = _openxr_names()


def _plain_name(name: str) -> str:
    """'LShoulder', 'left shoulder', 'Left_Shoulder' -> 'left_shoulder'."""
    words = name.replace('-', '_').replace(' ', '_')
    for short, side in (('L', 'left_'), ('R', 'right_')):
        if len(words) > 1 and words[0] == short and words[1].isupper():
            words = side + words[1:]
    words = words.lower()
    for side in ('left', 'right'):
        if words.startswith(side) and not words.startswith(f'{side}_'):
            words = f'{side}_{words[len(side) :]}'
    return words


ADAPTERS: dict[str, Adapter] = {
    'yolo': Adapter('yolo_msgs/msg/DetectionArray', from_yolo, 'yolo_ros, 2D keypoints'),
    'yolo_3d': Adapter('yolo_msgs/msg/DetectionArray', from_yolo_3d, 'yolo_ros, 3D keypoints'),
    'hri': Adapter('hri_msgs/msg/Skeleton2D', from_hri, 'ROS4HRI, the topic of one body'),
    'zed': Adapter('zed_msgs/msg/ObjectsStamped', from_zed, 'ZED body tracking, 3D'),
    'openpose': Adapter('ros_openpose/msg/Frame', from_openpose, 'ros_openpose, pixels'),
    'trt_pose': Adapter('pose_msgs/msg/PersonDetection', from_trt_pose, 'ros2_trt_pose, 2D'),
    'jsk': Adapter('jsk_recognition_msgs/msg/PeoplePoseArray', from_jsk, 'JSK people poses'),
    'azure_kinect': Adapter(
        'visualization_msgs/msg/MarkerArray', from_azure_kinect, 'Azure Kinect body tracking'
    ),
    'named_poses': Adapter(
        'teleop_ros2_interfaces/msg/NamedPoseArray', from_named_poses, 'OpenXR hands, body names'
    ),
    'multiarray': Adapter(
        'std_msgs/msg/Float32MultiArray', from_multiarray, 'plain arrays, as MediaPipe wrappers do'
    ),
    'json': Adapter('std_msgs/msg/String', from_json, 'OpenPose, MMPose, ViTPose as text'),
}
"""Adapters by the value of `input.type`."""

NATIVE = 'keypoint_frame'
AUTO = 'auto'
NATIVE_TYPE = 'dposer_ros/msg/KeypointFrame'


def message_class(ros_type: str) -> type:
    """The Python class of a ROS type.

    Raises:
        ConfigError: its package is not installed or not sourced.
    """
    package, kind, name = ros_type.split('/')
    try:
        return getattr(importlib.import_module(f'{package}.{kind}'), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f'{ros_type} cannot be imported ({error}): install the package {package} and source '
            'its workspace before the node starts'
        ) from error


def detected(published_types: Iterable[str]) -> str:
    """The value of `input.type` for what is published; '' if nothing that can be read is."""
    types = set(published_types)
    if NATIVE_TYPE in types:
        return NATIVE
    return next((name for name, adapter in ADAPTERS.items() if adapter.type in types), '')
