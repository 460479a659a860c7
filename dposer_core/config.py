"""Every default of the live fitter and the node, with unit, range and help; and the strict loader.

The ROS parameters, `config/wholebody.yaml` and the README's table are made from these classes.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from dposer_core.errors import ConfigError


def param(
    default: Any,
    help: str,
    *,
    unit: str = '',
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """A dataclass field that carries its documentation. `live`: may change while running."""
    metadata = dict(help=help, unit=unit, low=low, high=high, choices=choices, live=live)
    return field(default=default, metadata=metadata)


# So many times `input.max_people` are tracked: each is fitted in one of so many frames at least.
TURNS = 4


@dataclass(frozen=True)
class InputConfig:
    """What arrives and what is refused."""

    type: str = param(
        'auto',
        'what comes on `keypoints`; auto: what is published there; hri_bodies: instead of it, all '
        'bodies of /humans/bodies/tracked',
        choices=(
            'auto',
            'keypoint_frame',
            'yolo',
            'yolo_3d',
            'hri',
            'hri_bodies',
            'zed',
            'openpose',
            'trt_pose',
            'jsk',
            'azure_kinect',
            'named_poses',
            'multiarray',
            'json',
        ),
    )
    layout: str = param(
        '', 'order of points of multiarray and json input; empty: from their number'
    )
    frame_id: str = param('', 'frame of messages without a header (multiarray, json)')
    beside: str = param(
        'none',
        'what comes on `keypoints_3d` beside 2D keypoints, in their frame: a hand tracker, say',
        choices=(
            'none',
            'auto',
            'keypoint_frame',
            'yolo_3d',
            'zed',
            'jsk',
            'azure_kinect',
            'named_poses',
            'multiarray',
            'json',
        ),
    )
    sync_slop: float = param(
        0.02,
        '2D and 3D keypoints stamped within this are of one instant',
        unit='s',
        low=0.0,
        high=0.2,
    )
    confidence_threshold: float = param(
        0.3, 'points below this confidence count as absent', low=0.0, high=1.0, live=True
    )
    max_age: float = param(
        0.5, 'older input is dropped and counted', unit='s', low=0.01, high=10.0, live=True
    )
    max_future: float = param(
        0.05,
        'input stamped further ahead of the clock is dropped',
        unit='s',
        low=0.0,
        high=1.0,
        live=True,
    )
    max_people: int = param(
        4,
        'people fitted per frame; up to four times as many are tracked and take turns',
        low=1,
        high=16,
        live=True,
    )


@dataclass(frozen=True)
class ModelConfig:
    """The body model."""

    path: str = param('', 'SMPL-X .npz file; empty: the open body (dposer body build)')
    person_height: float = param(
        0.0,
        'known height of the person, 0 if unknown; fixes the scale of 2D fits',
        unit='m',
        low=0.0,
        high=2.6,
    )


@dataclass(frozen=True)
class PriorConfig:
    """The diffusion prior in the live fit."""

    checkpoint: str = param(
        'mixed', 'shipped prior by name (dposer weights list), or a path to a prior file'
    )
    backend: str = param(
        'auto',
        'denoiser back end; auto: onnxruntime, else torch; the last three need an NVIDIA GPU',
        choices=('auto', 'onnxruntime', 'torch', 'cudagraph', 'tensorrt', 'tensorrt_rtx'),
    )
    weight: float = param(
        6.0,
        'precision per normalised pose dimension; 0 switches the prior off',
        low=0.0,
        high=100.0,
        live=True,
    )
    t_max: float = param(
        0.25,
        'diffusion time while tracking, and at the beginning of a cold start',
        low=0.005,
        high=0.35,
        live=True,
    )
    t_min: float = param(
        0.1, 'diffusion time at the end of a cold start', low=0.001, high=1.0, live=True
    )


@dataclass(frozen=True)
class FitConfig:
    """The sliding-window Gauss-Newton fit."""

    window: int = param(8, 'frames estimated together', unit='frames', low=3, high=64)
    relinearise: int = param(
        3,
        'newest frames relinearised at every iteration',
        unit='frames',
        low=1,
        high=64,
        live=True,
    )
    max_iterations: int = param(3, 'Gauss-Newton iterations per frame', low=1, high=50, live=True)
    cold_iterations: int = param(
        15, 'Gauss-Newton iterations of a cold start', low=1, high=200, live=True
    )
    deadline: float = param(
        0.025,
        'the fit stops iterating after this time; replay ignores it',
        unit='s',
        low=0.001,
        high=10.0,
        live=True,
    )
    sigma_px_relative: float = param(
        0.015,
        'detector noise (1 sigma) as a share of the height of the person in the image',
        low=0.0001,
        high=0.1,
        live=True,
    )
    sigma_m: float = param(
        0.01, 'noise of 3D points (1 sigma)', unit='m', low=0.0001, high=1.0, live=True
    )
    robust_scale: float = param(
        10.0,
        'Geman-McClure scale in sigmas; residuals far beyond it stop counting',
        low=0.5,
        high=1000.0,
        live=True,
    )
    acceleration_body: float = param(
        15.0,
        'expected angular acceleration of body joints (1 sigma)',
        unit='rad/s^2',
        low=0.1,
        high=1e5,
        live=True,
    )
    acceleration_hand: float = param(
        150.0,
        'expected angular acceleration of finger joints (1 sigma)',
        unit='rad/s^2',
        low=0.1,
        high=1e5,
        live=True,
    )
    acceleration_root: float = param(
        3.0,
        'expected acceleration of the pelvis (1 sigma)',
        unit='m/s^2',
        low=0.1,
        high=1e4,
        live=True,
    )
    freeze_betas_after: float = param(
        3.0, 'betas stop changing after this much evidence', unit='s', low=0.0, high=1e6, live=True
    )


@dataclass(frozen=True)
class OcclusionConfig:
    """What happens without evidence."""

    predict_timeout: float = param(
        0.5, 'silence during which motion is extrapolated', unit='s', low=0.0, high=5.0, live=True
    )
    lost_timeout: float = param(
        2.0, 'silence after which a person is lost', unit='s', low=0.1, high=60.0, live=True
    )


@dataclass(frozen=True)
class TrackConfig:
    """Which detection belongs to which person."""

    gate_distance: float = param(
        0.6,
        'largest mean joint distance of a match, as a share of the height of the person',
        low=0.05,
        high=5.0,
        live=True,
    )
    min_points: int = param(4, 'body points needed to fit', low=1, high=17, live=True)


@dataclass(frozen=True)
class Config:
    """All parameters of the node `dposer_wholebody`."""

    input: InputConfig = InputConfig()
    model: ModelConfig = ModelConfig()
    prior: PriorConfig = PriorConfig()
    fit: FitConfig = FitConfig()
    occlusion: OcclusionConfig = OcclusionConfig()
    track: TrackConfig = TrackConfig()


@dataclass(frozen=True)
class FusionConfig:
    """All parameters of the node `dposer_fusion`."""

    cameras: str = param(
        '', 'names, separated by commas; each gives <name>/keypoints and <name>/camera_info'
    )
    calibration: str = param(
        '',
        'file of where the cameras stand: Pose2Sim .toml or .yaml, Qualisys .qca.txt; empty: '
        '/tf_static, from world_frame to the frame of each camera_info',
    )
    world_frame: str = param('world', 'frame of the keypoints that are published')
    sigma_px_relative: float = param(
        FitConfig().sigma_px_relative,
        'detector noise (1 sigma) as a share of the height of the person in the image',
        low=0.0001,
        high=0.1,
    )
    max_error: float = param(
        2.0, 'mean reprojection error of cameras that agree, in sigmas', low=0.1, high=100.0
    )
    slop: float = param(
        0.02, 'pictures taken within this time are of one instant', unit='s', low=0.0, high=1.0
    )
    max_wait: float = param(
        0.05, 'a camera later than this is left out of the frame', unit='s', low=0.0, high=1.0
    )
    input: InputConfig = InputConfig()


def parameters(
    config: Any = None, prefix: str = ''
) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Every leaf of `config` as (dotted name, value, metadata)."""
    config = Config() if config is None else config
    for entry in fields(config):
        value = getattr(config, entry.name)
        if is_dataclass(value):
            yield from parameters(value, f'{prefix}{entry.name}.')
        else:
            yield f'{prefix}{entry.name}', value, entry.metadata


