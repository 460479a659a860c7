"""The live node, which configures and activates itself (`autostart`).

ros2 launch dposer_ros wholebody.launch.py keypoints_topic:=/my/keypoints viz:=rviz

All arguments: `--show-args`; docs/VIEW.md and dposer_ros/launch_plans.py say more.
"""

from launch import LaunchDescription

from dposer_ros.launch_files import description


def generate_launch_description() -> LaunchDescription:
    return description('wholebody')
