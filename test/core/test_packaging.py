"""Facts that packaging must state twice agree."""

import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def names(file: str) -> set[str]:
    """Package names of a requirements file."""
    text = (ROOT / 'requirements' / file).read_text()
    lines = (line.split('#')[0].strip() for line in text.splitlines())
    return {canonical(re.split('[=<>;]', line)[0]) for line in lines if line and line[0] != '-'}


def canonical(name: str) -> str:
    return re.sub('[-_.]+', '-', name).lower()


def test_versions_of_ros_and_pip_agree() -> None:
    assert ElementTree.parse(ROOT / 'package.xml').findtext('version') == PROJECT['version']


def test_core_list_is_what_pip_installs() -> None:
    assert names('core.txt') == {canonical(name) for name in PROJECT['dependencies']}


@pytest.mark.parametrize('file', sorted(path.name for path in (ROOT / 'requirements').iterdir()))
def test_every_requirement_is_pinned(file: str) -> None:
    text = (ROOT / 'requirements' / file).read_text()
    if file == 'no-deps.txt' or file.startswith('constraints'):
        assert all('==' in line for line in text.splitlines() if line and line[0] != '#')
    else:
        of_distribution = names('constraints-jazzy.txt') if 'jazzy' in file else set()
        assert names(file) <= names('constraints.txt') | of_distribution


def test_every_requirement_is_explained() -> None:
    document = (ROOT / 'docs' / 'DEPENDENCIES.md').read_text()
    for file in ('core.txt', 'demo.txt', 'detector.txt', 'no-deps.txt', 'training.txt'):
        assert [name for name in names(file) if name not in document] == []
