"""A plan of `dposer_ros.launch_plans` as a description for `ros2 launch`."""

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
from launch_ros.actions import Node

from dposer_ros.launch_plans import PLANS, Include, Plan, Step, share_file, start


def description(name: str) -> LaunchDescription:
    """The launch description of a plan."""
    plan = PLANS[name]
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.help,
            choices=argument.choices or None,
        )
        for argument in plan.arguments
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_start, args=[plan])])


def _start(context, plan: Plan) -> list:
    """Check everything, then describe what is started; an error here starts no process."""
    values = {
        argument.name: LaunchConfiguration(argument.name).perform(context)
        for argument in plan.arguments
    }
    return [_action(step, values) for step in start(plan, values)]


def _action(step: Step, values: dict[str, str]):
    if isinstance(step, str):
        return LogInfo(msg=step)
    if isinstance(step, Include):
        path = share_file(step.package, f'launch/{step.file}')
        include = IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(path)), launch_arguments=step.arguments.items()
        )
        # Not forwarding: `params_file`, say, means something else in other packages.
        return GroupAction([include], scoped=True, forwarding=False)
    return Node(
        package=step.package,
        executable=step.executable,
        name=step.name,
        namespace=step.namespace,
        parameters=step.parameters,
        remappings=step.remappings,
        arguments=step.arguments,
        ros_arguments=['--log-level', values['log_level']],
        output='screen',
        emulate_tty=True,
    )
