"""ROS 2 bags (MCAP, SQLite) read without ROS: keypoints frame by frame, with their camera."""

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rosbags.interfaces import Connection, Nodetype, Qos
from rosbags.rosbag2 import Reader, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from dposer_core.errors import MediaError

KEYPOINT_TYPE = 'dposer_ros/msg/KeypointFrame'
CAMERA_TYPE = 'sensor_msgs/msg/CameraInfo'

_CHECKOUT = Path(__file__).resolve().parents[1]
_DTYPES = {'bool': 'bool', 'byte': 'uint8', 'char': 'uint8', 'octet': 'uint8'}
_RULE = '=' * 80  # between the definitions of a message and of its parts
_LISTED = 20  # topics that an error names


class Recorded(NamedTuple):
    """One message of keypoints."""

    message: Any
    """As its type says: attributes, numpy arrays."""
    camera: Any | None
    """The CameraInfo that held when it was recorded; the first one if none had come yet."""
    msgtype: str
    recorded_ns: int


@functools.cache
def typestore() -> Typestore:
    """The message types of ROS 2 and those of msg/, for reading and writing bags.

    There is one for all, as it takes a second to make.
    """
    store = get_typestore(Stores.ROS2_KILTED)
    _register(store, 'dposer_ros', _message_folder())
    return store


def with_type(store: Typestore, msgtype: str) -> Typestore:
    """`store` with the types of `msgtype`'s package too, where that package is installed.

    A bag holds definitions itself, but rosbags turns a definition into Python code: what comes in
    a file must not get there.

    Raises:
        MediaError: the type is not known on this machine.
    """
    if msgtype not in store.fielddefs:
        if not re.fullmatch(r'[a-z][a-z0-9_]*/msg/[A-Za-z0-9]+', msgtype):
            raise MediaError(f'{msgtype[:80]!r} is no message type')
        from ament_index_python import PackageNotFoundError, get_package_share_directory

        package = msgtype.split('/')[0]
        try:
            _register(store, package, Path(get_package_share_directory(package)) / 'msg')
        except (PackageNotFoundError, ValueError, OSError):
            raise MediaError(
                f'{msgtype} is not known here: install the package {package!r}'
            ) from None
    return store


def add_connection(
    writer: Writer, topic: str, msgtype: str, store: Typestore, qos: Sequence[Qos] = ()
) -> Connection:
    """A topic of a bag to be written, with its definition as msg/ has it.

    rosbags would put all constants before the fields, and viewers give names to the values of a
    field by the constants that stand above it.
    """
    generated, _ = store.generate_msgdef(msgtype, ros_version=2)
    whole, *parts = re.split(rf'^{_RULE}\nMSG: (.*)\n', generated, flags=re.MULTILINE)
    names, texts = [msgtype, *parts[::2]], [whole, *parts[1::2]]
    originals = [_original(name, text) for name, text in zip(names, texts, strict=True)]
    definition = originals[0] + ''.join(
        f'{_RULE}\nMSG: {name}\n{text}'
        for name, text in zip(names[1:], originals[1:], strict=True)
    )
    return writer.add_connection(
        topic, msgtype, msgdef=definition, rihs01=store.hash_rihs01(msgtype),
        offered_qos_profiles=qos,
    )  # fmt: skip


def _original(name: str, text: str) -> str:
    package, kind = name.split('/')[0], name.split('/')[-1]
    return (_message_folder() / f'{kind}.msg').read_text() if package == 'dposer_ros' else text


def serialize(store: Typestore, msg: Any, msgtype: str) -> bytes:
    """CDR bytes of a message of rclpy, the same for equal messages.

    rclpy's own serialisation leaves the padding between fields as it finds it in memory, and pads
    before empty sequences of doubles, which rosbags refuses to read.
    """
    return bytes(store.serialize_cdr(_of_store(with_type(store, msgtype), msg, msgtype), msgtype))


def _of_store(store: Typestore, msg: Any, msgtype: str) -> Any:
    fields = store.fielddefs[msgtype][1]
    values = (_value(store, getattr(msg, name, 0), kind) for name, kind in fields)
    return store.types[msgtype](*values)


def _value(store: Typestore, value: Any, description: Any) -> Any:
    kind, what = description
    if kind == Nodetype.NAME:
        return _of_store(store, value, what)
    if kind == Nodetype.BASE:
        return value
    element, name = what[0]
    if element == Nodetype.NAME:
        return [_of_store(store, entry, name) for entry in value]
    dtype = _DTYPES.get(name[0], name[0])
    return list(value) if dtype == 'string' else np.asarray(value, dtype=dtype)


