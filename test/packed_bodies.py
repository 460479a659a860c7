"""The body arrays of a packed file, as `training.pack` lays them out, from poses given here."""

import numpy as np

from training.data.archives import HELD_OUT, TRAINING_SOURCES


def packed_bodies(body: np.ndarray, heldout: np.ndarray) -> dict[str, np.ndarray]:
    """`body` (N, 63) as the first training source, the others empty; `heldout` (M, 63)."""
    arrays: dict[str, np.ndarray] = {
        'test_names': np.array([HELD_OUT]),
        f'test_{HELD_OUT}': heldout,
    }
    for number, source in enumerate(TRAINING_SOURCES):
        rows = body if number == 0 else body[:0]
        arrays[f'body_{source}'] = rows
        arrays[f'weight_{source}'] = np.ones(len(rows), np.float32)
        arrays[f'repeats_{source}'] = np.zeros((len(rows), 1), bool)
    return arrays
