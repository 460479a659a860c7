"""Places that commands write to, tried before the work."""

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


def make_folder(path: Path) -> None:
    """Make a folder for results; ConfigError where a file is in the way or it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'{path}: no folder can be made there ({error.strerror})') from error
    check_writable(path / 'x')
