"""Converter from source skeletons to SMPL-X rotations. Sole owner of the alignments between them.

SMPL-X rests in a T-pose, y up, facing +z, all joint frames parallel to the world. For each SMPL-X
joint j: W_j = G_bone(j) A_j, where G is the source bone's rotation from its rest to the world and
A_j a constant that carries the SMPL-X rest direction of the *limb* to the source's. One alignment
per limb (hip to ankle, shoulder to wrist) instead of one per bone: bone directions then differ by
up to 10 degrees from the source, but the local rotations look like those of real SMPL-X data (no
false knee roll). Local rotations are W_parent^T W_child.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from dposer_core import skeleton
from dposer_core.skeleton import JOINT_INDEX
from training.data.motion import SmplxMotion, SourceMotion

FPS = 30.0  # of every retargeted clip

# Rest directions of SMPL-X limbs, left side (right: x negated).
_LEG = np.array([np.sin(np.radians(2.0)), -np.cos(np.radians(2.0)), 0.0])
_ARM = np.array([1.0, 0.0, 0.0])
_FLIP_X = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Corrections:
    """Anatomical corrections of what marker-based sources model badly."""

    collar_share: float = 0.27
    """Share of the arm's swing that the collar takes: the sources' clavicles do not move."""
    elbow_hinge: float = np.radians(17.0)
    """Turn of the elbow axis about the upper arm, rad: the sources' hinge lies lower than ours."""
    knee_flexion: float = np.radians(8.0)
    """Largest constant flexion removed from the knees, rad: in some subjects standing legs show
    8 degrees of it, in others none, so never more than leaves the straightest moment straight."""
    wrist_limit: float = np.radians(70.0)
    """Largest wrist swing, rad."""
    wrist_bias_share: float = 1.0
    """Share of a clip's mean wrist bend that is removed: one subject walks with wrists bent by 30
    degrees throughout, which is where the markers sat and not how people walk."""
    elbow_twist_share: float = 0.0
    """Share of the forearm's pronation given to the elbow. The sources put all of it, with a
    spread of 50 degrees, into the wrist; by default it is dropped."""
    wrist_twist_share: float = 0.0
    """Share of the forearm's pronation given to the wrist."""
    spine_shares: tuple[float, float] = (0.45, 0.35)
    """Shares of the rotation from pelvis to chest for spine1 and spine2; spine3 has the rest. How
    the sources' markers divided it differs by subject (mean lower back 31 degrees and upper back 7
    in one, 5 and -1 in another), so only pelvis, chest and head are taken from them."""
    neck_share: float = 0.5
    """Share of the rotation from chest to head for the neck."""

    @staticmethod
    def random(rng: np.random.Generator) -> 'Corrections':
        """Any of the plausible anatomies: what the sources do not say, a prior must not learn."""
        first = rng.uniform(0.25, 0.55)
        return Corrections(
            collar_share=rng.uniform(0.15, 0.40),
            elbow_hinge=np.radians(rng.uniform(2.0, 32.0)),
            knee_flexion=np.radians(rng.uniform(0.0, 12.0)),
            wrist_bias_share=rng.uniform(0.3, 1.0),
            elbow_twist_share=rng.uniform(0.0, 0.4),
            wrist_twist_share=rng.uniform(0.0, 0.3),
            spine_shares=(first, (1.0 - first) * rng.uniform(0.4, 0.9)),
            neck_share=rng.uniform(0.3, 0.7),
        )


@dataclass(frozen=True)
class SourceSkeleton:
    """Which source bone drives which SMPL-X segment. `{s}` stands for the side prefix."""

    pelvis: str
    chest: str
    head: str
    leg: tuple[str, str, str]  # bones of hip, knee, ankle
    arm: tuple[str, str, str]  # bones of upper arm, forearm, hand
    pelvis_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """SMPL-X pelvis relative to the source's root, in the root's frame, metres."""
    hinge_correction: bool = True
    """Whether the elbow axis needs turning."""


