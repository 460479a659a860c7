"""MediaPipe on the images of any camera, or of a video file, and the live node.

ros2 launch dposer_ros mediapipe.launch.py video:=walk.mp4 viz:=foxglove

All arguments: `--show-args`; docs/VIEW.md and dposer_ros/launch_plans.py say more.
"""

from launch import LaunchDescription

from dposer_ros.launch_files import description


def generate_launch_description() -> LaunchDescription:
    return description('mediapipe')
