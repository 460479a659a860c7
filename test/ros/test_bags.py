"""Bags written with rosbags are read frame by frame; damaged and foreign ones are named."""

from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from dposer_core.errors import MediaError
from dposer_ros import bags

STORE = bags.typestore()
TYPES = STORE.types
NAN4 = np.full(4, np.nan, dtype=np.float32)
STORAGES = {'mcap': StoragePlugin.MCAP, 'db3': StoragePlugin.SQLITE3}


def header(stamp_ns: int):
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    time = TYPES['builtin_interfaces/msg/Time'](seconds, nanoseconds)
    return TYPES['std_msgs/msg/Header'](time, 'camera_optical')


def keypoint_frame(stamp_ns: int, points: np.ndarray):
    person = TYPES['dposer_ros/msg/PersonKeypoints'](
        track_id='7',
        score=0.5,
        bbox=NAN4,
        points=points.astype(np.float32).ravel(),
        confidence=np.full(len(points), 0.9, dtype=np.float32),
        covariance=np.zeros(0, dtype=np.float32),
    )
    return TYPES['dposer_ros/msg/KeypointFrame'](
        header=header(stamp_ns), layout='coco17', names=[], dim=2, unit=0, image_width=640,
        image_height=480, rectified=False, mirrored=False, seq=0, people=[person],
    )  # fmt: skip


def camera_info(focal: float):
    k = np.array([focal, 0, 320, 0, focal, 240, 0, 0, 1], dtype=np.float64)
    return TYPES['sensor_msgs/msg/CameraInfo'](
        header=header(1), height=480, width=640, distortion_model='plumb_bob', d=np.zeros(5), k=k,
        r=np.eye(3).ravel(), p=np.zeros(12), binning_x=0, binning_y=0,
        roi=TYPES['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False),
    )  # fmt: skip


def write_bag(folder: Path, messages, storage: str = 'mcap') -> Path:
    """(topic, recording time, type, message) of each message."""
    with Writer(folder, version=9, storage_plugin=STORAGES[storage]) as writer:
        connections = {}
        for topic, stamp_ns, msgtype, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=STORE)
            data = STORE.serialize_cdr(message, msgtype)
            writer.write(connections[topic], stamp_ns, data)
    return folder


def demo_messages(num_frames: int = 3, keypoints: str = '/keypoints'):
    points = np.random.default_rng(0).uniform(10, 400, (num_frames, 17, 2))
    for i in range(num_frames):
        stamp = 1_000_000_000 + i * 40_000_000
        yield keypoints, stamp, bags.KEYPOINT_TYPE, keypoint_frame(stamp, points[i])
        if i == 1:  # after the first frames
            yield '/camera_info', stamp + 1, bags.CAMERA_TYPE, camera_info(600.0)


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('as_file', [False, True])
def test_frames_come_in_order_with_their_camera(storage, as_file, tmp_path):
    path = write_bag(tmp_path / 'bag', demo_messages(), storage)
    if as_file:
        (path,) = path.glob(f'*.{storage}')
    frames = list(bags.read_keypoints(path))
    assert [frame.header.stamp.nanosec for frame, *_ in frames] == [0, 40_000_000, 80_000_000]
    # The first frames were recorded before any camera_info: they get the first one.
    assert [camera.k[0] for _, camera, *_ in frames] == [600.0] * 3
    assert frames[0][0].people[0].points.shape == (34,)


def test_changed_camera_counts_from_then_on(tmp_path):
    messages = [*demo_messages()]
    messages.insert(3, ('/camera_info', 1_060_000_000, bags.CAMERA_TYPE, camera_info(700.0)))
    frames = list(bags.read_keypoints(write_bag(tmp_path / 'bag', messages)))
    assert [camera.k[0] for _, camera, *_ in frames] == [600.0, 600.0, 700.0]


def test_bag_without_camera_gives_none(tmp_path):
    messages = [m for m in demo_messages() if m[0] == '/keypoints']
    frames = list(bags.read_keypoints(write_bag(tmp_path / 'bag', messages)))
    assert [camera for _, camera, *_ in frames] == [None] * 3


