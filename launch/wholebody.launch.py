"""Start the live node `dposer_wholebody`; it configures and activates itself (`autostart`).

All arguments with their defaults: `ros2 launch dposer_ros wholebody.launch.py --show-args`.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from dposer_ros import launch_arguments


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.help,
            choices=argument.choices or None,
        )
        for argument in launch_arguments.ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_start)])


def _start(context) -> list:
    """Check the arguments together, then describe the node; an error here starts no process."""
    values = {
        argument.name: LaunchConfiguration(argument.name).perform(context)
        for argument in launch_arguments.ARGUMENTS
    }
    launch_arguments.check(values)
    return [
        LifecycleNode(
            package=launch_arguments.PACKAGE,
            executable=launch_arguments.EXECUTABLE,
            name=launch_arguments.NODE_NAME,
            namespace=values['namespace'],
            parameters=[
                str(launch_arguments.params_file(values)),
                launch_arguments.parameters(values),
            ],
            remappings=launch_arguments.remappings(values),
            ros_arguments=['--log-level', values['log_level']],
            respawn=values['respawn'] == 'true',
            respawn_delay=1.0,
            output='screen',
            emulate_tty=True,
        )
    ]
