"""Joints and vertices of a body or hand as torch functions of its pose, fast enough to optimise.

A part is cut out of a body: rest joints of the mean shape, root upright at the origin, everything
outside the part unposed. Whole levels of the tree are turned at once.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dposer_core import rotations, skeleton
from dposer_core.body_model import VERTEX_IDS, Body, landmark_joints
from dposer_core.keypoints import POINT_INDEX, get_layout

WHOLE_BODY_CHAIN: tuple[int, ...] = (0, *(int(joint) for joint in skeleton.PRIOR_JOINTS))
"""Joints of a whole body: the root, then as in the prior's vector; the eyes rest."""
_NUM_BODY = skeleton.BODY_JOINTS.stop
_TIPS = ('thumb', 'index', 'middle', 'ring', 'pinky')


class Chain:
    """Forward kinematics of a tree of joints, whole levels at once."""

    def __init__(self, parents: Sequence[int]) -> None:
        """`parents`: (J,) places in the chain, parents before children; the first is ignored."""
        self.parents = torch.tensor([0, *parents[1:]])
        depth = [0]
        for parent in parents[1:]:
            depth.append(depth[parent] + 1)
        self._levels = [
            [i for i, d in enumerate(depth) if d == level] for level in range(1, max(depth) + 1)
        ]
        # Levels one after another, then back to the order of the chain.
        listed = [0, *(i for level in self._levels for i in level)]
        self._order = torch.tensor(np.argsort(listed))
        self._row = {joint: row for row, joint in enumerate(listed)}

    def __call__(self, local: Tensor, root: Tensor, bones: Tensor) -> tuple[Tensor, Tensor]:
        """World rotations (B, J, 3, 3) and places (B, J, 3) of the joints.

        Args:
            local: (B, J - 1, 3, 3) rotations of all joints but the first, which does not turn.
            root: (B or 1, 1, 3) place of the first joint.
            bones: (B or 1, J, 3) from each joint's parent to it, at rest.
        """
        turned = [torch.eye(3).expand(len(local), 1, 3, 3)]
        placed = [root.expand(len(local), 1, 3)]
        for level in self._levels:
            parents = [self._row[int(self.parents[i])] for i in level]
            above = torch.cat(turned, dim=1)[:, parents]
            origin = torch.cat(placed, dim=1)[:, parents]
            turned.append(above @ local[:, [i - 1 for i in level]])
            placed.append(origin + (above @ bones[:, level, :, None])[..., 0])
        return torch.cat(turned, dim=1)[:, self._order], torch.cat(placed, dim=1)[:, self._order]


