"""Where the page takes its moments from: a bag with a time line, or the newest of a topic."""

import functools
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dposer_core.config import Config
from dposer_core.errors import DPoserError, MediaError
from dposer_core.observation import Observation
from dposer_ros import bags
from dposer_ros.conversions import cameras_from_msg, ns_from_stamp, observations_from_msg
from dposer_ros.launch_arguments import check_topic
from dposer_ros.refusals import Refused, guarded
from dposer_ros.replay import CameraChoice, adapter_of_type, read_clip
from dposer_ros.viewer.moment import Moment, moment_from_msg

if TYPE_CHECKING:
    from viser import GuiApi

_LOGGER = logging.getLogger(__name__)

STATES = '/human/smplx_states'
STATES_TYPE = 'dposer_ros/msg/SmplxStateArray'
PICTURE_TYPE = 'sensor_msgs/msg/CompressedImage'


@dataclass(frozen=True)
class Topics:
    """Where things are; empty: the usual topic live, the only one of a bag."""

    states: str = ''
    keypoints: str = ''
    camera_info: str = ''


RECENT = 300  # moments that the plot of latencies looks back on
SPEEDS = ('0.1', '0.25', '0.5', '1', '2', '4')
_PICTURE_BYTES = 256_000_000  # of a bag that are kept in memory
_WAITING = 64  # frames of keypoints that wait for their states


class MomentSource(Protocol):
    """What the page asks for moments."""

    def add_controls(self, gui: 'GuiApi') -> None:
        """Put what it needs onto the panel."""
        ...

    def recent(self) -> Sequence[Moment]:
        """The moment to show now, after those before it; empty if there is none yet."""
        ...

    def close(self) -> None:
        """Stop."""
        ...


class Recorded:
    """Moments with a time line: play, pause, speed, any moment by hand; it starts over at the end.

    Args:
        moments: in order of time, one or more.
        is_playing: from the start.
        first: number of the moment to begin with.
    """

    def __init__(self, moments: Sequence[Moment], is_playing: bool = True, first: int = 0) -> None:
        self._moments = moments
        self._stamps = np.array([moment.stamp_ns for moment in moments])
        self._is_playing, self._shown = is_playing, min(first, len(moments) - 1)
        self._time_ns, self._clock = float(self._stamps[self._shown]), time.monotonic()

    def add_controls(self, gui: 'GuiApi') -> None:
        with gui.add_folder('Time'):
            self._play = gui.add_checkbox('Play', self._is_playing)
            self._speed = gui.add_dropdown('Speed', SPEEDS, initial_value='1')
            last = max(len(self._moments) - 1, 1)  # the page cannot draw a line of no length
            self._slider = gui.add_slider('Frame', 0, last, 1, self._shown)

    def recent(self) -> Sequence[Moment]:
        elapsed, self._clock = time.monotonic() - self._clock, time.monotonic()
        if int(self._slider.value) != self._shown:  # moved by hand
            self._shown = min(int(self._slider.value), len(self._moments) - 1)
            self._time_ns = float(self._stamps[self._shown])
        elif self._play.value:
            self._time_ns += elapsed * 1e9 * float(self._speed.value)
            if self._time_ns > self._stamps[-1]:
                self._time_ns = float(self._stamps[0])
            self._shown = int(np.searchsorted(self._stamps, self._time_ns, side='right')) - 1
        if self._slider.value != self._shown:
            self._slider.value = self._shown
        return self._moments[max(0, self._shown + 1 - RECENT) : self._shown + 1]

    def close(self) -> None:
        """Nothing is open."""


def states_topic(bag: Path, wanted: str = '') -> str:
    """The topic of states of a bag: that wanted, the node's, or the first; '' if it has none.

    Raises:
        MediaError: the bag cannot be read, or does not have the one wanted.
    """
    found = sorted(t for t, kind in bags.topic_types(bag).items() if kind == STATES_TYPE)
    if wanted and wanted not in found:
        raise MediaError(
            f"{bag} has no states on '{wanted}'; of {STATES_TYPE} it has "
            f'{", ".join(found[:20]) or "none"}'
        )
    return wanted or (STATES if STATES in found else next(iter(found), ''))


def read_moments(
    bag: Path,
    config: Config,
    topics: Topics = Topics(),
    inputs: Path | None = None,
    fit_ms: Mapping[int, float] | None = None,
) -> list[Moment]:
    """Every frame of a bag of states, with the keypoints and pictures of the same stamps.

    Args:
        bag: with a topic of states.
        config: how keypoints are read.
        topics: to read.
        inputs: bag of keypoints and pictures; None: the same.
        fit_ms: stamp -> milliseconds, where the messages do not say.

    Raises:
        MediaError: the bag cannot be read, or holds no states.
    """
    topic = states_topic(bag, topics.states)
    try:
        messages = [message for _, _, message in bags.read_messages(bag, [topic])]
    except MediaError as error:
        raise MediaError(f'{error}; fit its keypoints anew with --fit') from error
    if not messages:
        raise MediaError(f"{bag}: '{topic}' is empty; fit its keypoints with --fit")
    observations = _observations(inputs or bag, config, topics)
    pictures = _pictures(
        inputs or bag, {ns_from_stamp(message.header.stamp) for message in messages}
    )
    moments = {}
    for message in messages:
        stamp = ns_from_stamp(message.header.stamp)
        moment = moment_from_msg(message, observations.get(stamp, ()), pictures.get(stamp, b''))
        if fit_ms and stamp in fit_ms:
            moment = replace(moment, fit_ms=fit_ms[stamp])
        moments[stamp] = moment
    return [moments[stamp] for stamp in sorted(moments)]


