"""What Pose-NDF and NRDF share: a network from joint quaternions to the distance of a pose.

Sources: Tiwari et al., ECCV 2022 (Pose-NDF); He et al., CVPR 2024 (NRDF). Both encode the joints
along the kinematic tree, each from its quaternion and its parent's feature, and regress one
number, the distance to the nearest poses of the training data.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dposer_core import rotations, skeleton

_FEATURE = 6  # values that describe a joint
_QUATERNION = 4


def kinematic_parents(part: str) -> tuple[int, ...]:
    """Parent of each joint within the part ('body' or 'hand'), -1 where it is outside."""
    joints = {'body': skeleton.BODY_JOINTS, 'hand': skeleton.RIGHT_HAND_JOINTS}[part]
    parents = skeleton.PARENTS[joints] - joints.start
    return tuple(int(max(parent, -1)) for parent in parents)


def quat_wxyz(pose: Tensor) -> Tensor:
    """(B, 3 J) raw -> (B, J, 4) unit quaternions, scalar first and not negative."""
    quat = rotations.rotvec_to_quat_xyzw(pose.reshape(len(pose), -1, 3))
    return upper_half(quat.roll(1, dims=-1))


def rotvec_of(quat_wxyz: Tensor) -> Tensor:
    """(B, J, 4) -> (B, 3 J) raw."""
    return rotations.quat_xyzw_to_rotvec(quat_wxyz.roll(-1, dims=-1)).flatten(1)


def upper_half(quat_wxyz: Tensor) -> Tensor:
    """The same rotations with scalar part >= 0."""
    return torch.where(quat_wxyz[..., :1] < 0, -quat_wxyz, quat_wxyz)


@dataclass(frozen=True)
class DistanceFieldConfig:
    """Sizes and conventions; the defaults are the published networks' sizes."""

    parents: tuple[int, ...]
    """Parent of each joint, -1 for none."""
    widths: tuple[int, ...] = (256, 512, 1024, 512, 256, 64)
    over_joints: bool = False
    """Normalise each quaternion component over the joints first, as Pose-NDF's code does."""


class _Bone(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        hidden = _QUATERNION + _FEATURE
        self.net = nn.Sequential(
            nn.Linear(inputs, hidden),
            _activation(),
            nn.Linear(hidden, _FEATURE),
            _activation(),
        )


def _activation() -> nn.Module:
    return nn.Softplus(beta=100)  # nearly a rectifier, but smooth


class DistanceField(nn.Module):
    """Distance of poses to the training data, >= 0."""

    def __init__(self, config: DistanceFieldConfig) -> None:
        super().__init__()
        self.config = config
        self.enc = nn.Module()
        self.enc.net = nn.ModuleList(
            _Bone(_QUATERNION + (_FEATURE if parent >= 0 else 0)) for parent in config.parents
        )
        self.dfnet = nn.Module()
        sizes = [_FEATURE * len(config.parents), *config.widths, 1]
        for i in range(len(sizes) - 1):
            self.dfnet.add_module(f'lin{i}', nn.Linear(sizes[i], sizes[i + 1]))
        self.activation = _activation()

    def encode(self, quat: Tensor) -> Tensor:
        """(B, J, 4) -> (B, 6 J) features along the tree."""
        if self.config.over_joints:
            quat = nn.functional.normalize(quat, dim=1)
        features: list[Tensor] = []
        for joint, (parent, bone) in enumerate(
            zip(self.config.parents, self.enc.net, strict=True)
        ):
            own = quat[:, joint]
            features.append(
                bone.net(own if parent < 0 else torch.cat([own, features[parent]], dim=-1))
            )
        return torch.cat(features, dim=-1)

    def forward(self, quat: Tensor) -> Tensor:
        """(B, J, 4) quaternions, scalar first and not negative -> (B,)."""
        x = self.encode(quat)
        layers = list(self.dfnet.children())
        for layer in layers[:-1]:
            x = self.activation(layer(x))
        return self.activation(layers[-1](x))[:, 0]

    def distance(self, pose: Tensor) -> Tensor:
        """(B, 3 J) raw -> (B,), differentiable."""
        return self(quat_wxyz(pose))

    def distance_and_gradient(self, quat: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (B,) and their gradients (B, J, 4), without a graph."""
        quat = quat.detach().requires_grad_()
        with torch.enable_grad():
            distance = self(quat)
            (gradient,) = torch.autograd.grad(distance.sum(), quat)
        return distance.detach(), gradient
