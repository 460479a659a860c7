"""What a finished run leaves behind: a checkpoint with its origin."""

import dataclasses
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from dposer_core.errors import CheckpointError
from dposer_core.prior.checkpoint import PriorCheckpoint, save_checkpoint
from dposer_core.prior.network import TimeFC, WholeBody
from training.networks import wholebody_network
from training.sources import Source, base_parts
from training.train_config import WHOLE_BODY, TrainConfig

CORRECTION_FORMAT = 'dposer-correction-1'


def checkpoint_of(
    config: TrainConfig, network: TimeFC, source: Source, figures: Mapping[str, Any]
) -> PriorCheckpoint:
    """What is shipped of a part: averaged weights, statistics and where they come from."""
    weights = {
        name: value.detach().cpu().numpy()
        for name, value in network.state_dict().items()
        if name != 'sigmas'  # a constant
    }
    return PriorCheckpoint(
        part=config.part,
        config=network.config,
        weights=weights,
        mean=source.normalizer.offset,
        std=source.normalizer.scale,
        licence=config.licence,
        source_commit=source_commit(),
        notes=run_notes(config, figures),
    )


def run_notes(config: TrainConfig, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Settings and figures of a run, as JSON types."""
    run = dataclasses.asdict(config)
    run = {key: list(value) if isinstance(value, tuple) else value for key, value in run.items()}
    del run['licence'], run['notes']
    kept = {key: figures[key] for key in ('steps', 'seconds') if key in figures}
    return config.notes | {'run': run} | kept


def source_commit() -> str:
    """Commit of this code; empty outside of a checkout."""
    return subprocess.run(
        ['git', 'rev-parse', '--short=12', 'HEAD'],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()


def write_result(
    config: TrainConfig,
    network: nn.Module,
    source: Source,
    figures: Mapping[str, Any],
    folder: Path,
) -> Path:
    """Write the checkpoint of a finished run; returns its path."""
    path = folder / f'{config.part}.safetensors'
    if config.part == WHOLE_BODY:
        save_correction(path, config, network, figures)
    else:
        save_checkpoint(path, checkpoint_of(config, network, source, figures))
    return path


def save_correction(
    path: Path, config: TrainConfig, network: WholeBody, figures: Mapping[str, Any]
) -> None:
    """Write what a whole-body run has trained; the frozen part networks stay in their own files.

    A .safetensors file of 16-bit tensors under the keys of PROTOCOLS 1.3, with a JSON text under
    'dposer' that names the sha256 of the parts it belongs to.
    """
    from safetensors.numpy import save_file

    tensors = {
        name: np.ascontiguousarray(value.detach().cpu().numpy(), dtype=np.float16)
        for name, value in network.state_dict().items()
        if name.startswith(('mask_fc.', 'output_linear.')) and not name.endswith('sigmas')
    }
    header = {
        'format': CORRECTION_FORMAT,
        'model': 'mixed' if config.mixed.random_masks else 'fused',
        'config': dataclasses.asdict(network.mask_fc.config),
        'parts': {part.part: part.sha256 for part in base_parts(config.base)},
        'licence': config.licence,
        'source_commit': source_commit(),
        'notes': run_notes(config, figures),
    }
    partial = path.with_name(f'.{path.name}.partial')
    save_file(tensors, partial, metadata={'dposer': json.dumps(header)})
    partial.replace(path)


def load_correction(path: Path, config: TrainConfig) -> WholeBody:
    """The network of a finished whole-body run, in eval mode.

    Raises:
        CheckpointError: not such a file, or its part networks are not those of `config.base`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as file:
            header = json.loads((file.metadata() or {}).get('dposer', '{}'))
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f'{path} cannot be read: {error}') from error
    if header.get('format') != CORRECTION_FORMAT:
        raise CheckpointError(f'{path} is not the result of a whole-body run')
    parts = {part.part: part.sha256 for part in base_parts(config.base)}
    if header['parts'] != parts:
        raise CheckpointError(
            f'{path} was trained over other part networks; give the files it names as `base`'
        )
    network = wholebody_network(config)
    network.load_state_dict(tensors, strict=False)
    return network.eval()
