"""The TF frames of a person: REP 155's links, and the SMPL-X joints where they are asked for."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import TransformStamped
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from dposer_core import skeleton
from dposer_core.state import BodyState
from dposer_core.turns import Frames
from dposer_ros import frames

_FIRST_FINGER = skeleton.LEFT_HAND_JOINTS.start
_BODY = (0, *frames.HIPS, frames.R_BODY_SMPLX.T)  # joint that moves it, its origin, rotation in it


@dataclass(frozen=True)
class _Layout:
    """Which frames there are in a mode; rows are frames, body first."""

    names: tuple[str, ...]
    num_links: int  # rows 1, 2, ... ; SMPL-X joints are the rows after them
    fixed: Frames


def _layout(mode: str) -> _Layout:
    links = () if mode == 'root' else frames.BODY_LINKS
    count = {'smplx': _FIRST_FINGER, 'smplx_hands': skeleton.NUM_JOINTS}.get(mode, 0)
    names = ['body', *(link.name for link in links)]
    parents = [-1, *(names.index(link.parent) for link in links)]
    rows = [
        _BODY, *((k.joint, k.origin[0], k.origin[-1], k.R_joint_link) for k in links),
        *((joint, joint, joint, np.eye(3)) for joint in range(count)),
    ]  # fmt: skip
    first = len(names)
    for joint in range(count):
        names.append(skeleton.JOINT_NAMES[joint])
        parents.append(0 if joint == 0 else first + int(skeleton.PARENTS[joint]))
    moved_by, *origin, turned_by = zip(*rows, strict=True)
    fixed = Frames(
        np.array(moved_by), np.array(origin).T.copy(),
        Rotation.from_matrix(np.array(turned_by)).as_quat(), np.array(parents),
    )  # fmt: skip
    return _Layout(tuple(names), len(links), fixed)


_LAYOUTS = {mode: _layout(mode) for mode in ('root', 'rep155', 'smplx', 'smplx_hands')}


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
        poses = layout.fixed.relative(state.turns, state.joints, rest_joints).tolist()
        messages = self._of(body_id, mode, header.frame_id, layout)
        for message, pose in zip(messages, poses, strict=True):
            message.header.stamp = header.stamp
            t, q = message.transform.translation, message.transform.rotation
            t.x, t.y, t.z, q.x, q.y, q.z, q.w = pose
        messages[0].header.frame_id = header.frame_id
        return messages

    def _of(
        self, body_id: str, mode: str, frame_id: str, layout: _Layout
    ) -> list[TransformStamped]:
        key = (body_id, mode)
        if key not in self._messages:
            names = [_frame(name, row, layout, body_id) for row, name in enumerate(layout.names)]
            messages = [TransformStamped(child_frame_id=name) for name in names]
            for message, parent in zip(messages, layout.fixed.parent, strict=True):
                message.header.frame_id = frame_id if parent < 0 else names[parent]
            self._messages[key] = messages
        return self._messages[key]


def _frame(name: str, row: int, layout: _Layout, body_id: str) -> str:
    if row > layout.num_links:
        return frames.joint_frame(name, body_id)
    return frames.link_frame(name, body_id)
