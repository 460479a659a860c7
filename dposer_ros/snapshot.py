"""The last seconds of inputs and states, kept in memory and written as a bag when asked for."""

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer

from dposer_ros.bags import add_connection, typestore

TYPES = {
    'keypoints': 'dposer_ros/msg/KeypointFrame',
    'camera_info': 'sensor_msgs/msg/CameraInfo',
    '/human/smplx_states': 'dposer_ros/msg/SmplxStateArray',
    '/human/hands': 'dposer_ros/msg/HandStateArray',
}
"""Topic -> type of what is remembered."""


class Snapshots:
    """A ring of messages; messages are kept as they are and serialised when written.

    Args:
        seconds: how far back it reaches; 0 remembers nothing.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ring: deque[tuple[float, int, str, Any]] = deque()
        self._lock = threading.Lock()
        self._latched: dict[str, Any] = {}  # what holds until it changes
        self._writing: threading.Thread | None = None

    def add(self, topic: str, msg: Any) -> None:
        """Remember a message that will not be changed any more."""
        if self.seconds <= 0.0:
            return
        now = time.monotonic()
        with self._lock:
            if topic == 'camera_info':
                self._latched[topic] = msg
                return
            self._ring.append((now, time.time_ns(), topic, msg))
            while now - self._ring[0][0] > self.seconds:
                self._ring.popleft()

    def write(self, folder: Path, seconds: float, on_end: Callable[[str], None]) -> Path | None:
        """Begin to write what the last `seconds` (0: all) hold, in a thread of its own.

        Args:
            folder: of all snapshots.
            seconds: how far back.
            on_end: called in that thread with what became of it.

        Returns:
            Where the bag will be; None if one is being written already.

        Raises:
            OSError: the folder cannot be made.
        """
        if self._writing is not None and self._writing.is_alive():
            return None
        folder.mkdir(parents=True, exist_ok=True)
        name = time.strftime('snapshot_%Y%m%d_%H%M%S') + f'_{time.time_ns() % 10**9:09d}.mcap'
        path = folder / name
        since = time.monotonic() - (seconds if seconds > 0.0 else self.seconds)
        with self._lock:
            kept = [(ns, topic, msg) for at, ns, topic, msg in self._ring if at >= since]
            first_ns = kept[0][0] if kept else time.time_ns()
            latched = [(first_ns, topic, msg) for topic, msg in self._latched.items()]
        self._writing = threading.Thread(
            target=_write, args=(path, latched + kept, on_end), name='snapshot', daemon=True
        )
        self._writing.start()
        return path

    def close(self, timeout: float) -> None:
        """Wait for a bag that is being written."""
        if self._writing is not None:
            self._writing.join(timeout)


def _write(
    path: Path, messages: list[tuple[int, str, Any]], on_end: Callable[[str], None]
) -> None:
    partial = path.with_name(f'.{path.name}.partial')
    try:
        types = typestore()
        with Writer(partial, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            connections = {}
            for stamp_ns, topic, msg in messages:
                if topic not in connections:
                    name = topic if topic.startswith('/') else f'/{topic}'
                    connections[topic] = add_connection(writer, name, TYPES[topic], types)
                writer.write(connections[topic], stamp_ns, serialize_message(msg))
        (inner,) = partial.glob('*.mcap')
        inner.replace(path)
        on_end(f'snapshot of {len(messages)} messages: {path}')
    except Exception as error:  # a full disk, say: the node goes on, the caller is told
        on_end(f'snapshot {path} failed: {error}')
    finally:
        shutil.rmtree(partial, ignore_errors=True)
