"""Which frames of a clip are kept. The rules of the paper's sets are values in the registry."""

import zlib
from dataclasses import dataclass

import numpy as np

SEED = 42


@dataclass(frozen=True)
class Subsample:
    """Frames from `start` to `end` of a clip, of which `share` of the clip's length is drawn.

    Ends are cut because recordings begin and end with calibration poses.
    """

    start: float = 0.0
    end: float = 1.0
    share: float = (
        1.0  # of all frames, drawn without replacement; 1: every frame from start to end
    )
    every: int = 1  # then only every so many frames
    sequence: int = (
        0  # frames of consecutive sequences, a shorter rest is dropped; 0: single poses
    )

    def frames(self, count: int, clip: str, seed: int = SEED) -> np.ndarray:
        """Indices in ascending order; the same for a clip whatever else is read."""
        first, last = int(self.start * count), int(self.end * count)
        chosen = np.arange(first, last)
        if self.share < 1.0:
            rng = np.random.default_rng([seed, zlib.crc32(clip.encode())])
            chosen = np.sort(rng.choice(chosen, int(self.share * count), replace=False))
        chosen = chosen[:: self.every]
        if self.sequence:
            chosen = chosen[: len(chosen) // self.sequence * self.sequence]
        return chosen

    def describe(self) -> str:
        """In words."""
        words = []
        if (self.start, self.end) != (0.0, 1.0):
            words.append(f'frames {self.start:.0%} to {self.end:.0%}')
        if self.share < 1.0:
            words.append(f'{self.share:.0%} of all frames at random (seed {SEED})')
        if self.every > 1:
            words.append(f'every {self.every}rd' if self.every == 3 else f'every {self.every}th')
        if self.sequence:
            words.append(f'sequences of {self.sequence} frames')
        return ', '.join(words) or 'every frame'
