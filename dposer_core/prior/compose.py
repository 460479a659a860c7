"""Whole-body priors made of part networks: which files belong together, and how they are joined.

A composition is a small JSON file that names the part files of a whole body, each stored once, and
for fused and mixed networks the file of their correction. No torch here.

The correction reads the first linear layer of every part network and ends in a linear layer.
Nothing but linear maps lies between the vector and its own first layer, nor between its last one
and the output, so both ends fold into the network (`fold`): a quarter of the full size's
parameters need not be read at run time, and it becomes a plain TimeFC over the whole vector.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core.errors import CheckpointError
from dposer_core.files import write_json
from dposer_core.prior.architecture import TimeFCConfig
from dposer_core.prior.backends import reference_noise
from dposer_core.prior.checkpoint import (
    PriorCheckpoint,
    expected_shapes,
    load_checkpoint,
    read_tensors,
    tensor_hash,
    write_tensors,
)

MODELS = ('base', 'fused', 'mixed')
BASE_PARTS = ('body', 'hand', 'face')
_FORMAT = 'dposer-composition-1'
_CORRECTION_FORMAT = 'dposer-correction-1'
_OUTPUT_WEIGHT, _OUTPUT_BIAS, _INNER = 'output_linear.weight', 'output_linear.bias', 'mask_fc.'

FirstLayer = tuple[np.ndarray, np.ndarray]
"""Weight (H, D) and bias (H,) of the first linear layer of a part network."""


@dataclass(frozen=True)
class Correction:
    """What fused and mixed training adds to frozen part networks."""

    model: str
    """'fused' or 'mixed'."""
    config: TimeFCConfig
    """Of the inner network: first layers of body, left hand, right hand, face -> whole vector."""
    weights: dict[str, np.ndarray]
    """Float32 tensors `mask_fc.*` and `output_linear.*` (PROTOCOLS 1.3), without `sigmas`."""
    parts: dict[str, str]
    """sha256 of the body, hand and face networks that it was trained over."""
    licence: str = ''
    source_commit: str = ''
    notes: dict[str, Any] = field(default_factory=dict)
    sha256: str = ''
    """Hash of the stored tensors; set by `load_correction`."""

    @property
    def inner(self) -> dict[str, np.ndarray]:
        """Tensors of the inner network under the keys of a TimeFC."""
        return {
            key[len(_INNER) :]: value
            for key, value in self.weights.items()
            if key.startswith(_INNER)
        }


def save_correction(path: str | Path, correction: Correction, half: bool = True) -> str:
    """Write `correction` atomically, in 16 bits with `half`; returns the sha256 of its tensors."""
    _check(str(path), correction)
    header = {
        'format': _CORRECTION_FORMAT,
        'model': correction.model,
        'config': dataclasses.asdict(correction.config),
        'parts': correction.parts,
        'licence': correction.licence,
        'source_commit': correction.source_commit,
        'notes': correction.notes,
    }
    dtype = np.float16 if half else np.float32
    tensors = {
        key: np.ascontiguousarray(value, dtype=dtype) for key, value in correction.weights.items()
    }
    return write_tensors(path, header, tensors)


def load_correction(path: str | Path) -> Correction:
    """Read the correction of a fused or mixed network.

    Raises:
        CheckpointError: missing, truncated or altered file, or not a correction.
    """
    header, tensors = read_tensors(path, _CORRECTION_FORMAT, ('model', 'parts'))
    correction = Correction(
        model=header['model'],
        config=TimeFCConfig.from_mapping(header['config']),
        weights={key: value.astype(np.float32) for key, value in tensors.items()},
        parts=header['parts'],
        licence=header['licence'],
        source_commit=header['source_commit'],
        notes=header['notes'],
        sha256=tensor_hash(tensors),
    )
    _check(str(path), correction)
    return correction


def _check(path: str, correction: Correction) -> None:
    """Raise CheckpointError unless the tensors are those of the configuration, and finite."""
    config = correction.config
    if correction.model not in MODELS[1:]:
        raise CheckpointError(f"{path}: model '{correction.model}', expected fused or mixed")
    if config.gaussian_skip:
        raise CheckpointError(f'{path}: a correction has no Gaussian skip; train it without')
    size = config.output
    shapes = {_INNER + key: shape for key, shape in expected_shapes(config).items()}
    shapes |= {_OUTPUT_WEIGHT: (size, size), _OUTPUT_BIAS: (size,)}
    found = {key: value.shape for key, value in correction.weights.items()}
    for key in sorted(set(shapes) | set(found)):
        if found.get(key) != shapes.get(key):
            raise CheckpointError(
                f'{path}: {key} has shape {found.get(key)}, its configuration says '
                f'{shapes.get(key)}'
            )
    for key, value in correction.weights.items():
        if not np.isfinite(value).all():
            raise CheckpointError(f'{path}: {key} is not finite; train it again')


# --- which files belong together ---


@dataclass(frozen=True)
class Composition:
    """The files of a whole-body prior, as a composition names them."""

    path: Path
    model: str
    files: dict[str, tuple[Path, str]]
    """File and sha256 of body, hand, face, and with fused and mixed of the correction."""

    def parts(self) -> Iterator[PriorCheckpoint]:
        """Checkpoints of body, hand, face, each read when it is asked for.

        Raises:
            CheckpointError: a part file is missing, altered or another one.
        """
        for name in BASE_PARTS:
            part = load_checkpoint(self.files[name][0], part=name)
            self._check_hash(name, part.sha256)
            yield part

    def correction(self) -> Correction | None:
        """What is added to the parts; None for a base."""
        if self.model == 'base':
            return None
        correction = load_correction(self.files['correction'][0])
        self._check_hash('correction', correction.sha256)
        for name, sha256 in correction.parts.items():
            if sha256 != self.files[name][1]:
                raise CheckpointError(
                    f'{self.path}: its correction was trained over the {name} network '
                    f'{sha256[:12]}, it names {self.files[name][1][:12]}; train the correction '
                    'anew over these parts, or put the old part file back'
                )
        return correction

    def _check_hash(self, name: str, found: str) -> None:
        file, sha256 = self.files[name]
        if found != sha256:
            raise CheckpointError(
                f'{self.path} names {file.name} with sha256 {sha256[:12]}, found {found[:12]}; '
                'write the composition anew for this file'
            )


def save_composition(
    path: str | Path,
    body: str | Path,
    hand: str | Path,
    face: str | Path,
    correction: str | Path | None = None,
) -> None:
    """Write the JSON of a whole-body prior that names its part files and their correction.

    Raises:
        CheckpointError: one of them is not what it should be, or the correction is of others.
    """
    path = Path(path)
    files = {}
    for name, file in zip(BASE_PARTS, (body, hand, face), strict=True):
        files[name] = (Path(file), load_checkpoint(file, part=name).sha256)
    model = 'base'
    if correction is not None:
        loaded = load_correction(correction)
        files['correction'], model = (Path(correction), loaded.sha256), loaded.model
        Composition(path, model, files).correction()
    entries = {
        name: {'file': os.path.relpath(file, path.parent), 'sha256': sha256}
        for name, (file, sha256) in files.items()
    }
    content = {'format': _FORMAT, 'model': model, 'parts': entries}
    if 'correction' in entries:
        content['correction'] = entries.pop('correction')
    write_json(path, content)


def load_composition(path: str | Path) -> Composition:
    """Read a composition file; its parts are read later, from `Composition.parts`.

    Raises:
        CheckpointError: not a composition.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text())
        if content['format'] != _FORMAT or content['model'] not in MODELS:
            raise ValueError(f'format {content["format"]!r}, model {content["model"]!r}')
        entries = {name: content['parts'][name] for name in BASE_PARTS}
        if content['model'] != 'base':
            entries['correction'] = content['correction']
        files = {
            name: (path.parent / entry['file'], str(entry['sha256']))
            for name, entry in entries.items()
        }
    except OSError as error:
        raise CheckpointError(
            f'{path} cannot be read ({error.strerror}); give a composition .json'
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f'{path} is not a composition of this version ({error}); write it anew'
        ) from error
    return Composition(path, content['model'], files)


