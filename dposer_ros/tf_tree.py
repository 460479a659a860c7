"""The TF frames of a person: REP 155's links, and the SMPL-X joints where they are asked for."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import TransformStamped
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from dposer_core import skeleton
from dposer_core.rotations import rotvec_to_rotmat
from dposer_core.state import BodyState
from dposer_ros import frames

_PARENTS = skeleton.PARENTS
_FIRST_FINGER = skeleton.LEFT_HAND_JOINTS.start


def _levels() -> list[tuple[np.ndarray, np.ndarray]]:
    """Joints by their distance from the root, each with its parents: a dozen products, not 54."""
    depth = np.array([len(skeleton.ancestors(joint)) for joint in range(skeleton.NUM_JOINTS)])
    joints = [np.flatnonzero(depth == d) for d in range(depth.min() + 1, depth.max() + 1)]
    return [(level, np.asarray(_PARENTS)[level]) for level in joints]


_LEVELS = _levels()
_LINK_JOINTS = np.array([link.joint for link in frames.BODY_LINKS])
_LINK_ORIGINS = np.array([(link.origin[0], link.origin[-1]) for link in frames.BODY_LINKS]).T
_LINK_ROTATIONS = np.array([link.R_joint_link for link in frames.BODY_LINKS])


@dataclass(frozen=True)
class _Layout:
    """Which frames there are in a mode; rows of the arrays are frames, body first."""

    names: tuple[str, ...]
    parents: np.ndarray  # (N,) row of the parent; -1: the frame of the state
    links: tuple[int, ...]  # indices into BODY_LINKS, rows 1, 2, ...
    joints: tuple[int, ...]  # SMPL-X joints, the rows after them


def _layout(mode: str) -> _Layout:
    links = () if mode == 'root' else tuple(range(len(frames.BODY_LINKS)))
    count = {'smplx': _FIRST_FINGER, 'smplx_hands': skeleton.NUM_JOINTS}.get(mode, 0)
    names = ['body', *(frames.BODY_LINKS[i].name for i in links)]
    parents = [-1, *(names.index(frames.BODY_LINKS[i].parent) for i in links)]
    first = len(names)
    for joint in range(count):
        names.append(skeleton.JOINT_NAMES[joint])
        parents.append(0 if joint == 0 else first + int(_PARENTS[joint]))
    return _Layout(tuple(names), np.array(parents), links, tuple(range(count)))


_LAYOUTS = {mode: _layout(mode) for mode in ('root', 'rep155', 'smplx', 'smplx_hands')}


def world_rotations(pose_rotvec: np.ndarray) -> np.ndarray:
    """(55, 3, 3) rotation of every joint in the output frame.

    Args:
        pose_rotvec: (55, 3) parent-relative rotations.
    """
    rotations = rotvec_to_rotmat(pose_rotvec)
    for joints, parents in _LEVELS:
        rotations[joints] = rotations[parents] @ rotations[joints]
    return rotations


class TfTree:
    """The transforms of people; message objects are used again, which makes them cheap."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, str], list[TransformStamped]] = {}

    def keep(self, body_ids: Collection[str]) -> None:
        """Forget the messages of everybody else."""
        for key in [key for key in self._messages if key[0] not in body_ids]:
            del self._messages[key]

    def transforms(
        self, state: BodyState, body_id: str, header: Header, mode: str, rest_joints: np.ndarray
    ) -> Sequence[TransformStamped]:
        """The frames of one person; valid until the next call for the same person.

        Args:
            state: of the person.
            body_id: of the person.
            header: stamp and frame of the state.
            mode: root, rep155, smplx or smplx_hands.
            rest_joints: (55, 3) m, of the person's shape.
        """
        layout = _LAYOUTS[mode]
        positions, rotations = _poses(state, layout, rest_joints)
        child = layout.parents >= 0
        parents = layout.parents[child]
        inverse = rotations[parents].transpose(0, 2, 1)
        offsets = (inverse @ (positions[child] - positions[parents])[:, :, None])[:, :, 0]
        positions, rotations = positions.copy(), rotations.copy()
        positions[child], rotations[child] = offsets, inverse @ rotations[child]
        messages = self._of(body_id, mode, header.frame_id, layout)
        quats = Rotation.from_matrix(rotations).as_quat().tolist()
        for message, position, quat in zip(messages, positions.tolist(), quats, strict=True):
            message.header.stamp = header.stamp
            t, q = message.transform.translation, message.transform.rotation
            t.x, t.y, t.z = position
            q.x, q.y, q.z, q.w = quat
        messages[0].header.frame_id = header.frame_id
        return messages

    def _of(
        self, body_id: str, mode: str, frame_id: str, layout: _Layout
    ) -> list[TransformStamped]:
        key = (body_id, mode)
        if key not in self._messages:
            names = [_frame(name, row, layout, body_id) for row, name in enumerate(layout.names)]
            messages = [TransformStamped(child_frame_id=name) for name in names]
            for message, parent in zip(messages, layout.parents, strict=True):
                message.header.frame_id = frame_id if parent < 0 else names[parent]
            self._messages[key] = messages
        return self._messages[key]


def _frame(name: str, row: int, layout: _Layout, body_id: str) -> str:
    if row > len(layout.links):
        return frames.joint_frame(name, body_id)
    return frames.link_frame(name, body_id)


def _poses(
    state: BodyState, layout: _Layout, rest_joints: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, 3) and rotations (N, 3, 3) of the frames in the frame of the state."""
    joints = world_rotations(state.pose_rotvec)
    body = state.joints[frames.HIPS].mean(axis=0), joints[0] @ frames.R_BODY_SMPLX.T
    links = slice(0, len(layout.links))
    moved_by = _LINK_JOINTS[links]
    turned = joints[moved_by]
    offsets = rest_joints[_LINK_ORIGINS[:, links]].mean(axis=0) - rest_joints[moved_by]
    others = list(layout.joints)
    positions = [
        body[0][None],
        state.joints[moved_by] + (turned @ offsets[:, :, None])[:, :, 0],
        state.joints[others],
    ]
    rotations = [body[1][None], turned @ _LINK_ROTATIONS[links], joints[others]]
    return np.concatenate(positions), np.concatenate(rotations)
