"""The pose priors that the paper compares with: L2, GMM, VPoser, CVPoser, GAN-S, Pose-NDF, NRDF.

`load_baseline('vposer', 'body').loss(pose)` is a scalar for (B, 63) raw axis-angle.
"""

from pathlib import Path

from dposer_core.baselines.base import L2, LatentPrior, PosePrior, ProjectingPrior, SamplingPrior
from dposer_core.errors import ConfigError

__all__ = [
    'L2',
    'METHODS',
    'LatentPrior',
    'PosePrior',
    'ProjectingPrior',
    'SamplingPrior',
    'load_baseline',
]

METHODS = ('l2', 'gmm', 'vposer', 'cvposer', 'gan_s', 'posendf', 'nrdf')


def load_baseline(name: str, part: str = 'body', path: str | Path | None = None) -> PosePrior:
    """A competitor, ready for evaluation (no dropout, parameters without gradient).

    Args:
        name: one of METHODS.
        part: 'body', 'hand', 'face' or 'wholebody'.
        path: a file of this project or one its authors published; default: the shipped file.

    Raises:
        ConfigError: unknown method, or no file is shipped for this part.
        CheckpointError: the file is missing, damaged, or of another method or part.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown baseline '{name}'; known: {', '.join(METHODS)}")
    if name == 'l2':
        return L2()
    raise ConfigError(f"no weights of '{name}' for the part '{part}' are shipped; give their path")