# --- how a correction is evaluated ---


@dataclass(frozen=True)
class FoldedCorrection:
    """A correction as a TimeFC over the whole vector, plus a constant."""

    config: TimeFCConfig
    weights: dict[str, np.ndarray]
    offset: np.ndarray
    """(D,) added to the output at every time."""


def first_layer(part: PriorCheckpoint) -> FirstLayer:
    """What of a part network its correction reads."""
    return part.weights['pre_dense.weight'], part.weights['pre_dense.bias']


def fold(correction: Correction, first_layers: Sequence[FirstLayer]) -> FoldedCorrection:
    """`correction` with the parts' first layers and its own output layer multiplied into it.

    Args:
        correction: over the networks that `first_layers` belong to.
        first_layers: of body, left hand, right hand, face.
    """
    weights = dict(correction.inner)
    widths = [len(bias) for _, bias in first_layers]
    if sum(widths) != correction.config.dim:
        raise CheckpointError(
            f'the correction reads {correction.config.dim} values, its parts have {sum(widths)}; '
            'it belongs to other part networks'
        )
    reading = weights['pre_dense.weight'].astype(np.float64)
    blocks = np.split(reading, np.cumsum(widths)[:-1], axis=1)
    pairs = list(zip(blocks, first_layers, strict=True))
    constant = sum(block @ bias for block, (_, bias) in pairs)
    weights['pre_dense.weight'] = np.hstack([block @ weight for block, (weight, _) in pairs])
    weights['pre_dense.bias'] = weights['pre_dense.bias'] + constant
    output = correction.weights[_OUTPUT_WEIGHT].astype(np.float64)
    weights |= {f'post_dense.{kind}': output @ weights[f'post_dense.{kind}'] for kind in _KINDS}
    weights = {key: value.astype(np.float32) for key, value in weights.items()}
    dim = weights['pre_dense.weight'].shape[1]
    config = dataclasses.replace(correction.config, dim=dim, out_dim=0)
    if config.output != correction.config.output:
        raise CheckpointError(
            f'the correction has {correction.config.output} outputs for a vector of {dim} values; '
            'it belongs to other part networks'
        )
    return FoldedCorrection(config, weights, correction.weights[_OUTPUT_BIAS])


