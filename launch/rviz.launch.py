"""RViz with everything there is to see, and the node that draws it.

ros2 launch dposer_ros rviz.launch.py image_topic:=/camera/image_raw

All arguments: `--show-args`; docs/VIEW.md and dposer_ros/launch_plans.py say more.
"""

from launch import LaunchDescription

from dposer_ros.launch_files import description


def generate_launch_description() -> LaunchDescription:
    return description('rviz')
