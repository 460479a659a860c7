"""YOLO's poses, fitted: yolo_ros with its tracker, and the live node.

ros2 launch dposer_ros yolo.launch.py model:=yolo11n-pose.pt viz:=rviz

All arguments: `--show-args`; docs/VIEW.md and dposer_ros/launch_plans.py say more.
"""

from launch import LaunchDescription

from dposer_ros.launch_files import description


def generate_launch_description() -> LaunchDescription:
    return description('yolo')
