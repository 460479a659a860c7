"""Files of the competing priors: ours (safetensors with a hash) and those their authors published.

Ours holds the tensors of one network and, in its metadata, method, part, configuration, hash,
licence, source commit and figures, like the files of our own priors. Published files are read
without executing anything that is in them.
"""

import dataclasses
import json
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core.errors import CheckpointError
from dposer_core.prior.checkpoint import WEIGHTS_DIR, _hash, _write
from dposer_core.prior.torch_file import read_torch_file

BASELINE_DIR = WEIGHTS_DIR / 'baselines'
_FORMAT = 'dposer-baseline-1'
_METADATA_KEY = 'dposer'


@dataclass(frozen=True)
class BaselineFile:
    """One trained competitor with all that is needed to use it."""

    method: str
    """'gmm', 'vposer', 'cvposer', 'gan_s', 'posendf' or 'nrdf'."""
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
    from safetensors.numpy import save

    tensors = {}
    for key, value in baseline.weights.items():
        dtype = np.float16 if half and value.ndim > 1 else np.float32
        tensors[key] = np.ascontiguousarray(value, dtype=dtype)
        if not np.isfinite(tensors[key]).all():
            raise CheckpointError(f'{key} is not finite as {dtype.__name__}; use half=False')
    header = dataclasses.asdict(dataclasses.replace(baseline, weights={}, sha256=_hash(tensors)))
    del header['weights']
    header['format'] = _FORMAT
    _write(path, save(tensors, metadata={_METADATA_KEY: json.dumps(header)}))
    return header['sha256']


def load_file(path: str | Path, method: str = '', part: str = '') -> BaselineFile:
    """Read a file of `save_file`.

    Args:
        path: the .safetensors file.
        method: the method it must be of; '': any.
        part: the part it must be for; '': any.

    Raises:
        CheckpointError: missing, truncated or altered file, or of another method or part.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'{path} not found; give a .safetensors file of a baseline')
    try:
        with safe_open(path, framework='np') as file:
            text = (file.metadata() or {}).get(_METADATA_KEY, '')
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        header = json.loads(text)
        if header.pop('format') != _FORMAT:
            raise ValueError('another format')
        baseline = BaselineFile(weights=tensors, **header)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f'{path} ({path.stat().st_size} bytes) is not a {_FORMAT} file: {error}. Get it again'
        ) from error
    found = _hash(tensors)
    if found != baseline.sha256:
        raise CheckpointError(
            f'{path}: sha256 of the tensors is {found[:12]}, the header says '
            f'{baseline.sha256[:12]}; the file was altered, get it again'
        )
    for what, wanted, stored in (
        ('method', method, baseline.method),
        ('part', part, baseline.part),
    ):
        if wanted and wanted != stored:
            raise CheckpointError(
                f"{path} holds the {what} '{stored}', expected '{wanted}'; give another file"
            )
    weights = {key: value.astype(np.float32) for key, value in tensors.items()}
    return dataclasses.replace(baseline, weights=weights)


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
            f'{str(error).splitlines()[0]}. Download it again'
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
