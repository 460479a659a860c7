"""The demo's recording, read back without ROS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from dposer_core.errors import MediaError

CHECKOUT = Path(__file__).resolve().parents[2]


def typestore() -> Typestore:
    """rosbags' ROS 2 types and those of msg/."""
    store = get_typestore(Stores.ROS2_KILTED)
    types = {}
    for path in sorted(_message_folder().glob('*.msg')):
        types.update(get_types_from_msg(path.read_text(), f'dposer_ros/msg/{path.stem}'))
    store.register(types)
    return store


def _message_folder() -> Path:
    """msg/ of the checkout, or share/dposer_ros/msg of an installed package."""
    if (CHECKOUT / 'msg').is_dir():
        return CHECKOUT / 'msg'
    from ament_index_python import get_package_share_directory

    return Path(get_package_share_directory('dposer_ros')) / 'msg'


def read_messages(path: Path, topics: tuple[str, ...]) -> Iterator[tuple[str, int, Any]]:
    """(topic, time of recording in ns, message) of `topics`, in order of recording.

    Raises:
        MediaError: no such file, or not a recording.
    """
    if not path.exists():
        raise MediaError(f'{path}: no such recording; give the .mcap file of `dposer demo`')
    store = typestore()
    try:
        with Reader(path) as reader:
            chosen = [c for c in reader.connections if c.topic in topics]
            for connection, stamp_ns, data in reader.messages(connections=chosen):
                yield connection.topic, stamp_ns, store.deserialize_cdr(data, connection.msgtype)
    except (ValueError, OSError, AssertionError) as error:
        raise MediaError(f'{path} is not a readable recording: {error}') from error


def stamp_ns(message: Any) -> int:
    """Header stamp in nanoseconds."""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def decoded_image(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 BGR of a sensor_msgs/CompressedImage."""
    return cv2.imdecode(np.asarray(message.data, np.uint8), cv2.IMREAD_COLOR)
