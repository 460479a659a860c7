"""What was seen: one person's keypoints in one frame, in the hub layout COCO-WholeBody-133."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dposer_core.camera import PinholeCamera

NUM_POINTS = 133


@dataclass(frozen=True)
class Observation:
    """One person in one frame."""

    stamp_ns: int
    """Acquisition time, nanoseconds."""
    points: np.ndarray
    """(133, 2) undistorted pixels of `camera`, or (133, 3) metres in the output frame."""
    confidence: np.ndarray
    """(133,) in [0, 1]; 0 means absent (its point may be anything finite)."""
    camera: 'PinholeCamera | None' = None
    """Distortion-free pinhole camera; required for 2D, unused for 3D."""
    sigma: np.ndarray | None = None
    """What the detector gives, in the unit of the points: (133,) 1 sigma, or (133, dim, dim) lower
    Cholesky factor of the covariance; None: configured."""
    track_id: str = ''
    """Identity given by the detector; empty if it has none."""
    beside: 'Observation | None' = None
    """The same person seen by another detector at the same time, such as a 3D hand tracker; 3D
    points in the optical frame of `camera`."""

    @property
    def dim(self) -> int:
        """2 (pixels) or 3 (metres)."""
        return self.points.shape[1]

    @property
    def parts(self) -> tuple['Observation', ...]:
        """This one, and what is beside it."""
        return (self,) if self.beside is None else (self, *self.beside.parts)
