"""Whole-body batches."""

from training.composition import (
    Composer,
    CompositionConfig,
    heldout_parts,
    training_parts,
    wholebody_samples,
)

__all__ = [
    'Composer',
    'CompositionConfig',
    'heldout_parts',
    'training_parts',
    'wholebody_samples',
]
