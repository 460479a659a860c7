"""The noise predictors in torch: TimeFC, the whole-body combination and its fine-tuned form.

State-dict keys are those of the official checkpoints, so these load without renaming. Every
network is called as `network(x, label)` with x (B, D) normalised and label = 999 t (B,), and
returns the predicted noise (B, D).
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dposer_core.errors import CheckpointError
from dposer_core.prior.architecture import (
    GROUP_NORM_EPS,
    NUM_GROUPS,
    NUM_PARTS,
    TimeFCConfig,
    WholeBodyLayout,
    gaussian_gain,
    label_of,
    norm_stem,
    sigma_table,
    time_frequencies,
)
from dposer_core.prior.sde import SubVP

_SDE = SubVP()


class GaussianProjection(nn.Module):
    """Fourier features of the logarithm of the label, with fixed random frequencies."""

    def __init__(self, embed: int, scale: float = 16.0) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(embed // 2) * scale, requires_grad=False)

    def forward(self, label: Tensor) -> Tensor:
        """(B,) -> (B, embed)."""
        angle = torch.log(label)[:, None] * self.W[None, :] * 2 * math.pi
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class GaussianSkip(nn.Module):
    """The exact noise prediction for Gaussian data, to which a network adds its correction."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(dim))
        self.register_buffer('basis', torch.eye(dim))  # columns: principal directions
        self.register_buffer('variance', torch.ones(dim))  # along them

    def fit(self, x_0: Tensor) -> None:
        """Take mean and covariance of normalised data (N, D)."""
        variance, basis = torch.linalg.eigh(torch.cov(x_0.double().T))
        self.mean.copy_(x_0.mean(0))
        self.variance.copy_(variance.clamp(min=0.0))
        self.basis.copy_(basis)

    def forward(self, x_t: Tensor, label: Tensor, correction: Tensor) -> Tensor:
        """Predicted noise (B, D) of x_t (B, D) at label (B,) with the network's output (B, D)."""
        t = label / label_of(1.0)
        alpha, sigma = (f(t)[:, None].to(x_t.dtype) for f in (_SDE.alpha, _SDE.sigma))
        gain = gaussian_gain(self.variance, alpha, sigma)
        return ((x_t - alpha * self.mean) @ self.basis * gain) @ self.basis.T + alpha * correction


