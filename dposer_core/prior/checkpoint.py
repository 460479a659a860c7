"""Prior checkpoints: our own format and the official formats.

Ours is one .safetensors file per network: its tensors, the statistics of its data, and one JSON
text in the file's metadata (part, configuration, hash, licence, source commit). Whole bodies made
of several files are in compose.py. No torch here; networks are built from the result by
`network.from_weights`.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core.errors import CheckpointError
from dposer_core.files import whole
from dposer_core.prior.architecture import (
    BODY_DIM,
    HAND_DIM,
    JAW_DIM,
    TimeFCConfig,
    WholeBodyLayout,
    norm_stem,
    sigma_table,
)
from dposer_core.prior.normalizer import Normalizer
from dposer_core.prior.torch_file import read_torch_file

PARTS = ('body', 'hand', 'face', 'face_shape', 'wholebody')
WEIGHTS_DIR = Path(__file__).parent.parent / 'weights'
"""Weights that come with this project."""
_FORMAT = 'dposer-prior-1'
_METADATA_KEY = 'dposer'
_MEAN, _STD = 'normalizer.mean', 'normalizer.std'


def user_weights_dir() -> Path:
    """Where imported and fetched weights go: `$XDG_DATA_HOME/dposer_ros/weights`."""
    data = os.environ.get('XDG_DATA_HOME') or Path.home() / '.local' / 'share'
    return Path(data) / 'dposer_ros' / 'weights'


@dataclass(frozen=True)
class PriorCheckpoint:
    """One part network with all that is needed to use it."""

    part: str
    """'body', 'hand' (a right hand), 'face' (jaw and expression), 'face_shape', or 'wholebody'
    (a network of its own over `WholeBodyLayout`)."""
    config: TimeFCConfig
    """Sizes of the network."""
    weights: dict[str, np.ndarray]
    """Float32 tensors under the keys of PROTOCOLS 1.2, without the constant `sigmas`."""
    mean: np.ndarray
    """(D,) float32: statistics of the raw vectors."""
    std: np.ndarray
    """(D,) float32, positive."""
    licence: str = ''
    """What the weights may be used for, in a sentence."""
    source_commit: str = ''
    """Commit of the code that trained them."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Anything worth keeping: data, steps, measured errors. JSON types."""
    sha256: str = ''
    """Hash of the stored tensors; set by `load_checkpoint`."""

    @property
    def normalizer(self) -> Normalizer:
        """z-score of the raw axis-angle (and expression) vector."""
        return Normalizer.z_score(self.mean, self.std)

    @property
    def num_expression(self) -> int:
        """Expression coefficients of a face; 0 without a face."""
        others = {'face': JAW_DIM, 'wholebody': WholeBodyLayout(0).dim}.get(self.part)
        return 0 if others is None else self.config.dim - others


def save_checkpoint(path: str | Path, checkpoint: PriorCheckpoint, half: bool = True) -> str:
    """Write `checkpoint` atomically; `half` stores the network in 16 bits (statistics stay in 32).

    Returns:
        The sha256 of the stored tensors.
    """
    _check(str(path), checkpoint)
    tensors = {}
    for key, value in checkpoint.weights.items():
        if key == 'sigmas':  # a constant
            continue
        dtype = np.float16 if half and not key.startswith('gaussian.') else np.float32
        tensors[key] = np.ascontiguousarray(value, dtype=dtype)
    tensors[_MEAN] = np.ascontiguousarray(checkpoint.mean, dtype=np.float32)
    tensors[_STD] = np.ascontiguousarray(checkpoint.std, dtype=np.float32)
    header = {
        'format': _FORMAT,
        'part': checkpoint.part,
        'dim': checkpoint.config.dim,
        'config': dataclasses.asdict(checkpoint.config),
        'licence': checkpoint.licence,
        'source_commit': checkpoint.source_commit,
        'notes': checkpoint.notes,
    }
    return write_tensors(path, header, tensors)


def load_checkpoint(
    path: str | Path, part: str | None = None, dim: int | None = None
) -> PriorCheckpoint:
    """Read one part file of our own format.

    Args:
        path: the .safetensors file.
        part: the part it must be; None: any.
        dim: the dimension it must have; None: any.

    Raises:
        CheckpointError: missing, truncated or altered file, or another part or dimension.
    """
    header, tensors = read_tensors(path, _FORMAT, ('part',))
    sha256 = tensor_hash(tensors)
    config = TimeFCConfig.from_mapping(header['config'])
    mean, std = tensors.pop(_MEAN, None), tensors.pop(_STD, None)
    checkpoint = PriorCheckpoint(
        part=header['part'],
        config=config,
        weights={key: value.astype(np.float32) for key, value in tensors.items()},
        mean=mean,
        std=std,
        licence=header['licence'],
        source_commit=header['source_commit'],
        notes=header['notes'],
        sha256=sha256,
    )
    _check(str(path), checkpoint)
    if part is not None and checkpoint.part != part:
        raise CheckpointError(
            f"{path} holds the part '{checkpoint.part}', expected '{part}'; give the {part} file"
        )
    if dim is not None and config.dim != dim:
        raise CheckpointError(
            f'{path} has dimension {config.dim}, expected {dim}; give a file made for {dim}'
        )
    return checkpoint


