"""A bag over DDS with its own clock, as `ros2 bag play --clock` does, where rosbag2 is missing.

Messages go out as they were recorded, byte for byte, with /clock ahead of each of them. A pause
holds the clock, a loop sets it back.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from rclpy.validate_full_topic_name import validate_full_topic_name
from rosbags.interfaces import Connection, QosDurability
from rosgraph_msgs.msg import Clock

from dposer_core.errors import ConfigError, MediaError
from dposer_ros import bags
from dposer_ros.adapters import message_class
from dposer_ros.demo.lifetime import Stop, ros, run_main
from dposer_ros.demo.player import topic_counts, wait_for_subscribers

TICK = 0.01  # s of the wall, between two messages on /clock
QUEUE = 10


@dataclass(frozen=True)
class Schedule:
    """When what is played."""

    rate: float = 1.0
    """Seconds of the bag per second."""
    loops: int = 1
    """Times that it is played."""
    pause_at: float | None = None
    """Seconds of the bag, in the first loop, at which it pauses; None: it does not."""
    pause: float = 0.0
    """Seconds of the wall that the pause lasts."""


class BagPlayer(Node):
    """Publishes /clock and the messages of a bag.

    Args:
        bag: folder, .mcap or .db3.
        topics: those to play; empty: all whose message type is installed.
        stop: ends the playing.
        kwargs: for `rclpy.node.Node`.

    Raises:
        MediaError: the bag cannot be read, or nothing of it can be played.
    """

    def __init__(self, bag: Path, topics: Sequence[str], stop: Stop, **kwargs) -> None:
        super().__init__('dposer_bag_player', **kwargs)
        self._stop = stop
        self._clock_pub = self.create_publisher(Clock, '/clock', QUEUE)
        self._messages: list[tuple[int, Publisher, bytes]] = []
        publishers: dict[str, Publisher | None] = {}
        for connection, recorded_ns, data in bags.raw_messages(bag, topics):
            if connection.topic not in publishers:
                publishers[connection.topic] = self._publisher(connection)
            publisher = publishers[connection.topic]
            if publisher is not None:
                self._messages.append((recorded_ns, publisher, bytes(data)))
        if not self._messages:
            raise MediaError(f'{bag}: nothing to play on {", ".join(topics) or "any topic"}')
        self._messages.sort(key=lambda message: message[0])

    def play(self, schedule: Schedule) -> int:
        """Play it; returns how many messages went out."""
        count = 0
        for loop in range(schedule.loops):
            count += self._once(schedule, has_pause=loop == 0)
        return count

    def _once(self, schedule: Schedule, has_pause: bool) -> int:
        first_ns = self._messages[0][0]
        begin = time.monotonic()
        for count, (recorded_ns, publisher, data) in enumerate(self._messages):
            at = (recorded_ns - first_ns) * 1e-9
            self._tick_until(begin + at / schedule.rate, recorded_ns, schedule.rate)
            if has_pause and schedule.pause_at is not None and at >= schedule.pause_at:
                has_pause = False
                self._tick_until(time.monotonic() + schedule.pause, recorded_ns, 0.0)
                begin += schedule.pause
            if self._stop:
                return count
            self._tell(recorded_ns)
            publisher.publish(data)
        return len(self._messages)

    def _tick_until(self, wall: float, bag_ns: int, rate: float) -> None:
        """Let time go on, or stand still with rate 0, until the wall's time has come."""
        while (left := wall - time.monotonic()) > 0.0 and not self._stop:
            self._tell(bag_ns - int(left * rate * 1e9))
            time.sleep(min(TICK, left))

    def _tell(self, now_ns: int) -> None:
        self._clock_pub.publish(Clock(clock=Time(nanoseconds=max(now_ns, 0)).to_msg()))

    def _publisher(self, connection: Connection) -> Publisher | None:
        try:
            # Only types that are messages here: a name in a bag must not import what it likes.
            bags.with_type(bags.typestore(), connection.msgtype)
            kind = message_class(connection.msgtype)
            validate_full_topic_name(connection.topic)
        except (MediaError, ConfigError, InvalidTopicNameException) as error:
            self.get_logger().warning(f'{connection.topic!r} is not played: {error}')
            return None
        recorded = connection.ext.offered_qos_profiles
        qos = QoSProfile(depth=QUEUE)
        if recorded and recorded[0].durability == QosDurability.TRANSIENT_LOCAL:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        return self.create_publisher(kind, connection.topic, qos)


def main() -> None:
    """Entry point of `python -m dposer_ros.bag_player`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bag', type=Path, help='bag folder, .mcap or .db3')
    parser.add_argument('--topics', nargs='*', default=[], help='to play; none: all')
    parser.add_argument('--rate', type=float, default=1.0, help='seconds of the bag per second')
    parser.add_argument('--loops', type=int, default=1, help='times that it is played')
    parser.add_argument('--pause-at', type=float, help='seconds of the bag, in the first loop')
    parser.add_argument('--pause', type=float, default=2.0, help='seconds that the pause lasts')
    parser.add_argument(
        '--wait-for', type=topic_counts, default={}, help='topic:subscribers,... to wait for'
    )
    parser.add_argument('--timeout', type=float, default=120.0, help='longest wait, s')
    arguments, ros_arguments = parser.parse_known_args()
    if not 0.01 <= arguments.rate <= 100.0 or arguments.loops < 1:
        raise ConfigError('--rate must lie in [0.01, 100], --loops be at least 1')
    with ros(ros_arguments) as stop:
        node = BagPlayer(arguments.bag, arguments.topics, stop)
        wait_for_subscribers(node, arguments.wait_for, arguments.timeout, stop)
        count = node.play(
            Schedule(arguments.rate, arguments.loops, arguments.pause_at, arguments.pause)
        )
        time.sleep(0.5)  # let the last message leave
        print(f'played {count} messages')


if __name__ == '__main__':
    run_main(main)
