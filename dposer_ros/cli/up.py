"""`dposer up`: the nodes and parameters of a launch file, where `ros2 launch` is missing."""

import signal
import subprocess
import sys
import time

import typer
from rich.console import Console
from rich.table import Table

from dposer_core.errors import ConfigError
from dposer_ros import launch_arguments
from dposer_ros.child import end_with_parent
from dposer_ros.environment import domain_id, require_messages

TARGETS = ('wholebody',)
STOP_SECONDS = 5.0  # between the request to stop and the kill
RESPAWN_SECONDS = 1.0  # as in wholebody.launch.py
DISCOVERY_SECONDS = 1.5  # DDS participants on one machine see each other in less


def up(
    target: str = typer.Argument(help=f'What to start: {", ".join(TARGETS)}.'),
    arguments: list[str] = typer.Argument(
        None, help='name:=value, as for ros2 launch.', metavar='NAME:=VALUE'
    ),
    show_args: bool = typer.Option(False, '--show-args', '-s', help='List the arguments.'),
) -> None:
    """Start the live node, bring it to its active state and keep it running until Ctrl-C.

    The same as `ros2 launch dposer_ros wholebody.launch.py`, without ROS 2's launch packages.

    Example: dposer up wholebody keypoints_topic:=/detector/keypoints log_level:=debug
    """
    if target not in TARGETS:
        raise ConfigError(f"'{target}' cannot be started; choose one of {', '.join(TARGETS)}")
    if show_args:
        _print_arguments()
        return
    values = launch_arguments.parse(arguments or [])
    domain_id()
    require_messages()
    _refuse_second_node(launch_arguments.full_namespace(values))
    command = [sys.executable, '-m', 'dposer_ros.node', *launch_arguments.ros_arguments(values)]
    raise typer.Exit(_supervise(command, respawn=values['respawn'] == 'true'))


def _supervise(command: list[str], respawn: bool) -> int:
    """Run the node until it ends, Ctrl-C or SIGTERM; its exit status, 0 for these two."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores SIGINT
        signal.signal(number, signal.default_int_handler)
    child = None
    try:
        while True:
            # A session of its own: Ctrl-C reaches the node from `_stop`, not from the terminal.
            child = subprocess.Popen(command, start_new_session=True, preexec_fn=end_with_parent)
            status = child.wait()
            if not respawn:
                return status
            typer.secho(f'the node ended with status {status}; starting it again', fg='yellow')
            time.sleep(RESPAWN_SECONDS)
    except KeyboardInterrupt:
        return 0
    finally:
        # From here on a second Ctrl-C must not leave the child behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if child is not None:
            _stop(child)


def _stop(child: subprocess.Popen) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _refuse_second_node(namespace: str) -> None:
    """Raise ConfigError if a node of the same name already runs in this domain."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    wanted = (launch_arguments.NODE_NAME, namespace or '/')
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('dposer_up', start_parameter_services=False)
    try:
        deadline = time.monotonic() + DISCOVERY_SECONDS
        while time.monotonic() < deadline:
            if wanted in node.get_node_names_and_namespaces():
                raise ConfigError(
                    f'{wanted[0]} already runs in ROS domain {domain_id()}: stop it, give '
                    'namespace:=NAME, or set ROS_DOMAIN_ID to another number'
                )
            time.sleep(0.1)
    finally:
        node.destroy_node()
        rclpy.shutdown()


def _print_arguments() -> None:
    table = Table('argument', 'default', 'meaning')
    for argument in launch_arguments.ARGUMENTS:
        choices = ', '.join(choice for choice in argument.choices if choice)
        text = f'{argument.help} ({choices})' if choices else argument.help
        table.add_row(argument.name, argument.default, text)
    Console().print(table)
