"""Hand poses: direction IK of measured fingers, and the generator that widens 110 poses to many.

A pose is (15, 3) axis-angle, SMPL-X order index, middle, pinky, ring, thumb, right-hand form,
relative to the flat hand. For the right hand flexion is +z, spreading is y, twist is x.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from training.data.handy import read_handy
from training.hand_contacts import moved_apart, penetration_mm

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


# Hinge axes. A finger's joint bends about the axis across its bone that lies in the palm's plane,
# rolled about the bone by these angles (degrees; index, middle, pinky, ring by joint): bent
# fingers meet at the base of the thumb. Fitted to the bent fingers of the anchors.
_FINGER_ROLL = ((-4.0, 0.0, 0.0), (-4.0, 6.0, 14.0), (10.0, 24.0, 37.0), (3.0, 14.0, 19.0))
_THUMB_HINGE = (0.3, -0.95, 0.0)  # of its middle and end joint: main direction of the anchors


@dataclass(frozen=True)
class HandGeneratorConfig:
    """Parameters of the synthetic hands. Angles in degrees, lengths in millimetres.

    Each joint turns by (twist, sideways, flexion) about its bone, an axis across it and its hinge.
    Sources: ranges and the coupling of the two end joints from Lin, Wu and Huang, Modeling the
    constraints of human hand motion (2000), widened where the anchors go beyond them; fingers
    that drag their neighbours along from Haeger-Ross and Schieber (2000); curling of the whole
    hand as its main synergy from Santello, Flanders and Soechting (1998); sideways play that ends
    when the knuckle is bent, because its collateral ligaments tighten, from anatomy textbooks.
    """

    still_share: float = 0.25  # of samples: near one anchor, not between two
    same_blend_share: float = 0.5  # of the others: all fingers move from pose a to b together
    finger_swap: float = 0.2  # chance that a finger takes its pose from a third anchor
    drag: tuple[float, ...] = (
        0.1,
        0.2,
        0.2,
        0.3,
        0.0,
    )  # most of the way to the neighbours' flexion
    grasp_share: float = 0.3  # of samples: anchors replaced by an even curl of all fingers
    knuckle_curl: tuple[float, float] = (-10.0, 85.0)  # of a grasp, uniform
    middle_curl: tuple[float, float] = (0.0, 95.0)
    cascade: tuple[float, ...] = (0.85, 0.95, 1.1, 1.05)  # index, middle, pinky, ring of that curl
    fan: tuple[float, float] = (-3.0, 14.0)  # spreading of the whole hand at the outer fingers
    noise_scale: tuple[float, float] = (0.1, 1.0)  # factor on all sigmas below, drawn per hand
    hand_curl_sigma: float = 6.0  # common to all fingers
    curl_sigma: float = 8.0  # common to the three joints of a finger
    joint_sigma: float = 4.0  # flexion of each joint alone
    sideways_sigma: float = 5.0  # base joints
    thumb_sigma: float = 7.0  # thumb base, every axis; its other joints' flexion
    twist_sigma: float = 2.5  # every joint; and sideways beyond the base
    end_ratio: float = 0.67  # of the end joint's to the middle joint's flexion
    end_pull: tuple[float, float] = (0.0, 0.8)  # how far the end joint goes to that, uniform
    end_play: tuple[float, float] = (-35.0, 20.0)  # how far it may be from that
    knuckle_limits: tuple[tuple[float, float], ...] = ((-10, 10), (-28, 22), (-25, 95))
    middle_limits: tuple[tuple[float, float], ...] = ((-8, 8), (-8, 8), (-5, 112))
    end_limits: tuple[tuple[float, float], ...] = ((-8, 8), (-8, 8), (-18, 85))
    sideways_bent: float = 0.25  # share of the knuckle's sideways range left at 90 degrees
    thumb_base_limits: tuple[tuple[float, float], ...] = ((-20, 20), (-40, 45), (-45, 40))
    thumb_middle_limits: tuple[tuple[float, float], ...] = ((-12, 12), (-25, 25), (-15, 75))
    thumb_end_limits: tuple[tuple[float, float], ...] = ((-10, 10), (-15, 15), (-35, 85))
    touch: float = 2.5  # overlap of fingers or palm that soft skin allows
    apart_iterations: int = 30  # to move overlapping fingers apart
    overlap_limit: float = 4.0  # beyond it the hand is drawn anew


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


def joint_frames() -> np.ndarray:
    """(5, 3, 3, 3) rows twist, sideways and flexion axis of each joint: unit vectors."""
    frames = np.empty((5, 3, 3, 3))
    for finger, bone in enumerate(FLAT_HAND):
        for joint in range(3):
            hinge = np.array(_THUMB_HINGE if finger == 4 else (0.0, 0.0, 1.0))
            hinge = hinge - (hinge @ bone) * bone
            hinge /= np.linalg.norm(hinge)
            roll = 0.0 if finger == 4 else np.radians(_FINGER_ROLL[finger][joint])
            sideways = np.cross(bone, hinge)
            hinge = np.cos(roll) * hinge + np.sin(roll) * sideways
            frames[finger, joint] = bone, np.cross(bone, hinge), hinge
    return frames


def joint_limits(config: HandGeneratorConfig) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper limits (5, 3, 3) of (twist, sideways, flexion), rad."""
    finger = [config.knuckle_limits, config.middle_limits, config.end_limits]
    thumb = [config.thumb_base_limits, config.thumb_middle_limits, config.thumb_end_limits]
    limits = np.radians(np.array([finger] * 4 + [thumb], dtype=float))
    return limits[..., 0], limits[..., 1]


