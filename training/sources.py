"""Where the batches of a run come from, and the draws of each of its steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dposer_core.errors import ConfigError
from dposer_core.prior.checkpoint import PriorCheckpoint, load_checkpoint
from dposer_core.prior.normalizer import Normalizer, wholebody_normalizer
from training.augment import Augmenter
from training.losses import Draw, draw_times
from training.mixed import WholeBodySource, part_masks
from training.mixture import TaughtDraws
from training.train_config import WHOLE_BODY, BaseConfig, TrainConfig
from training.validation import without_heldout

CHECKOUT = Path(__file__).parents[1]


class Source(Protocol):
    """Where batches come from."""

    normalizer: Normalizer

    @property
    def dim(self) -> int:
        """Size D of a row."""

    def batch(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """(count, D) normalised rows, and (count, 4) which parts they have (None: all)."""


class PartSource:
    """Batches of one part."""

    def __init__(self, data: Augmenter, taught: TaughtDraws | None = None) -> None:
        """`taught` takes the place of samples and their noise, where it is given."""
        self._data = data
        self.taught = taught
        self.normalizer = Normalizer.z_score(data.mean.numpy(), data.std.numpy())

    @property
    def dim(self) -> int:
        """Size D of a row."""
        return self._data.dim

    def batch(self, count: int, generator: torch.Generator) -> tuple[Tensor, None]:
        """(count, D) normalised rows."""
        return self._data.batch(count, generator), None


def draw_step(
    source: Source, config: TrainConfig, step: int, rank: int = 0, world: int = 1
) -> Draw:
    """The rows of process `rank` at `step`, with everything random about them."""
    generator = torch.Generator().manual_seed(step_seed(config.seed, step))
    count = config.batch * world
    own = slice(rank * config.batch, (rank + 1) * config.batch)
    if isinstance(source, PartSource) and source.taught is not None:
        draw = source.taught.draw(count, generator)
        return Draw(*(None if v is None else v[own] for v in draw))
    x_0, present = source.batch(count, generator)
    t = draw_times(count, generator, config.low_t, config.low_t_share)
    noise = torch.randn(x_0.shape, generator=generator)
    visible = counted = None
    if isinstance(source, WholeBodySource):
        assert present is not None
        visible, counted = present, source.layout_mask(present)
        if config.mixed.random_masks:
            uniform = torch.rand(int(present.all(1).sum()), present.shape[1], generator=generator)
            visible, counted = part_masks(present, config.mixed.dropout, uniform, source.layout)
    return Draw(*(None if v is None else v[own] for v in (x_0, t, noise, visible, counted)))


def open_source(config: TrainConfig, packed: Mapping[str, np.ndarray]) -> Source:
    """The batches of a run from a packed file; what is measured on is left out."""
    if config.part == WHOLE_BODY:
        return WholeBodySource(packed, base_normalizer(config.base), config.mixed)
    if config.part != 'body' and config.part not in packed:
        raise ConfigError(
            f"the packed file has no array '{config.part}'; pack data that has it "
            '(dposer data pack)'
        )
    rows = packed if config.part == 'body' else without_heldout(packed, config.part)
    chosen = (config.sources, config.unseen) if config.part == 'body' else ()
    data = Augmenter.from_packed(rows, config.part, config.augment, *chosen)
    if not config.teacher.clusters:
        return PartSource(data)
    draws = TaughtDraws(data, config.teacher, config.low_t, config.low_t_share, config.seed)
    return PartSource(data, draws)


def base_parts(base: BaseConfig) -> list[PriorCheckpoint]:
    """Checkpoints of body, hand and face."""
    return [
        load_checkpoint(CHECKOUT / getattr(base, part), part=part)
        for part in ('body', 'hand', 'face')
    ]


def base_normalizer(base: BaseConfig) -> Normalizer:
    """Of raw whole-body rows, from the statistics of the part networks."""
    return wholebody_normalizer(*(part.normalizer for part in base_parts(base)))


def step_seed(seed: int, step: int) -> int:
    """Of the generator of a step; no two steps of two seeds share one in practice."""
    return seed * 1_000_003 + step
