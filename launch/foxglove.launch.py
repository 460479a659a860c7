"""The bridge to Foxglove, and the node that draws what is to be seen.

ros2 launch dposer_ros foxglove.launch.py image_topic:=/camera/image_raw

All arguments: `--show-args`; docs/VIEW.md and dposer_ros/launch_plans.py say more.
"""

from launch import LaunchDescription

from dposer_ros.launch_files import description


def generate_launch_description() -> LaunchDescription:
    return description('foxglove')
