"""A bag of what the node would have published: its own outputs, with a file in place of DDS."""

import contextlib
import heapq
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from dposer_core.errors import MediaError
from dposer_ros import bags
from dposer_ros.conversions import ModelInfo, header_at
from dposer_ros.diagnostics import FrameTimes
from dposer_ros.evaluation.run import Answer, Run
from dposer_ros.events import Event
from dposer_ros.launch_arguments import NODE_NAME
from dposer_ros.msg import FitStats, TrackEvent
from dposer_ros.node_config import NodeConfig
from dposer_ros.outputs import Counters, Outputs
from dposer_ros.reports import EVENTS_QOS

# Too large to keep for every frame; whoever wants them makes them from the states.
_LEFT_OUT = ('sensor_msgs/msg/PointCloud2', 'sensor_msgs/msg/Image')


@dataclass
class Written:
    """What became of a run in a bag."""

    messages: Counter[str] = field(default_factory=Counter)
    """Topic -> how many."""
    refused: Counter[str] = field(default_factory=Counter)
    """Cause -> what the outputs would not publish."""


def write_state_bag(
    path: Path,
    run: Run,
    config: NodeConfig,
    rest_joints: Callable[[np.ndarray], np.ndarray],
    inputs: tuple[Path, Sequence[str]] | None = None,
) -> Written:
    """Write everything that the node publishes with its frames, at the stamps of the input.

    Args:
        path: the .mcap file, whole or not at all.
        run: the fitted bag.
        config: which outputs.
        rest_joints: betas (10,) -> joints (55, 3) m at rest.
        inputs: bag, and its topics that are copied at the times of their recording.

    Raises:
        MediaError: the file cannot be written.
    """
    partial = path.with_name(f'.{path.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        with Writer(partial, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            node = BagNode(writer)
            outputs = Outputs(
                node,
                ModelInfo(run.states.model),
                rest_joints,
                config,
                node.refuse,
                clock=lambda: node.stamp_ns * 1e-9,
            )
            events = node.create_publisher(TrackEvent, '~/events', EVENTS_QOS)
            for stamp_ns, what in _timeline(run, inputs):
                node.stamp_ns = stamp_ns
                if isinstance(what, Answer):
                    _publish(what, run, outputs, events, config)
                else:
                    node.write(what[0].topic, what[0].msgtype, what[1], ())
        (inner,) = partial.glob('*.mcap')
        inner.replace(path)
    except OSError as error:
        raise MediaError(f'cannot write {path}: {error}') from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return node.written


def _timeline(
    run: Run, inputs: tuple[Path, Sequence[str]] | None
) -> Iterator[tuple[int, Answer | tuple[Connection, bytes]]]:
    """Answers and copied messages, in order of time."""
    answers = ((answer.stamp_ns, answer) for answer in run.answers)
    copied = bags.raw_messages(*inputs) if inputs else ()
    recorded = ((stamp_ns, (connection, data)) for connection, stamp_ns, data in copied)
    return heapq.merge(recorded, answers, key=lambda item: item[0])


def _publish(
    answer: Answer, run: Run, outputs: Outputs, events: 'BagPublisher', config: NodeConfig
) -> None:
    header = header_at(answer.stamp_ns, run.clip.frame_id)
    before = outputs.primary_id
    outputs.publish(answer.results, header, _NoTimes(0.0), Counters(), config, run.clip.camera)
    told = list(answer.events)
    if outputs.primary_id not in ('', before):
        told.append(Event(TrackEvent.PRIMARY, 'is primary now', outputs.primary_id))
    for event in told:
        msg = TrackEvent(kind=event.kind, reason=event.reason, body_id=event.body_id)
        msg.header = header
        events.publish(msg)


class BagNode:
    """Stands for the node in its outputs: a publisher writes into the bag.

    Args:
        writer: of the bag, open.
    """

    def __init__(self, writer: Writer) -> None:
        self.stamp_ns = 0
        """Time of what is published."""
        self.written = Written()
        self._writer = writer
        self._types = bags.typestore()
        self._connections: dict[tuple[str, str], Connection] = {}

    def create_publisher(
        self, kind: type, topic: str, qos: QoSProfile | int, **_: Any
    ) -> 'BagPublisher':
        """As rclpy's; `~` is the node's name."""
        profile = qos if isinstance(qos, QoSProfile) else QoSProfile(depth=qos)
        return BagPublisher(self, kind, topic.replace('~', f'/{NODE_NAME}'), profile)

    def destroy_publisher(self, publisher: 'BagPublisher') -> None:
        """What it has written stays."""

    def create_timer(self, period: float, callback: Callable[[], None], **_: Any) -> None:
        """A bag has no clock: what is said again and again is in it once."""

    def destroy_timer(self, timer: None) -> None:
        """There is none."""

    def get_logger(self) -> logging.Logger:
        """Of this module."""
        return logging.getLogger(__name__)

    def refuse(self, cause: str, message: str) -> None:
        """Count what is not published."""
        self.written.refused[f'{cause}: {message}'] += 1

    def publish(self, topic: str, msgtype: str, msg: Any, qos: Sequence[Qos]) -> None:
        """Write a message."""
        self.write(topic, msgtype, bags.serialize(self._types, msg, msgtype), qos)

    def write(self, topic: str, msgtype: str, data: bytes, qos: Sequence[Qos]) -> None:
        """Write CDR bytes."""
        key = (topic, msgtype)
        if key not in self._connections:
            types = bags.with_type(self._types, msgtype)
            self._connections[key] = bags.add_connection(self._writer, topic, msgtype, types, qos)
        self._writer.write(self._connections[key], self.stamp_ns, data)
        self.written.messages[topic] += 1


class BagPublisher:
    """The calls of an rclpy publisher that `Outputs` makes."""

    def __init__(self, node: BagNode, kind: type, topic: str, qos: QoSProfile) -> None:
        self._node, self._topic = node, topic
        self._type = f'{kind.__module__.split(".")[0]}/msg/{kind.__name__}'
        self._qos = [_recorded(qos)]

    def publish(self, msg: Any) -> None:
        """Write it."""
        if self.get_subscription_count():
            self._node.publish(self._topic, self._type, msg, self._qos)

    def get_subscription_count(self) -> int:
        """The bag takes everything that is not too large."""
        return int(self._type not in _LEFT_OUT)


class _NoTimes(FrameTimes):
    """Times of the machine, which have no place in what depends on the bag alone."""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        yield

    def fill(self, stats: FitStats) -> FitStats:
        return stats


def _recorded(qos: QoSProfile) -> Qos:
    """For a player: latched topics must be latched again."""
    is_latched = qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
    is_best_effort = qos.reliability == ReliabilityPolicy.BEST_EFFORT
    unlimited = QosTime(0, 0)
    return Qos(
        QosHistory.KEEP_LAST,
        qos.depth,
        QosReliability.BEST_EFFORT if is_best_effort else QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if is_latched else QosDurability.VOLATILE,
        unlimited,
        unlimited,
        QosLiveliness.AUTOMATIC,
        unlimited,
        False,
    )