class TimeFC(nn.Module):
    """Fully connected residual network that sees the diffusion time in every layer.

    Source: PROTOCOLS 1.1, the network of the DPoser papers.
    """

    def __init__(self, config: TimeFCConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer('sigmas', torch.from_numpy(sigma_table()))
        # The order of creation is the order of the EMA list in official checkpoints.
        self._add_layer('pre_dense', config.dim, 'pre_gnorm')
        if config.embedding == 'fourier':
            self.gauss_proj = GaussianProjection(config.embed)
        else:
            frequencies = torch.from_numpy(time_frequencies(config.embed))
            self.register_buffer('frequencies', frequencies, persistent=False)
        self.shared_time_embed = nn.Sequential(nn.Linear(config.embed, config.embed), nn.SiLU())
        for stem in config.layers[1:]:
            self._add_layer(stem, config.hidden, norm_stem(stem))
        self.post_dense = nn.Linear(config.hidden, config.output)
        if config.gaussian_skip:
            self.gaussian = GaussianSkip(config.dim)
            nn.init.zeros_(self.post_dense.weight)
            nn.init.zeros_(self.post_dense.bias)

    def _add_layer(self, stem: str, width: int, norm: str) -> None:
        hidden = self.config.hidden
        self.add_module(stem, nn.Linear(width, hidden))
        self.add_module(f'{stem}_t', nn.Linear(self.config.embed, hidden))
        self.add_module(norm, nn.GroupNorm(NUM_GROUPS, hidden, eps=GROUP_NORM_EPS))

    def time_embedding(self, label: Tensor) -> Tensor:
        """(B,) -> (B, embed), before the learned linear layer."""
        if self.config.embedding == 'fourier':
            return self.gauss_proj(label)
        angle = label[:, None].float() * self.frequencies[None, :]
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def _layer(self, stem: str, h: Tensor, embedded: Tensor) -> Tensor:
        mixed = self.get_submodule(stem)(h) + self.get_submodule(f'{stem}_t')(embedded)
        h = functional.silu(self.get_submodule(norm_stem(stem))(mixed))
        return functional.dropout(h, self.config.dropout, self.training)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Predicted noise.

        Args:
            x: (B, D) normalised, noisy.
            label: (B,) 999 t, float.

        Returns:
            (B, out_dim).
        """
        embedded = self.shared_time_embed(self.time_embedding(label))
        h = self._layer('pre_dense', x, embedded)
        for i in range(1, self.config.blocks + 1):
            inner = self._layer(f'b{i}_dense1', h, embedded)
            h = h + self._layer(f'b{i}_dense2', inner, embedded)
        out = self.post_dense(h)
        if self.config.gaussian_skip:
            return self.gaussian(x, label, out)
        if not self.config.scale_by_sigma:
            return out
        scale = label if self.config.embedding == 'fourier' else self.sigmas[label.long()]
        return out / scale[:, None]


class Combiner(nn.Module):
    """DPoser-X-base: the part networks side by side, one hand network for both hands.

    Source: PROTOCOLS 1.3.
    """

    def __init__(self, body: TimeFC, hand: TimeFC, face: TimeFC) -> None:
        super().__init__()
        self.body_model = body
        self.hand_model = hand
        self.face_model = face
        self.layout = WholeBodyLayout(face.config.dim - 3)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Predicted noise (B, D) of x (B, D) at label (B,)."""
        body, left, right, face = (x[:, part] for part in self.layout.parts)
        hands = self.hand_model(torch.cat([left, right]), torch.cat([label, label]))
        return torch.cat(
            [self.body_model(body, label), *hands.chunk(2), self.face_model(face, label)], -1
        )


class WholeBody(nn.Module):
    """DPoser-X-fused and -mixed: a frozen base plus a learned correction that sees all parts.

    Source: PROTOCOLS 1.3. The correction reads the first linear layer of each part network, as
    the official code does (the paper speaks of last-layer features).
    """

    def __init__(self, base: Combiner, correction: TimeFCConfig) -> None:
        super().__init__()
        self.base_model = base.requires_grad_(False)
        self.mask_fc = TimeFC(correction)
        dim = base.layout.dim
        self.output_linear = nn.Linear(dim, dim)
        nn.init.zeros_(self.output_linear.weight)
        nn.init.zeros_(self.output_linear.bias)
        self.zero_linear = self.output_linear  # official checkpoints hold it under both names

    def forward(self, x: Tensor, label: Tensor, mask: Tensor | None = None) -> Tensor:
        """Predicted noise.

        Args:
            x: (B, D) normalised, noisy.
            label: (B,) 999 t.
            mask: (B, 4) body, left hand, right hand, face; 1 or True: visible. A masked part
                enters as zero, the mean of the normalised data. None: all visible.
        """
        base = self.base_model
        parts = [x[:, part] for part in base.layout.parts]
        if mask is not None:
            parts = [part * mask[:, i : i + 1] for i, part in enumerate(parts)]
        hand = base.hand_model.pre_dense
        first = (base.body_model.pre_dense, hand, hand, base.face_model.pre_dense)
        hidden = torch.cat([layer(part) for layer, part in zip(first, parts, strict=True)], -1)
        return base(torch.cat(parts, -1), label) + self.output_linear(self.mask_fc(hidden, label))


class FullFace(nn.Module):
    """Jaw and expression (103) beside face shape (100): two independent networks."""

    def __init__(self, pose: TimeFC, shape: TimeFC) -> None:
        super().__init__()
        self.pose_model = pose
        self.shape_model = shape

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Predicted noise (B, D) of x (B, D) at label (B,)."""
        split = self.pose_model.config.dim
        return torch.cat(
            [self.pose_model(x[:, :split], label), self.shape_model(x[:, split:], label)], -1
        )


def correction_config(
    base: Combiner, hidden: int = 512, embed: int = 256, blocks: int = 2
) -> TimeFCConfig:
    """Configuration of the correction network for `base`; the defaults are the paper's."""
    parts = (base.body_model, base.hand_model, base.hand_model, base.face_model)
    assert len(parts) == NUM_PARTS
    width = sum(part.config.hidden for part in parts)
    return TimeFCConfig(
        dim=width, out_dim=base.layout.dim, hidden=hidden, embed=embed, blocks=blocks
    )


def from_weights(
    weights: Mapping[str, np.ndarray], dropout: float = 0.1, scale_by_sigma: bool = True
) -> nn.Module:
    """The network that `weights` belong to, in eval mode, told by their keys and shapes.

    Args:
        weights: tensors under the keys of PROTOCOLS 1.2/1.3 (`load_official_weights`, or
            `PriorCheckpoint.weights`); the constant `sigmas` may be absent.
        dropout: used in training only; it does not show in the weights.
        scale_by_sigma: as the configuration of the part networks says; does not show either.
    """

    def part(prefix: str) -> TimeFC:
        config = TimeFCConfig.from_weights(_with_prefix(weights, prefix))
        return TimeFC(dataclasses.replace(config, dropout=dropout, scale_by_sigma=scale_by_sigma))

    def combiner(prefix: str) -> Combiner:
        return Combiner(*(part(f'{prefix}{name}_model.') for name in ('body', 'hand', 'face')))

    if 'mask_fc.pre_dense.weight' in weights:
        correction = TimeFCConfig.from_weights(_with_prefix(weights, 'mask_fc.'))
        network = WholeBody(
            combiner('base_model.'), dataclasses.replace(correction, dropout=dropout)
        )
    elif 'body_model.pre_dense.weight' in weights:
        network = combiner('')
    elif 'pose_model.pre_dense.weight' in weights:
        network = FullFace(part('pose_model.'), part('shape_model.'))
    else:
        network = part('')
    state = network.state_dict()
    state |= {key: torch.from_numpy(np.asarray(value)) for key, value in weights.items()}
    missing = [key for key in state if key not in weights and not key.endswith('sigmas')]
    if missing:
        raise CheckpointError(
            f'{missing[0]} is missing among {len(weights)} tensors; the file is incomplete'
        )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f'tensors do not fit the network: {error}') from error
    return network.eval()


def _with_prefix(weights: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}
