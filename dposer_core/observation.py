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
    """(133,) 1 sigma given by the detector, in the unit of the points; None: configured."""
    track_id: str = ''
    """Identity given by the detector; empty if it has none."""

    @property
    def dim(self) -> int:
        """2 (pixels) or 3 (metres)."""
        return self.points.shape[1]
