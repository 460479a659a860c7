"""Play a bag into the live node in simulated time, record its answers and evaluate both.

The page compares the live answers with those of the fit without a clock. Example:
`ros2 launch dposer_ros replay_eval.launch.py bag:=walk.mcap out:=evaluation rate:=0.5`
"""

import sys
from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import SignalProcess, matches_action
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from dposer_ros import launch_arguments, replay_launch


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.help,
            choices=argument.choices or None,
        )
        for argument in replay_launch.ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_start)])


def _start(context) -> list:
    """Check everything, then describe the processes; an error here starts none."""
    values = {
        argument.name: LaunchConfiguration(argument.name).perform(context)
        for argument in replay_launch.ARGUMENTS
    }
    commands = replay_launch.commands(values, sys.executable)
    wholebody = Path(__file__).with_name('wholebody.launch.py')
    node = {a.name: values[a.name] for a in launch_arguments.ARGUMENTS if a.name in values}
    recorder = ExecuteProcess(cmd=commands.record, output='screen')
    player = ExecuteProcess(cmd=commands.play, output='screen')
    evaluation = ExecuteProcess(cmd=commands.evaluate, output='screen')
    end_recording = EmitEvent(
        event=SignalProcess(signal_number='SIGINT', process_matcher=matches_action(recorder))
    )
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(wholebody)),
            launch_arguments={**node, 'use_sim_time': 'true'}.items(),
        ),
        recorder,
        player,
        _after(player, end_recording, 'the bag could not be played'),
        _after(recorder, evaluation, 'the answers could not be recorded'),
        RegisterEventHandler(
            OnProcessExit(target_action=evaluation, on_exit=[Shutdown(reason='evaluated')])
        ),
    ]


def _after(process: ExecuteProcess, action, fault: str) -> RegisterEventHandler:
    """`action` when the process has ended well; else the end of everything."""

    def choose(event, _context) -> list:
        if event.returncode == 0:
            return [action]
        return [LogInfo(msg=fault), Shutdown(reason=fault)]

    return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=choose))
