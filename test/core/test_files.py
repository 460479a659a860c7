"""What is written is there whole or not at all, also when the disk takes no more."""

import json
import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dposer_core.errors import StorageError
from dposer_core.files import whole, write_json, write_text


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow beyond 4 KiB: writing fails in the middle, as it would.

    That holds for pytest's own output too where it goes to a file, so the block is kept to the
    one call under test.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_folder_is_made_and_the_file_stands(tmp_path) -> None:
    path = tmp_path / 'a' / 'b.json'
    write_json(path, {'x': [1, 2.5]})
    assert json.loads(path.read_text()) == {'x': [1, 2.5]}
    assert list(path.parent.iterdir()) == [path]


def test_full_disk_keeps_the_old_file_and_says_so(tmp_path) -> None:
    path = tmp_path / 'states.txt'
    write_text(path, 'old')
    message = rf'{path} cannot be written.*GB free.*make room'
    with pytest.raises(StorageError, match=message), full_disk():
        write_text(path, 'x' * 10_000)
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_error_in_the_block_leaves_nothing(tmp_path) -> None:
    with pytest.raises(ZeroDivisionError), whole(tmp_path / 'x.npz') as partial:
        partial.write_bytes(b'half')
        1 / 0  # noqa: B018
    with pytest.raises(ValueError):
        write_json(tmp_path / 'x.json', {'mean': math.nan})
    assert list(tmp_path.iterdir()) == []


def test_file_where_a_folder_should_be_is_named(tmp_path) -> None:
    (tmp_path / 'file').touch()
    path = tmp_path / 'file' / 'x.txt'
    with pytest.raises(StorageError, match=r'x\.txt cannot be written.*give another place'):
        write_text(path, 'text')


@pytest.mark.parametrize('name', ['x.npz', 'x.safetensors'])
def test_partial_file_is_hidden_and_of_the_same_kind(tmp_path, name) -> None:
    with whole(tmp_path / name) as partial:
        assert partial.name.startswith('.') and partial.suffix == Path(name).suffix
        partial.touch()
    assert (tmp_path / name).is_file()
