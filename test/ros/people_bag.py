"""Bags of people whose motion is known: keypoints, their camera, and the truth beside them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from dposer_core.body_model import load_body
from dposer_ros import bags
from test.swaying import CAMERA, FRAME_NS, START_NS, swaying

FRAME_ID = 'camera'
STORE = bags.typestore()
TYPES = STORE.types
TRUTH_STATES, TRUTH_POINTS = '/truth/states', '/truth/points'


def header(stamp_ns: int, frame_id: str = FRAME_ID):
    stamp = TYPES['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 1_000_000_000))
    return TYPES['std_msgs/msg/Header'](stamp, frame_id)


def camera_info():
    k = np.array([CAMERA.fx, 0, CAMERA.cx, 0, CAMERA.fy, CAMERA.cy, 0, 0, 1])
    return TYPES[bags.CAMERA_TYPE](
        header=header(1), height=CAMERA.height, width=CAMERA.width, distortion_model='plumb_bob',
        d=np.zeros(5), k=k, r=np.eye(3).ravel(), p=np.zeros(12), binning_x=0, binning_y=0,
        roi=TYPES['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False),
    )  # fmt: skip


def keypoints(stamp_ns: int, people: Sequence[tuple[str, np.ndarray, np.ndarray]], **fields):
    """KeypointFrame of (track_id, points (133, 2|3), confidence (133,)) of each."""
    dim = people[0][1].shape[1] if people else 2
    persons = [
        TYPES['dposer_ros/msg/PersonKeypoints'](
            track_id=name, score=1.0, bbox=np.full(4, np.nan, dtype=np.float32),
            points=points.astype(np.float32).ravel(), confidence=confidence.astype(np.float32),
            covariance=np.zeros(0, dtype=np.float32),
        )
        for name, points, confidence in people
    ]  # fmt: skip
    values = dict(
        layout='coco_wholebody133', names=[], dim=dim, unit=2 if dim == 3 else 0,
        image_width=0 if dim == 3 else CAMERA.width, image_height=0 if dim == 3 else CAMERA.height,
        rectified=False, mirrored=False, seq=0, people=persons,
    )  # fmt: skip
    return TYPES[bags.KEYPOINT_TYPE](header=header(stamp_ns), **{**values, **fields})


def true_states(stamp_ns: int, people: Sequence[tuple[str, np.ndarray]]):
    """SmplxStateArray that says where the joints (55, 3) of each are, and nothing else."""
    from dposer_ros.msg import SmplxState, SmplxStateArray

    states = [
        SmplxState(body_id=name, status=1, positions=joints.astype(np.float32).ravel())
        for name, joints in people
    ]
    msg = SmplxStateArray(states=states)
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    msg.header.frame_id = FRAME_ID
    return msg


def write_bag(folder: Path, messages, storage: str = 'mcap') -> Path:
    """(topic, recording time, type, message of rosbags or rclpy) of each message."""
    plugin = StoragePlugin.MCAP if storage == 'mcap' else StoragePlugin.SQLITE3
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for topic, stamp_ns, msgtype, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=STORE)
            data = bags.serialize(STORE, message, msgtype)
            writer.write(connections[topic], stamp_ns, data)
    return folder


def crossing_messages(
    num_frames: int = 60,
    gap: float = 0.6,
    dim: int = 2,
    hidden: Sequence[int] = (),
    noise: float = 1.0,
    swapped_ids: bool = False,
):
    """Two people who walk past each other at a distance of `gap` metres, with their truth.

    Args:
        num_frames: at 30 Hz.
        gap: between the pelvises where they pass, towards the camera.
        dim: of the keypoints, pixels or metres.
        hidden: frames in which no hand is seen.
        noise: of the keypoints, pixels or millimetres.
        swapped_ids: whether the detector's ids change places half way.
    """
    tables, rng = load_body().tables, np.random.default_rng(5)
    clips = [
        list(swaying(tables, num_frames, dim=3, pelvis=(0.0, 0.1, depth), seed=i))
        for i, depth in enumerate((3.5, 3.5 + gap))
    ]
    if dim == 2:
        yield '/camera_info', START_NS, bags.CAMERA_TYPE, camera_info()
    for k in range(num_frames):
        stamp = START_NS + k * FRAME_NS
        way = 1.6 * (k / max(num_frames - 1, 1) - 0.5)
        seen, states = [], []
        for i, clip in enumerate(clips):
            shift = np.array([way if i == 0 else -way, 0.0, 0.0])
            joints, points = clip[k][0] + shift, clip[k][1].points + shift
            confidence = np.ones(133)
            if k in hidden:
                confidence[91:] = 0.0
            flat = CAMERA.project(points) if dim == 2 else points
            sigma = noise if dim == 2 else 1e-3 * noise
            number = i if not (swapped_ids and k >= num_frames // 2) else 1 - i
            name = f't{number}'
            seen.append((name, flat + rng.normal(0.0, sigma, flat.shape), confidence))
            states.append((f'walker{i}', joints, points))
        yield '/keypoints', stamp, bags.KEYPOINT_TYPE, keypoints(stamp, seen)
        yield (
            TRUTH_STATES, stamp, 'dposer_ros/msg/SmplxStateArray',
            true_states(stamp, [(name, joints) for name, joints, _ in states]),
        )  # fmt: skip
        people = [(name, points, np.ones(133)) for name, _, points in states]
        yield TRUTH_POINTS, stamp, bags.KEYPOINT_TYPE, keypoints(stamp, people)
