"""ROS 2 bags (MCAP, SQLite) read without ROS: keypoints frame by frame, with their camera."""

import sqlite3
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from dposer_core.errors import MediaError

KEYPOINT_TYPE = 'dposer_ros/msg/KeypointFrame'
CAMERA_TYPE = 'sensor_msgs/msg/CameraInfo'

_CHECKOUT = Path(__file__).resolve().parents[1]

# What rosbags raises on files that are cut off or are something else.
_DAMAGE = (
    ReaderError, SerdeError, OSError, ValueError, AssertionError, TypeError, KeyError, IndexError,
    struct.error, sqlite3.Error,
)  # fmt: skip


def typestore() -> Typestore:
    """The message types of ROS 2 and those of msg/, for reading and writing bags."""
    store = get_typestore(Stores.ROS2_KILTED)
    types = {}
    for path in sorted(_message_folder().glob('*.msg')):
        types.update(get_types_from_msg(path.read_text(), f'dposer_ros/msg/{path.stem}'))
    store.register(types)
    return store


def is_bag(path: Path) -> bool:
    """Whether `path` looks like a bag: a storage file, or a folder with metadata.yaml."""
    return path.suffix in ('.mcap', '.db3') or (path / 'metadata.yaml').exists()


def read_messages(
    path: Path, topics: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, int, Any]]:
    """Messages in the order they were recorded.

    Args:
        path: bag folder, or its .mcap or .db3 file.
        topics: must be in the bag.
        optional: read where they are.

    Yields:
        (topic, time of recording in nanoseconds, message).

    Raises:
        MediaError: missing, damaged, or without one of `topics` (then it lists those there are).
    """
    store = typestore()
    with _Opened(path) as reader:
        for topic in topics:
            if not any(connection.topic == topic for connection in reader.connections):
                raise MediaError(f"{path} has no topic '{topic}'; it has {_listing(reader)}")
        wanted = (*topics, *optional)
        chosen = [c for c in reader.connections if c.topic in wanted]
        for connection, recorded_ns, data in reader.messages(connections=chosen):
            yield connection.topic, recorded_ns, store.deserialize_cdr(data, connection.msgtype)


def read_keypoints(
    path: Path, topic: str = '', camera_topic: str = ''
) -> Iterator[tuple[Any, Any | None]]:
    """Each `KeypointFrame` with the camera_info that was valid when it was recorded.

    Args:
        path: bag folder, or its .mcap or .db3 file.
        topic: of the keypoints; empty: the only one of this type.
        camera_topic: of their camera; empty: the only one, or none.

    Yields:
        (KeypointFrame, CameraInfo or None); frames before the first camera_info get that one.

    Raises:
        MediaError: as `read_messages`; or the topics cannot be told.
    """
    with _Opened(path) as reader:
        topic = topic or _only_topic(path, reader, KEYPOINT_TYPE)
        _check_type(path, reader, topic, KEYPOINT_TYPE)
        if camera_topic:
            _check_type(path, reader, camera_topic, CAMERA_TYPE)
        elif _topics_of_type(reader, CAMERA_TYPE):
            camera_topic = _only_topic(path, reader, CAMERA_TYPE)
    camera = None
    if camera_topic:
        first = next(read_messages(path, [camera_topic]), None)
        camera = first[2] if first is not None else None
    for name, _, message in read_messages(path, [topic], [camera_topic]):
        if name == topic:
            yield message, camera
        else:
            camera = message


class _Opened:
    """`Reader` as a context whose errors, also those while reading, name the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Reader:
        if not self._path.exists():
            raise MediaError(f'{self._path} does not exist; give a bag folder, .mcap or .db3 file')
        try:
            self._reader = Reader(self._path)
            self._reader.open()
        except _DAMAGE as error:
            raise MediaError(self._damaged(error)) from error
        return self._reader

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._reader.close()
        if isinstance(error, _DAMAGE):
            raise MediaError(self._damaged(error)) from error

    def _damaged(self, error: BaseException) -> str:
        return (
            f'{self._path} is not a readable ROS 2 bag ({error or type(error).__name__}); '
            'if its recording was cut off, repair it with `mcap recover` or `ros2 bag reindex`'
        )


def _message_folder() -> Path:
    """msg/ of the checkout, or share/dposer_ros/msg of the installed package."""
    if (_CHECKOUT / 'msg').is_dir():
        return _CHECKOUT / 'msg'
    from ament_index_python import get_package_share_directory

    return Path(get_package_share_directory('dposer_ros')) / 'msg'


def _topics_of_type(reader: Reader, msgtype: str) -> list[str]:
    return sorted({c.topic for c in reader.connections if c.msgtype == msgtype})


def _only_topic(path: Path, reader: Reader, msgtype: str) -> str:
    found = _topics_of_type(reader, msgtype)
    if len(found) == 1:
        return found[0]
    if not found:
        raise MediaError(f'{path} has no topic of type {msgtype}; it has {_listing(reader)}')
    raise MediaError(f'{path} has several topics of type {msgtype}: {", ".join(found)}; name one')


def _check_type(path: Path, reader: Reader, topic: str, msgtype: str) -> None:
    connection = next((c for c in reader.connections if c.topic == topic), None)
    if connection is None:
        raise MediaError(f"{path} has no topic '{topic}'; it has {_listing(reader)}")
    if connection.msgtype != msgtype:
        raise MediaError(f"{path}: topic '{topic}' is {connection.msgtype}, expected {msgtype}")


def _listing(reader: Reader) -> str:
    def described(connection: Connection) -> str:
        return f'{connection.topic} ({connection.msgtype})'

    return ', '.join(sorted({described(c) for c in reader.connections})) or 'no topics'