class PosedPart:
    """The chain of some joints, of which all but the first are posed."""

    def __init__(self, body: Body, joints: Sequence[int]) -> None:
        """`joints`: SMPL-X joints, parents first; the first is the root and does not turn."""
        self.joints = list(joints)
        place = {joint: index for index, joint in enumerate(self.joints)}
        rest = np.asarray(body.tables.joint_template, dtype=np.float32)
        self._rest = torch.from_numpy(rest[self.joints])
        parents = [place[int(skeleton.PARENTS[joint])] for joint in self.joints[1:]]
        self._chain = Chain([0, *parents])
        self._bones = self._rest - self._rest[self._chain.parents]

    def transforms(self, pose: Tensor, rest: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """World rotations (B, J, 3, 3) and joints (B, J, 3) of poses (B, 3 (J - 1)) raw.

        `rest`: (B, J, 3) rest joints of other shapes; None: the mean shape.
        """
        return self.place(rotations.rotvec_to_rotmat(pose.reshape(len(pose), -1, 3)), rest)

    def place(self, local: Tensor, rest: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `transforms`, of rotation matrices (B, J - 1, 3, 3)."""
        if rest is None:
            return self._chain(local, self._rest[None, :1], self._bones[None])
        return self._chain(local, rest[:, :1], rest - rest[:, self._chain.parents])


class PartVertices:
    """Skinned vertices that follow a part; its joints' descendants move with them."""

    def __init__(self, body: Body, part: PosedPart, vertices: np.ndarray) -> None:
        """`vertices`: (V,) indices. Pose correctives are left out (the open body has none)."""
        place = {joint: index for index, joint in enumerate(part.joints)}
        weights = np.zeros((len(vertices), len(part.joints)), dtype=np.float32)
        for joint in range(skeleton.NUM_JOINTS):
            nearest = next((a for a in skeleton.ancestors(joint) if a in place), part.joints[0])
            weights[:, place[nearest]] += body.weights[vertices, joint]
        template = np.asarray(body.v_template[vertices], dtype=np.float32)
        self._weights = torch.from_numpy(weights)
        self._template = torch.from_numpy(template)
        self._rest = part._rest

    def __call__(self, turned: Tensor, joints: Tensor) -> Tensor:
        """(B, V, 3) of the result of `PosedPart.transforms`."""
        offset = joints - (turned @ self._rest[..., None])[..., 0]
        moved = torch.cat([turned, offset[..., None]], dim=-1).flatten(2)  # (B, J, 12)
        blended = (self._weights @ moved).reshape(len(turned), -1, 3, 4)
        return (blended[..., :3] * self._template[:, None]).sum(-1) + blended[..., 3]


class BodyPoints:
    """Joints of a body, the first 22 unless others are given, and vertices where wanted."""

    def __init__(
        self,
        body: Body,
        vertices: np.ndarray | None = None,
        joints: Sequence[int] = range(_NUM_BODY),
    ) -> None:
        """`vertices`: (V,) indices that `forward` gives; None: all."""
        self.part = PosedPart(body, joints)
        chosen = np.arange(len(body.v_template)) if vertices is None else vertices
        self._vertices = PartVertices(body, self.part, chosen)

    def joints(self, pose: Tensor) -> Tensor:
        """(B, 3 (J - 1)) raw -> (B, J, 3) metres."""
        return self.part.transforms(pose)[1]

    def forward(self, pose: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3 (J - 1)) raw -> joints (B, J, 3) and vertices (B, V, 3), metres."""
        turned, joints = self.part.transforms(pose)
        return joints, self._vertices(turned, joints)


class KeypointBody:
    """A body, or a part of one, of any shape and expression as a keypoint detector sees it.

    Everything is relative to the first joint of the chain. Neck and middle of the hips are the
    joints `neck` and `pelvis`, as the released code of DPoser takes them. What hangs on the chain
    without being part of it (by default hands, jaw and eyes) rests.
    """

    def __init__(
        self,
        body: Body,
        points: Sequence[str] = get_layout('openpose25').names,
        joints: Sequence[int] = range(_NUM_BODY),
    ) -> None:
        """`points`: names of a layout. `joints`: SMPL-X joints, parents first, root first."""
        tables = body.tables
        self.part = PosedPart(body, joints)
        chain = self.part.joints
        self._joints = _float32(tables.joint_template[chain])
        self._joint_dirs = _float32(tables.joint_dirs[chain])
        place = {joint: index for index, joint in enumerate(chain)}
        on_joint = landmark_joints()
        ids = [POINT_INDEX.get(name, -1) for name in points]
        surface = [n for n in ids if n >= 0 and n not in on_joint]
        carrier = np.array(
            [
                next((place[a] for a in skeleton.ancestors(joint) if a in place), 0)
                for joint in range(skeleton.NUM_JOINTS)
            ]
        )
        self._bones = torch.from_numpy(carrier[tables.point_bones[surface]])
        self._weights = _float32(tables.point_weights[surface])
        self._template = _float32(tables.point_template[surface])
        self._dirs = _float32(tables.point_dirs[surface])
        row = {n: len(chain) + i for i, n in enumerate(surface)}
        known = {'mid_hip': 'pelvis'}
        self._order = [
            row[n]
            if n in row
            else place[on_joint[n] if n >= 0 else skeleton.JOINT_INDEX[known.get(name, name)]]
            for n, name in zip(ids, points, strict=True)
        ]

    def __call__(
        self, orient: Tensor, pose: Tensor, betas: Tensor, expression: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Joints (B, J, 3) of the chain and points (B, P, 3).

        Args:
            orient: (B, 3) rotation of the root, rad.
            pose: (B, 3 (J - 1)) raw.
            betas: (B, 10).
            expression: (B, E); None: a still face.

        Returns:
            Metres, in the axes into which `orient` turns the body. Pose correctives are left out
            (the open body has none).
        """
        shape = betas if expression is None else torch.cat([betas, expression], dim=-1)
        size = shape.shape[-1]
        rest = self._joints + torch.einsum('jic,bc->bji', self._joint_dirs[..., :size], shape)
        turned, joints = self.part.transforms(pose, rest)
        on_bone = self._template + torch.einsum('nkic,bc->bnki', self._dirs[..., :size], shape)
        on_bone = on_bone - rest[:, self._bones]
        moved = (turned[:, self._bones] @ on_bone[..., None])[..., 0] + joints[:, self._bones]
        surface = (self._weights[..., None] * moved).sum(dim=2)
        everything = torch.cat([joints, surface], dim=1) - rest[:, :1]
        seen = everything @ rotations.rotvec_to_rotmat(orient).transpose(1, 2)
        return seen[:, : len(self.part.joints)], seen[:, self._order]


def _float32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


class HandPoints:
    """A right hand by itself: 16 joints, 21 points (wrist, thumb to little finger), vertices.

    Finger tips are single vertices and move with the last joint of their finger.
    """

    def __init__(self, body: Body) -> None:
        wrist = skeleton.JOINT_INDEX['right_wrist']
        fingers = skeleton.RIGHT_HAND_JOINTS
        hand = [wrist, *range(fingers.start, fingers.stop)]
        self.part = PosedPart(body, hand)
        rest = np.asarray(body.tables.joint_template, dtype=np.float32)
        ends = [skeleton.JOINT_INDEX[f'right_{finger}3'] for finger in _TIPS]
        tips = body.v_template[[VERTEX_IDS[f'right_{finger}_tip'] for finger in _TIPS]]
        self._ends = [hand.index(end) for end in ends]
        self._tips = torch.from_numpy(np.asarray(tips, np.float32) - rest[ends])
        listed = skeleton.hand21_joints('right')
        tip = iter(range(len(hand), len(hand) + len(_TIPS)))
        self._order = [next(tip) if joint < 0 else hand.index(joint) for joint in listed]
        owner = body.weights.argmax(axis=1)
        self.vertex_ids = np.flatnonzero(np.isin(owner, hand))
        """(V,) of the body's vertices, those of the hand."""
        self._vertices = PartVertices(body, self.part, self.vertex_ids)

    def joints(self, pose: Tensor) -> Tensor:
        """(B, 45) raw right hand -> (B, 16, 3) metres."""
        return self.part.transforms(pose)[1]

    def points(self, pose: Tensor) -> Tensor:
        """(B, 45) raw right hand -> (B, 21, 3) metres."""
        turned, joints = self.part.transforms(pose)
        reach = (turned[:, self._ends] @ self._tips[..., None])[..., 0]
        return torch.cat([joints, joints[:, self._ends] + reach], dim=1)[:, self._order]

    def vertices(self, pose: Tensor) -> Tensor:
        """(B, 45) raw right hand -> (B, V, 3) of the hand's own vertices, metres."""
        return self._vertices(*self.part.transforms(pose))
