"""The other side of the node under test: feeds it and keeps what it publishes, over real DDS."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from dposer_ros.msg import (
    FitStats,
    HandStateArray,
    Heartbeat,
    KeypointFrame,
    PersonKeypoints,
    SmplxState,
    SmplxStateArray,
    TrackEvent,
)
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import String

from dposer_ros.demo.processes import own_domain
from dposer_ros.node import WholeBodyNode

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
EVENTS = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
BEST_EFFORT = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)


def person(confidence=0.9, num_points=133, track_id='', dim=2) -> PersonKeypoints:
    """Some visible person of the hub layout."""
    points = np.random.default_rng(1).uniform(100.0, 400.0, (num_points, dim)).astype(np.float32)
    return PersonKeypoints(
        track_id=track_id,
        points=points.ravel().tolist(),
        confidence=np.full(num_points, confidence, np.float32).tolist(),
    )


def frame(*people: PersonKeypoints, stamp_ns=10**9, layout='coco_wholebody133') -> KeypointFrame:
    msg = KeypointFrame(layout=layout, dim=2, unit=KeypointFrame.UNIT_PIXEL, people=list(people))
    msg.header.frame_id = 'camera_optical'
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    return msg


def camera_info(focal=800.0, width=960, height=540) -> CameraInfo:
    k = [focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, float(focal > 0)]
    return CameraInfo(width=width, height=height, distortion_model='plumb_bob', d=[0.0] * 5, k=k)


class Probe(Node):
    """Publishes the node's inputs and keeps every output by topic."""

    def __init__(self, context: Context) -> None:
        super().__init__('probe', context=context)
        self.keypoints = self.create_publisher(
            KeypointFrame,
            'keypoints',
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
        )
        self.camera = self.create_publisher(CameraInfo, 'camera_info', 1)
        self.received: dict[str, list] = defaultdict(list)
        self.received_at: dict[str, list[float]] = defaultdict(list)
        for topic, kind, qos in (
            ('/human/smplx_state', SmplxState, 50),
            ('/human/smplx_states', SmplxStateArray, 50),
            ('/human/hands', HandStateArray, 50),
            ('/human/joint_states', JointState, 50),
            ('/human/urdf', String, LATCHED),
            ('/dposer_wholebody/timing', FitStats, BEST_EFFORT),
            ('/dposer_wholebody/events', TrackEvent, EVENTS),
            ('/dposer_wholebody/heartbeat', Heartbeat, 50),
            ('/diagnostics', DiagnosticArray, 50),
        ):
            self.listen(topic, kind, qos)

    def listen(self, topic: str, kind: type, qos: QoSProfile | int = 50) -> None:
        """Keep what comes on the topic."""
        self.create_subscription(kind, topic, lambda msg: self._keep(topic, msg), qos)

    def _keep(self, topic: str, msg) -> None:
        self.received[topic].append(msg)
        self.received_at[topic].append(time.time())

    def now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def send(self, *people: PersonKeypoints, age=0.0, **kwargs) -> int:
        """Publish one frame stamped `age` seconds ago; the stamp in ns."""
        stamp_ns = self.now_ns() - int(age * 1e9)
        self.keypoints.publish(frame(*people, stamp_ns=stamp_ns, **kwargs))
        return stamp_ns

    def send_camera(self, **kwargs) -> None:
        self.camera.publish(camera_info(**kwargs))

    def urdf(self) -> str:
        """The one that stands now."""
        return self.received['/human/urdf'][-1].data

    def events(self, *kinds: str) -> list[TrackEvent]:
        """Those of these kinds, in the order they came; all if none is named."""
        numbers = [getattr(TrackEvent, kind) for kind in kinds]
        events = self.received['/dposer_wholebody/events']
        return [event for event in events if not kinds or event.kind in numbers]

    def states(self) -> list[SmplxState]:
        return self.received['/human/smplx_state']


