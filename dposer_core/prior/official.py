"""The published DPoser-X weights: where they are, what they go with, how they become ours.

Source: PROTOCOLS 1.4, 1.5 (files of the official hub and statistics of the official repository).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dposer_core.errors import CheckpointError
from dposer_core.prior import compose
from dposer_core.prior.architecture import BODY_DIM, HAND_DIM, JAW_DIM, TimeFCConfig
from dposer_core.prior.checkpoint import (
    PriorCheckpoint,
    checkpoint_from,
    load_official_weights,
    save_checkpoint,
)
from dposer_core.prior.normalizer import Normalizer, load_official_normalizer

HUB = 'https://huggingface.co/Moon-bow/DPoser-X/resolve/main'
HUB_FILES = {
    'body': 'body/BaseMLP/last.ckpt',
    'hand': 'hand/BaseMLP/last.ckpt',
    'face': 'face/BaseMLP/last.ckpt',
    'face_shape': 'face_shape/BaseMLP/last.ckpt',
    'mixed': 'wholebody/mixed/last.ckpt',
}
"""Checkpoints of the official hub by the name that `fetch` takes."""
LICENCE = (
    'Published DPoser-X weights: the terms of their authors and of the data they were trained '
    'on (research only) apply.'
)
_STATISTICS_FILE = 'axis_normalize2.pt'
_MATCH = 1e-4  # the published first values have six digits


@dataclass(frozen=True)
class Statistics:
    """An official normaliser folder and how to know it."""

    folder: str
    md5: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


STATISTICS = {
    'body': Statistics(
        'body_data/body_normalizer', '5becdfdcebc2c7bfc12a8ee0dd31b824',
        (-0.150003, -0.00637, 0.076085), (0.377648, 0.160344, 0.154194),
    ),
    'hand': Statistics(
        'hand_data/hand_normalizer', '45dbe4a7035fc0451ff517dff13ab18f',
        (0.099125, -0.13975, 0.342376), (0.098853, 0.151035, 0.463221),
    ),
    'jaw': Statistics(
        'face_data/jaw_normalizer', '08ac3dfcc0e4c6884e4c30124f806ef2',
        (0.071292, 0.004634, 0.004203), (0.041533, 0.005147, 0.008067),
    ),
    'expression': Statistics(
        'face_data/expression_normalizer', 'c52966fea43bd48d4af895be8aebbc30',
        (-0.15819, 0.232342, 0.159149), (0.701362, 0.616096, 0.557842),
    ),
    'face_shape': Statistics(
        'face_data/betas_normalizer', 'aa8e29cedcea0ee818370bdfcdd59c87',
        (0.316478, 0.075788, -1.00457), (1.022783, 1.019133, 1.059321),
    ),
}  # fmt: skip
_NEEDED = {'face': ('jaw', 'expression')}  # other parts: the statistics of their own name


@dataclass(frozen=True)
class Imported:
    """Files that an import wrote, and what its user should know."""

    files: list[Path]
    warnings: list[str]


def import_official(
    source: Path, normalizers: Path, folder: Path, name: str, num_expression: int, part: str = ''
) -> Imported:
    """Write an official checkpoint in our format; nothing in it is executed.

    Args:
        source: .ckpt or .pth.
        normalizers: the official `data` folder, or for one part the folder of its statistics.
        folder: where the files go.
        name: their name; a whole body becomes `<name>.json` and a file per network.
        num_expression: expression coefficients of the body model that it is to be used with.
        part: 'body', 'hand', 'face' or 'face_shape'; empty: told by the network's size.

    Raises:
        CheckpointError: not such a file, statistics that do not fit, or a face of another
            expression space than the body model's.
    """
    weights = load_official_weights(source)
    warnings: list[str] = []

    def converted(tensors: Mapping[str, np.ndarray], kind: str) -> PriorCheckpoint:
        config = TimeFCConfig.from_weights(tensors)
        if kind == 'face':
            _check_expression(source, config.dim - JAW_DIM, num_expression)
        normalizer = _normalizer(normalizers, kind, warnings)
        if normalizer.dim != config.dim:
            raise CheckpointError(
                f'{normalizers}: statistics of {normalizer.dim} values for a {kind} network of '
                f'{config.dim}; give the folder that belongs to it'
            )
        return checkpoint_from(str(source), kind, tensors, normalizer, LICENCE)

    if 'mask_fc.pre_dense.weight' not in weights:
        kind = part or _part_of(source, TimeFCConfig.from_weights(weights))
        file = folder / f'{name}.safetensors'
        own = {key: value for key, value in weights.items() if not key.endswith('sigmas')}
        save_checkpoint(file, converted(own, kind))
        return Imported([file], warnings)
    networks, own = compose.split_official(weights)
    checkpoints = {kind: converted(networks[kind], kind) for kind in compose.BASE_PARTS}
    files = {kind: folder / f'{name}_{kind}.safetensors' for kind in compose.BASE_PARTS}
    hashes = {kind: save_checkpoint(files[kind], part) for kind, part in checkpoints.items()}
    inner = {key.removeprefix('mask_fc.'): v for key, v in own.items() if 'mask_fc.' in key}
    config = TimeFCConfig.from_weights(inner)
    correction = compose.Correction('mixed', config, own, hashes, licence=LICENCE)
    correction_file = folder / f'{name}_correction.safetensors'
    compose.save_correction(correction_file, correction)
    composition = folder / f'{name}.json'
    compose.save_composition(composition, *files.values(), correction_file)
    return Imported([composition, *files.values(), correction_file], warnings)


def _part_of(source: Path, config: TimeFCConfig) -> str:
    if config.dim in (BODY_DIM, HAND_DIM):
        return 'body' if config.dim == BODY_DIM else 'hand'
    if config.dim <= JAW_DIM:
        raise CheckpointError(f'{source}: a network of {config.dim} values is no DPoser part')
    return 'face_shape' if config.dim % 100 == 0 else 'face'


def _check_expression(source: Path, found: int, expected: int) -> None:
    if found != expected:
        raise CheckpointError(
            f'{source}: its face has {found} expression coefficients of FLAME, the body model '
            f'{expected}; coefficient by coefficient they mean different faces, so these weights '
            'would pull towards wrong ones. Use a body model with that expression space '
            f'(--num-expression {found}), or the face prior that belongs to your body model'
        )


def _normalizer(folder: Path, part: str, warnings: list[str]) -> Normalizer:
    """Statistics of `part`; differences from the published ones go to `warnings`."""
    parts = []
    for name in _NEEDED.get(part, (part,)):
        known = STATISTICS[name]
        direct, inside = folder / _STATISTICS_FILE, folder / known.folder / _STATISTICS_FILE
        file = direct if direct.is_file() and part not in _NEEDED else inside
        if not file.is_file():
            raise CheckpointError(
                f'{inside} not found; give the data folder of the official repository with '
                f'{known.folder} in it'
            )
        normalizer = load_official_normalizer(file.parent)
        parts.append(normalizer)
        same = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() == known.md5
        close = all(
            np.allclose(values[:3], expected, atol=_MATCH)
            for values, expected in (
                (normalizer.offset, known.mean),
                (normalizer.scale, known.std),
            )
        )
        if not close:
            warnings.append(
                f'{file}: its mean begins with {np.round(normalizer.offset[:3], 6).tolist()}, the '
                f'published {name} statistics with {list(known.mean)}; with statistics of another '
                'origin the prior denoises the wrong poses'
            )
        elif not same:
            warnings.append(f'{file}: other bytes than published, but the same first values')
    return parts[0] if len(parts) == 1 else Normalizer.concatenate(parts)


# --- from the hub ---

Download = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes of the whole (0: not told)."""


