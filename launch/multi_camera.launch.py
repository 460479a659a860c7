"""Several calibrated cameras: `dposer_fusion` makes 3D keypoints, `dposer_wholebody` fits them.

ros2 launch dposer_ros multi_camera.launch.py cameras:=left,right,top calibration:=rig.yaml

Every camera has its detector with <camera>/keypoints and <camera>/camera_info; docs/CAMERAS.md.
All arguments: `--show-args`; those of wholebody.launch.py hold here too, but for its topics.
"""

from launch import LaunchDescription

from dposer_ros.launch_files import description


def generate_launch_description() -> LaunchDescription:
    return description('multi_camera')
