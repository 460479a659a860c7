"""Names of TF frames, and the one conversion between SMPL-X axes and those of REP 103 / REP 155.

SMPL-X at rest: x to the person's left, y up, z to the front. REP 155 `body_<id>`: x to the front,
y to the left, z up, origin midway between the hips. The two differ by one constant rotation.
"""

from dataclasses import dataclass

import numpy as np

from dposer_core import skeleton
from dposer_core.rotations import multiply_quat_xyzw

# p_body = R_BODY_SMPLX @ p_smplx, for a pelvis at rest.
R_BODY_SMPLX = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_SMPLX_BODY_QUAT_XYZW = np.array([-0.5, -0.5, -0.5, 0.5])  # of its transpose

HIPS = [skeleton.JOINT_INDEX['left_hip'], skeleton.JOINT_INDEX['right_hip']]


# REP 155's arms hang at rest, SMPL-X's are stretched out: -z runs along the bone.
_LEFT_ARM = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_RIGHT_ARM = _LEFT_ARM.T


@dataclass(frozen=True)
class BodyLink:
    """A link of REP 155 and how it is fixed to the SMPL-X skeleton."""

    name: str
    parent: str
    """Link that it hangs on in TF; 'body' is the root."""
    joint: int
    """SMPL-X joint that moves it."""
    origin: tuple[int, ...]
    """Its origin is the middle of these joints at rest."""
    R_body_link: np.ndarray
    """(3, 3) orientation in the body frame, in SMPL-X's rest pose."""

    @property
    def R_joint_link(self) -> np.ndarray:
        """(3, 3) orientation in the SMPL-X joint, constant."""
        return R_BODY_SMPLX.T @ self.R_body_link

    def p_joint_link(self, rest_joints: np.ndarray) -> np.ndarray:
        """(3,) m, origin in the SMPL-X joint.

        Args:
            rest_joints: (55, 3) m, SMPL-X axes.
        """
        return rest_joints[list(self.origin)].mean(axis=0) - rest_joints[self.joint]


def _body_links() -> tuple[BodyLink, ...]:
    def link(name, parent, joint, origin=(), rotation=np.eye(3)) -> BodyLink:
        joints = [skeleton.JOINT_INDEX[j] for j in (joint, *(origin or (joint,)))]
        return BodyLink(name, parent, joints[0], tuple(joints[1:]), rotation)

    links = [
        link('waist', 'body', 'spine1'),
        link('torso', 'waist', 'spine3', ('left_shoulder', 'right_shoulder')),
        # Near the sellion, the origin of face_<id>.
        link('head', 'torso', 'head', ('left_eye', 'right_eye')),
    ]
    for short, side, arm in (('l', 'left', _LEFT_ARM), ('r', 'right', _RIGHT_ARM)):
        for above, below in (('torso', 'shoulder'), ('shoulder', 'elbow'), ('elbow', 'wrist')):
            parent = above if above == 'torso' else f'{short}_{above}'
            links.append(link(f'{short}_{below}', parent, f'{side}_{below}', rotation=arm))
        for above, below in (('body', 'hip'), ('hip', 'knee'), ('knee', 'ankle')):
            parent = above if above == 'body' else f'{short}_{above}'
            links.append(link(f'{short}_{below}', parent, f'{side}_{below}'))
    return tuple(links)


BODY_LINKS = _body_links()
"""The links of REP 155 below `body`, parents first; x to the front, z up for a standing person."""


def body_frame(body_id: str) -> str:
    """TF frame of a tracked body (REP 155)."""
    return f'body_{body_id}'


def link_frame(link: str, body_id: str) -> str:
    """TF frame of another link of a tracked body (REP 155: suffixed with its id)."""
    return f'{link}_{body_id}'


def joint_frame(joint: str, body_id: str) -> str:
    """TF frame of an SMPL-X joint; 'head' alone shares its name with a link of REP 155."""
    return link_frame('smplx_head' if joint == 'head' else joint, body_id)


def body_pose(joints: np.ndarray, root_quat_xyzw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The REP-155 body frame of a fitted body.

    Args:
        joints: (55, 3) m, in the output frame.
        root_quat_xyzw: (4,) rotation of the pelvis in the output frame.

    Returns:
        Origin (3,), and rotation from the body frame to the output frame, quaternion x, y, z, w.
    """
    rotation = multiply_quat_xyzw(root_quat_xyzw, _SMPLX_BODY_QUAT_XYZW)
    return joints[HIPS].mean(axis=0), rotation


def pelvis_in_body(rest_joints: np.ndarray) -> np.ndarray:
    """(3,) position of the pelvis joint in the body frame; constant, for the hips move with it.

    Args:
        rest_joints: (55, 3) m, SMPL-X axes.
    """
    return R_BODY_SMPLX @ (rest_joints[0] - rest_joints[HIPS].mean(axis=0))