def fetch(url: str, file: Path, on_progress: Download = lambda have, whole: None) -> str:
    """Download `url` to `file`; an interrupted download goes on. Returns the file's sha256.

    The file appears under its name only when it is whole; `<file>.sha256` records its hash.

    Raises:
        CheckpointError: no network, no such file, or fewer bytes than announced.
    """
    import urllib.error
    import urllib.request

    partial = file.with_name(f'{file.name}.partial')
    file.parent.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={'Range': f'bytes={have}-'} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            if have and answer.status != 206:  # the server begins anew
                have = 0
            whole = have + int(answer.headers.get('Content-Length') or 0)
            with partial.open('ab' if have else 'wb') as out:
                while block := answer.read(1 << 20):
                    out.write(block)
                    have += len(block)
                    on_progress(have, whole)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to get, or what is here is not of this file
            partial.unlink()
        raise CheckpointError(
            f'{url}: the server answers {error.code} {error.reason}; try again, or download the '
            'file with a browser and give it to `dposer weights import`'
        ) from error
    except OSError as error:  # urllib's and the socket's
        reason = getattr(error, 'reason', error)
        raise CheckpointError(
            f'{url} cannot be reached ({reason}); check the network and run it again (it goes on '
            f'after {have} bytes), or copy the file here and give it to `dposer weights import`'
        ) from error
    if have < whole:
        raise CheckpointError(
            f'{url}: {have} of {whole} bytes came; run it again, it goes on from there'
        )
    sha256 = hashlib.sha256(partial.read_bytes()).hexdigest()
    file.with_name(f'{file.name}.sha256').write_text(f'{sha256}  {file.name}\n')
    partial.replace(file)
    return sha256
