"""The networks that runs start with."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from dposer_core.prior.architecture import TimeFCConfig
from dposer_core.prior.checkpoint import PriorCheckpoint, load_checkpoint
from dposer_core.prior.compose import load_composition
from dposer_core.prior.network import (
    Combiner,
    TimeFC,
    WholeBody,
    correction_config,
    from_weights,
)
from training.sources import CHECKOUT, Source, base_parts
from training.train_config import WHOLE_BODY, TrainConfig

_GAUSSIAN_ROWS = 100_000  # that the statistics of a Gaussian skip are measured on


def build_network(config: TrainConfig, source: Source) -> nn.Module:
    """The network that a run starts with."""
    torch.manual_seed(config.seed)
    if config.part == WHOLE_BODY:
        return wholebody_network(config)
    network = TimeFC(config.network_config(source.dim))
    if hasattr(network, 'gaussian'):
        generator = torch.Generator().manual_seed(config.seed)
        network.gaussian.fit(source.batch(_GAUSSIAN_ROWS, generator)[0])
    if config.initial:
        start = load_checkpoint(CHECKOUT / config.initial, config.part, source.dim)
        tensors = {name: torch.from_numpy(value) for name, value in start.weights.items()}
        network.load_state_dict(tensors, strict=False)  # all but the constant `sigmas`
    return network


def wholebody_network(config: TrainConfig) -> WholeBody:
    """An untrained correction over the frozen part networks; its output is zero."""
    dropout = config.network.get('dropout', TimeFCConfig.dropout)
    base = _side_by_side(base_parts(config.base), dropout)
    sizes = correction_config(base)
    own = {'hidden': sizes.hidden, 'embed': sizes.embed, **config.network}
    correction = dataclasses.replace(config, network=own).network_config(sizes.dim)
    return WholeBody(base, dataclasses.replace(correction, out_dim=sizes.out_dim))


def load_wholebody(path: Path) -> Combiner | WholeBody:
    """The network of a composition file, in eval mode."""
    composition = load_composition(path)
    base = _side_by_side(composition.parts(), dropout=0.0)
    correction = composition.correction()
    if correction is None:
        return base.eval()
    network = WholeBody(base, correction.config)
    tensors = {key: torch.from_numpy(value) for key, value in correction.weights.items()}
    network.load_state_dict(tensors, strict=False)  # all but the base and the constant `sigmas`
    return network.eval()


def _side_by_side(parts: Iterable[PriorCheckpoint], dropout: float) -> Combiner:
    return Combiner(
        *(
            from_weights(part.weights, dropout=dropout, scale_by_sigma=part.config.scale_by_sigma)
            for part in parts
        )
    )
