"""Files that commands write their figures to."""

import json
import os
import tempfile
from pathlib import Path

from dposer_core.errors import ConfigError


def check_writable(path: Path) -> None:
    """Raise ConfigError before the work if the result could not be written."""
    folder = path.absolute().parent
    if path.is_dir():
        raise ConfigError(f'{path} is a folder; give a file to write')
    if not folder.is_dir():
        raise ConfigError(f'{folder} does not exist; make the folder, or write somewhere else')
    try:
        # Trying is the only true answer: root may write everywhere, but not in /proc.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f'{folder} is not writable ({error.strerror}); write somewhere else'
        ) from error


def write_json(path: Path, values: object) -> None:
    """Write `values`, whole or not at all; the folder is made where it is missing."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + '\n')


def write_text(path: Path, text: str) -> None:
    """Write `text`, whole or not at all; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    # Text out of a bag may hold what UTF-8 cannot.
    partial.write_text(text, encoding='utf-8', errors='backslashreplace')
    partial.replace(path)


def make_folder(path: Path) -> None:
    """Make a folder for results; ConfigError where a file is in the way or it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'{path}: no folder can be made there ({error.strerror})') from error
    check_writable(path / 'x')