def load_official_weights(path: str | Path, ema: bool = True) -> dict[str, np.ndarray]:
    """Network tensors of an official checkpoint (Lightning .ckpt, or .pth of the first versions).

    Args:
        path: the file; nothing in it is executed.
        ema: put the moving averages over the trainable tensors, as every published figure does.

    Returns:
        Float32 tensors under the keys of PROTOCOLS 1.2/1.3, unused ones dropped.

    Raises:
        CheckpointError: not such a file, or its EMA list does not fit its network.
    """
    kept = ('state_dict', 'model_state_dict', 'model_ema', 'ema')
    content = read_torch_file(path, keys=kept)
    if not isinstance(content, dict) or not ({'state_dict', 'model_state_dict'} & set(content)):
        raise CheckpointError(f'{path}: no state_dict in it; expected a DPoser .ckpt or .pth')
    if 'state_dict' in content:
        prefix = 'model.'
        state = {
            k[len(prefix) :]: v for k, v in content['state_dict'].items() if k.startswith(prefix)
        }
    else:
        state = dict(content['model_state_dict'])
    if not any(key.endswith('pre_dense.weight') for key in state):
        raise CheckpointError(
            f'{path}: no pre_dense.weight among its {len(state)} tensors; not a DPoser network'
        )
    if ema:
        _apply_ema(str(path), state, content.get('model_ema', content.get('ema')))
    for key, value in state.items():
        if key.endswith('sigmas') and not np.allclose(value, sigma_table(), rtol=1e-4):
            raise CheckpointError(
                f'{path}: {key} is not the table from 50 to 0.01 that DPoser uses'
            )
    return {k: v.astype(np.float32) for k, v in state.items() if 'pre_dense_cond' not in k}


def from_official(
    path: str | Path, part: str, normalizer: Normalizer, licence: str = ''
) -> PriorCheckpoint:
    """An official part checkpoint as ours, ready for `save_checkpoint`.

    `normalizer`: the axis-angle z-score it was trained with (`load_official_normalizer`).
    """
    weights = load_official_weights(path)
    weights.pop('sigmas', None)
    return checkpoint_from(str(path), part, weights, normalizer, licence)


def checkpoint_from(
    path: str, part: str, weights: Mapping[str, np.ndarray], normalizer: Normalizer, licence: str
) -> PriorCheckpoint:
    """A checkpoint of official tensors, checked; `path` says in errors where they are from."""
    checkpoint = PriorCheckpoint(
        part,
        TimeFCConfig.from_weights(weights),
        dict(weights),
        normalizer.offset,
        normalizer.scale,
        licence,
    )
    _check(path, checkpoint)
    return checkpoint


def _apply_ema(path: str, state: dict[str, np.ndarray], ema: Any) -> None:
    """Overwrite the trainable tensors of `state`, in their order, by the EMA list."""
    shadows = ema.get('shadow_params') if isinstance(ema, dict) else None
    if not isinstance(shadows, list):
        raise CheckpointError(
            f'{path}: no EMA weights (shadow_params) in it; load with ema=False for the raw ones'
        )
    trainable = [key for key in state if _is_trainable(key)]
    if len(shadows) != len(trainable):
        raise CheckpointError(
            f'{path}: {len(shadows)} EMA tensors for {len(trainable)} trainable ones'
        )
    for key, shadow in zip(trainable, shadows, strict=True):
        if shadow.shape != state[key].shape:
            raise CheckpointError(
                f'{path}: EMA tensor {shadow.shape} does not fit {key} {state[key].shape}'
            )
        state[key] = shadow
    for kind in ('weight', 'bias'):  # one tensor under two names
        if f'output_linear.{kind}' in state:
            state[f'zero_linear.{kind}'] = state[f'output_linear.{kind}']


def _is_trainable(key: str) -> bool:
    frozen = key.startswith(('base_model.', 'zero_linear.'))
    return not frozen and not key.endswith(('sigmas', 'gauss_proj.W'))


