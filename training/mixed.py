"""Whole-body batches: sets of rows with their masks and shares, and what the network may see.

A set gives some of the four parts (body, left hand, right hand, face); parts that it lacks are
hidden from the network and do not count in the loss. In mixed training the parts of complete rows
are hidden at random as well. Source: PROTOCOLS 2.6, 2.7; slips of the released code are switches
of `MixedConfig`, off by default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dposer_core.errors import ConfigError
from dposer_core.prior.architecture import BODY_DIM, HAND_DIM, NUM_PARTS, WholeBodyLayout
from dposer_core.prior.normalizer import Normalizer
from training.composition import Composer, CompositionConfig, mirror_hand, training_parts

COMPOSED = 'composed'  # rows of the generator instead of an array of the packed file
ONE_HAND = 'one_hand'  # rows of right hands, every second one shown as a left hand
OFFICIAL_KEEP_PROB = 0.2  # of the released code, which keeps what it means to drop
_SLOTS = {  # what an array of the packed file holds: columns of the whole-body vector
    'wholebody': lambda layout: slice(0, layout.dim),
    'body': lambda layout: layout.body,
    'two_hands': lambda layout: slice(BODY_DIM, BODY_DIM + 2 * HAND_DIM),
    'hand': lambda layout: layout.right_hand,
    'face': lambda layout: layout.face,
}


@dataclass(frozen=True)
class SetConfig:
    """One set of rows."""

    mask: str  # parts that count, such as '1110', in the order body, left, right, face; 'one_hand'
    array: str = COMPOSED  # array of the packed file, or 'composed'
    source: str = ''  # only rows of this name in `<array>_sources`; empty: all
    every: int = 1  # only every so many rows
    weight: float = 0.0  # of each row; for a composed set: of the whole set
    official_weight: float = 0.0  # what the released code really uses; 0: the same

    def __post_init__(self) -> None:
        if self.mask != ONE_HAND and (len(self.mask) != NUM_PARTS or set(self.mask) - set('01')):
            raise ConfigError(
                f"mask = '{self.mask}': expected four of 0 and 1 in quotes, or '{ONE_HAND}'"
            )
        if self.array not in (*_SLOTS, COMPOSED):
            raise ConfigError(
                f"array = '{self.array}' is unknown; known: {', '.join((*_SLOTS, COMPOSED))}"
            )


@dataclass(frozen=True)
class PartDropout:
    """Hiding parts of complete rows at random."""

    keep_prob: float = 0.8  # of each part; the paper masks 20 %
    official_mask_bug: bool = False  # the released code keeps 20 % instead
    loss_on_hidden: bool = True  # hidden parts still count in the loss

    @property
    def keep(self) -> float:
        """Probability that a part stays visible."""
        return OFFICIAL_KEEP_PROB if self.official_mask_bug else self.keep_prob


@dataclass(frozen=True)
class MixedConfig:
    """Rows of a whole-body run."""

    sets: dict[str, SetConfig] = field(default_factory=dict)
    random_masks: bool = True  # mixed training; False: fused
    dropout: PartDropout = PartDropout()
    composition: CompositionConfig = CompositionConfig()
    official_double_mirror: bool = False  # left single hands are mirrored once too often
    official_weights: bool = False  # `official_weight` of the sets that have one
    official_base_dropout: bool = False  # dropout inside the frozen base, too


class WholeBodySource:
    """Draws normalised whole-body rows and the parts that they really have."""

    def __init__(
        self, packed: Mapping[str, np.ndarray], normalizer: Normalizer, config: MixedConfig
    ) -> None:
        if not config.sets:
            raise ConfigError('mixed.sets is empty; name at least one set of rows')
        self.config = config
        self.normalizer = normalizer
        self.layout = WholeBodyLayout(normalizer.dim - BODY_DIM - 2 * HAND_DIM - 3)
        self._composer = None
        if any(s.array == COMPOSED for s in config.sets.values()):
            self._composer = Composer(training_parts(packed), config.composition)
        self._sets = list(config.sets.values())
        self._rows = [_rows_of(name, s, packed) for name, s in config.sets.items()]
        self.shares = self._shares()

    @property
    def dim(self) -> int:
        """Size D of a row."""
        return self.layout.dim

    def batch(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(count, D) normalised rows and (count, 4) True where a row has that part.

        Rows come from a set with the probability of its share, with replacement.
        """
        chosen = torch.multinomial(self.shares, count, replacement=True, generator=generator)
        raw = torch.zeros(count, self.dim)
        mask = torch.zeros(count, NUM_PARTS, dtype=torch.bool)
        for index, rows in enumerate(self._rows):
            here = (chosen == index).nonzero()[:, 0]
            if len(here):
                raw[here], mask[here] = self._draw(self._sets[index], rows, len(here), generator)
        x_0 = self.normalizer.normalize(raw)
        return x_0 * self.layout_mask(mask), mask

    def layout_mask(self, mask: Tensor) -> Tensor:
        """(B, 4) per part -> (B, D) per value."""
        return expand_mask(mask, self.layout)

    def _draw(
        self, config: SetConfig, rows: Tensor | None, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Raw rows (count, D) of one set and their masks (count, 4)."""
        one_hand = config.mask == ONE_HAND
        if rows is None:
            assert self._composer is not None
            raw = self._composer.samples(count, generator)
        else:
            index = torch.randint(len(rows), (count,), generator=generator)
            raw = torch.zeros(count, self.dim)
            raw[:, _SLOTS[config.array](self.layout)] = rows[index]
        if not one_hand:
            visible = torch.tensor([part == '1' for part in config.mask])
            return raw, visible.expand(count, NUM_PARTS)
        is_left = torch.rand(count, generator=generator) < 0.5
        right = raw[:, self.layout.right_hand]
        left = right if self.config.official_double_mirror else mirror_hand(right)
        raw[:, self.layout.left_hand] = left
        none = torch.zeros_like(is_left)
        return raw, torch.stack([none, is_left, ~is_left, none], 1)

    def _shares(self) -> Tensor:
        """(sets,) probability of each set: row weight times rows."""
        shares = []
        for config, rows in zip(self._sets, self._rows, strict=True):
            weight = config.weight
            if self.config.official_weights and config.official_weight:
                weight = config.official_weight
            shares.append(weight * (1 if rows is None else len(rows)))
        total = torch.tensor(shares, dtype=torch.float64)
        if not total.sum() > 0:
            raise ConfigError('the sets of mixed.sets weigh nothing; give weights above 0')
        return total / total.sum()


def part_masks(
    present: Tensor | None,
    config: PartDropout,
    uniform: Tensor,
    layout: WholeBodyLayout,
) -> tuple[Tensor, Tensor]:
    """What the network sees and what counts, when parts are hidden at random.

    Args:
        present: (B, 4) True: the row has the part; None: all rows are complete.
        config: how often a part stays.
        uniform: (C, 4) numbers in [0, 1), one row for each of the C complete rows, in order.
        layout: of the vector.

    Returns:
        (B, 4) network mask and (B, D) loss mask.
    """
    if present is None:
        present = torch.ones_like(uniform, dtype=torch.bool)
    visible = present.clone()
    visible[present.all(1)] = uniform < config.keep
    counted = present if config.loss_on_hidden else visible
    return visible, expand_mask(counted, layout)


def expand_mask(mask: Tensor, layout: WholeBodyLayout) -> Tensor:
    """(B, 4) per part -> (B, D) per value."""
    widths = torch.tensor([part.stop - part.start for part in layout.parts], device=mask.device)
    return mask.repeat_interleave(widths, dim=1)


def _rows_of(name: str, config: SetConfig, packed: Mapping[str, np.ndarray]) -> Tensor | None:
    """Rows of the array of a set; None for a composed one."""
    if config.array == COMPOSED:
        return None
    if config.array not in packed:
        raise ConfigError(
            f"set '{name}' needs the array '{config.array}', which the packed file lacks; "
            'pack the data that has it (dposer data pack), or take the set out'
        )
    rows = packed[config.array]
    if config.source:
        sources = [str(s) for s in packed[f'{config.array}_sources']]
        if config.source not in sources:
            raise ConfigError(f"set '{name}': source '{config.source}' is not among {sources}")
        rows = rows[packed[f'{config.array}_source'] == sources.index(config.source)]
    return torch.from_numpy(np.ascontiguousarray(rows[:: config.every], dtype=np.float32))
