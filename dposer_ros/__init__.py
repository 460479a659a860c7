"""The ROS 2 side: nodes, messages, command line.

In a source checkout the code stands here while the generated `dposer_ros.msg` stands in the
install prefix; `extend_path` joins the two folders into one package.
"""

import pkgutil

import dposer_core  # noqa: F401  before rclpy brings numpy, see there

__path__ = pkgutil.extend_path(__path__, __name__)
