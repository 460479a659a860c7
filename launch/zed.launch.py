"""A ZED camera's skeletons, fitted: zed_wrapper with body tracking, and the live node.

ros2 launch dposer_ros zed.launch.py camera_model:=zed2i

All arguments: `--show-args`; docs/VIEW.md and dposer_ros/launch_plans.py say more.
"""

from launch import LaunchDescription

from dposer_ros.launch_files import description


def generate_launch_description() -> LaunchDescription:
    return description('zed')
