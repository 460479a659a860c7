"""Start the live node `dposer_wholebody` and bring it to its active state.

All arguments with their defaults: `ros2 launch dposer_ros wholebody.launch.py --show-args`.
"""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

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
    node = LifecycleNode(
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
    if values['autostart'] != 'true':
        return [node]
    return [*_autostart(node), node]


def _autostart(node: LifecycleNode) -> list:
    """Configure at every start of the process (also a respawn), activate when configured.

    `LifecycleNode(autostart=True)` exists only since Kilted and does not act on a respawn.
    """

    def change(transition_id: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(
                lifecycle_node_matcher=matches_action(node), transition_id=transition_id
            )
        )

    return [
        RegisterEventHandler(
            OnProcessStart(target_action=node, on_start=[change(Transition.TRANSITION_CONFIGURE)])
        ),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state='configuring',
                goal_state='inactive',
                entities=[change(Transition.TRANSITION_ACTIVATE)],
            )
        ),
    ]
