"""Reads the tensors of a torch .pt/.pth/.ckpt file without executing anything that is in it.

The file's pickle is read by an unpickler that knows tensors and plain containers only. Every
other class or function named in the file becomes an inert placeholder, so official checkpoints,
which carry pickled configuration objects, load without their packages and without risk.
"""

import collections
import pickle
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from dposer_core.errors import CheckpointError

_DTYPES = {
    'DoubleStorage': np.float64, 'FloatStorage': np.float32, 'HalfStorage': np.float16,
    'LongStorage': np.int64, 'IntStorage': np.int32, 'ShortStorage': np.int16,
    'CharStorage': np.int8, 'ByteStorage': np.uint8, 'BoolStorage': np.bool_,
}  # fmt: skip
_MAX_DEPTH = 64  # of nested containers; real files have fewer than ten


def read_torch_file(path: str | Path, keys: Collection[str] | None = None) -> Any:
    """The content of a torch file with tensors as numpy arrays.

    Args:
        path: file written by `torch.save` (zip format, torch 1.6 and later).
        keys: of a top-level dict, only these entries are kept (the others' data are not read).

    Raises:
        CheckpointError: file missing, truncated, or not written by `torch.save`.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'{path} not found; give the path of a checkpoint file')
    try:
        with zipfile.ZipFile(path) as archive:
            records = {name.split('/', 1)[-1]: name for name in archive.namelist()}
            if 'byteorder' in records and archive.read(records['byteorder']) != b'little':
                raise CheckpointError(
                    f'{path}: written on a big-endian machine; save it again on a common one'
                )
            with archive.open(records['data.pkl']) as stream:
                content = _Unpickler(stream, archive, records).load()
            if keys is not None and isinstance(content, dict):
                content = {key: value for key, value in content.items() if key in keys}
            return _materialise(content, 0)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in zip, pickle or our checks
        raise CheckpointError(
            f'{path} ({path.stat().st_size} bytes) is not a readable torch file: '
            f'{type(error).__name__}: {error}. Download it again, or save it with torch 1.6+'
        ) from error


@dataclass(frozen=True)
class _Storage:
    archive: zipfile.ZipFile
    record: str
    dtype: Any
    numel: int

    def read(self) -> np.ndarray:
        values = np.frombuffer(self.archive.read(self.record), dtype=self.dtype)
        if len(values) < self.numel:
            raise ValueError(f'{self.record} holds {len(values)} values, {self.numel} announced')
        return values[: self.numel]


@dataclass(frozen=True)
class _LazyTensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def numpy(self) -> np.ndarray:
        values = self.storage.read()
        if min((self.offset, *self.shape, *self.stride), default=0) < 0:
            raise ValueError(
                f'tensor with shape {self.shape}, stride {self.stride}, offset {self.offset}'
            )
        steps = zip(self.shape, self.stride, strict=True)
        last = self.offset + sum((size - 1) * step for size, step in steps)
        if 0 not in self.shape and last >= len(values):
            raise ValueError(
                f'tensor of shape {self.shape} reaches beyond its {len(values)} values'
            )
        byte_strides = tuple(step * values.itemsize for step in self.stride)
        return np.lib.stride_tricks.as_strided(
            values[self.offset :], self.shape, byte_strides
        ).copy()


class Inert:
    """Stands for any object whose class we do not know; keeps nothing and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...

    def add(self, value: Any) -> None: ...

    def __repr__(self) -> str:
        return '<inert>'


def _rebuild_tensor(
    storage: _Storage, offset: int, size: Any, stride: Any, *rest: Any
) -> _LazyTensor:
    return _LazyTensor(storage, int(offset), tuple(size), tuple(stride))


def _rebuild_parameter(data: Any, *rest: Any) -> Any:
    return data


_KNOWN = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
    ('torch', 'Size'): tuple,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Any, archive: zipfile.ZipFile, records: dict[str, str]) -> None:
        super().__init__(stream, encoding='utf-8')
        self._archive = archive
        self._records = records

    def find_class(self, module: str, name: str) -> Any:
        if module == 'torch' and name in _DTYPES:
            return _DTYPES[name]
        return _KNOWN.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _device, numel = pid
        if kind != 'storage' or dtype is Inert:
            raise ValueError(f'unsupported storage {pid!r}')
        return _Storage(self._archive, self._records[f'data/{key}'], dtype, int(numel))


def _materialise(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError('containers nested too deeply')
    if isinstance(value, _LazyTensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: _materialise(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_materialise(item, depth + 1) for item in value]
    return value
