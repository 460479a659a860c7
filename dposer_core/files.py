"""Files that are there whole or not at all."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dposer_core.errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write in the block, with the ending of `path`, which it becomes at its end.

    The folder is made where it is missing. If the block raises, nothing is left.

    Raises:
        StorageError: a full disk, or a place that cannot be written.
    """
    partial = path.with_name(f'.{path.stem}.{os.getpid()}.partial{path.suffix}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise StorageError(f'{path} cannot be written: {_reason(path, error)}') from error
    finally:
        with suppress(OSError):  # the folder may be a file, and then nothing is left
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text`; what UTF-8 cannot hold, such as text out of a bag, is escaped."""
    with whole(path) as partial:
        partial.write_text(text, encoding='utf-8', errors='backslashreplace')


def write_json(path: Path, values: Any, indent: int = 2) -> None:
    """Write `values`; a number that is not finite raises ValueError, as JSON has none."""
    write_text(path, json.dumps(values, indent=indent, allow_nan=False) + '\n')


def _reason(path: Path, error: OSError) -> str:
    if error.errno in _FULL:
        free = shutil.disk_usage(_existing(path)).free
        return f'{error.strerror} ({free / 1e9:.2f} GB free); make room'
    return f'{error.strerror or error}; give another place'


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
