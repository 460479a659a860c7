import os
import sys
from pathlib import Path

import pytest

# `test` is no package (importmode importlib): shared doubles are imported from beside this file.
sys.path.insert(0, str(Path(__file__).parent))
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'

pytest.importorskip('rclpy')


@pytest.fixture(scope='session')
def standing():
    """(133, 3) points of a person at rest, 3 m in front of the camera."""
    from dposer_core.body_model import load_body
    from dposer_core.errors import ModelFileError

    try:
        tables = load_body('').tables
    except ModelFileError as error:
        pytest.skip(str(error))
    points = (tables.point_weights[..., None] * tables.point_template).sum(axis=1)
    return points * (1.0, -1.0, -1.0) + (0.0, 0.0, 3.0)