_KINDS = ('weight', 'bias')


def reference_correction(
    correction: Correction, first_layers: Sequence[FirstLayer]
) -> Callable[[np.ndarray, float], np.ndarray]:
    """The correction without its constant, as the papers' code computes it; for comparison."""
    cuts = np.cumsum([weight.shape[1] for weight, _ in first_layers])[:-1]
    inner = correction.inner

    def evaluate(x: np.ndarray, t: float) -> np.ndarray:
        parts = zip(np.split(x, cuts, axis=1), first_layers, strict=True)
        hidden = np.concatenate([part @ weight.T + bias for part, (weight, bias) in parts], axis=1)
        out = reference_noise(correction.config, inner, hidden, t)
        return out @ correction.weights[_OUTPUT_WEIGHT].T

    return evaluate


def split_official(
    weights: Mapping[str, np.ndarray],
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Tensors of an official whole-body checkpoint -> those of its parts, of its correction."""
    parts = {
        name: {
            key.removeprefix(prefix): value
            for key, value in weights.items()
            if key.startswith(prefix) and not key.endswith('sigmas')
        }
        for name, prefix in ((name, f'base_model.{name}_model.') for name in BASE_PARTS)
    }
    own = {
        key: value
        for key, value in weights.items()
        if key.startswith((_INNER, 'output_linear.')) and not key.endswith('sigmas')
    }
    return parts, own
