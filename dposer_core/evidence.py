"""What an observation says: how much each keypoint counts, and which joints it is evidence for."""

import numpy as np

from dposer_core import skeleton
from dposer_core.config import FitConfig
from dposer_core.observation import NUM_POINTS, Observation
from dposer_core.state import Source

# COCO-WholeBody-133 ranges.
BODY_POINTS = slice(0, 17)
FEET_POINTS = slice(17, 23)
FACE_POINTS = slice(23, 91)
MOUTH_POINTS = slice(23 + 48, 91)
LEFT_HAND_POINTS = slice(91, 112)
RIGHT_HAND_POINTS = slice(112, 133)

# Two distinct reasons to trust points unequally. Detectors place points of the face and hands,
# which they see enlarged, more precisely than limbs; and a detector's hip is a place on the
# silhouette, while SMPL-X's is the joint inside.
POINT_SIGMA = np.ones(NUM_POINTS)
POINT_SIGMA[0:5] = 0.8
POINT_SIGMA[11:13] = 2.0
POINT_SIGMA[FACE_POINTS] = 0.5
POINT_SIGMA[LEFT_HAND_POINTS] = POINT_SIGMA[RIGHT_HAND_POINTS] = 0.7

_MIN_INLIER = 0.1  # IRLS weight below which a point is not evidence (1.5 robust scales away)


def point_sigma(observation: Observation, config: FitConfig, height_px: float) -> np.ndarray:
    """(133,) standard deviation of the points, px (2D; from the person's height in px) or m.

    1 for points with a covariance: `whitening` brings them to this unit.
    """
    if observation.sigma is not None:
        return observation.sigma if observation.sigma.ndim == 1 else np.ones(NUM_POINTS)
    scale = config.sigma_m if observation.dim == 3 else config.sigma_px_relative * height_px
    return POINT_SIGMA * scale


def precision(
    observation: Observation, config: FitConfig, threshold: float, height_px: float
) -> np.ndarray:
    """(133,) confidence^2 / sigma^2, px^-2, m^-2 or, after `whitening`, 1; 0 for absent points.

    Confidence enters squared, as in the paper's data terms (PROTOCOLS 3.3).
    """
    confidence = np.where(observation.confidence >= threshold, observation.confidence, 0.0)
    return np.square(confidence / point_sigma(observation, config, height_px))


def whitening(observation: Observation) -> np.ndarray | None:
    """(133, dim, dim) that brings residuals to sigma 1; None where `precision` says it all."""
    if observation.sigma is None or observation.sigma.ndim == 1:
        return None
    return np.linalg.inv(observation.sigma)


def spread(observation: Observation) -> np.ndarray:
    """(133,) relative standard deviation of the points, for a first guess."""
    if observation.sigma is None or observation.sigma.ndim == 1:
        return POINT_SIGMA
    return np.linalg.norm(observation.sigma, axis=(1, 2))  # root of the trace of the covariance


def _own_points() -> dict[int, list[int]]:
    """Joint -> keypoints that sit on it."""
    names = [
        'left_shoulder', 'right_shoulder', 'left_elbow', 'right_elbow', 'left_wrist',
        'right_wrist', 'left_hip', 'right_hip', 'left_knee', 'right_knee', 'left_ankle',
        'right_ankle',
    ]  # fmt: skip
    own = {skeleton.JOINT_INDEX[name]: [5 + i] for i, name in enumerate(names)}
    own[skeleton.JOINT_INDEX['left_foot']] = [17, 18]
    own[skeleton.JOINT_INDEX['right_foot']] = [20, 21]
    own[skeleton.JOINT_INDEX['head']] = [0, 1, 2, 3, 4]
    own[skeleton.JOINT_INDEX['pelvis']] = [11, 12]
    own[skeleton.JAW_JOINT] = list(range(MOUTH_POINTS.start, MOUTH_POINTS.stop))
    for side, points in (('left', LEFT_HAND_POINTS), ('right', RIGHT_HAND_POINTS)):
        for offset, joint in enumerate(skeleton.hand21_joints(side)):
            if joint >= 0:
                own.setdefault(joint, []).append(points.start + offset)
    return own


OWN_POINTS = _own_points()


def _below_points() -> dict[int, list[int]]:
    """Joint -> keypoints on its descendants (fingertips included)."""
    below: dict[int, list[int]] = {j: [] for j in range(skeleton.NUM_JOINTS)}
    for joint, points in OWN_POINTS.items():
        for ancestor in skeleton.ancestors(joint)[1:]:
            below[ancestor] += points
    for side, points in (('left', LEFT_HAND_POINTS), ('right', RIGHT_HAND_POINTS)):
        hand = skeleton.hand21_joints(side)
        for offset, joint in enumerate(hand):
            if joint < 0:  # a tip hangs below the joint before it
                below[hand[offset - 1]].append(points.start + offset)
    return below


def _incidence(points_of: dict[int, list[int]]) -> np.ndarray:
    """(55, 133) 1 where a keypoint belongs to a joint."""
    matrix = np.zeros((skeleton.NUM_JOINTS, NUM_POINTS), dtype=np.float32)
    for joint, points in points_of.items():
        matrix[joint, points] = 1.0
    return matrix


_OWN_MATRIX, _BELOW_MATRIX = _incidence(OWN_POINTS), _incidence(_below_points())


def counted(present: np.ndarray, inlier: np.ndarray) -> np.ndarray:
    """(133,) which points are evidence: seen, and not contradicted by all others."""
    return present & (inlier > _MIN_INLIER)


def joint_sources(present: np.ndarray, inlier: np.ndarray) -> np.ndarray:
    """(55,) `Source` of every joint.

    Observed: a point on it is seen; partial: only what hangs below it; completed: neither.

    Args:
        present: (133,) whether a point is seen.
        inlier: (133,) IRLS weights in [0, 1].
    """
    seen = counted(present, inlier).astype(np.float32)
    sources = np.full(skeleton.NUM_JOINTS, Source.COMPLETED, dtype=np.uint8)
    sources[_BELOW_MATRIX @ seen > 0.0] = Source.PARTIAL
    sources[_OWN_MATRIX @ seen > 0.0] = Source.OBSERVED
    sources[skeleton.EYE_JOINTS] = Source.DEFAULT  # gaze is not estimated
    return sources


def seen_below_only(seen: np.ndarray) -> np.ndarray:
    """(55,) whether nothing is seen but below the joint, whose rotation is then the root's too.

    Args:
        seen: (133,) points that are evidence.
    """
    below = _BELOW_MATRIX @ seen.astype(np.float32)
    return (below == below[0]) & (below > 0.0)


def observed_fraction(sources: np.ndarray) -> float:
    """Share of the pelvis, body and finger joints with evidence."""
    joints = [0, *skeleton.PRIOR_JOINTS[:-1]]  # without the jaw
    return float((sources[joints] <= Source.PARTIAL).mean())


def hands_seen(present: np.ndarray) -> tuple[bool, bool]:
    """Whether the left and right hand have direct evidence: three finger points or more."""
    return tuple(
        bool(present[points][1:].sum() >= 3) for points in (LEFT_HAND_POINTS, RIGHT_HAND_POINTS)
    )
