"""Reads arrays out of pickles, .npy, .npz and .json files without executing what is in them.

Published sets come as pickles, which can run any code when loaded in the plain way. Here numpy
arrays and plain containers are built; every other class becomes a placeholder that does nothing.
"""

import collections
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from dposer_core.prior.torch_file import Inert
from training.data.pose_batch import BadClipError

_RECONSTRUCT = getattr(np, '_core', np).multiarray._reconstruct
_SCALAR = getattr(np, '_core', np).multiarray.scalar


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    return text.encode(encoding)


_KNOWN: dict[tuple[str, str], Any] = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('_codecs', 'encode'): _encode,
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): np.dtype,
}
for _module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
    _KNOWN[_module, '_reconstruct'] = _RECONSTRUCT
    _KNOWN[_module, 'scalar'] = _SCALAR


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN.get((module, name), Inert)


def read_pickle(path: Path) -> Any:
    """The content of a pickle of arrays and plain containers, of Python 2 as well."""
    return _read(path, lambda stream: _Unpickler(stream, encoding='latin1').load())


def read_npy(path: Path) -> Any:
    """The array of a .npy file, or the object that `np.save` pickled into it."""
    return _read(path, _npy)


def read_npz(path: Path, *keys: str, optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The arrays `keys`, and of `optional` those that are there; nothing else is read."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix('.npy') for name in archive.namelist()}
            missing = [key for key in keys if key not in names]
            if missing:
                raise BadClipError(f'no {", ".join(missing)} in it; it has {sorted(names)}')
            for key in (*keys, *(key for key in optional if key in names)):
                with archive.open(f'{key}.npy') as stream:
                    arrays[key] = _npy(stream)
    except BadClipError:
        raise
    except Exception as error:  # a half-downloaded archive can fail anywhere
        raise _damaged(path, error) from error
    return arrays


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return _read(path, json.load)


def entries(content: Any, *keys: str) -> list[Any]:
    """The values of `keys` in a dict.

    Raises:
        BadClipError: it is no dict or lacks one.
    """
    if not isinstance(content, dict):
        raise BadClipError(f'holds a {type(content).__name__}, expected a dict with {keys}')
    missing = [key for key in keys if key not in content]
    if missing:
        known = ', '.join(sorted(map(str, content)))
        raise BadClipError(f'no {", ".join(missing)} in it; it has {known}')
    return [content[key] for key in keys]


def _npy(stream: IO[bytes]) -> Any:
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f'.npy version {version}')
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        array = _Unpickler(stream, encoding='latin1').load()
        return array.item() if isinstance(array, np.ndarray) and array.ndim == 0 else array
    count = int(np.prod(shape, dtype=np.int64))
    data = stream.read(count * dtype.itemsize)
    values = np.frombuffer(data, dtype=dtype, count=count)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _read(path: Path, load: Callable[[IO[bytes]], Any]) -> Any:
    try:
        with path.open('rb') as stream:
            return load(stream)
    except BadClipError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BadClipError:
    size = path.stat().st_size if path.is_file() else 0
    return BadClipError(
        f'not readable ({size} bytes; {type(error).__name__}: {error}); download it again'
    )
