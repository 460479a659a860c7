"""VPoser, a variational auto-encoder of poses, and its conditional form CVPoser.

Source: Pavlakos et al., CVPR 2019; the layout of version 2 of its code, which DPoser-X retrains.
Raw axis-angle goes in, 6D rotations come out; coefficients that are no rotations (expression)
pass through both as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dposer_core import rotations
from dposer_core.baselines.store import read_published
from dposer_core.errors import CheckpointError


@dataclass(frozen=True)
class VPoserConfig:
    """Sizes; the defaults are the published network's."""

    joints: int = 21
    """Rotations; they come first in the vector."""
    extra: int = 0
    """Coefficients that follow them."""
    neurons: int = 512
    latent: int = 32
    dropout: float = 0.1
    version: int = 2
    """2: linear second encoder stage, slopes 0.01; 1: a rectifier there, slopes 0.2."""
    conditional: bool = False
    """CVPoser: encoder and decoder also see an observed pose."""

    @property
    def dim(self) -> int:
        """D of the raw vector."""
        return 3 * self.joints + self.extra


class _Gaussian(nn.Module):
    """Mean and standard deviation of the code."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.mu = nn.Linear(width, latent)
        self.logvar = nn.Linear(width, latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mu(x), nn.functional.softplus(self.logvar(x))


class VPoser(nn.Module):
    """The auto-encoder; as a prior, the length of the code that the encoder finds for a pose.

    The paper describes an optimisation of codes instead, which `decode` allows; the released
    code penalises the encoder's mean, and `loss` does so too.
    """

    def __init__(self, config: VPoserConfig) -> None:
        super().__init__()
        self.config = config
        width, slope = config.neurons, 0.01 if config.version == 2 else 0.2
        condition = config.dim if config.conditional else 0
        second = nn.Linear(width, width) if config.version == 2 else nn.LeakyReLU(slope)
        self.encoder_net = nn.Sequential(
            nn.BatchNorm1d(config.dim + condition),
            nn.Linear(config.dim + condition, width),
            nn.LeakyReLU(slope),
            nn.BatchNorm1d(width),
            nn.Dropout(config.dropout),
            nn.Linear(width, width),
            second,
            _Gaussian(width, config.latent),
        )
        self.decoder_net = nn.Sequential(
            nn.Linear(config.latent + condition, width),
            nn.LeakyReLU(slope),
            nn.Dropout(config.dropout),
            nn.Linear(width, width),
            nn.LeakyReLU(slope),
            nn.Linear(width, 6 * config.joints + config.extra),
        )

    @property
    def name(self) -> str:
        """Name in tables."""
        return 'CVPoser' if self.config.conditional else 'VPoser'

    @property
    def latent_dim(self) -> int:
        """Size of the code."""
        return self.config.latent

    def encode(self, pose: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, latent) of the codes of raw poses (B, D)."""
        return self.encoder_net(self._with_condition(pose, condition))

    def decode_parts(
        self, latent: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rotation matrices (B, J, 3, 3) and coefficients (B, extra) of codes (B, latent)."""
        out = self.decoder_net(self._with_condition(latent, condition))
        rot6d, extra = out.split([6 * self.config.joints, self.config.extra], dim=-1)
        rotmat = rotations.rot6d_to_rotmat(rot6d.reshape(len(out), -1, 6))
        return rotmat, extra

    def decode(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """Codes (B, latent) -> raw poses (B, D), differentiable."""
        rotmat, extra = self.decode_parts(latent, condition)
        rotvec = rotations.rotmat_to_rotvec(rotmat)
        return torch.cat([rotvec.reshape(len(latent), -1), extra], dim=-1)

    def loss(self, pose: Tensor) -> Tensor:
        """(B, D) raw -> scalar, mean length of the codes; CVPoser's condition is the pose."""
        condition = pose if self.config.conditional else None
        return self.encode(pose, condition)[0].norm(dim=-1).mean()

    def draw_latents(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, latent) standard normal codes."""
        return torch.randn((count, self.config.latent), generator=generator)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, D) raw; CVPoser draws with nothing observed."""
        latent = self.draw_latents(count, generator)
        if not self.config.conditional:
            return self.decode(latent)
        return self.decode(latent, torch.randn((count, self.config.dim), generator=generator))

    @torch.no_grad()
    def complete(
        self, pose: Tensor, mask: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """One completion of each pose, drawn by the conditional network.

        Args:
            pose: (B, D) raw; what `mask` hides is not looked at.
            mask: (B, D) or (D,), 1 = observed.
            generator: of the code and of the noise in the hidden places.

        Returns:
            (B, D) raw, observed entries as given.
        """
        assert self.config.conditional, 'completion needs CVPoser'
        noise = torch.randn(pose.shape, generator=generator).to(pose)
        observed = torch.where(mask > 0, pose, noise)
        latent = self.draw_latents(len(pose), generator).to(pose)
        return torch.where(mask > 0, pose, self.decode(latent, observed))

    def _with_condition(self, x: Tensor, condition: Tensor | None) -> Tensor:
        assert self.config.conditional == (condition is not None)
        return x if condition is None else torch.cat([x, condition], dim=-1)


_V1_NAMES = {
    'bodyprior_enc_bn1': 'encoder_net.0',
    'bodyprior_enc_fc1': 'encoder_net.1',
    'bodyprior_enc_bn2': 'encoder_net.3',
    'bodyprior_enc_fc2': 'encoder_net.5',
    'bodyprior_enc_mu': 'encoder_net.7.mu',
    'bodyprior_enc_logvar': 'encoder_net.7.logvar',
    'bodyprior_dec_fc1': 'decoder_net.0',
    'bodyprior_dec_fc2': 'decoder_net.3',
    'bodyprior_dec_out': 'decoder_net.5',
}
_V2_PREFIX = 'vp_model.'


def from_state_dict(weights: Mapping[str, np.ndarray], path: str = 'state dict') -> VPoser:
    """The network of a published state dict: version 1, version 2, or that of DPoser-X.

    Raises:
        CheckpointError: other layers than these versions have.
    """
    state = {_our_name(key): value for key, value in weights.items()}
    state = {key: value for key, value in state.items() if key.endswith(_KINDS)}
    try:
        inputs = len(state['encoder_net.0.weight'])
        outputs, neurons = state['decoder_net.5.weight'].shape
        latent = len(state['encoder_net.7.mu.weight'])
        conditional = state['decoder_net.0.weight'].shape[1] > latent
    except KeyError as error:
        raise CheckpointError(f'{path}: no {error} in it; not a VPoser') from error
    dim = inputs // 2 if conditional else inputs
    joints, extra = (outputs - dim) // 3, 2 * dim - outputs
    if joints < 1 or extra < 0 or 3 * joints + extra != dim:
        raise CheckpointError(
            f'{path}: {inputs} inputs and {outputs} outputs; expected axis-angle in and 6D '
            'rotations out (some early versions take matrices)'
        )
    version = 2 if 'encoder_net.6.weight' in state else 1
    network = VPoser(
        VPoserConfig(joints, extra, neurons, latent, version=version, conditional=conditional)
    )
    try:
        network.load_state_dict({key: torch.from_numpy(v) for key, v in state.items()})
    except RuntimeError as error:
        raise CheckpointError(f'{path}: {str(error).splitlines()[-1].strip()}') from error
    return network.eval()


_KINDS = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


def load_published(path: str | Path) -> VPoser:
    """A checkpoint that VPoser's authors published (version 1 .pt or version 2 .ckpt).

    Raises:
        CheckpointError: not such a file.
    """
    weights = read_published(path)
    kept = {
        key: np.array(value)
        for key, value in weights.items()
        if _our_name(key).startswith(('encoder_net', 'decoder_net'))
    }
    return from_state_dict(kept, str(path))


def _our_name(key: str) -> str:
    """The key of a published tensor in our network."""
    key = key.removeprefix('module.')
    stem, _, kind = key.rpartition('.')
    if stem in _V1_NAMES:
        return f'{_V1_NAMES[stem]}.{kind}'
    if key.startswith(f'{_V2_PREFIX}encoder_net.'):  # has a flattening layer in front
        index, _, rest = key.removeprefix(f'{_V2_PREFIX}encoder_net.').partition('.')
        return f'encoder_net.{int(index) - 1}.{rest}'
    return key.removeprefix(_V2_PREFIX)