ACCLAIM = SourceSkeleton(
    pelvis='root',
    chest='thorax',
    head='head',
    leg=('{s}femur', '{s}tibia', '{s}foot'),
    arm=('{s}humerus', '{s}radius', '{s}hand'),
)
DAZ = SourceSkeleton(
    pelvis='hip',
    chest='chest',
    head='head',
    leg=('{s}Thigh', '{s}Shin', '{s}Foot'),
    arm=('{s}Shldr', '{s}ForeArm', '{s}Hand'),
    pelvis_offset=(0.0, 0.10, 0.0),
)
DEEPMIMIC = SourceSkeleton(
    pelvis='root',
    chest='chest',
    head='neck',
    leg=('{s}hip', '{s}knee', '{s}ankle'),
    arm=('{s}shoulder', '{s}elbow', '{s}hand'),
    hinge_correction=False,
)
SKELETONS = {
    'cmu_asf_amc': ACCLAIM,
    'hdm05_asf_amc': ACCLAIM,
    'cmu_expmap': ACCLAIM,
    'cmu_bvh': DAZ,
    'deepmimic': DEEPMIMIC,
}


def retarget(motion: SourceMotion, corrections: Corrections | None = None) -> SmplxMotion:
    """`motion` as SMPL-X rotations at `FPS`; fingers, face and toes stay at rest."""
    corrections = corrections or Corrections()
    source = SKELETONS[motion.source]
    times = np.arange(0.0, (motion.num_frames - 1) / motion.fps + 1e-9, 1.0 / FPS)
    stamps = np.arange(motion.num_frames) / motion.fps

    bones = {
        name: Slerp(stamps, Rotation.from_matrix(motion.world_rotmat[name]))(times)
        for name in _bones_used(source)
    }
    world = _spine(bones, source, corrections)
    bias = _knee_bias(bones, source, corrections)
    for side in ('left', 'right'):
        _leg(world, bones, motion, source, side, bias)
        _arm(world, bones, motion, source, side, corrections)

    pose = np.zeros((len(times), skeleton.NUM_JOINTS, 3))
    pose[:, 0] = world['pelvis'].as_rotvec()
    for name, rotation in world.items():
        joint = JOINT_INDEX[name]
        if joint:
            parent = world[skeleton.JOINT_NAMES[skeleton.PARENTS[joint]]]
            pose[:, joint] = (parent.inv() * rotation).as_rotvec()
    root = np.stack([np.interp(times, stamps, motion.pelvis[:, i]) for i in range(3)], axis=1)
    pelvis = root + world['pelvis'].apply(np.array(source.pelvis_offset))
    return SmplxMotion(motion.name, motion.subject, motion.source, FPS, pose, pelvis)


def mirror(motion: SmplxMotion) -> SmplxMotion:
    """`motion` seen in a mirror: left and right swapped, x negated."""
    pose = motion.pose_rotvec[:, skeleton.mirror_joints()] * skeleton.MIRROR_SIGN
    return SmplxMotion(
        f'{motion.name}_mirror',
        motion.subject,
        motion.source,
        motion.fps,
        pose,
        motion.pelvis * _FLIP_X,
    )


def _bones_used(source: SourceSkeleton) -> set[str]:
    spine = {source.pelvis, source.chest, source.head}
    limbs = {bone.format(s=side) for bone in source.leg + source.arm for side in 'lr'}
    return spine | limbs


def _turn(start: np.ndarray, end: np.ndarray) -> Rotation:
    """Shortest rotation that carries direction `start` (3,) to `end` (..., 3)."""
    end = end / np.linalg.norm(end, axis=-1, keepdims=True)
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(sine, (start * end).sum(axis=-1, keepdims=True))
    return Rotation.from_rotvec(axis / np.maximum(sine, 1e-12) * angle)


def _between(start: Rotation, end: Rotation, share: float) -> Rotation:
    return start * Rotation.from_rotvec(share * (start.inv() * end).as_rotvec())