def _check(path: str, checkpoint: PriorCheckpoint) -> None:
    """Raise CheckpointError unless part, sizes, tensors and statistics fit each other."""
    config, part = checkpoint.config, checkpoint.part
    if part not in PARTS:
        raise CheckpointError(f"{path}: unknown part '{part}'; known: {', '.join(PARTS)}")
    expected = {'body': BODY_DIM, 'hand': HAND_DIM}.get(part)
    if expected is not None and config.dim != expected:
        raise CheckpointError(
            f'{path}: a {part} prior has dimension {expected}, this file {config.dim}'
        )
    if part == 'face' and config.dim <= JAW_DIM:
        raise CheckpointError(
            f'{path}: a face prior needs a jaw and at least one expression, has {config.dim}'
        )
    for name, vector in (('mean', checkpoint.mean), ('std', checkpoint.std)):
        shape = None if vector is None else vector.shape
        if shape != (config.dim,) or not np.isfinite(vector).all():
            raise CheckpointError(
                f'{path}: {name} has shape {shape}, expected ({config.dim},) finite values'
            )
    if part == 'wholebody' and checkpoint.num_expression < 1:
        raise CheckpointError(
            f'{path}: a whole-body prior has more than {WholeBodyLayout(0).dim} values, this file '
            f'{config.dim}'
        )
    if checkpoint.std.min() <= 0:
        raise CheckpointError(
            f'{path}: std has {checkpoint.std.min()} in it; expected positive values'
        )
    shapes = expected_shapes(config)
    for key, shape in shapes.items():
        found = checkpoint.weights[key].shape if key in checkpoint.weights else None
        if found != shape:
            raise CheckpointError(
                f'{path}: {key} has shape {found}, its configuration says {shape}'
            )
        if not np.isfinite(checkpoint.weights[key]).all():
            raise CheckpointError(f'{path}: {key} is not finite; get another file, or retrain')
    if extra := sorted(set(checkpoint.weights) - set(shapes) - {'sigmas'}):
        raise CheckpointError(f'{path}: unexpected tensor {extra[0]}')


def expected_shapes(config: TimeFCConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a TimeFC network, by key, without the constant `sigmas`."""
    hidden, embed = config.hidden, config.embed
    shapes: dict[str, tuple[int, ...]] = {}
    for stem in config.layers:
        norm = norm_stem(stem)
        width = config.dim if stem == 'pre_dense' else hidden
        shapes |= {f'{stem}.weight': (hidden, width), f'{stem}.bias': (hidden,)}
        shapes |= {f'{stem}_t.weight': (hidden, embed), f'{stem}_t.bias': (hidden,)}
        shapes |= {f'{norm}.weight': (hidden,), f'{norm}.bias': (hidden,)}
    shapes |= {'shared_time_embed.0.weight': (embed, embed), 'shared_time_embed.0.bias': (embed,)}
    shapes |= {'post_dense.weight': (config.output, hidden), 'post_dense.bias': (config.output,)}
    if config.embedding == 'fourier':
        shapes['gauss_proj.W'] = (embed // 2,)
    if config.gaussian_skip:
        dim = config.dim
        shapes |= {'gaussian.mean': (dim,), 'gaussian.basis': (dim, dim)}
        shapes |= {'gaussian.variance': (dim,)}
    return shapes


def write_tensors(
    path: str | Path, header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> str:
    """Write a file of our format atomically; returns the sha256 of `tensors`, which it holds."""
    from safetensors.numpy import save

    for key, value in tensors.items():
        if not np.isfinite(value).all():
            raise CheckpointError(
                f'{key} is not finite as {value.dtype}; save with half=False or retrain'
            )
    sha256 = tensor_hash(tensors)
    text = json.dumps({**header, 'sha256': sha256})
    with whole(Path(path)) as partial:
        partial.write_bytes(save(dict(tensors), metadata={_METADATA_KEY: text}))
    return sha256


def read_header(path: str | Path) -> dict[str, Any]:
    """The JSON text of a file of any of our formats, without its tensors.

    Raises:
        CheckpointError: missing or damaged file, or not of this project.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='np') as file:
            header = json.loads((file.metadata() or {}).get(_METADATA_KEY, ''))
        if not str(header['format']).startswith('dposer-'):
            raise ValueError(f'format {header["format"]!r}')
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f'{path} holds no weights of this project: {error}') from error
    return header


def read_tensors(
    path: str | Path, expected_format: str, required: Collection[str]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and tensors of a file of our format, its hash checked.

    Raises:
        CheckpointError: missing, truncated or altered file, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'{path} not found; give a .safetensors file of a prior')
    try:
        with safe_open(path, framework='np') as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(
            f'{path} ({path.stat().st_size} bytes) is truncated or not a safetensors file: '
            f'{error}. Get it again'
        ) from error
    try:
        header = json.loads(text or '')
        if header['format'] != expected_format:
            raise ValueError(f'format {header["format"]!r}')
        missing = {'config', 'licence', 'source_commit', 'notes', *required} - set(header)
        if missing:
            raise ValueError(f'no {min(missing)!r} in the header')
        if not isinstance(header['config'], dict):
            raise ValueError('config is not a table')
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f'{path} holds no {expected_format} header ({error}); not a prior of this project'
        ) from error
    found = tensor_hash(tensors)
    if found != header.get('sha256'):
        raise CheckpointError(
            f'{path}: sha256 of the tensors is {found[:12]}, the header says '
            f'{str(header.get("sha256"))[:12]}; the file was altered, get it again'
        )
    return header, tensors


def tensor_hash(tensors: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f'{key} {value.dtype.str} {value.shape}\n'.encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
