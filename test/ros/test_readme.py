"""What the README says that can be checked."""

import re
from pathlib import Path

import pytest

from dposer_ros.cli import COMMANDS

pytestmark = pytest.mark.ros
ROOT = Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()


def test_parameter_table_is_the_generated_one() -> None:
    """To renew it: `python -c "from dposer_ros.parameters import *; print(parameter_table())"`."""
    from dposer_ros.parameters import parameter_table

    assert parameter_table() in README


def test_every_linked_file_exists() -> None:
    links = re.findall(r'\]\((?!https?:)([^)#]+)', README)
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert missing == []


def test_every_make_target_and_command_exists() -> None:
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    named = set(re.findall(r'(?:`|^)make ([a-z-]+)', README, re.MULTILINE))
    assert named and named <= targets
    commands = set(re.findall(r'(?:`|^)dposer ([a-z-]+)', README, re.MULTILINE))
    assert commands and commands <= set(COMMANDS)


def test_the_controller_example_compiles() -> None:
    """Ten lines that somebody will copy."""
    example = re.search(r'```python\n(.*?)```', README, re.DOTALL)
    compile(example[1], 'README.md', 'exec')
    assert len(example[1].strip().splitlines()) <= 20
