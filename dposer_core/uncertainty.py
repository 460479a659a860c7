"""What a fit may claim to know, where its normal equations claim more.

The covariance of the window is right about what keypoints measure. It is too sure in two places,
and both have a simple truth:

- **Unseen rotations.** The prior's term enters every frame with a weight of its own, as if each
  frame were another look at the person. It says the same each time: a rotation that no keypoint
  tells of is distributed as the prior is, one standard deviation of its training poses.
- **Size.** One camera does not see how large a person is, and so not how far away
  (`size_covariance`). The betas settle as frames go by, which are all wrong together.

Measured in docs/UNCERTAINTY.md; nothing here but the share of a known size was fitted to anything.
"""

from dataclasses import dataclass

import numpy as np

from dposer_core import evidence
from dposer_core.kinematics import PELVIS, PRIOR_ROTATIONS, ROOT, Posed
from dposer_core.skeleton import PRIOR_JOINTS

# Of the distance: what pictures leave open about the size of a person of unknown and of known
# height. Unknown: adults' heights vary by 6 %, and the proportions that a real detector sees tell
# nothing of it (6.7 % on the one real person with truth; on bodies of the model, whose proportions
# do tell, 3.1 to 4.3 %). Known: measured, 1.0 to 2.1 %.
SIZE_SIGMA, KNOWN_SIZE_SIGMA = 0.06, 0.015
_STEADY = 60  # frames after which a chain of links has forgotten its start
_DT_STEP = 0.005  # s; time steps as near as this share a table


@dataclass(frozen=True)
class PriorOnly:
    """Rotations that nothing but the prior and their own past holds; arrays per tangent axis."""

    variance: np.ndarray
    """(n,) of the prior, rad^2."""
    weight: np.ndarray
    """(n,) of the prior's term in one frame; 1 would be its due."""
    acceleration: np.ndarray
    """(n,) 1 sigma of the change of velocity per second."""
    velocity: np.ndarray
    """(n,) 1 sigma of the distance per second of a standstill."""

    def __post_init__(self) -> None:
        object.__setattr__(self, '_known', {})

    def information(self, dt: float) -> np.ndarray:
        """(n,) inverse variance that the newest of many frames `dt` seconds apart arrives at."""
        key = max(1, round(dt / _DT_STEP))
        if key not in self._known:
            self._known[key] = self._steady(key * _DT_STEP)
        return self._known[key]

    def _steady(self, dt: float) -> np.ndarray:
        """The window's own links, axis by axis.

        The information of two neighbours is carried on: each new frame adds its links and its
        prior, and the oldest is eliminated.
        """
        prior = self.weight / self.variance
        bend = 1.0 / (self.acceleration * dt * dt) ** 2  # x - 2 x_before + x_oldest
        stand = 1.0 / (self.velocity * dt) ** 2  # x - x_before
        aa, ab, bb = prior + stand, -stand, prior + stand  # of (before, newest)
        for _ in range(_STEADY):
            oldest = aa + bend
            to_before, to_newest = ab - 2.0 * bend, bend
            aa = bb + 4.0 * bend + stand - to_before**2 / oldest
            ab = -2.0 * bend - stand - to_before * to_newest / oldest
            bb = prior + bend + stand - to_newest**2 / oldest
        return bb - ab**2 / aa

    def missing(self, variance: np.ndarray, dt: float) -> np.ndarray:
        """(n,) what unseen axes of this variance lack when the prior is counted once."""
        measured = np.maximum(1.0 / variance - self.information(dt), 0.0)  # when last seen
        return np.maximum(1.0 / (measured + 1.0 / self.variance) - variance, 0.0)


def add_unseen(
    covariance: np.ndarray, seen: np.ndarray, posed: Posed, prior: PriorOnly, dt: float
) -> None:
    """Give unseen rotations the spread of the prior, in place.

    Args:
        covariance: (num_dof, num_dof) of the newest frame.
        seen: (133,) points that are evidence.
        posed: the body of that frame.
        prior: of the rotations of PRIOR_JOINTS.
        dt: seconds since the frame before.
    """
    below, above = evidence.unseen_rotations(seen)
    diagonal = np.einsum('ii->i', covariance)
    lack = prior.missing(diagonal[PRIOR_ROTATIONS], dt).reshape(-1, 3)
    own = diagonal[PRIOR_ROTATIONS].reshape(-1, 3)
    own += np.where(below[PRIOR_JOINTS, None], lack, 0.0)
    for index in np.flatnonzero(above[PRIOR_JOINTS] & ~below[PRIOR_JOINTS]):
        for c in range(3):
            way = _turn_of_the_rest(posed, index, c, len(covariance))
            covariance += lack[index, c] * np.outer(way, way)


def _turn_of_the_rest(posed: Posed, index: int, c: int, num_dof: int) -> np.ndarray:
    """(num_dof,) tangent that bends one axis of a joint while all that is below it stays in place.

    With all that is seen below the joint, it is the root and what hangs on it that is not known.
    """
    joint = PRIOR_JOINTS[index]
    axis = posed.rotations[joint][:, c]
    way = np.zeros(num_dof)
    way[PRIOR_ROTATIONS.start + 3 * index + c] = 1.0
    way[ROOT] = -posed.rotations[0].T @ axis
    way[PELVIS] = np.cross(axis, posed.joints[joint] - posed.joints[0])
    return way


def size_covariance(points: np.ndarray, is_size_known: bool) -> np.ndarray:
    """(N, 3, 3) of points (N, 3) seen by one camera: along the ray through each."""
    along = (KNOWN_SIZE_SIGMA if is_size_known else SIZE_SIGMA) * points
    return along[:, :, None] * along[:, None, :]
