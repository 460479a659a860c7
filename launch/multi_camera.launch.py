"""Several calibrated cameras: `dposer_fusion` makes 3D keypoints, `dposer_wholebody` fits them.

ros2 launch dposer_ros multi_camera.launch.py cameras:=left,right,top calibration:=rig.yaml

Every camera has its detector with <camera>/keypoints and <camera>/camera_info; docs/CAMERAS.md.
The arguments of wholebody.launch.py hold here too, but for its topics.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from dposer_ros import launch_arguments

FUSED = 'fused/keypoints'


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.help,
            choices=argument.choices or None,
        )
        for argument in launch_arguments.MULTI_CAMERA
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_start)])


def _start(context) -> list:
    """Check the arguments together, then describe the nodes; an error here starts no process."""
    values = {
        argument.name: LaunchConfiguration(argument.name).perform(context)
        for argument in launch_arguments.MULTI_CAMERA
    }
    launch_arguments.check_multi_camera(values)
    fusion = Node(
        package=launch_arguments.PACKAGE,
        executable='dposer_fusion',
        name='dposer_fusion',
        namespace=values['namespace'],
        parameters=[launch_arguments.fusion_parameters(values)],
        remappings=[('keypoints', FUSED)],
        ros_arguments=['--log-level', values['log_level']],
        respawn=values['respawn'] == 'true',
        respawn_delay=1.0,
        output='screen',
        emulate_tty=True,
    )
    single = {argument.name for argument in launch_arguments.ARGUMENTS}
    passed_on = {name: value for name, value in values.items() if name in single}
    wholebody = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).with_name('wholebody.launch.py'))),
        launch_arguments={**passed_on, 'keypoints_topic': FUSED}.items(),
    )
    return [fusion, wholebody]
