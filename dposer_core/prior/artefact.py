"""A prior as one portable folder: ONNX trunk, time table and JSON, for any runtime and language.

    prior.json               what the vector is, hashes of the two other files, licences
    trunk.onnx               x (N, D) and time (R,) -> noise (N, D)
    tables.safetensors       mean, std (D,); times (T,) with their rows (T, R); what the row of any
                             other time is made of; outputs that a copy is compared with

x_t = alpha x, x0_hat = (x_t - sigma noise) / alpha, with alpha and sigma of `prior/sde.py`.
The ONNX back end runs it: `prior.checkpoint = FOLDER/prior.json`.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from dposer_core.errors import CheckpointError
from dposer_core.files import whole, write_json
from dposer_core.prior.architecture import TimeFCConfig
from dposer_core.prior.backends import (
    Denoiser,
    Network,
    TimeTable,
    check_values,
    onnxruntime_options,
    onnxruntime_trunk,
    self_check,
    time_weights,
)
from dposer_core.prior.checkpoint import read_tensors, write_tensors
from dposer_core.prior.onnx_trunk import trunk_graph
from dposer_core.prior.runtime import PriorFacts, PriorNetworks

_FORMAT, _TABLES_FORMAT = 'dposer-artefact-1', 'dposer-tables-1'
_TIMES = np.arange(1, 101, dtype=np.float32) / 100  # for programs that cannot make rows
BACKEND = 'onnxruntime'


def export_artefact(networks: PriorNetworks, folder: str | Path) -> list[Path]:
    """Write a prior into `folder`; prior.json comes last and names the two files by their hash."""
    folder, ensemble, facts = Path(folder), networks.ensemble, networks.facts
    table = TimeTable(ensemble.networks)
    tensors = {
        'mean': facts.mean,
        'std': facts.std,
        'times': _TIMES,
        'rows': np.stack([table(float(t)) for t in _TIMES]),
        'check': check_values(networks.reference, ensemble.dim),
    }
    for i, network in enumerate(ensemble.networks):
        tensors |= {f'{i}.{key}': value for key, value in time_weights(network).items()}
    licence = '; '.join(sorted(set(facts.licences.values())))
    header = {'format': _TABLES_FORMAT, 'config': {}, 'licence': licence, 'source_commit': ''}
    trunk, tables = folder / 'trunk.onnx', folder / 'tables.safetensors'
    model, _ = trunk_graph(ensemble, embed=True)
    with whole(trunk) as partial:
        partial.write_bytes(model)
    sha256 = write_tensors(
        tables, {**header, 'notes': {}}, {k: np.ascontiguousarray(v) for k, v in tensors.items()}
    )
    content = {
        'format': _FORMAT,
        'trunk': {'file': trunk.name, 'sha256': hashlib.sha256(model).hexdigest()},
        'tables': {'file': tables.name, 'sha256': sha256},
        'dim': ensemble.dim,
        'widths': ensemble.widths,
        'num_expression': facts.num_expression,
        'is_whole': facts.is_whole,
        'networks': [
            {'config': dataclasses.asdict(n.config), 'copies': n.copies} for n in ensemble.networks
        ],
        'weights': facts.hashes,
        'licences': facts.licences,
    }
    write_json(folder / 'prior.json', content)
    return [folder / 'prior.json', trunk, tables]


def is_artefact(path: Path) -> bool:
    """Whether this is the prior.json of an artefact; others are left to their reader."""
    try:
        return path.suffix == '.json' and json.loads(path.read_text())['format'] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_artefact(path: Path) -> tuple[Denoiser, PriorFacts, float]:
    """The network of an artefact in ONNX Runtime, its facts, and the error of the self-check.

    Raises:
        CheckpointError: a file is missing, altered or of another export.
        ConfigError: ONNX Runtime is missing, or the outputs are not those of the export.
    """
    content = json.loads(path.read_text())
    try:
        model = _read(path.parent / content['trunk']['file'], content['trunk']['sha256'])
        file = path.parent / content['tables']['file']
        header, tensors = read_tensors(file, _TABLES_FORMAT, ())
        _check_hash(file, header['sha256'], content['tables']['sha256'])
        networks = [
            Network(
                TimeFCConfig.from_mapping(entry['config']), _of(tensors, f'{i}.'), entry['copies']
            )
            for i, entry in enumerate(content['networks'])
        ]
        facts = PriorFacts(
            tensors['mean'], tensors['std'], content['num_expression'], content['is_whole'],
            content['weights'], content['licences'],
        )  # fmt: skip
        widths, check = content['widths'], tensors['check']
    except KeyError as error:
        raise CheckpointError(f'{path}: {error} is missing; export the prior again') from error
    denoiser = onnxruntime_trunk(model, onnxruntime_options(), TimeTable(networks))
    return denoiser, facts, self_check(BACKEND, denoiser, check, widths)


def _read(file: Path, sha256: str) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f'{file}: {error.strerror}; export the prior again') from error
    _check_hash(file, hashlib.sha256(content).hexdigest(), sha256)
    return content


def _check_hash(file: Path, found: str, expected: str) -> None:
    if found != expected:
        raise CheckpointError(
            f'{file} has sha256 {found[:12]}, prior.json beside it names '
            f'{expected[:12]}: altered, or of another export; export the prior again'
        )


def _of(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
