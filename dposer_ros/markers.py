"""`/human/markers`: people for RViz and Foxglove without plugins, coloured by their sources.

Made only while somebody looks, and not for every frame.
"""

from collections.abc import Callable, Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from dposer_core import skeleton
from dposer_core.state import FitResult, Source, Status

TOPIC = '/human/markers'
MAX_RATE = 15.0  # Hz
LIFETIME = Duration(nanosec=250_000_000)  # who is not shown again disappears

BONES, LABEL = 0, 1  # marker ids in the namespace of a body
BODY_WIDTH = 0.02  # m
LABEL_HEIGHT = 0.12  # m
LABEL_ABOVE = 0.3  # m over the head, along the body

COLOURS = {
    Source.OBSERVED: ColorRGBA(r=0.2, g=0.8, b=0.2, a=1.0),
    Source.PARTIAL: ColorRGBA(r=0.7, g=0.8, b=0.2, a=1.0),
    Source.COMPLETED: ColorRGBA(r=1.0, g=0.5, b=0.0, a=1.0),
    Source.PREDICTED: ColorRGBA(r=0.4, g=0.5, b=1.0, a=0.7),
    Source.DEFAULT: ColorRGBA(r=0.6, g=0.6, b=0.6, a=0.7),
}

_CHILDREN = [
    joint
    for joint in range(1, skeleton.NUM_JOINTS)
    if not skeleton.EYE_JOINTS.start <= joint < skeleton.EYE_JOINTS.stop
]
_WHITE = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)


class Markers:
    """The publisher.

    Args:
        node: its owner.
        clock: seconds.
    """

    def __init__(self, node: Node, clock: Callable[[], float]) -> None:
        self._node = node
        self._clock = clock
        self._publisher = node.create_publisher(MarkerArray, TOPIC, QoSProfile(depth=1))
        self._shown: set[str] = set()
        self._time = 0.0

    def publish(self, results: Sequence[FitResult], header: Header) -> None:
        """Show the people of a frame, if it is time; those who were lost go at once."""
        if not self._publisher.get_subscription_count():
            return
        present = {r.body_id: r for r in results if r.status != Status.LOST}
        gone = self._shown - set(present)
        now = self._clock()
        is_due = now - self._time >= 1.0 / MAX_RATE
        msg = MarkerArray()
        for body_id in sorted(gone):
            msg.markers += [_deleted(body_id, number, header) for number in (BONES, LABEL)]
        if is_due:
            self._time = now
            for result in present.values():
                msg.markers += [_bones(result, header), _label(result, header)]
        if msg.markers:
            self._publisher.publish(msg)
        self._shown = set(present) if is_due else self._shown - gone

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)


def _bones(result: FitResult, header: Header) -> Marker:
    """A line from every joint to its parent, in the colours of their sources."""
    marker = _marker(result.body_id, BONES, Marker.LINE_LIST, header)
    marker.scale.x = BODY_WIDTH
    points = [Point(x=x, y=y, z=z) for x, y, z in result.state.joints.tolist()]
    colours = [COLOURS[Source(source)] for source in result.state.source.tolist()]
    for joint in _CHILDREN:
        parent = int(skeleton.PARENTS[joint])
        marker.points += [points[parent], points[joint]]
        marker.colors += [colours[parent], colours[joint]]
    return marker


def _label(result: FitResult, header: Header) -> Marker:
    """Id and status over the head, whatever direction is up for the person."""
    marker = _marker(result.body_id, LABEL, Marker.TEXT_VIEW_FACING, header)
    pelvis, head = result.state.joints[[0, skeleton.JOINT_INDEX['head']]]
    along = head - pelvis
    place = head + LABEL_ABOVE * along / max(float(np.linalg.norm(along)), 1e-6)
    position = marker.pose.position
    position.x, position.y, position.z = place.tolist()
    marker.scale.z = LABEL_HEIGHT
    marker.color = _WHITE
    marker.text = f'{result.body_id} {Status(result.status).name}'
    return marker


def _deleted(body_id: str, number: int, header: Header) -> Marker:
    marker = _marker(body_id, number, Marker.LINE_LIST, header)
    marker.action = Marker.DELETE
    return marker


def _marker(body_id: str, number: int, kind: int, header: Header) -> Marker:
    marker = Marker(header=header, ns=body_id, id=number, type=kind, lifetime=LIFETIME)
    marker.pose.orientation.w = 1.0
    return marker
