"""Compiled engines on disk: made once per weights, shapes, versions and device, never trusted."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from dposer_core.files import whole

_logger = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Where engines lie: `$XDG_CACHE_HOME/dposer_ros/engines`."""
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(cache) / 'dposer_ros' / 'engines'


def cached_engine(name: str, key: Mapping[str, str], build: Callable[[], bytes]) -> bytes:
    """The engine `name`, from its file if that was built for `key`, else built and stored.

    A damaged file, or one for another key, is replaced with a warning. The file is written under
    another name and renamed, so that two processes may build at once.

    Args:
        name: of the file, without its ending.
        key: all that an engine depends on: hash of the weights, shapes, versions, device.
        build: makes the engine.
    """
    file = cache_dir() / f'{name}.engine'
    if file.is_file():
        engine, reason = _read(file, key)
        if engine is not None:
            return engine
        _logger.warning('engine %s %s; building it anew', file, reason)
    engine = build()
    header = {'key': dict(key), 'sha256': hashlib.sha256(engine).hexdigest()}
    with whole(file) as partial:
        partial.write_bytes(json.dumps(header).encode() + b'\n' + engine)
    return engine


def _read(file: Path, key: Mapping[str, str]) -> tuple[bytes | None, str]:
    """The engine, or None and why it cannot be used."""
    line, _, engine = file.read_bytes().partition(b'\n')
    try:
        header = json.loads(line)
        built_for, sha256 = dict(header['key']), header['sha256']
    except (ValueError, KeyError, TypeError):
        return None, 'is not readable'
    if hashlib.sha256(engine).hexdigest() != sha256:
        return None, 'is damaged'
    different = [
        f'{field} {built_for.get(field)}, now {value}'
        for field, value in key.items()
        if built_for.get(field) != value
    ]
    return (None, f'was built for {"; ".join(different)}') if different else (engine, '')
