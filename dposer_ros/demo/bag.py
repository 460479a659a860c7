"""The demo's recording, read back without ROS."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from dposer_core.camera import PinholeCamera, Undistort, camera_from_info
from dposer_ros.bags import read_messages

IMAGE = '/image/compressed'
CAMERA_INFO = '/camera_info'
KEYPOINTS = '/keypoints'
STATES = '/human/smplx_states'
TIMING = '/dposer_wholebody/timing'


@dataclass(frozen=True)
class KeypointRecord:
    """What the detector said about one image."""

    people: list[tuple[np.ndarray, np.ndarray]]  # (points (133, 2|3), confidence (133,)) each
    received_ns: int  # when the recorder got it


@dataclass(frozen=True)
class StateRecord:
    """The state of one person at one time, as it was published."""

    stamp_ns: int
    received_ns: int
    body_id: str
    status: int
    pose_rotvec: np.ndarray  # (55, 3)
    transl: np.ndarray  # (3,)
    betas: np.ndarray  # (10,)
    expression: np.ndarray  # (E,)
    joints: np.ndarray  # (55, 3) metres
    source: np.ndarray  # (55,)
    position_sigma: np.ndarray  # (55,) metres
    stats: dict[str, float]  # FitStats
    quality: int = 0  # SmplxState.QUALITY_*; FULL in files that do not say


@dataclass
class DemoRecording:
    """Everything of one run, by image stamp in nanoseconds."""

    images: dict[int, bytes] = field(default_factory=dict)  # JPEG
    keypoints: dict[int, KeypointRecord] = field(default_factory=dict)
    states: dict[int, list[StateRecord]] = field(default_factory=dict)
    publish_seconds: list[float] = field(default_factory=list)  # a state cannot hold its own
    camera: PinholeCamera | None = None
    undistort: Undistort | None = None
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(5))
    has_pictures: bool = True  # False: the images are empty canvases

    def image(self, stamp_ns: int) -> np.ndarray:
        """(H, W, 3) uint8 BGR, as recorded."""
        return cv2.imdecode(np.frombuffer(self.images[stamp_ns], np.uint8), cv2.IMREAD_COLOR)

    def straightened(self, image: np.ndarray) -> np.ndarray:
        """`image` as the distortion-free camera would have taken it."""
        if self.camera is None or not self.distortion.any():
            return image
        return cv2.undistort(image, self.camera.matrix, self.distortion)


def read_recording(path: Path) -> DemoRecording:
    """The demo's MCAP file as values."""
    recording = DemoRecording()
    for topic, received_ns, message in read_messages(
        path, (), optional=(IMAGE, CAMERA_INFO, KEYPOINTS, STATES, TIMING)
    ):
        if topic == TIMING:
            recording.publish_seconds.append(message.publish)
            continue
        stamp = stamp_ns(message)
        if topic == IMAGE:
            recording.images[stamp] = message.data.tobytes()
        elif topic == KEYPOINTS:
            people = [_keypoints(person, message.dim) for person in message.people]
            recording.keypoints[stamp] = KeypointRecord(people, received_ns)
        elif topic == STATES:
            recording.states[stamp] = [_state(state, received_ns) for state in message.states]
        elif recording.camera is None:
            recording.camera, recording.undistort = camera_from_info(
                message.k, message.d, message.distortion_model, message.width, message.height
            )
            recording.distortion = np.asarray(message.d)
    return recording


def stamp_ns(message: Any) -> int:
    """Header stamp in nanoseconds."""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def _keypoints(person: Any, dim: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.asarray(person.points, dtype=np.float64).reshape(-1, dim)
    return points, np.nan_to_num(np.asarray(person.confidence, dtype=np.float64))


def _state(message: Any, received_ns: int) -> StateRecord:
    quaternions = np.asarray(message.rotations, dtype=np.float64).reshape(55, 4)
    stats = message.stats
    return StateRecord(
        stamp_ns=stamp_ns(message),
        received_ns=received_ns,
        body_id=message.body_id,
        status=int(message.status),
        quality=int(message.quality),
        pose_rotvec=Rotation.from_quat(quaternions).as_rotvec(),
        transl=np.asarray(message.transl, dtype=np.float64),
        betas=np.asarray(message.betas, dtype=np.float64),
        expression=np.asarray(message.expression, dtype=np.float64),
        joints=np.asarray(message.positions, dtype=np.float64).reshape(55, 3),
        source=np.asarray(message.source),
        position_sigma=np.asarray(message.position_sigma, dtype=np.float64),
        stats={
            name: float(value)
            for name, value in vars(stats).items()
            if isinstance(value, (int, float, bool, np.number))
        },
    )
