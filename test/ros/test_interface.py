from pathlib import Path

import pytest

from dposer_ros.interface import interface_page

pytestmark = pytest.mark.ros

PAGE = Path(__file__).parents[2] / 'docs' / 'INTERFACE.md'


def test_reference_is_the_generated_one(ros_domain):
    """If not: `python -m dposer_ros.interface docs/INTERFACE.md`."""
    assert PAGE.read_text() == interface_page()