def test_bag_looks_like_a_bag(tmp_path):
    path = write_bag(tmp_path / 'bag', demo_messages())
    assert bags.is_bag(path) and bags.is_bag(next(path.glob('*.mcap')))
    assert not bags.is_bag(tmp_path)


def test_missing_topic_lists_the_topics(tmp_path):
    path = write_bag(tmp_path / 'bag', demo_messages())
    message = r"no topic '/people'; it has /camera_info \(sensor_msgs/msg/CameraInfo\), /keypoints"
    with pytest.raises(MediaError, match=message):
        list(bags.read_keypoints(path, '/people'))


def test_bag_without_keypoints_lists_the_topics(tmp_path):
    messages = [m for m in demo_messages() if m[0] != '/keypoints']
    path = write_bag(tmp_path / 'bag', messages)
    with pytest.raises(MediaError, match=r'no topic of type dposer_ros/msg/KeypointFrame; it has'):
        list(bags.read_keypoints(path))


def test_several_keypoint_topics_must_be_chosen_from(tmp_path):
    path = write_bag(tmp_path / 'bag', [*demo_messages(), *demo_messages(2, '/left/keypoints')])
    with pytest.raises(MediaError, match='several topics .*/keypoints, /left/keypoints; name one'):
        list(bags.read_keypoints(path))
    assert len(list(bags.read_keypoints(path, '/left/keypoints'))) == 2


def test_topic_of_another_type_is_named_with_its_type(tmp_path):
    path = write_bag(tmp_path / 'bag', demo_messages())
    with pytest.raises(
        MediaError, match=r"'/camera_info' is sensor_msgs/msg/CameraInfo, expected"
    ):
        list(bags.read_keypoints(path, '/camera_info'))


def test_missing_bag_is_named(tmp_path):
    with pytest.raises(MediaError, match='nothing does not exist; give a bag'):
        list(bags.read_keypoints(tmp_path / 'nothing'))


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('size', [0, 100, -300])
def test_truncated_bag_is_refused(storage, size, tmp_path):
    path = next(write_bag(tmp_path / 'bag', demo_messages(200), storage).glob(f'*.{storage}'))
    path.write_bytes(path.read_bytes()[: size if storage == 'mcap' else size // 2])
    with pytest.raises(MediaError, match='not a readable ROS 2 bag'):
        list(bags.read_keypoints(path))


@pytest.mark.parametrize('name', ['a.mcap', 'a.db3', 'a.txt'])
def test_file_of_something_else_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b'no bag at all, but long enough to have room for a footer' * 9)
    with pytest.raises(MediaError, match='not a readable ROS 2 bag'):
        list(bags.read_keypoints(tmp_path / name))


def test_damaged_metadata_is_refused(tmp_path):
    path = write_bag(tmp_path / 'bag', demo_messages())
    (path / 'metadata.yaml').write_text('rosbag2_bagfile_information: {version: 5}')
    with pytest.raises(MediaError, match='not a readable ROS 2 bag'):
        list(bags.read_keypoints(path))


@pytest.mark.parametrize('storage', STORAGES)
def test_constants_stand_where_the_definition_has_them(tmp_path, storage) -> None:
    """Viewers name the values of a field by the constants right above it."""
    with Writer(tmp_path / 'bag', version=9, storage_plugin=STORAGES[storage]) as writer:
        bags.add_connection(writer, '/state', 'dposer_ros/msg/SmplxState', STORE)
    with Reader(tmp_path / 'bag') as reader:
        (connection,) = reader.connections
    lines = connection.msgdef.data.splitlines()
    above = lines[: next(i for i, line in enumerate(lines) if line.startswith('uint8 quality'))]
    assert any(line.startswith('uint8 status') for line in above)
    above = above[next(i for i, line in enumerate(above) if line.startswith('uint8 status')) :]
    assert any(line.startswith('uint8 QUALITY_HOLD') for line in above)
    assert connection.digest == STORE.hash_rihs01('dposer_ros/msg/SmplxState')
    assert 'MSG: geometry_msgs/PoseWithCovariance' in connection.msgdef.data