def _register(store: Typestore, package: str, folder: Path) -> None:
    types = {}
    for path in sorted(folder.glob('*.msg')):
        types.update(get_types_from_msg(path.read_text(), f'{package}/msg/{path.stem}'))
    store.register(types)


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
        for connection in chosen:
            with_type(store, connection.msgtype)
        for connection, recorded_ns, data in reader.messages(connections=chosen):
            message = store.deserialize_cdr(data, connection.msgtype)
            yield connection.topic, recorded_ns, message


def keypoint_topics(
    path: Path, topic: str = '', camera_topic: str = '', types: Sequence[str] = (KEYPOINT_TYPE,)
) -> tuple[str, str, str]:
    """Keypoint topic, its type, and the topic of its camera ('' if there is none).

    Args:
        path: bag folder, or its .mcap or .db3 file.
        topic: of the keypoints; empty: the only one of the first of `types` that is in the bag.
        camera_topic: of their camera; empty: the only one, or none.
        types: of keypoints that can be read.

    Raises:
        MediaError: missing, damaged, of another type, or several to choose from.
    """
    with _Opened(path) as reader:
        if not topic:
            found = next((t for t in types if _topics_of_type(reader, t)), types[0])
            topic = _only_topic(path, reader, found)
        msgtype = _check_type(path, reader, topic, types)
        if camera_topic:
            _check_type(path, reader, camera_topic, [CAMERA_TYPE])
        elif _topics_of_type(reader, CAMERA_TYPE):
            camera_topic = _only_topic(path, reader, CAMERA_TYPE)
    return topic, msgtype, camera_topic


def read_keypoints(
    path: Path, topic: str = '', camera_topic: str = '', types: Sequence[str] = (KEYPOINT_TYPE,)
) -> Iterator[Recorded]:
    """Every message of keypoints with the camera_info that was valid when it was recorded.

    Arguments and errors are those of `keypoint_topics`.
    """
    topic, msgtype, camera_topic = keypoint_topics(path, topic, camera_topic, types)
    camera = None
    if camera_topic:
        first = next(read_messages(path, [camera_topic]), None)
        camera = first[2] if first is not None else None
    for name, recorded_ns, message in read_messages(path, [topic], [camera_topic]):
        if name == topic:
            yield Recorded(message, camera, msgtype, recorded_ns)
        else:
            camera = message


def raw_messages(path: Path, topics: Sequence[str]) -> Iterator[tuple[Connection, int, bytes]]:
    """(connection, time of recording in nanoseconds, CDR bytes), in the order of recording.

    Args:
        path: bag folder, or its .mcap or .db3 file.
        topics: those wanted; empty: all.
    """
    with _Opened(path) as reader:
        chosen = [c for c in reader.connections if not topics or c.topic in topics]
        if chosen:
            yield from reader.messages(connections=chosen)


def topic_types(path: Path) -> dict[str, str]:
    """Topic -> message type of everything in the bag."""
    with _Opened(path) as reader:
        return {connection.topic: connection.msgtype for connection in reader.connections}


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
        except Exception as error:  # damage can bring anything out of rosbags
            raise MediaError(self._damaged(error)) from error
        return self._reader

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._reader.close()
        if isinstance(error, Exception) and not isinstance(error, MediaError):
            raise MediaError(self._damaged(error)) from error

    def _damaged(self, error: BaseException) -> str:
        why = ' '.join(str(error).split())[:200] or type(error).__name__
        return (
            f'{self._path} is not a readable ROS 2 bag ({why}); '
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


def _check_type(path: Path, reader: Reader, topic: str, types: Sequence[str]) -> str:
    """The type of `topic`, one of `types`."""
    connection = next((c for c in reader.connections if c.topic == topic), None)
    if connection is None:
        raise MediaError(f"{path} has no topic '{topic}'; it has {_listing(reader)}")
    if connection.msgtype not in types:
        expected = ' or '.join(types)
        raise MediaError(f"{path}: topic '{topic}' is {connection.msgtype}, expected {expected}")
    return connection.msgtype


def _listing(reader: Reader) -> str:
    names = sorted({f'{c.topic} ({c.msgtype})' for c in reader.connections})
    shown = ', '.join(names[:_LISTED]) + (', ...' if len(names) > _LISTED else '')
    return shown.encode('unicode_escape').decode()[:2000] or 'no topics'
