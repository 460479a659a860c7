"""The priors that the paper compares with: L2, GMM, VPoser, CVPoser, GAN-S, Pose-NDF, NRDF.

`load_baseline('vposer', 'body').loss(pose)` is a scalar for (B, 63) raw axis-angle; those of
motion, HuMoR and MVAE, take (B, T, 63), and GFPose and HuProSO3, which lift keypoints, rows of
`lifting`. The networks are in files of their own, imported when they are asked for, so that torch
is not needed before.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dposer_core.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from dposer_core.baselines.base import PosePrior
    from dposer_core.baselines.store import BaselineFile

LIFTERS = ('gfpose', 'huproso3')
"""Networks that make bodies of 2D keypoints; see `lifting`."""
MOTION_METHODS = ('humor', 'mvae')
METHODS = (
    'l2', 'gmm', 'vposer', 'cvposer', 'gan_s', 'posendf', 'nrdf', *MOTION_METHODS, *LIFTERS
)  # fmt: skip
_OURS = '.safetensors'
_COUNTER = 'num_batches_tracked'  # of batch normalisation; not stored


def load_baseline(name: str, part: str = 'body', path: str | Path | None = None) -> 'PosePrior':
    """A competitor, ready for evaluation (no dropout, parameters without gradient).

    Args:
        name: one of METHODS.
        part: 'body', 'hand', 'face' or 'wholebody'.
        path: a file of this project (.safetensors) or one that the method's authors published
            (body only); default: the shipped file.

    Raises:
        ConfigError: unknown method, or no file is shipped for this part.
        CheckpointError: the file is missing, damaged, or of another method or part.
    """
    from dposer_core.baselines import gmm, nrdf, posendf, store, vposer
    from dposer_core.baselines.base import L2

    if name not in METHODS:
        raise ConfigError(f"unknown baseline '{name}'; known: {', '.join(METHODS)}")
    if name == 'l2':
        return L2()
    if path is None:
        path = store.shipped_path(name, part)
        if not path.is_file():
            raise ConfigError(
                f"no '{name}' is shipped for the part '{part}', only {_shipped(name)}; train it "
                '(python -m training.baselines) and give its path'
            )
    if Path(path).suffix == _OURS:
        network = build(store.load_file(path, name, part))
    else:
        published = {
            'gmm': gmm.load_smplify,
            'vposer': vposer.load_published,
            'posendf': posendf.load_published,
            'nrdf': nrdf.load_published,
        }
        if name not in published or part != 'body':
            raise CheckpointError(
                f"{path}: of '{name}' for the part '{part}' only our own {_OURS} files are read"
            )
        network = published[name](path)
    return network.requires_grad_(False).eval()


def build(file: 'BaselineFile') -> Any:
    """The module that a file of ours describes.

    Raises:
        CheckpointError: its configuration or tensors do not fit the method.
    """
    import torch

    try:
        network = new_network(file.method, file.config)
        tensors = {key: torch.from_numpy(value) for key, value in file.weights.items()}
        missing, unknown = network.load_state_dict(tensors, strict=False)
        wrong = [*unknown, *(key for key in missing if not key.endswith(_COUNTER))]
        if wrong:
            raise KeyError(wrong[0])
    except (TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"the stored '{file.method}' does not fit its configuration: "
            f'{str(error).splitlines()[-1].strip()}; train it anew with this version'
        ) from error
    return network


def new_network(method: str, config: dict[str, Any]) -> Any:
    """An untrained network of a method; lists of `config` become tuples.

    Raises:
        KeyError: unknown method.
        TypeError: unknown key in `config`.
    """
    from dposer_core.baselines import (
        distance_field,
        gan_s,
        gfpose,
        gmm,
        huproso3,
        motion,
        nrdf,
        posendf,
        vposer,
    )

    config_class, network_class = {
        'gmm': (gmm.GmmConfig, gmm.Gmm),
        'vposer': (vposer.VPoserConfig, vposer.VPoser),
        'cvposer': (vposer.VPoserConfig, vposer.VPoser),
        'gan_s': (gan_s.GanSConfig, gan_s.GanS),
        'posendf': (distance_field.DistanceFieldConfig, posendf.PoseNDF),
        'nrdf': (distance_field.DistanceFieldConfig, nrdf.NRDF),
        'gfpose': (gfpose.GfPoseConfig, gfpose.GfPose),
        'huproso3': (huproso3.HuProSo3Config, huproso3.HuProSo3),
        'humor': (motion.MotionConfig, motion.MotionVae),
        'mvae': (motion.MotionConfig, motion.MotionVae),
    }[method]
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return network_class(config_class(**values))


def _shipped(name: str) -> str:
    from dposer_core.baselines import store

    files = sorted(store.BASELINE_DIR.glob(f'{name}_*{_OURS}'))
    return ', '.join(file.stem.removeprefix(f'{name}_') for file in files) or 'nothing'