def _observations(bag: Path, config: Config, topics: Topics) -> dict[int, Sequence[Observation]]:
    """Stamp -> keypoints, as far as the bag has any that can be read."""
    if not set(bags.topic_types(bag).values()) & set(adapter_of_type(config)):
        return {}
    try:
        clip = read_clip(
            bag,
            CameraChoice(),
            config,
            topic=topics.keypoints,
            camera_topic=topics.camera_info,
        )
    except DPoserError as error:  # the states are there all the same
        _LOGGER.warning('keypoints are not shown: %s', error)
        return {}
    return dict(clip.frames)


def _pictures(bag: Path, stamps: set[int]) -> dict[int, bytes]:
    """Stamp -> encoded image of the first topic that has some."""
    topics = sorted(t for t, kind in bags.topic_types(bag).items() if kind == PICTURE_TYPE)
    pictures: dict[int, bytes] = {}
    kept = 0
    for _, _, message in bags.read_messages(bag, topics[:1]) if topics else ():
        stamp = ns_from_stamp(message.header.stamp)
        kept += len(message.data) if stamp in stamps else 0
        if kept > _PICTURE_BYTES:
            _LOGGER.warning('only the first %d pictures are shown', len(pictures))
            break
        if stamp in stamps:
            pictures[stamp] = bytes(message.data)
    return pictures


class Live:
    """The newest of a topic of states, with the keypoints of its stamp.

    Args:
        topics: of `SmplxStateArray`; of what they were made from, in any type that an adapter
            reads; of its camera.
        config: how keypoints are read.

    Raises:
        ConfigError: a topic, the ROS domain or a message package cannot be used.
    """

    def __init__(self, topics: Topics, config: Config) -> None:
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
        from sensor_msgs.msg import CameraInfo

        from dposer_ros.environment import domain_id, require_messages
        from dposer_ros.keypoint_source import TOPIC, KeypointSource
        from dposer_ros.msg import SmplxStateArray
        from dposer_ros.refusals import Refusals

        for name, topic in vars(topics).items():
            if topic:
                check_topic(name, topic)
        domain_id()
        require_messages()
        self._context = Context()
        rclpy.init(args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(
            'dposer_view', context=self._context, start_parameter_services=False
        )
        self.refusals = Refusals(self._node.get_logger())
        self._config, self._cameras = config, None
        self._waiting: OrderedDict[int, Sequence[Observation]] = OrderedDict()
        self._moments: deque[Moment] = deque(maxlen=RECENT)
        self._topic = topics.states or STATES
        self._held: Sequence[Moment] = ()
        on_states, on_camera, on_keypoints = (
            functools.partial(self._take, callback)
            for callback in (self._on_states, self._on_camera, self._on_keypoints)
        )
        self._node.create_subscription(SmplxStateArray, self._topic, on_states, 5)
        camera_info = topics.camera_info or 'camera_info'
        self._node.create_subscription(CameraInfo, camera_info, on_camera, 1)
        self._keypoints = KeypointSource(
            self._node, on_keypoints, config.input, topic=topics.keypoints or TOPIC
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._spinner = threading.Thread(target=self._executor.spin, name='view', daemon=True)
        self._spinner.start()

    def add_controls(self, gui: 'GuiApi') -> None:
        with gui.add_folder('Time'):
            self._follow = gui.add_checkbox('Follow', True)
            gui.add_markdown(f'newest of `{self._topic}`')

    def recent(self) -> Sequence[Moment]:
        if self._follow.value:
            self._held = tuple(self._moments)
        return self._held

    def close(self) -> None:
        self._executor.shutdown()
        self._spinner.join(1.0)
        self._node.destroy_node()
        self._context.try_shutdown()

    @guarded
    def _take(self, callback: Callable[[Any], None], msg: Any) -> None:
        try:
            callback(msg)
        except DPoserError as error:
            raise Refused('not_shown', str(error)) from error

    def _on_states(self, msg: Any) -> None:
        stamp = ns_from_stamp(msg.header.stamp)
        moment = moment_from_msg(msg, self._waiting.pop(stamp, ()))
        if self._moments and stamp < self._moments[-1].stamp_ns:  # a bag that begins again
            self._moments.clear()
        self._moments.append(moment)

    def _on_camera(self, msg: Any) -> None:
        self._cameras = cameras_from_msg(msg)

    def _on_keypoints(self, message: Any) -> None:
        msg = self._keypoints.read(message)
        observations, _ = observations_from_msg(msg, self._cameras, self._config.input)
        self._waiting[ns_from_stamp(msg.header.stamp)] = observations
        while len(self._waiting) > _WAITING:
            self._waiting.popitem(last=False)