def _spine(
    bones: dict[str, Rotation], source: SourceSkeleton, corrections: Corrections
) -> dict[str, Rotation]:
    pelvis, chest, head = bones[source.pelvis], bones[source.chest], bones[source.head]
    first, second = corrections.spine_shares
    return {
        'pelvis': pelvis,
        'spine1': _between(pelvis, chest, first),
        'spine2': _between(pelvis, chest, first + second),
        'spine3': chest,
        'neck': _between(chest, head, corrections.neck_share),
        'head': head,
    }


def _knee_bias(
    bones: dict[str, Rotation], source: SourceSkeleton, corrections: Corrections
) -> float:
    """Knee flexion (rad) of the straightest 2 % of the clip, within what may be removed."""
    flexion = []
    for side in 'lr':
        thigh, shin, _ = (bones[bone.format(s=side)] for bone in source.leg)
        flexion.append((thigh.inv() * shin).as_rotvec()[:, 0])
    return float(np.clip(np.percentile(flexion, 2.0), 0.0, corrections.knee_flexion))


def _leg(
    world: dict[str, Rotation],
    bones: dict[str, Rotation],
    motion: SourceMotion,
    source: SourceSkeleton,
    side: str,
    knee_bias: float,
) -> None:
    thigh, shin, foot = (bone.format(s=side[0]) for bone in source.leg)
    limb = motion.rest_direction[thigh] + motion.rest_direction[shin]
    align = _turn(_LEG if side == 'left' else _LEG * _FLIP_X, limb)
    # Straightening: half from the thigh, half from the shin, so that the ankle stays in place.
    half = Rotation.from_rotvec([knee_bias / 2, 0.0, 0.0])
    world[f'{side}_hip'] = bones[thigh] * align * half
    world[f'{side}_knee'] = bones[shin] * align * half.inv()
    world[f'{side}_ankle'] = bones[foot] * align


def _arm(
    world: dict[str, Rotation],
    bones: dict[str, Rotation],
    motion: SourceMotion,
    source: SourceSkeleton,
    side: str,
    corrections: Corrections,
) -> None:
    upper, lower, hand = (bone.format(s=side[0]) for bone in source.arm)
    rest = _ARM if side == 'left' else _ARM * _FLIP_X
    # The DAZ rest pose draws the forearm bent by 17 degrees, yet its motions count flexion from a
    # straight arm (with the bend added no dancer ever straightens beyond 37 degrees).
    limb = motion.rest_direction[upper] + motion.rest_direction[lower]
    hinge = -corrections.elbow_hinge if source.hinge_correction else 0.0
    align = _turn(rest, limb) * Rotation.from_rotvec([hinge, 0.0, 0.0])

    chest = world['spine3']
    shoulder = bones[upper] * align
    swing = _turn(rest, (chest.inv() * shoulder).apply(rest)).as_rotvec()
    world[f'{side}_collar'] = chest * Rotation.from_rotvec(corrections.collar_share * swing)
    world[f'{side}_shoulder'] = shoulder
    elbow = bones[lower] * align
    wrist = elbow.inv() * bones[hand] * align  # pronation and bend
    swing = _turn(rest, wrist.apply(rest))
    twist = (swing.inv() * wrist).as_rotvec()  # about the forearm
    bend = swing.as_rotvec()
    bend = bend - corrections.wrist_bias_share * bend.mean(axis=0)
    angle = np.linalg.norm(bend, axis=-1, keepdims=True)
    bend = bend * np.minimum(1.0, corrections.wrist_limit / np.maximum(angle, 1e-9))
    elbow_twist = Rotation.from_rotvec(corrections.elbow_twist_share * twist)
    wrist_twist = Rotation.from_rotvec(corrections.wrist_twist_share * twist)
    # The bend stays where it was in space: it comes before the elbow's share of the twist.
    world[f'{side}_elbow'] = elbow * elbow_twist
    world[f'{side}_wrist'] = elbow * Rotation.from_rotvec(bend) * elbow_twist * wrist_twist
