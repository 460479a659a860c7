"""Synthetic faces: a low-rank model of expression coefficients coupled with the jaw.

No free recordings of faces were at hand, so everything here is invented within published ranges
(jaw opening below 35 degrees; few components explain most of real facial motion), and the model
cards say so. A sample is jaw axis-angle (3, rad) followed by E expression coefficients.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FaceGeneratorConfig:
    """Parameters of the synthetic faces."""

    num_expression: int = 10
    components: int = 5  # independent factors behind the coefficients
    coefficient_limit: float = 3.0  # sigmas of the body model's expression space
    own_share: float = 0.2  # of the variance that each coefficient has for itself
    neutral_share: float = 0.25  # of samples: a face at rest
    neutral_scale: float = 0.2
    jaw_open_scale_deg: float = 7.0  # exponential distribution of the opening
    jaw_open_limit_deg: float = 32.0
    jaw_coupling: float = 1.2  # sigmas of the first factor per jaw_open_limit_deg of opening
    jaw_side_sigma_deg: float = 1.2  # y and z
    mixing_seed: int = 7


def generate_faces(
    count: int, rng: np.random.Generator, config: FaceGeneratorConfig
) -> np.ndarray:
    """`count` samples (count, 3 + E)."""
    mixing = _mixing(config)
    opening = np.minimum(
        rng.exponential(config.jaw_open_scale_deg, size=count), config.jaw_open_limit_deg
    )
    intensity = rng.uniform(0.3, 1.5, size=(count, 1))
    neutral = rng.random((count, 1)) < config.neutral_share
    intensity = np.where(neutral, config.neutral_scale, intensity)
    factors = rng.normal(size=(count, config.components))
    factors[:, 0] += config.jaw_coupling * opening / config.jaw_open_limit_deg
    own = rng.normal(size=(count, config.num_expression)) * np.sqrt(config.own_share)
    expression = intensity * (factors @ mixing + own)
    limit = config.coefficient_limit
    side = rng.normal(size=(count, 2)) * config.jaw_side_sigma_deg
    side = np.clip(side, -4 * config.jaw_side_sigma_deg, 4 * config.jaw_side_sigma_deg)
    jaw = np.radians(np.column_stack([opening, side]))
    return np.concatenate([jaw, np.clip(expression, -limit, limit)], axis=1)


def _mixing(config: FaceGeneratorConfig) -> np.ndarray:
    """(components, E): how factors move the coefficients; together they give 1 - own_share."""
    rng = np.random.default_rng(config.mixing_seed)
    weights = rng.normal(size=(config.components, config.num_expression))
    # Factors of falling importance, as measured on real faces: the first few explain most.
    weights *= 0.8 ** np.arange(config.components)[:, None]
    return weights * np.sqrt((1.0 - config.own_share) / (weights**2).sum(axis=0))
