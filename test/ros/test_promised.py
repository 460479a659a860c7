"""docs/TESTS.md names tests that exist, and docs/FAULTS.md too."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = 28


def promised() -> list[tuple[str, str]]:
    """(file, word of -k or '') of every test that the page names."""
    text = (ROOT / 'docs' / 'TESTS.md').read_text()
    return re.findall(r'`((?:test/core/)?test_\w+\.py)(?: -k "?([\w ]+)"?)?`', text)


def test_every_promise_has_its_row():
    numbers = re.findall(r'^\| (\d+) \|', (ROOT / 'docs' / 'TESTS.md').read_text(), re.M)
    assert [int(number) for number in numbers] == list(range(1, ROWS + 1))


@pytest.mark.parametrize(('name', 'words'), promised())
def test_the_page_names_tests_that_exist(name, words):
    folders = (ROOT, ROOT / 'test' / 'ros', ROOT / 'test' / 'core')
    file = next((f / name for f in folders if (f / name).is_file()), None)
    assert file is not None, name
    tests = re.findall(r'^def (test_\w+)', file.read_text(), re.M)
    for word in words.split(' or ') if words else []:
        assert any(word in test for test in tests), (name, word)


def test_faults_name_tests_that_exist():
    code = ''.join(file.read_text() for file in (ROOT / 'test').rglob('test_*.py'))
    for name in re.findall(r'`(test_\w+?)(?:\[|`|\.\.\.)', (ROOT / 'docs/FAULTS.md').read_text()):
        assert f'def {name}' in code, name
