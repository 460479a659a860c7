"""Files of the competing priors: ours (safetensors with a hash) and those their authors published.

Ours holds the tensors of one network and, in its metadata, method, part, configuration, hash,
licence, source commit and figures, like the files of our own priors. Published files are read
without executing anything that is in them.
"""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core.errors import CheckpointError
from dposer_core.prior.checkpoint import WEIGHTS_DIR, read_tensors, write_tensors
from dposer_core.prior.torch_file import read_torch_file

BASELINE_DIR = WEIGHTS_DIR / 'baselines'
_FORMAT = 'dposer-baseline-1'
_HEADER = ('method', 'part', 'config', 'licence', 'source_commit', 'notes')


@dataclass(frozen=True)
class BaselineFile:
    """One trained competitor with all that is needed to use it."""

    method: str
    """One of `dposer_core.baselines.METHODS` but 'l2'."""
    part: str
    """'body', 'hand', 'face' or 'wholebody'."""
    config: dict[str, Any]
    """Arguments of the method's configuration class; JSON types."""
    weights: dict[str, np.ndarray]
    """Tensors of the module's state dict."""
    licence: str = ''
    source_commit: str = ''
    notes: dict[str, Any] = field(default_factory=dict)
    """Data, seed, steps, held-out figures; JSON types."""
    sha256: str = ''
    """Hash of the stored tensors; set by `load_file`."""


def shipped_path(method: str, part: str) -> Path:
    """Where the weights of a method for a part are shipped."""
    return BASELINE_DIR / f'{method}_{part}.safetensors'


def save_file(path: str | Path, baseline: BaselineFile, half: bool = True) -> str:
    """Write atomically; `half` stores matrices in 16 bits, vectors stay in 32.

    Vectors are biases and running statistics: few bytes, and some variances are too small for
    16 bits.

    Returns:
        The sha256 of the stored tensors.
    """
    tensors = as_stored(baseline.weights, half)
    header = {key: getattr(baseline, key) for key in _HEADER}
    return write_tensors(path, {'format': _FORMAT, **header}, tensors)


def as_stored(weights: Mapping[str, np.ndarray], half: bool) -> dict[str, np.ndarray]:
    """`weights` in the types of a file."""
    return {
        key: np.ascontiguousarray(value, np.float16 if half and value.ndim > 1 else np.float32)
        for key, value in weights.items()
    }


def load_file(path: str | Path, method: str = '', part: str = '') -> BaselineFile:
    """Read a file of `save_file`.

    Args:
        path: the .safetensors file.
        method: the method it must be of; '': any.
        part: the part it must be for; '': any.

    Raises:
        CheckpointError: missing, truncated or altered file, or of another method or part.
    """
    header, tensors = read_tensors(path, _FORMAT, _HEADER)
    baseline = BaselineFile(
        **{key: header[key] for key in _HEADER},
        weights={key: value.astype(np.float32) for key, value in tensors.items()},
        sha256=header['sha256'],
    )
    for what, wanted, stored in (
        ('method', method, baseline.method),
        ('part', part, baseline.part),
    ):
        if wanted and wanted != stored:
            raise CheckpointError(
                f"{path} holds the {what} '{stored}', expected '{wanted}'; give another file"
            )
    return baseline


def read_published(path: str | Path) -> dict[str, np.ndarray]:
    """State dict of a torch file of any age, tensors as numpy arrays.

    Files of torch before 1.6 (VPoser v1) go through torch's own restricted unpickler, later ones
    through ours, which also passes over the pickled settings of Lightning files.

    Raises:
        CheckpointError: not such a file, or no tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'{path} not found; give the path of a checkpoint file')
    content = read_torch_file(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    for key in ('state_dict', 'model_state_dict'):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = (
        {k: v for k, v in content.items() if isinstance(v, np.ndarray)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise CheckpointError(f'{path}: no tensors in it; expected the state dict of a network')
    return tensors


def _read_legacy(path: Path) -> Any:
    import torch

    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f'{path} ({path.stat().st_size} bytes) is not a readable torch file: '
            f'{type(error).__name__} {str(error).partition(chr(10))[0]}. Download it again'
        ) from error
    return _as_numpy(content)


def _as_numpy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_numpy(item) for key, item in value.items()}
    return value.numpy() if hasattr(value, 'numpy') else value


_NUMPY_PARTS = {
    ('_reconstruct', 'multiarray'),
    ('scalar', 'multiarray'),
    ('ndarray', 'numpy'),
    ('dtype', 'numpy'),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Knows numpy arrays and plain containers; anything else in the file is an error."""

    def find_class(self, module: str, name: str) -> Any:
        from numpy._core import multiarray

        if (module, name) == ('_codecs', 'encode'):
            return super().find_class(module, name)
        if module.split('.')[0] == 'numpy' and (name, module.split('.')[-1]) in _NUMPY_PARTS:
            return getattr(np if module == 'numpy' else multiarray, name)
        raise pickle.UnpicklingError(f'{module}.{name} is not allowed in it')


def read_array_pickle(path: str | Path) -> dict[str, np.ndarray]:
    """A pickled dict of numpy arrays (the SMPLify mixture), of Python 2 or 3.

    Raises:
        CheckpointError: missing or damaged, or it holds anything but arrays.
    """
    path = Path(path)
    try:
        with path.open('rb') as stream:
            content = _ArrayUnpickler(stream, encoding='latin1').load()
        if not isinstance(content, dict):
            raise ValueError(f'a {type(content).__name__} and no dict')
        return {str(key): np.asarray(value, dtype=np.float64) for key, value in content.items()}
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read ({error.strerror})') from error
    except Exception as error:  # a damaged pickle can fail anywhere
        raise CheckpointError(
            f'{path} is not a pickle of arrays: {type(error).__name__}: {error}. Expected '
            'the mixture of SMPLify (gmm_08.pkl: means, covars, weights)'
        ) from error
