"""What a detector found in four real, synchronised cameras, and where the points really were.

The detections are MediaPipe's in the demo clip of Pose2Sim (see test/fixtures/README.md). There is
no truth but the triangulation of all four cameras, three of which must agree on a point.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dposer_core.camera import PinholeCamera
from dposer_core.triangulation import View, triangulate_points

RECORDING = Path(__file__).parents[2] / 'test' / 'fixtures' / 'four_views.npz'
FPS = 60.0


@dataclass(frozen=True)
class RecordedViews:
    """One person in all cameras."""

    views: list[View]
    points: np.ndarray  # (4, T, 133, 2) raw pixels
    confidence: np.ndarray  # (4, T, 133)

    def truth(self, frame: int) -> np.ndarray:
        """(133, 3) m in the world, NaN where three cameras do not agree."""
        return triangulate_points(
            self.views, self.points[:, frame], self.confidence[:, frame], min_cameras=3
        ).points


def load_recorded_views() -> RecordedViews:
    """The recording in the repository."""
    with np.load(RECORDING) as stored:
        rig = zip(
            stored['camera'], stored['size'], stored['distortion'], stored['R_cam_world'],
            stored['t_cam_world'], strict=True,
        )  # fmt: skip
        views = [
            View(f'cam{i}', PinholeCamera(*camera, *map(int, size)), tuple(lens), rotation, place)
            for i, (camera, size, lens, rotation, place) in enumerate(rig)
        ]
        return RecordedViews(
            views, stored['points_quarter_px'] / 4.0, stored['confidence_255'] / 255.0
        )
