import os
import sys
from pathlib import Path

import pytest

# `test` is no package (importmode importlib): shared doubles are imported from beside this file.
sys.path.insert(0, str(Path(__file__).parent))
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'

pytest.importorskip('rclpy')
