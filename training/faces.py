"""Synthetic faces: a low-rank model of expression coefficients coupled with the jaw.

No free recordings of faces were at hand, so everything here is invented within what faces do
(jaw opening below 32 degrees, coefficients of +-2 strong but human, a handful of components that
explain most of the motion), and the model card says so. The coefficients are those of the open
body (`dposer_core/open_body_face.py`), by name. A sample is jaw axis-angle (3, rad) followed by
the E expression coefficients.
"""

from dataclasses import dataclass, field

import numpy as np

# How much one unit of a factor adds to each coefficient, see COEFFICIENTS for their names;
# 'jaw' is the share of the jaw range per unit.
FACTORS: dict[str, dict[str, float]] = {
    'talk': {'lips wide': 0.5, 'lips apart': 0.5, 'jaw': 0.25},
    'round': {'lips wide': -0.7, 'lips apart': 0.3, 'jaw': 0.10},
    'smile': {'smile': 1.0, 'lips wide': 0.3, 'lips apart': 0.3, 'eyes shut': 0.2, 'nose': 0.2},
    'surprise': {'brows up': 0.9, 'inner brows up': 0.4, 'eyes shut': -0.5, 'jaw': 0.20},
    'frown': {'brows up': -0.8, 'nose': 0.6, 'smile': -0.4, 'eyes shut': 0.2},
    'one side': {'mouth left': 0.4, 'smile left': 0.5, 'left eye shut': 0.3},
}
COEFFICIENTS = (
    'smile',
    'lips wide',
    'lips apart',
    'brows up',
    'eyes shut',
    'inner brows up',
    'mouth left',
    'smile left',
    'left eye shut',
    'nose',
)


@dataclass(frozen=True)
class FaceGeneratorConfig:
    """Parameters of the synthetic faces."""

    coefficient_limit: float = 2.5
    own_sigma: float = 0.3  # of every coefficient for itself, beside the factors
    blink_share: float = 0.08  # of samples: eyes on their way to shut
    neutral_share: float = 0.25  # of samples: a face at rest
    neutral_scale: float = 0.2
    intensity: tuple[float, float] = field(default=(0.3, 1.3))  # of the others, uniform
    jaw_open_scale_deg: float = 4.0  # exponential distribution of the opening beside the factors
    jaw_limit_deg: float = 32.0
    jaw_side_sigma_deg: float = 1.2  # y and z


def generate_faces(
    count: int, rng: np.random.Generator, config: FaceGeneratorConfig
) -> np.ndarray:
    """`count` samples (count, 3 + E)."""
    mixing, jaw_share = _mixing()
    intensity = rng.uniform(*config.intensity, size=(count, 1))
    neutral = rng.random((count, 1)) < config.neutral_share
    intensity = np.where(neutral, config.neutral_scale, intensity)
    factors = rng.normal(size=(count, len(FACTORS))) * intensity

    expression = factors @ mixing
    expression += rng.normal(size=expression.shape) * config.own_sigma * intensity
    blink = rng.random(count) < config.blink_share
    expression[blink, COEFFICIENTS.index('eyes shut')] += rng.uniform(0.5, 2.0, size=blink.sum())
    limit = config.coefficient_limit

    opening = rng.exponential(config.jaw_open_scale_deg, size=count) * intensity[:, 0]
    opening += np.maximum(factors @ jaw_share, 0.0) * config.jaw_limit_deg
    side = rng.normal(size=(count, 2)) * config.jaw_side_sigma_deg
    side = np.clip(side, -4 * config.jaw_side_sigma_deg, 4 * config.jaw_side_sigma_deg)
    jaw = np.radians(np.column_stack([np.clip(opening, 0.0, config.jaw_limit_deg), side]))
    return np.concatenate([jaw, np.clip(expression, -limit, limit)], axis=1)


def _mixing() -> tuple[np.ndarray, np.ndarray]:
    """(factors, E) and (factors,): what FACTORS says, as arrays."""
    mixing = np.array(
        [[effects.get(name, 0.0) for name in COEFFICIENTS] for effects in FACTORS.values()]
    )
    return mixing, np.array([effects.get('jaw', 0.0) for effects in FACTORS.values()])
