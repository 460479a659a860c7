"""Play a bag into the live node in simulated time, record its answers and evaluate both.

The page compares the live answers with those of the fit without a clock. Example:
`ros2 launch dposer_ros replay_eval.launch.py bag:=walk.mcap out:=evaluation rate:=0.5`
"""

import signal
import sys

from launch import LaunchDescription
from launch.actions import EmitEvent, ExecuteProcess, LogInfo, RegisterEventHandler, Shutdown
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.events.process import SignalProcess

from dposer_ros import launch_arguments, replay_launch
from dposer_ros.launch_files import action, describe
from dposer_ros.launch_plans import Include


def generate_launch_description() -> LaunchDescription:
    return describe(replay_launch.ARGUMENTS, _start)


def _start(values: dict[str, str]) -> list:
    commands = replay_launch.commands(values, sys.executable)
    node = {a.name: values[a.name] for a in launch_arguments.ARGUMENTS if a.name in values}
    live = Include(
        launch_arguments.PACKAGE, 'wholebody.launch.py', node | {'use_sim_time': 'true'}
    )
    recorder = ExecuteProcess(cmd=commands.record, output='screen')
    player = ExecuteProcess(cmd=commands.play, output='screen')
    evaluation = ExecuteProcess(cmd=commands.evaluate, output='screen')
    end_recording = EmitEvent(
        event=SignalProcess(signal_number=signal.SIGINT, process_matcher=matches_action(recorder))
    )
    return [
        action(live, values),
        recorder,
        player,
        _after(player, end_recording, 'the bag could not be played'),
        _after(recorder, evaluation, 'the answers could not be recorded'),
        RegisterEventHandler(
            OnProcessExit(target_action=evaluation, on_exit=[Shutdown(reason='evaluated')])
        ),
    ]


def _after(process: ExecuteProcess, then, fault: str) -> RegisterEventHandler:
    """`then` when the process has ended well; else the end of everything."""

    def choose(event, _context) -> list:
        if event.returncode == 0:
            return [then]
        return [LogInfo(msg=fault), Shutdown(reason=fault)]

    return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=choose))