def from_mapping(values: Mapping[str, Any], base: Any = None) -> Any:
    """`base` (default: `Config()`) with the dotted or nested `values` put in.

    Raises:
        ConfigError: unknown key (names the nearest), wrong type, or value out of range.
    """
    base = Config() if base is None else base
    known = {name: (value, metadata) for name, value, metadata in parameters(base)}
    for name, value in _flatten(values):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise ConfigError(f"unknown parameter '{name}'; did you mean '{near[0]}'?")
        default, metadata = known[name]
        base = _replace(base, name.split('.'), checked(name, value, default, metadata))
    return base


def checked(name: str, value: Any, default: Any, metadata: Mapping[str, Any]) -> Any:
    """`value` converted to the type of `default`; raises ConfigError if it does not fit."""
    kind = type(default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(
            f"parameter '{name}' = {value!r}: expected {kind.__name__}, got {type(value).__name__}"
        )
    if metadata['choices'] and value not in metadata['choices']:
        raise ConfigError(
            f"parameter '{name}' = {value!r}: choose one of {', '.join(metadata['choices'])}"
        )
    low, high = metadata['low'], metadata['high']
    if kind in (int, float) and not (
        (low is None or value >= low) and (high is None or value <= high)  # NaN fails both
    ):
        raise ConfigError(
            f"parameter '{name}' = {value!r}: must lie in [{low}, {high}] "
            f'{metadata["unit"]}'.rstrip()
        )
    return value


def _flatten(values: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def _replace(config: Any, path: list[str], value: Any) -> Any:
    if len(path) > 1:
        value = _replace(getattr(config, path[0]), path[1:], value)
    return dataclasses.replace(config, **{path[0]: value})
