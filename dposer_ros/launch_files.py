"""A plan of `dposer_ros.launch_plans` as a description for `ros2 launch`."""

from collections.abc import Callable, Iterable

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from dposer_ros.launch_arguments import LaunchArgument
from dposer_ros.launch_plans import PLANS, Include, Step, share_file, start


def description(name: str) -> LaunchDescription:
    """The launch description of a plan."""
    plan = PLANS[name]
    return describe(
        plan.arguments, lambda values: [action(step, values) for step in start(plan, values)]
    )


def describe(
    arguments: Iterable[LaunchArgument], actions: Callable[[dict[str, str]], list]
) -> LaunchDescription:
    """Arguments, and what is done with their values; an error in `actions` starts no process."""
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.help,
            choices=argument.choices or None,
        )
        for argument in arguments
    ]

    def start_all(context) -> list:
        names = [argument.name for argument in arguments]
        return actions({name: LaunchConfiguration(name).perform(context) for name in names})

    return LaunchDescription([*declared, OpaqueFunction(function=start_all)])


def action(step: Step, values: dict[str, str]):
    """The action of `launch` that makes a step."""
    if isinstance(step, str):
        return LogInfo(msg=step)
    if isinstance(step, Include):
        path = share_file(step.package, f'launch/{step.file}')
        include = IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(path)), launch_arguments=step.arguments.items()
        )
        # Not forwarding: `params_file`, say, means something else in other packages.
        return GroupAction([include], scoped=True, forwarding=False)
    kind = LifecycleNode if step.is_lifecycle else Node
    return kind(
        package=step.package,
        executable=step.executable,
        name=step.name,
        namespace=step.namespace,
        parameters=step.parameters,
        remappings=step.remappings,
        arguments=step.arguments,
        ros_arguments=['--log-level', values['log_level']],
        respawn=step.respawns,
        respawn_delay=1.0,
        output='screen',
        emulate_tty=True,
    )
