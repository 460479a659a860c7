"""What a finished run leaves behind: a checkpoint with its origin."""

import dataclasses
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dposer_core.errors import CheckpointError
from dposer_core.prior.checkpoint import PriorCheckpoint, save_checkpoint
from dposer_core.prior.compose import Correction, load_correction, save_correction
from dposer_core.prior.network import TimeFC, WholeBody
from training.networks import wholebody_network
from training.sources import Source, base_parts
from training.train_config import WHOLE_BODY, TrainConfig


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
    """Write the result of a finished run in 32 bits; what is shipped may be rounded (publish)."""
    path = folder / f'{config.part}.safetensors'
    if config.part == WHOLE_BODY:
        save_correction(path, correction_of(config, network, figures), half=False)
    else:
        save_checkpoint(path, checkpoint_of(config, network, source, figures), half=False)
    return path


def correction_of(
    config: TrainConfig, network: WholeBody, figures: Mapping[str, Any]
) -> Correction:
    """What a whole-body run has trained; the frozen part networks stay in their own files."""
    tensors = {
        name: value.detach().cpu().numpy()
        for name, value in network.state_dict().items()
        if name.startswith(('mask_fc.', 'output_linear.')) and not name.endswith('sigmas')
    }
    return Correction(
        model='mixed' if config.mixed.random_masks else 'fused',
        config=network.mask_fc.config,
        weights=tensors,
        parts=_part_hashes(config),
        licence=config.licence,
        source_commit=source_commit(),
        notes=run_notes(config, figures),
    )


def load_whole_body(path: Path, config: TrainConfig) -> WholeBody:
    """The network of a finished whole-body run, in eval mode.

    Raises:
        CheckpointError: not such a file, or its part networks are not those of `config.base`.
    """
    correction = load_correction(path)
    if correction.parts != _part_hashes(config):
        raise CheckpointError(
            f'{path} was trained over other part networks; give the files it names as `base`'
        )
    network = wholebody_network(config)
    tensors = {name: torch.from_numpy(value) for name, value in correction.weights.items()}
    network.load_state_dict(tensors, strict=False)
    return network.eval()


def _part_hashes(config: TrainConfig) -> dict[str, str]:
    return {part.part: part.sha256 for part in base_parts(config.base)}
