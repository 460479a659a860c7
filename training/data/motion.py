"""The two value types of motion: as read from a source file, and after retargeting to SMPL-X."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SourceMotion:
    """One clip in the skeleton of its source. World: y up, at rest facing +z, left hand at +x."""

    name: str
    subject: str
    source: str  # archive it came from, e.g. 'cmu_asf_amc'
    fps: float
    pelvis: np.ndarray  # (T, 3) root position, metres
    world_rotmat: dict[str, np.ndarray]  # bone -> (T, 3, 3) rotation from its rest to the world
    rest_direction: dict[str, np.ndarray]  # bone -> (3,) rest offset to its end, any length unit

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.pelvis)


@dataclass(frozen=True)
class SmplxMotion:
    """One clip as SMPL-X rotations. World: y up."""

    name: str
    subject: str
    source: str
    fps: float
    pose_rotvec: np.ndarray  # (T, 55, 3) parent-relative axis-angle, [:, 0] is root to world
    pelvis: np.ndarray  # (T, 3) pelvis position, metres

    @property
    def body(self) -> np.ndarray:
        """(T, 63) body part of the prior vector: SMPL-X joints 1 to 21."""
        return self.pose_rotvec[:, 1:22].reshape(len(self.pose_rotvec), 63)
