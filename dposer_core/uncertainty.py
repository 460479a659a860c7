"""What a fit may claim to know, where its normal equations claim more.

The covariance of the window is right about what keypoints measure. It is too sure in two places,
and both have a simple truth:

- **Unseen rotations.** The prior's term enters every frame with a weight of its own, as if each
  frame were another look at the person. It says the same each time: a rotation that no keypoint
  tells of, such as the twist of a straight arm whose hand is hidden, goes from what was seen of it
  to one standard deviation of the prior's training poses (`Forgetting`).
- **Size.** One camera does not see how large a person is, and so not how far away
  (`size_covariance`). The betas settle as frames go by, which are all wrong together.

Measured in docs/UNCERTAINTY.md; the share of a known size and the times of
`Forgetting` were fitted, to other clips than the ten reported there.
"""

import numpy as np

from dposer_core import evidence
from dposer_core.kinematics import PELVIS, PRIOR_ROTATIONS, ROOT, Posed
from dposer_core.skeleton import PRIOR_JOINTS, is_of_hand

# Of the distance: what pictures leave open about the size of a person of unknown and of known
# height. Unknown: adults' heights vary by 6 %, and the proportions that a real detector sees tell
# nothing of it (6.7 % on the one real person with truth; on bodies of the model, whose proportions
# do tell, 3.1 to 4.3 %). Known: measured, 1.0 to 2.1 %.
SIZE_SIGMA, KNOWN_SIZE_SIGMA = 0.06, 0.015


# s, after which a pose that was seen tells nothing more: exp(-(t / s)^2) of it is left. Chosen so
# that errors of hands and legs have the published spread 0.03 to 0.3 s after they were seen, on
# the tuning clips of live_truth.
_HAND_SECONDS, _BODY_SECONDS = 0.2, 0.3
_MEASURED = 20.0  # information of the keypoints of a frame, in that of the prior: from here on an
# axis is measured, and the window knows best; below, neighbouring frames add about as much as
_LOOKS = 4.0  # independent ones do


class Forgetting:
    """What is still known of rotations that keypoints tell little or nothing of.

    Per tangent axis: from the variance that it had when it was measured last to that of the prior,
    as in a smooth stationary process (squared exponential correlation).

    Args:
        std: (n,) rad, of the prior, axes of PRIOR_JOINTS.
    """

    def __init__(self, std: np.ndarray) -> None:
        self._variance = np.square(std.astype(float))
        seconds = [_HAND_SECONDS if is_of_hand(j) else _BODY_SECONDS for j in PRIOR_JOINTS]
        self._seconds = np.repeat(seconds, 3)
        self.reset()

    def reset(self) -> None:
        """Nothing has been measured yet."""
        self._known = self._variance.copy()  # rad^2, when last measured
        self._since_ns = np.zeros(len(self._variance), dtype=np.int64)

    def variance(self, stamp_ns: int, information: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """(n,) rad^2 in one frame; what is given, for axes that are measured.

        Args:
            stamp_ns: of the frame; they increase.
            information: (n,) rad^-2 that its keypoints add.
            variance: (n,) rad^2 by the normal equations.
        """
        is_measured = information * self._variance > _MEASURED
        self._known = np.where(is_measured, np.minimum(variance, self._variance), self._known)
        self._since_ns[is_measured] = stamp_ns
        kept = np.exp(-np.square(1e-9 * (stamp_ns - self._since_ns) / self._seconds))
        forgotten = self._variance + kept * (self._known - self._variance)
        return np.where(is_measured, variance, 1.0 / (1.0 / forgotten + _LOOKS * information))


def forget_unseen(
    covariance: np.ndarray,
    seen: np.ndarray,
    posed: Posed,
    forgetting: Forgetting,
    stamp_ns: int,
    information: np.ndarray,
) -> None:
    """Give rotations that are not measured the spread of what is left of them, in place.

    Args:
        covariance: (num_dof, num_dof) of the newest frame.
        seen: (133,) points that are evidence.
        posed: the body of that frame.
        forgetting: of the rotations of PRIOR_JOINTS.
        stamp_ns: of the frame.
        information: (n,) that its keypoints add to each of their axes.
    """
    above = evidence.seen_below_only(seen)[PRIOR_JOINTS]
    is_above = np.repeat(above, 3)
    own = np.diagonal(covariance)[PRIOR_ROTATIONS].copy()
    variance = forgetting.variance(stamp_ns, np.where(is_above, 0.0, information), own)
    # Scaled, not added to: just after it was seen a joint is known better than the links say.
    scale = np.ones(len(covariance))
    scale[PRIOR_ROTATIONS] = np.where(is_above, 1.0, np.sqrt(variance / own))
    covariance *= scale[:, None] * scale
    lack = np.maximum(variance - own, 0.0).reshape(-1, 3)
    for index in np.flatnonzero(above):
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
