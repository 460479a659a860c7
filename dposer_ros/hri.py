"""The topics of REP-155: who is tracked, and a namespace per body, as libhri and pyhri read them.

libhri takes its QoS from the middleware: best effort on Fast DDS, reliable on Cyclone DDS, never
latched. So everything here is published reliably, and who is tracked is said again every second.
`cropped` is missing: the node sees no image. hri_msgs is optional; without it nothing is
published.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PointStamped, TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String

from dposer_core import keypoints
from dposer_core.camera import PinholeCamera
from dposer_core.state import FitResult, Source, Status
from dposer_ros import urdf
from dposer_ros.derived import POINT_JOINTS
from dposer_ros.msg import SmplxState

ROOT = '/humans/bodies'
QOS = QoSProfile(depth=1)
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

# Publishers come and go with people, in the worker thread; without the default callbacks of QoS
# events they leave no trace in the executor's thread.
_NO_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)

REPEAT_PERIOD = 1.0  # s, of /humans/bodies/tracked while nobody comes or goes

_NOBODY = '_nobody'  # ROS hides names with an underscore

_NAMES = [name for name in keypoints.LAYOUTS['hri18'].names if name in keypoints.POINT_INDEX]


class HriTopics:
    """Publishes the people of every frame; their publishers live as long as they are tracked.

    Args:
        node: owner of the publishers.

    Raises:
        ImportError: hri_msgs is not installed.
    """

    def __init__(self, node: Node) -> None:
        from hri_msgs.msg import IdsList, NormalizedRegionOfInterest2D, Skeleton2D

        self._node = node
        self._ids_list, self._region, self._skeleton = (
            IdsList,
            NormalizedRegionOfInterest2D,
            Skeleton2D,
        )
        self._tracked = node.create_publisher(
            IdsList, f'{ROOT}/tracked', LATCHED_QOS, event_callbacks=_NO_EVENTS
        )
        self._bodies: dict[str, dict[str, Publisher]] = {}
        self._latest: Any = None  # IdsList, as published last
        self._telling = threading.Lock()  # an old list must not follow a new one
        self._timer = node.create_timer(
            REPEAT_PERIOD, self._repeat, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        # The first publisher of a type costs milliseconds: now, not when the first person comes.
        self._of(_NOBODY)
        self._remove(_NOBODY)

    def publish(
        self,
        results: Sequence[FitResult],
        states: Sequence[SmplxState],
        header: Header,
        camera: PinholeCamera | None,
    ) -> None:
        """One frame.

        Args:
            results: of all people, in the frame of the input.
            states: their messages, in the same order.
            header: stamp and frame of the messages.
            camera: that the input is seen by; None if it is 3D.
        """
        present = [
            (result, state)
            for result, state in zip(results, states, strict=True)
            if result.status != Status.LOST
        ]
        ids = [result.body_id for result, _ in present]
        for gone in [body_id for body_id in self._bodies if body_id not in ids]:
            self._remove(gone)
        for result, state in present:
            self._publish_body(result, state, header, camera)
        self._publish_ids(ids, header)

    def _publish_ids(self, ids: list[str], header: Header) -> None:
        """At once when somebody came or went; else the timer tells."""
        with self._telling:
            if self._latest is None or ids != self._latest.ids:
                self._latest = self._ids_list(header=header, ids=ids)
                self._tracked.publish(self._latest)

    def _repeat(self) -> None:
        """For those who came late, or missed the message; called by the executor."""
        with self._telling:
            if self._latest is not None:
                self._tracked.publish(self._latest)

    def publish_urdf(self, body_id: str, rest_joints: np.ndarray) -> None:
        """Latch the skeleton of a body that is tracked."""
        text = urdf.skeleton_urdf(rest_joints, body_id, id_in_joints=True)
        self._of(body_id)['urdf'].publish(String(data=text))

    def add(self, body_id: str) -> None:
        """Make the publishers of a body."""
        self._of(body_id)

    def clear(self, header: Header | None = None) -> None:
        """Nobody is tracked any more."""
        for body_id in list(self._bodies):
            self._remove(body_id)
        self._publish_ids([], header or Header())

    def close(self) -> None:
        """Destroy the publishers."""
        self._node.destroy_timer(self._timer)
        for body_id in list(self._bodies):
            self._remove(body_id)
        self._node.destroy_publisher(self._tracked)

    def _publish_body(
        self, result: FitResult, state: SmplxState, header: Header, camera: PinholeCamera | None
    ) -> None:
        body = self._of(result.body_id)

        def lazily(topic: str, make: Callable[[], Any]) -> None:
            if body[topic].get_subscription_count():
                msg = make()
                if msg is not None:
                    body[topic].publish(msg)

        lazily('joint_states', lambda: _joint_state(result, header))
        lazily('position', lambda: PointStamped(header=header, point=state.body.position))
        lazily('velocity', lambda: TwistStamped(header=header, twist=state.pelvis_twist.twist))
        if camera is not None and camera.width and camera.height:
            lazily('skeleton2d', lambda: self._skeleton_msg(result, header, camera))
            lazily('roi', lambda: self._region_msg(result, header, camera))

    def _skeleton_msg(self, result: FitResult, header: Header, camera: PinholeCamera) -> Any:
        """Reprojected keypoints; c is 0 for what was not seen, which REP-155 takes as missing."""
        points = _normalised(result.state.landmarks, camera)
        seen = result.state.source[POINT_JOINTS] <= Source.PARTIAL
        msg = self._skeleton(header=header)
        for name in _NAMES:
            row = keypoints.POINT_INDEX[name]
            self._fill(msg, name, points[row], seen[row] * result.confidence)
        shoulders = [keypoints.POINT_INDEX[f'{side}_shoulder'] for side in ('left', 'right')]
        self._fill(
            msg, 'neck', points[shoulders].mean(axis=0), seen[shoulders].all() * result.confidence
        )
        return msg

    def _fill(self, msg: Any, name: str, point: np.ndarray, confidence: float) -> None:
        if not (np.isfinite(point).all() and (point >= 0.0).all() and (point <= 1.0).all()):
            return  # behind the camera or outside of the picture
        place = msg.skeleton[getattr(self._skeleton, name.upper())]
        place.x, place.y, place.c = float(point[0]), float(point[1]), float(confidence)

    def _region_msg(self, result: FitResult, header: Header, camera: PinholeCamera) -> Any | None:
        """None if no part of the person is in the picture: libhri would take an empty box."""
        points = _normalised(result.state.landmarks, camera)
        points = np.clip(points[np.isfinite(points).all(axis=1)], 0.0, 1.0)
        if not len(points) or not np.ptp(points, axis=0).all():
            return None
        (xmin, ymin), (xmax, ymax) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return self._region(
            header=header, xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax, c=float(result.confidence)
        )

    def _of(self, body_id: str) -> dict[str, Publisher]:
        if body_id not in self._bodies:
            self._bodies[body_id] = {
                topic: self._node.create_publisher(
                    kind, f'{ROOT}/{body_id}/{topic}', qos, event_callbacks=_NO_EVENTS
                )
                for topic, kind, qos in (
                    ('roi', self._region, QOS),
                    ('skeleton2d', self._skeleton, QOS),
                    ('joint_states', JointState, QOS),
                    ('urdf', String, LATCHED_QOS),
                    ('position', PointStamped, QOS),
                    ('velocity', TwistStamped, QOS),
                )
            }
        return self._bodies[body_id]

    def _remove(self, body_id: str) -> None:
        for publisher in self._bodies.pop(body_id).values():
            self._node.destroy_publisher(publisher)


def _joint_state(result: FitResult, header: Header) -> JointState:
    msg = JointState(header=header, name=urdf.joint_names(result.body_id))
    msg.position = urdf.joint_angles(result.state.turns)
    return msg


def _normalised(landmarks: np.ndarray, camera: PinholeCamera) -> np.ndarray:
    """(133, 2) in [0, 1] where inside of the picture; NaN behind the camera."""
    return camera.project(landmarks) / (camera.width, camera.height)
