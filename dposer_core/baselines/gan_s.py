"""GAN-S, a generator of poses whose codes lie on a sphere (Davydov et al., CVPR 2022)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dposer_core import rotations

_SLOPE = 0.2  # of every leaky rectifier


@dataclass(frozen=True)
class GanSConfig:
    """Sizes; the defaults are the published generator's."""

    joints: int = 21
    neurons: int = 512
    latent: int = 32
    dropout: float = 0.1
    features: int = 32
    """Of a joint, in the discriminators."""
    all_neurons: int = 64
    """Of the discriminator that sees all joints."""


class Generator(nn.Module):
    """Codes -> 6D rotations -> matrices."""

    def __init__(self, config: GanSConfig) -> None:
        super().__init__()
        self.bodyprior_dec_fc1 = nn.Linear(config.latent, config.neurons)
        self.bodyprior_dec_fc2 = nn.Linear(config.neurons, config.neurons)
        self.bodyprior_dec_out = nn.Linear(config.neurons, 6 * config.joints)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, latent: Tensor) -> Tensor:
        """(B, latent) -> (B, J, 3, 3)."""
        act = nn.functional.leaky_relu
        h = self.dropout(act(self.bodyprior_dec_fc1(latent), _SLOPE))
        h = act(self.bodyprior_dec_fc2(h), _SLOPE)
        return rotations.rot6d_to_rotmat(self.bodyprior_dec_out(h).reshape(len(h), -1, 6))


class Discriminator(nn.Module):
    """One verdict per joint and one on all joints; the layers before are shared."""

    def __init__(self, config: GanSConfig) -> None:
        super().__init__()
        width = config.features
        self.comm_conv = nn.Sequential(
            nn.Conv2d(9, width, 1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(width, width, 1),
            nn.LeakyReLU(_SLOPE),
        )
        self.disc_poseeach = nn.Module()
        self.disc_poseeach.fc_layer = nn.ModuleList(
            nn.Linear(width, 1) for _ in range(config.joints)
        )
        self.disc_poseall = nn.Module()
        self.disc_poseall.fc_all_pose = nn.Sequential(
            nn.Linear(width * config.joints, config.all_neurons),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(config.all_neurons, config.all_neurons),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(config.all_neurons, 1),
        )

    def forward(self, rotmat: Tensor) -> tuple[Tensor, Tensor]:
        """(B, J, 3, 3) -> verdicts (B, J) and (B, 1); 1 is real, 0 is generated."""
        features = rotmat.flatten(2)  # (B, J, 9)
        for layer in self.comm_conv:  # convolutions of width 1: linear in each joint
            if isinstance(layer, nn.Conv2d):
                features = nn.functional.linear(features, layer.weight.flatten(1), layer.bias)
            else:
                features = layer(features)
        heads = self.disc_poseeach.fc_layer
        weight = torch.cat([head.weight for head in heads])  # (J, F)
        each = (features * weight).sum(dim=-1) + torch.cat([head.bias for head in heads])
        return each, self.disc_poseall.fc_all_pose(features.mT.flatten(1))


class GanS(nn.Module):
    """The generator, and the discriminators as a cost of poses.

    The paper decodes codes and has no prior term. `loss` is the generator's side of the
    adversarial loss, (verdict - 1)^2, for tasks that optimise poses; it is not in the paper.
    """

    name = 'GAN-S'

    def __init__(self, config: GanSConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)

    @property
    def latent_dim(self) -> int:
        """Size of the code."""
        return self.config.latent

    def draw_latents(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, latent), uniform on the unit sphere."""
        noise = torch.randn((count, self.config.latent), generator=generator)
        return nn.functional.normalize(noise, dim=-1)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent) -> (B, D) raw, differentiable."""
        return rotations.rotmat_to_rotvec(self.generator(latent)).flatten(1)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, D) raw."""
        return self.decode(self.draw_latents(count, generator))

    def loss(self, pose: Tensor) -> Tensor:
        """(B, D) raw -> scalar."""
        rotmat = rotations.rotvec_to_rotmat(pose.reshape(len(pose), -1, 3))
        each, whole = self.discriminator(rotmat)
        return (each - 1).square().mean() + (whole - 1).square().mean()

    def invert(
        self,
        pose: Tensor,
        misfit: Callable[[Tensor, Tensor], Tensor] | None = None,
        steps: int = 1000,
        learning_rate: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Codes whose poses come nearest to the given ones.

        Args:
            pose: (B, D) raw.
            misfit: (pose, decoded) -> scalar; None: mean squared difference of the rotation
                matrices. The authors' is ten times the vertices' squared error plus the joints'.
            steps: of Adam.
            learning_rate: of Adam; 0.5 and 1000 steps are the authors' for codes.
            generator: of the codes it starts from.

        Returns:
            (B, latent), without gradient.
        """
        start = torch.randn((len(pose), self.config.latent), generator=generator)
        latent = start.to(pose).requires_grad_()
        rotmat = rotations.rotvec_to_rotmat(pose.detach().reshape(len(pose), -1, 3))
        optimizer = torch.optim.Adam([latent], lr=learning_rate)
        for _ in range(steps):
            if misfit is None:
                cost = (self.generator(latent) - rotmat).square().mean()
            else:
                cost = misfit(pose.detach(), self.decode(latent))
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        return latent.detach()
