"""docker/Dockerfile against the tree: nothing it needs is missing or ignored."""

import fnmatch
import re
import subprocess
from pathlib import Path

import pytest

from dposer_ros.cli import COMMANDS

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / 'docker' / 'Dockerfile').read_text()
PAGE = (ROOT / 'docs' / 'DOCKER.md').read_text()


def tracked() -> list[str]:
    try:
        done = subprocess.run(
            ['git', 'ls-files'], cwd=ROOT, check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f'not a git checkout: {error}')
    return done.stdout.split()


def test_copied_files_exist_and_are_not_ignored() -> None:
    copied = re.findall(r'^COPY --chown=dposer (\S+) ', DOCKERFILE, re.MULTILINE)
    assert 'Makefile' in copied and '.' in copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    ignored = (ROOT / '.dockerignore').read_text().split()
    lost = [
        name
        for name in tracked()
        for pattern in ignored
        if any(fnmatch.fnmatch(part, pattern.removeprefix('**/')) for part in name.split('/')[:1])
    ]
    assert lost == []


def test_make_would_run_the_steps_of_the_image() -> None:
    targets = re.findall(r'^RUN make (\S+)', DOCKERFILE, re.MULTILINE)
    assert targets == ['"$PWD/.venv/.packages"', 'setup']
    for target in targets:
        name = target.strip('"').replace('$PWD', str(ROOT))
        done = subprocess.run(['make', '-n', '-B', name], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert 'requirements/core.txt' in done.stdout


def test_entry_point_and_the_commands_of_the_page_exist() -> None:
    assert 'ENTRYPOINT ["tini", "--", "dposer"]' in DOCKERFILE
    first = re.search(r'CMD \["(\w+)"', DOCKERFILE)[1]
    named = re.findall(r'dposer_ros:(?:cpu|cuda) ([a-z][a-z-]+)', PAGE)
    assert len(named) >= 4
    assert {first, *named} <= set(COMMANDS)
    stages = set(re.findall(r'--target (\w+)', PAGE))
    assert stages == {'cpu', 'cuda'}
    assert stages <= set(re.findall(r'^FROM \S+ AS (\w+)', DOCKERFILE, re.MULTILINE))
