"""`dposer inject`: a node between detector and fit that makes keypoints go wrong on purpose."""

import time

import typer

from dposer_core.errors import ConfigError
from dposer_ros.environment import require_messages


def inject(
    fault: str = typer.Argument(help='What to do; `list` shows all.'),
    source: str = typer.Option('/keypoints', '--from', help='Topic to listen to.'),
    target: str = typer.Option('/keypoints_faulty', '--to', help='Topic to publish on.'),
    share: float = typer.Option(1.0, help='Share of the messages that it meets, 0 to 1.'),
    seed: int = typer.Option(0, help='Of all chance.'),
    seconds: float = typer.Option(0.0, help='End after this time; 0: Ctrl-C.'),
    pause: float = typer.Option(
        0.0, help='Let everything pass for so long, then inject for as long, and so on; s.'
    ),
) -> None:
    """Publish the keypoints of a topic with one fault, to see what the node and you make of it.

    Example: dposer inject silence --pause 3, and the node with keypoints_topic:=/keypoints_faulty
    """
    require_messages()
    from dposer_ros.faults import FAULTS, Injector

    if fault == 'list':
        for name, (text, _) in FAULTS.items():
            typer.echo(f'{name:12} {text}')
        return
    if source == target:
        raise ConfigError(f'--from and --to are both {source}; the node would feed itself')
    injector = Injector(fault, share, seed)
    sent = _run(injector, source, target, seconds, pause)
    typer.echo(f'{sent[0]} messages came, {sent[1]} went out')


def _run(injector, source: str, target: str, seconds: float, pause: float) -> tuple[int, int]:
    """Relay until the time is up or a signal comes; how many messages came and went."""
    from rclpy.node import Node
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    from dposer_ros.demo.lifetime import ros
    from dposer_ros.msg import KeypointFrame

    counts = [0, 0]
    begin = time.monotonic()

    def is_on() -> bool:
        return pause <= 0.0 or int((time.monotonic() - begin) / pause) % 2 == 1

    with ros() as stop:
        import rclpy

        node = Node('dposer_inject')
        publisher = node.create_publisher(KeypointFrame, target, 10)

        def relay(msg: KeypointFrame) -> None:
            out = injector(msg) if is_on() else [msg]
            counts[0], counts[1] = counts[0] + 1, counts[1] + len(out)
            for changed in out:
                publisher.publish(changed)

        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(KeypointFrame, source, relay, qos)
        while not stop and not (seconds and time.monotonic() - begin > seconds):
            rclpy.spin_once(node, timeout_sec=0.1)
        node.destroy_node()
    return counts[0], counts[1]