def generate_hands(
    anchors: np.ndarray, count: int, rng: np.random.Generator, config: HandGeneratorConfig
) -> np.ndarray:
    """`count` poses (count, 15, 3) between, around and beyond the `anchors` (N, 15, 3).

    Fingers that overlap are moved apart; hands in which that fails are drawn anew.
    """
    frames = joint_frames()
    anchors = np.einsum('fjki,nfji->nfjk', frames, anchors.reshape(-1, 5, 3, 3))
    found: list[np.ndarray] = []
    missing = count
    while missing:
        turns = _within_limits(
            _coupled(_drawn(anchors, missing, rng, config), rng, config), config
        )
        pose = np.einsum('fjki,nfjk->nfji', frames, turns).reshape(missing, 15, 3)
        pose = moved_apart(pose, config.touch, config.apart_iterations)
        found.append(pose[penetration_mm(pose) <= config.overlap_limit])
        missing = count - sum(map(len, found))
    return np.concatenate(found)


def _drawn(
    anchors: np.ndarray, count: int, rng: np.random.Generator, config: HandGeneratorConfig
) -> np.ndarray:
    """Turns (count, 5, 3, 3) mixed from the anchors' (N, 5, 3, 3) and grasps, with noise."""

    def pick() -> np.ndarray:
        chosen = anchors[rng.integers(len(anchors), size=count)]
        grasp = rng.random(count) < config.grasp_share
        chosen[grasp, :4] = _grasps(int(grasp.sum()), rng, config)
        return chosen

    start, end, other = pick(), pick(), pick()
    together = rng.random((count, 1, 1, 1)) < config.same_blend_share
    blend = np.where(together, rng.random((count, 1, 1, 1)), rng.random((count, 5, 1, 1)))
    swapped = rng.random((count, 5, 1, 1)) < config.finger_swap
    still = rng.random((count, 1, 1, 1)) < config.still_share
    turns = np.where(swapped, other, start + blend * (end - start))
    turns = np.where(still, start, turns)

    noise = rng.normal(size=(count, 5, 3, 3)) * config.twist_sigma
    noise[..., 2] = rng.normal(size=(count, 5, 3)) * config.joint_sigma
    noise[:, :4, :, 2] += rng.normal(size=(count, 1, 1)) * config.hand_curl_sigma
    noise[:, :4, :, 2] += rng.normal(size=(count, 4, 1)) * config.curl_sigma
    noise[:, :4, 0, 1] = rng.normal(size=(count, 4)) * config.sideways_sigma
    noise[:, 4, 0] = rng.normal(size=(count, 3)) * config.thumb_sigma
    noise[:, 4, 1:, 2] = rng.normal(size=(count, 2)) * config.thumb_sigma
    return turns + np.radians(noise) * rng.uniform(*config.noise_scale, size=(count, 1, 1, 1))


def _grasps(count: int, rng: np.random.Generator, config: HandGeneratorConfig) -> np.ndarray:
    """Turns (count, 4, 3, 3) of fingers curled evenly, more towards the little finger."""
    cascade = np.array(config.cascade)
    turns = np.zeros((count, 4, 3, 3))
    knuckle = rng.uniform(*config.knuckle_curl, size=(count, 1)) * cascade
    middle = rng.uniform(*config.middle_curl, size=(count, 1)) * cascade
    turns[..., 2] = np.stack([knuckle, middle, config.end_ratio * middle], axis=-1)
    towards_thumb = np.array([1.0, 0.2, -1.2, -0.5])  # the positive way to turn sideways
    turns[:, :, 0, 1] = rng.uniform(*config.fan, size=(count, 1)) * towards_thumb
    return np.radians(turns)


def _coupled(
    turns: np.ndarray, rng: np.random.Generator, config: HandGeneratorConfig
) -> np.ndarray:
    """Turns (N, 5, 3, 3) with fingers dragged by their neighbours, end joints by middle joints."""
    turns = turns.copy()
    order = [0, 1, 3, 2]  # index, middle, ring, pinky side by side
    flexion = turns[:, order][:, :, :2, 2]
    padded = np.concatenate([flexion[:, 1:2], flexion, flexion[:, -2:-1]], axis=1)
    neighbours = (padded[:, :-2] + padded[:, 2:]) / 2
    drag = rng.random((len(turns), 1, 1)) * np.array(config.drag)[order][:, None]
    flexion = flexion + drag * (neighbours - flexion)
    for place, finger in enumerate(order):
        turns[:, finger, :2, 2] = flexion[:, place]
    expected = config.end_ratio * turns[:, :4, 1, 2]
    pull = rng.uniform(*config.end_pull, size=(len(turns), 1))
    end = turns[:, :4, 2, 2] + pull * (expected - turns[:, :4, 2, 2])
    low, high = np.radians(config.end_play)
    turns[:, :4, 2, 2] = np.clip(end, expected + low, expected + high)
    return turns


def _within_limits(turns: np.ndarray, config: HandGeneratorConfig) -> np.ndarray:
    """Turns (N, 5, 3, 3) inside the joint limits; sideways less, the more a knuckle is bent."""
    low, high = joint_limits(config)
    turns = np.clip(turns, low, high)
    bent = np.clip(turns[:, :4, 0, 2] / np.radians(90.0), 0.0, 1.0)
    play = 1.0 - (1.0 - config.sideways_bent) * bent
    turns[:, :4, 0, 1] = np.clip(turns[:, :4, 0, 1], low[:4, 0, 1] * play, high[:4, 0, 1] * play)
    return turns
