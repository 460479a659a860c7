"""What we estimate: the state of one body at one time, and what the fit reports about itself."""

from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

from dposer_core.turns import Turns


class Source(IntEnum):
    """How a joint was obtained (SmplxState.msg SRC_*)."""

    OBSERVED = 0
    PARTIAL = 1
    COMPLETED = 2
    PREDICTED = 3
    DEFAULT = 4


class Status(IntEnum):
    """Track status (SmplxState.msg)."""

    INITIALISING = 0
    TRACKING = 1
    PARTIAL = 2
    PREDICTED = 3
    REACQUIRED = 4
    LOST = 5


class Quality(IntEnum):
    """How much of the fit was run (SmplxState.msg QUALITY_*)."""

    FULL = 0
    REDUCED = 1
    FILTER_ONLY = 2
    HOLD = 3


def isotropic(covariance: np.ndarray) -> np.ndarray:
    """(N,) 1 sigma, the root mean square of all directions, of covariances (N, 3, 3)."""
    return np.sqrt(np.einsum('nii->n', covariance) / 3.0)


@dataclass(frozen=True)
class BodyState:
    """One body in the output frame (2D: camera optical frame). Metres, radians, seconds."""

    stamp_ns: int
    pose_rotvec: np.ndarray  # (55, 3) parent-relative axis-angle, SMPL-X order; [0] is the root
    transl: np.ndarray  # (3,) SMPL-X `transl`
    betas: np.ndarray  # (10,)
    expression: np.ndarray  # (E,)
    joints: np.ndarray  # (55, 3)
    landmarks: np.ndarray  # (133, 3) COCO-WholeBody-133 points on the body
    joint_velocities: np.ndarray  # (55, 3) m/s
    rotation_sigma: np.ndarray  # (55,) rad, 1 sigma, isotropic
    position_covariance: np.ndarray  # (55, 3, 3) m^2, output frame
    pelvis_covariance: np.ndarray  # (6, 6) position then rotation, output frame
    source: np.ndarray  # (55,) uint8, Source
    betas_frozen: bool = False

    @cached_property
    def position_sigma(self) -> np.ndarray:
        """(55,) m, 1 sigma of the joint positions, root mean square of the three axes."""
        return isotropic(self.position_covariance)

    @cached_property
    def turns(self) -> Turns:
        """Rotations of the joints as quaternions and angles."""
        return Turns.of(self.pose_rotvec)

    def seen_from(self, R: np.ndarray, t: np.ndarray) -> 'BodyState':
        """The same body in another frame, in which this one stands still.

        Args:
            R: (3, 3), p_other = R p + t.
            t: (3,) m.
        """
        pose = self.pose_rotvec.copy()
        pose[0] = (Rotation.from_matrix(R) * Rotation.from_rotvec(pose[0])).as_rotvec()
        joints = self.joints @ R.T + t
        both = np.kron(np.eye(2), R)
        return replace(
            self,
            pose_rotvec=pose,
            transl=joints[0] + self.transl - self.joints[0],  # SMPL-X turns about the pelvis
            joints=joints,
            landmarks=self.landmarks @ R.T + t,
            joint_velocities=self.joint_velocities @ R.T,
            position_covariance=R @ self.position_covariance @ R.T,
            pelvis_covariance=both @ self.pelvis_covariance @ both.T,
        )


@dataclass(frozen=True)
class FitStats:
    """What the fit did in one frame."""

    window_frames: int = 0
    iterations: int = 0
    prior_evals: int = 0
    stage_seconds: dict[str, float] = field(default_factory=dict)  # stage name -> seconds
    loss_data: float = 0.0
    loss_prior: float = 0.0
    loss_temporal: float = 0.0
    reprojection_rms_px: float = float('nan')  # 2D input
    residual_rms_m: float = float('nan')  # 3D input
    warm_started: bool = False
    converged: bool = False
    sides_exchanged: bool = False  # the detector had exchanged left and right


@dataclass(frozen=True)
class FitResult:
    """The answer for one person and one frame."""

    body_id: str  # REP-155 id: a letter first, short, not persistent
    track_id: str  # identity given by the detector, may be empty
    status: Status
    quality: Quality
    state: BodyState
    observed_fraction: float  # share of the body and hand joints with evidence in this frame
    confidence: float  # [0, 1]
    hand_occluded_s: tuple[float, float]  # left, right: seconds since last direct evidence
    stats: FitStats
