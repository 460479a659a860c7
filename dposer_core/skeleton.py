"""The SMPL-X layout: joint names, parents, parts and parameter slices. Sole owner of these facts.

Source: Pavlakos et al., CVPR 2019 (SMPL-X), joint order of the published model files.
"""

from dataclasses import dataclass

import numpy as np

_FINGERS = ('index', 'middle', 'pinky', 'ring', 'thumb')

JOINT_NAMES: tuple[str, ...] = (
    'pelvis', 'left_hip', 'right_hip', 'spine1', 'left_knee', 'right_knee', 'spine2',
    'left_ankle', 'right_ankle', 'spine3', 'left_foot', 'right_foot', 'neck', 'left_collar',
    'right_collar', 'head', 'left_shoulder', 'right_shoulder', 'left_elbow', 'right_elbow',
    'left_wrist', 'right_wrist', 'jaw', 'left_eye', 'right_eye',
    *(f'{s}_{finger}{i}' for s in ('left', 'right') for finger in _FINGERS for i in (1, 2, 3)),
)  # fmt: skip
NUM_JOINTS = len(JOINT_NAMES)
JOINT_INDEX: dict[str, int] = {name: index for index, name in enumerate(JOINT_NAMES)}

# Parent of every joint; -1 for the root. A parent always precedes its children.
PARENTS = np.array(
    [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15]
    + [20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38]
    + [21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53],
    dtype=np.int64,
)

# Joints of the 55-joint pose that belong to each part.
BODY_JOINTS = slice(1, 22)
JAW_JOINT = 22
EYE_JOINTS = slice(23, 25)
LEFT_HAND_JOINTS = slice(25, 40)
RIGHT_HAND_JOINTS = slice(40, 55)

NUM_BETAS = 10


@dataclass(frozen=True)
class Part:
    """A maskable part of the whole-body prior vector (PROTOCOLS: body | lhand | rhand | face)."""

    name: str
    joints: tuple[int, ...]  # SMPL-X joints whose axis-angle this part holds, in order
    mirrored: bool = False  # left hand: stored mirrored to a right hand


PARTS: tuple[Part, ...] = (
    Part('body', tuple(range(1, 22))),
    Part('lhand', tuple(range(25, 40)), mirrored=True),
    Part('rhand', tuple(range(40, 55))),
    Part('face', (JAW_JOINT,)),  # followed by the expression coefficients
)
# Joints in the order of the whole-body prior vector; the expression follows them.
PRIOR_JOINTS = np.array([joint for part in PARTS for joint in part.joints], dtype=np.int64)

# Axis-angle signs under a left-right mirror (x stays, y and z flip).
MIRROR_SIGN = np.array([1.0, -1.0, -1.0])

# MediaPipe/OpenPose hand order (wrist, thumb 1-4, index, middle, ring, pinky; tip last) as SMPL-X
# joints; -1 stands for a fingertip, which is a vertex and not a joint.
_HAND21_FINGERS = ('thumb', 'index', 'middle', 'ring', 'pinky')


def hand21_joints(side: str) -> list[int]:
    """SMPL-X joint of each of the 21 hand points of `side` ('left' | 'right'); -1 for a tip."""
    joints = [JOINT_INDEX[f'{side}_wrist']]
    for finger in _HAND21_FINGERS:
        joints += [JOINT_INDEX[f'{side}_{finger}{i}'] for i in (1, 2, 3)] + [-1]
    return joints


def is_of_hand(joint: int) -> bool:
    """Whether the joint is a wrist, or one of the fingers'."""
    return 'wrist' in JOINT_NAMES[joint] or joint >= LEFT_HAND_JOINTS.start


def mirror_joints() -> np.ndarray:
    """Permutation (55,) that swaps left and right joints."""
    swapped = [
        name.replace('left_', 'right_')
        if name.startswith('left_')
        else name.replace('right_', 'left_')
        for name in JOINT_NAMES
    ]
    return np.array([JOINT_INDEX[name] for name in swapped])


def ancestors(joint: int) -> list[int]:
    """Joints from `joint` (included) up to the root."""
    chain = []
    while joint >= 0:
        chain.append(joint)
        joint = int(PARENTS[joint])
    return chain


def _is_above() -> np.ndarray:
    matrix = np.zeros((NUM_JOINTS, NUM_JOINTS), dtype=bool)
    for joint in range(NUM_JOINTS):
        matrix[ancestors(joint), joint] = True
    return matrix


IS_ABOVE = _is_above()
"""(55, 55) bool: [a, j] whether a is an ancestor of j, or j itself."""
