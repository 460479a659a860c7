"""Hand poses: direction IK of measured fingers, and the generator that widens 110 poses to many.

A pose is (15, 3) axis-angle, SMPL-X order index, middle, pinky, ring, thumb, right-hand form,
relative to the flat hand. For the right hand flexion is +z, spreading is y, twist is x.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from training.data.handy import read_handy

FINGERS = ('index', 'middle', 'pinky', 'ring', 'thumb')


def _direction(azimuth_deg: float, elevation_deg: float = 0.0) -> np.ndarray:
    """Unit vector from -x (fingers), turned by the azimuth towards +z (thumb), then raised."""
    azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
    across = np.cos(elevation)
    return np.array([-np.cos(azimuth) * across, np.sin(elevation), np.sin(azimuth) * across])


# Bone directions of the flat hand: straight fingers, slightly spread; the thumb half out. They are
# those of the open body's rest pose to 2 degrees.
FLAT_HAND = np.stack(
    [
        _direction(6.0),
        _direction(0.0),
        _direction(-12.0),
        _direction(-6.0),
        _direction(42.0, -14.0),
    ]
)


@dataclass(frozen=True)
class HandGeneratorConfig:
    """Parameters of the synthetic hands. Angles in degrees; limits are anatomical ranges."""

    same_blend_share: float = 0.5  # of samples: all fingers move from pose a to b together
    finger_swap: float = 0.15  # chance that a finger takes its pose from a third anchor
    relaxed_share: float = 0.3  # of samples: anchors replaced by a relaxed, half-curled hand
    relaxed_curl: tuple[float, float] = (0.0, 55.0)
    curl_sigma: float = 10.0  # common to the three joints of a finger
    joint_sigma: float = 5.0  # flexion of each joint alone
    spread_sigma: float = 5.0  # base joints
    thumb_sigma: float = 8.0  # thumb base, every axis
    twist_sigma: float = 3.0  # every joint, x; and y beyond the base
    base_limits: tuple[tuple[float, float], ...] = ((-15, 15), (-25, 25), (-25, 95))
    middle_limits: tuple[tuple[float, float], ...] = ((-12, 12), (-12, 12), (-8, 115))
    end_limits: tuple[tuple[float, float], ...] = ((-12, 12), (-12, 12), (-12, 90))
    thumb_base_limits: tuple[tuple[float, float], ...] = ((-50, 50), (-60, 60), (-50, 60))
    thumb_limits: tuple[tuple[float, float], ...] = ((-35, 35), (-75, 75), (-35, 60))


def fit_directions(bones: np.ndarray) -> np.ndarray:
    """Axis-angle (N, 15, 3) whose finger bones point along `bones` (N, 5, 3, 3); twist is zero."""
    num_poses = len(bones)
    pose = np.zeros((num_poses, 5, 3, 3))
    for finger in range(5):
        parent = Rotation.identity(num_poses)
        for joint in range(3):
            target = parent.inv().apply(bones[:, finger, joint])
            axis = np.cross(FLAT_HAND[finger], target)
            sine = np.linalg.norm(axis, axis=-1, keepdims=True)
            angle = np.arctan2(sine, (target @ FLAT_HAND[finger])[:, None])
            pose[:, finger, joint] = axis / np.maximum(sine, 1e-12) * angle
            parent = parent * Rotation.from_rotvec(pose[:, finger, joint])
    return pose.reshape(num_poses, 15, 3)


def bone_directions(pose: np.ndarray) -> np.ndarray:
    """The inverse of `fit_directions`: bone directions (N, 5, 3, 3) of poses (N, 15, 3)."""
    pose = pose.reshape(-1, 5, 3, 3)
    bones = np.zeros_like(pose)
    for finger in range(5):
        rotation = Rotation.identity(len(pose))
        for joint in range(3):
            rotation = rotation * Rotation.from_rotvec(pose[:, finger, joint])
            bones[:, finger, joint] = rotation.apply(FLAT_HAND[finger])
    return bones


def load_anchors(folder: Path) -> tuple[list[str], np.ndarray]:
    """Names and poses (N, 15, 3) of the Handy snapshots of both hands."""
    names: list[str] = []
    poses = []
    for side in ('right', 'left'):
        found, bones = read_handy(folder / f'Handy-poses-{side}.js', left=side == 'left')
        names += [f'{side} {name}' for name in found]
        poses.append(fit_directions(bones))
    return names, np.concatenate(poses)


def joint_limits(config: HandGeneratorConfig) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper limits (15, 3), rad."""
    finger = [config.base_limits, config.middle_limits, config.end_limits]
    thumb = [config.thumb_base_limits, config.thumb_limits, config.thumb_limits]
    limits = np.radians(np.array(finger * 4 + thumb, dtype=float))
    return limits[..., 0], limits[..., 1]


def generate_hands(
    anchors: np.ndarray, count: int, rng: np.random.Generator, config: HandGeneratorConfig
) -> np.ndarray:
    """`count` poses (count, 15, 3) between, around and beyond the `anchors` (N, 15, 3)."""
    anchors = anchors.reshape(-1, 5, 9)

    def pick() -> np.ndarray:
        chosen = anchors[rng.integers(len(anchors), size=count)]
        relaxed = rng.random(count) < config.relaxed_share
        chosen[relaxed] = _relaxed(int(relaxed.sum()), rng, config)
        return chosen

    start, end, other = pick(), pick(), pick()
    together = rng.random((count, 1, 1)) < config.same_blend_share
    blend = np.where(together, rng.random((count, 1, 1)), rng.random((count, 5, 1)))
    swapped = rng.random((count, 5, 1)) < config.finger_swap
    pose = np.where(swapped, other, start + blend * (end - start)).reshape(count, 5, 3, 3)

    noise = rng.normal(size=(count, 5, 3, 3)) * np.radians(config.twist_sigma)
    noise[..., 2] = rng.normal(size=(count, 5, 3)) * np.radians(config.joint_sigma)
    noise[..., 2] += rng.normal(size=(count, 5, 1)) * np.radians(config.curl_sigma)
    noise[:, :4, 0, 1] = rng.normal(size=(count, 4)) * np.radians(config.spread_sigma)
    noise[:, 4, 0] = rng.normal(size=(count, 3)) * np.radians(config.thumb_sigma)
    low, high = joint_limits(config)
    return np.clip((pose + noise).reshape(count, 15, 3), low, high)


def _relaxed(count: int, rng: np.random.Generator, config: HandGeneratorConfig) -> np.ndarray:
    """Hands at ease (count, 5, 9): curled evenly, more towards the little finger."""
    curl = np.radians(rng.uniform(*config.relaxed_curl, size=(count, 1)))
    finger_share = np.array([0.75, 0.95, 1.15, 1.05, 0.0])  # index, middle, pinky, ring, thumb
    joint_share = np.array([0.8, 1.0, 0.6])
    pose = np.zeros((count, 5, 3, 3))
    pose[..., 2] = curl[..., None] * finger_share[None, :, None] * joint_share
    return pose.reshape(count, 5, 9)
