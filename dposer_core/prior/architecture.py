"""What a prior network looks like, as data; free of torch, so that the live node need not load it.

Owns the part dimensions, the slices of the whole-body vector, the network configurations and the
fixed tables (time features, sigma table) that every implementation of the network shares.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dposer_core import skeleton
from dposer_core.errors import CheckpointError

# Dimension of the axis-angle parts; a face has 3 (jaw) plus its expression coefficients.
BODY_DIM = 3 * len(skeleton.PARTS[0].joints)
HAND_DIM = 3 * len(skeleton.PARTS[1].joints)
JAW_DIM = 3
NUM_PARTS = len(skeleton.PARTS)  # maskable: body, lhand, rhand, face

NUM_LABELS = 1000  # continuous time t is shown to the network as label = 999 t
NUM_GROUPS = 32  # of every GroupNorm
GROUP_NORM_EPS = 1e-5
_SIGMA_MIN, _SIGMA_MAX = 0.01, 50.0


@dataclass(frozen=True)
class TimeFCConfig:
    """One TimeFC network. The default is the size of the paper's body, hand and face networks."""

    dim: int
    """Size of the input vector."""
    out_dim: int = 0
    """Size of the output vector; 0: the same as `dim`."""
    hidden: int = 1024
    """Width; a multiple of 32 because of the group normalisation."""
    embed: int = 512
    """Size of the time embedding, even."""
    blocks: int = 2
    """Residual blocks of two layers."""
    dropout: float = 0.1
    """Probability, in training only."""
    embedding: str = 'positional'
    """'positional' (every published network) or 'fourier' (an ablation)."""
    scale_by_sigma: bool = True
    """Divide the output by the sigma table (positional) or the label (fourier)."""
    gaussian_skip: bool = False
    """Predict the exact noise of Gaussian data plus alpha times the network's output, which then
    is the correction of the Wiener estimate in units of sigma: x0_hat = Wiener - sigma output.
    A net that has learned nothing is a Gaussian prior, so little data goes further. Not in the
    papers; `gaussian.*` are its statistics. Takes the place of `scale_by_sigma`."""

    def __post_init__(self) -> None:
        if self.dim < 1 or self.blocks < 0 or self.hidden % NUM_GROUPS or self.hidden < NUM_GROUPS:
            raise CheckpointError(
                f'network with dim={self.dim}, hidden={self.hidden}, blocks={self.blocks}: '
                f'hidden must be a multiple of {NUM_GROUPS}, dim and blocks positive'
            )
        if self.embed < 4 or self.embed % 2:
            raise CheckpointError(f'network with embed={self.embed}: must be even and at least 4')
        if self.embedding not in ('positional', 'fourier'):
            raise CheckpointError(
                f"time embedding '{self.embedding}' is unknown; use 'positional' or 'fourier'"
            )

    @property
    def output(self) -> int:
        """Size of the output vector."""
        return self.out_dim or self.dim

    @property
    def layers(self) -> tuple[str, ...]:
        """Key stems of the layers that see the time embedding, in order of use."""
        stems = [f'b{i}_dense{k}' for i in range(1, self.blocks + 1) for k in (1, 2)]
        return ('pre_dense', *stems)

    @staticmethod
    def from_weights(weights: Mapping[str, np.ndarray]) -> 'TimeFCConfig':
        """The configuration that the shapes of `weights` tell; dropout does not show in them."""
        try:
            hidden, dim = weights['pre_dense.weight'].shape
            output = weights['post_dense.weight'].shape[0]
            embed = weights['shared_time_embed.0.weight'].shape[0]
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f'not a TimeFC network: {error} is missing or not a matrix'
            ) from error
        return TimeFCConfig(
            dim=dim,
            out_dim=0 if output == dim else output,
            hidden=hidden,
            embed=embed,
            blocks=sum(key.startswith('b') and key.endswith('_dense1.weight') for key in weights),
            embedding='fourier' if 'gauss_proj.W' in weights else 'positional',
            gaussian_skip='gaussian.basis' in weights,
        )

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> 'TimeFCConfig':
        """The inverse of `dataclasses.asdict`; unknown keys are errors."""
        known = {field.name for field in dataclasses.fields(TimeFCConfig)}
        if unknown := sorted(set(values) - known):
            raise CheckpointError(
                f'unknown network setting {unknown[0]!r}; known: {sorted(known)}'
            )
        return TimeFCConfig(**values)


@dataclass(frozen=True)
class WholeBodyLayout:
    """The whole-body vector: body 63 | left hand 45 | right hand 45 | jaw 3 | expression E.

    The left hand is stored mirrored to a right hand (y and z of every axis-angle negated).
    """

    num_expression: int

    @property
    def dim(self) -> int:
        """Size of the vector."""
        return BODY_DIM + 2 * HAND_DIM + JAW_DIM + self.num_expression

    @property
    def body(self) -> slice:
        """21 body joints."""
        return slice(0, BODY_DIM)

    @property
    def left_hand(self) -> slice:
        """15 joints of the left hand, mirrored."""
        return slice(BODY_DIM, BODY_DIM + HAND_DIM)

    @property
    def right_hand(self) -> slice:
        """15 joints of the right hand."""
        return slice(BODY_DIM + HAND_DIM, BODY_DIM + 2 * HAND_DIM)

    @property
    def face(self) -> slice:
        """Jaw and expression."""
        return slice(BODY_DIM + 2 * HAND_DIM, self.dim)

    @property
    def parts(self) -> tuple[slice, slice, slice, slice]:
        """The four maskable parts in order."""
        return self.body, self.left_hand, self.right_hand, self.face


def gaussian_gain(variance: Any, alpha: Any, sigma: Any) -> Any:
    """Predicted noise per unit of x_t - alpha mean, along a direction of that data variance."""
    return sigma / (alpha**2 * variance + sigma**2)


def norm_stem(stem: str) -> str:
    """Key stem of the GroupNorm that follows the layer `stem`."""
    return stem.replace('dense', 'gnorm')


def sigma_table() -> np.ndarray:
    """(1000,) float32, descending from 50 to 0.01: outputs are divided by entry int(label)."""
    return np.exp(np.linspace(math.log(_SIGMA_MAX), math.log(_SIGMA_MIN), NUM_LABELS)).astype(
        np.float32
    )


def label_of(t: Any) -> Any:
    """Label shown to the network at diffusion time `t` in [0, 1]; float, array or tensor."""
    return t * (NUM_LABELS - 1)


def time_frequencies(embed: int) -> np.ndarray:
    """(embed/2,) float32 frequencies of the positional embedding, per unit of label.

    Labels reach 999, so one unit in the last place of a frequency moves the embedding by 1e-4:
    the exponent is rounded to float32 as in the official code, its exponential is then exact.
    """
    half = embed // 2
    exponent = np.arange(half, dtype=np.float32) * np.float32(-math.log(10000.0) / (half - 1))
    return np.exp(exponent.astype(np.float64)).astype(np.float32)