def wait_for(condition: Callable[[], bool], timeout: float = 5.0, what: str = '') -> None:
    """Fail if the condition does not come true in time."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f'{what or condition} not within {timeout} s'
        time.sleep(0.005)


@contextmanager
def spinning(*nodes: Node) -> Iterator[None]:
    """The nodes' callbacks run, each in a thread of its own, while the block runs."""
    stop = threading.Event()
    threads = []
    for node in nodes:
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)

        def spin(executor=executor) -> None:
            while not stop.is_set():
                executor.spin_once(timeout_sec=0.1)

        threads.append(threading.Thread(target=spin))
        threads[-1].start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def ros_context() -> Iterator[Context]:
    """A context in a domain that nobody else uses."""
    with own_domain() as domain:
        context = Context()
        rclpy.init(context=context, domain_id=domain)
        try:
            yield context
        finally:
            rclpy.shutdown(context=context)


@contextmanager
def node_and_probe(fitter_factory, **overrides) -> Iterator[tuple[WholeBodyNode, Probe]]:
    """The node, unconfigured, and a probe, both spinning.

    Args:
        fitter_factory: for the node.
        overrides: parameters of the start, with `__` for the dot.
    """
    with ros_context() as context:
        parameters = [Parameter(k.replace('__', '.'), value=v) for k, v in overrides.items()]
        node = WholeBodyNode(fitter_factory, context=context, parameter_overrides=parameters)
        probe = Probe(context)
        try:
            with spinning(node, probe):
                yield node, probe
        finally:
            node.close()
            node.destroy_node()
            probe.destroy_node()


@contextmanager
def node_process(
    *program: str | Path, stdout=None, **overrides
) -> Iterator[tuple[Probe, subprocess.Popen]]:
    """An active node in a process of its own, and a probe; it must end with 0 when interrupted.

    Times are its own here: in `active_node` both sides take turns with one interpreter.

    Args:
        program: arguments of Python before those of the node.
        stdout: a file, for what it prints.
        overrides: parameters of the start, with `__` for the dot.
    """
    with ros_context() as context:
        probe = Probe(context)
        parameters = {'autostart': 'true'} | overrides
        arguments = [word for k, v in parameters.items() for word in ('-p', f'{k}:={v}')]
        arguments = [argument.replace('__', '.') for argument in arguments]
        child = subprocess.Popen(
            [sys.executable, *program, '--ros-args', '--log-level', 'warn', *arguments],
            env=os.environ | {'ROS_DOMAIN_ID': str(context.get_domain_id())},
            stdout=stdout,
            stderr=None if stdout is None else subprocess.STDOUT,
        )
        try:
            with spinning(probe):
                wait_for(lambda: probe.keypoints.get_subscription_count() == 1, 60.0, 'the node')
                wait_for(lambda: probe.count_publishers('/human/smplx_state') == 1, 5.0)
                probe.send_camera()
                yield probe, child
            child.send_signal(signal.SIGINT)
            assert child.wait(5.0) == 0
        finally:
            child.kill()
            child.wait()
            probe.destroy_node()


@contextmanager
def active_node(
    fitter_factory, camera: bool = True, **overrides
) -> Iterator[tuple[WholeBodyNode, Probe]]:
    """As `node_and_probe`, with the node active, discovered, and a camera known if asked for."""
    with node_and_probe(fitter_factory, **overrides) as (node, probe):
        assert node.start()
        # A frame far too old tells that the node hears us, and leaves no trace but its counter.
        wait_for(lambda: bool(probe.send(age=60.0)) and node.refusals.total > 0, what='discovery')
        wait_for(lambda: probe.count_publishers('/human/smplx_state') == 1, what='discovery')
        if camera:
            wait_for(lambda: probe.send_camera() or node.has_camera, what='camera_info')
        time.sleep(0.1)  # what is still on its way
        node.refusals.clear()
        yield node, probe
