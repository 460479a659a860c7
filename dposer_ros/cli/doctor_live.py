"""The live half of `dposer doctor`: what the running node gets, refuses and says of itself."""

import time
from collections.abc import Iterator

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from dposer_ros.causes import CAUSES
from dposer_ros.cli.doctor import Row
from dposer_ros.environment import domain_id
from dposer_ros.launch_arguments import NODE_NAME
from dposer_ros.msg import Heartbeat

_CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
_OWN = ('/parameter_events', '/clock')
_HEARTBEAT_SECONDS = 1.0  # ten beats
_REFUSED = 'refused_'


def diagnose_live(namespace: str, seconds: float, context: Context | None = None) -> list[Row]:
    """Listen to the node for a while.

    Args:
        namespace: of the node; '' for the root.
        seconds: to listen.
        context: of ROS 2, initialised; None: one of its own.
    """
    own = None if context is not None else Context()
    if own is not None:
        rclpy.init(context=own, signal_handler_options=SignalHandlerOptions.NO)
    listener = _Listener(namespace, own or context)
    executor = SingleThreadedExecutor(context=own or context)
    executor.add_node(listener)
    try:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0.0:
            executor.spin_once(timeout_sec=left)
        return list(listener.rows())
    finally:
        executor.shutdown()
        listener.destroy_node()
        if own is not None:
            rclpy.shutdown(context=own)


class _Listener(Node):
    def __init__(self, namespace: str, context: Context) -> None:
        super().__init__('dposer_doctor', context=context, start_parameter_services=False)
        self._namespace = '/' + namespace.strip('/')
        self._path = f'{self._namespace.rstrip("/")}/{NODE_NAME}'
        self._heartbeat: Heartbeat | None = None
        self._statuses: dict[str, DiagnosticStatus] = {}
        self._ticks = 0
        self.create_subscription(Heartbeat, f'{self._path}/heartbeat', self._on_heartbeat, 1)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.create_subscription(Clock, '/clock', self._on_clock, QoSProfile(depth=1))

    def _on_heartbeat(self, msg: Heartbeat) -> None:
        self._heartbeat = msg

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        self._statuses.update(
            {s.name: s for s in msg.status if s.name.startswith(f'{NODE_NAME}: ')}
        )

    def _on_clock(self, msg: Clock) -> None:
        self._ticks += 1

    def rows(self) -> Iterator[Row]:
        """What was seen."""
        beat = self._heartbeat
        if beat is None:
            yield Row(
                'node',
                True,
                'fail',
                f'no heartbeat of {self._path} in ROS domain {domain_id()}',
                'start it with `dposer up wholebody`; compare ROS_DOMAIN_ID and --namespace',
            )
            return
        is_active = beat.state == 'active'
        remedy = '' if is_active else 'start it with autostart:=true, or read Model/GPU below'
        yield Row('node', True, _status(is_active), f'{self._path} is {beat.state}', remedy)
        if is_active:
            yield from self._inputs()
        yield from self._time(beat)
        if not self._statuses:
            yield Row(
                'diagnostics', True, 'fail', 'none came on /diagnostics', 'give --seconds 10'
            )
        for name, status in sorted(self._statuses.items()):
            yield _diagnosed(name.removeprefix(f'{NODE_NAME}: '), status)

    def _inputs(self) -> Iterator[Row]:
        """Each topic that the node subscribes: who publishes it, and whether the QoS fits."""
        subscribed = self.get_subscriber_names_and_types_by_node(NODE_NAME, self._namespace)
        for topic, types in subscribed:
            if topic in _OWN:
                continue
            publishers = self.get_publishers_info_by_topic(topic)
            if not publishers:
                is_needed = _CAMERA_INFO not in types  # 3D keypoints need none
                remedy = (
                    'start the ROS4HRI detector (input_type:=hri_bodies listens to nothing else)'
                    if topic.startswith('/humans/')
                    else 'remap it: keypoints_topic:=NAME, camera_info_topic:=NAME'
                )
                status = 'fail' if is_needed else 'absent'
                yield Row(topic, is_needed, status, f'nobody publishes {", ".join(types)}', remedy)
                continue
            wanted = next(
                found.qos_profile
                for found in self.get_subscriptions_info_by_topic(topic)
                if (found.node_name, found.node_namespace) == (NODE_NAME, self._namespace)
            )
            names = ', '.join(sorted({found.node_name for found in publishers}))
            checks = [qos_check_compatible(found.qos_profile, wanted) for found in publishers]
            reasons = {why for level, why in checks if level == QoSCompatibility.ERROR}
            if reasons:
                detail = f'published by {names}: {"; ".join(sorted(reasons))}'
                yield Row(topic, True, 'fail', detail, CAUSES['incompatible_qos'].cure)
            else:
                yield Row(topic, True, 'ok', f'published by {names}', '')

    def _time(self, beat: Heartbeat) -> Iterator[Row]:
        """Whether the node's time and that of this process agree."""
        stamp = beat.header.stamp.sec + beat.header.stamp.nanosec * 1e-9
        difference = abs(stamp - time.time())
        if difference < _HEARTBEAT_SECONDS:
            yield Row('clock', True, 'ok', 'the node lives in wall time', '')
        elif self._ticks:
            detail = f'the node lives in simulated time, {stamp:.1f} s; /clock ticks'
            yield Row('clock', True, 'ok', detail, '')
        else:
            detail = f'the node is {difference:.1f} s off wall time, and /clock does not tick'
            remedy = 'publish /clock (ros2 bag play --clock), or use_sim_time:=false'
            yield Row('clock', True, 'fail', detail, remedy)


def _status(is_good: bool) -> str:
    return 'ok' if is_good else 'fail'


def _diagnosed(name: str, status: DiagnosticStatus) -> Row:
    """One status of /diagnostics, with the cures of what was refused."""
    if status.level == DiagnosticStatus.OK:
        return Row(name, True, 'ok', status.message, '')
    counts = {
        pair.key.removeprefix(_REFUSED): int(pair.value)
        for pair in status.values
        if pair.key.startswith(_REFUSED)
    }
    worst = sorted(counts, key=counts.get, reverse=True)
    cures = [f'{cause}: {CAUSES[cause].cure}' for cause in worst if cause in CAUSES]
    return Row(
        name, True, 'fail', status.message, '\n'.join(cures) or 'see docs/TROUBLESHOOTING.md'
    )
