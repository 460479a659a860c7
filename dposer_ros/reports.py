"""What the node says about itself: `~/events`, `~/heartbeat` and `/diagnostics`.

Its timers run in the executor thread by a clock that never stops, and go on while the fit hangs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header

from dposer_core.state import FitResult, Quality
from dposer_ros.diagnostics import Diagnostics
from dposer_ros.events import KINDS, ClockWatch, Event
from dposer_ros.msg import Heartbeat, TrackEvent
from dposer_ros.refusals import guarded

if TYPE_CHECKING:
    from dposer_ros.node import WholeBodyNode

EVENTS_QOS = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
HEARTBEAT_PERIOD, DIAGNOSTICS_PERIOD = 0.1, 1.0  # s
NO_OUTPUT = 0.5  # s without output that the heartbeat calls HOLD


class Reports:
    """Publishes them, and watches the clock and the worker meanwhile.

    Args:
        node: that is reported on.
        on_time_back: told why, when the node's clock has gone back.
    """

    def __init__(self, node: 'WholeBodyNode', on_time_back: Callable[[str], None]) -> None:
        self._node = node
        self.refusals = node.refusals
        self._on_time_back = on_time_back
        self.diagnostics = Diagnostics(node.get_name(), node.refusals)
        self._clock_watch = ClockWatch()
        self._beat = 0
        self._is_hanging = False
        self._quality = Quality.HOLD
        self._output_at: float | None = None  # perf_counter seconds
        self._events = node.create_publisher(TrackEvent, '~/events', EVENTS_QOS)
        self._heartbeat = node.create_publisher(Heartbeat, '~/heartbeat', 1)
        self._diagnostics_pub = node.create_publisher(DiagnosticArray, '/diagnostics', 10)

    def start(self) -> None:
        """Begin, once the node is complete."""
        node, steady = self._node, Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(DIAGNOSTICS_PERIOD, self.publish_diagnostics, clock=steady)
        node.create_timer(HEARTBEAT_PERIOD, self._publish_heartbeat, clock=steady)
        backwards = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
        )
        self._jumps = node.get_clock().create_jump_callback(
            backwards, post_callback=self._on_time_jump
        )

    def clear(self) -> None:
        """Count from zero again (on activation)."""
        self.diagnostics.clear()
        self._output_at = None

    def announce(self, event: Event, header: Header | None = None) -> None:
        """Publish an event, with the header of its frame or the time now."""
        msg = TrackEvent(kind=event.kind, reason=event.reason, body_id=event.body_id)
        if header is None:
            msg.header.stamp = self._node.get_clock().now().to_msg()
        else:
            msg.header = header
        self._events.publish(msg)
        self.diagnostics.happened(KINDS[event.kind], event.reason)

    def failed(self, reason: str) -> None:
        """Say so where people look, at once."""
        self.announce(Event(TrackEvent.FAILED, reason))
        self.publish_diagnostics()

    def output(self, results: Sequence[FitResult]) -> None:
        """A frame was published."""
        self._output_at = time.perf_counter()
        self._quality = max((r.quality for r in results), default=Quality.FULL)

    @guarded
    def parameters_changed(self, changes: Mapping[str, Any]) -> None:
        """Live parameters have been changed."""
        text = ', '.join(f'{name} = {value!r}' for name, value in changes.items())
        self.announce(Event(TrackEvent.PARAMETERS, text))

    @guarded
    def publish_diagnostics(self) -> None:
        """The statuses of the last seconds."""
        node = self._node
        details = dict(node.model.details) if node.model else {}
        details['error'] = node.error or details.get('error', '')
        settings = node.settings
        report = self.diagnostics.report(
            node.state, details, node.dropped, settings.core, settings.node, node.worker_age
        )
        report.header.stamp = node.get_clock().now().to_msg()
        self._diagnostics_pub.publish(report)

    @guarded
    def _publish_heartbeat(self) -> None:
        self._watch_clock()
        worker_age = self._node.worker_age
        self._watch_worker(worker_age)
        output_age = float('nan')
        if self._output_at is not None:
            output_age = time.perf_counter() - self._output_at
        self._beat += 1
        msg = Heartbeat(beat=self._beat, state=self._node.state, worker_age=worker_age)
        msg.header.stamp = self._node.get_clock().now().to_msg()
        msg.output_age = output_age
        msg.quality = int(self._quality if output_age <= NO_OUTPUT else Quality.HOLD)
        self._heartbeat.publish(msg)

    @guarded
    def _on_time_jump(self, jump: TimeJump) -> None:
        """Simulated time went back (a bag in a loop), or was switched on or off."""
        back = -jump.delta.nanoseconds * 1e-9
        self._on_time_back(f'the clock went back by {back:.3f} s' if back > 0 else 'another clock')

    def _watch_clock(self) -> None:
        if self._node.get_clock().ros_time_is_active:
            self._clock_watch = ClockWatch()
            return
        step_ns = self._clock_watch.step_ns(time.time_ns(), time.monotonic_ns())
        if step_ns < 0:
            self._on_time_back(f'the clock was set back by {-step_ns * 1e-9:.3f} s')

    def _watch_worker(self, age: float) -> None:
        hangs = age > self._node.settings.node.worker.hang_timeout
        if hangs and not self._is_hanging:
            reason = f'the fit in progress takes {age:.1f} s'
            self.refusals.add('fit_hangs', reason)
            self.failed(reason)
        elif self._is_hanging and not hangs:
            self.announce(Event(TrackEvent.RECOVERED, 'the fit goes on'))
        self._is_hanging = hangs
