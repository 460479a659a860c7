"""Loads what the live fit needs, and warms it up: afterwards no frame compiles or reads a file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from dposer_core.config import Config
from dposer_core.observation import Observation
from dposer_core.state import FitResult
from dposer_ros.conversions import ModelInfo

_WARM_UP_FRAMES = 10
_FALLBACK_FRAMES = 3  # enough for every function to be called
_WARM_UP_PERIOD_NS = 33_000_000


class Fitter(Protocol):
    """What the node asks of a fitter; `dposer_core.people.PeopleFitter` is the real one."""

    def step(
        self,
        stamp_ns: int,
        observations: list[Observation],
        budget_s: float | None = None,
        foremost: str = '',
    ) -> list[FitResult]:
        """Fit one frame; `foremost` is the body id of who never waits for a turn."""
        ...

    def predict(self, stamp_ns: int) -> list[FitResult]:
        """Everybody at a time without a frame."""
        ...

    def reset(self) -> None:
        """Forget everybody."""
        ...

    def configure(self, config: Config) -> None:
        """Use other live parameters from now on."""
        ...

    def forget(self, body_id: str) -> None:
        """Forget one person."""
        ...

    def fix_shape(self, body_id: str, betas: np.ndarray) -> None:
        """Keep these betas (10,) of a person."""
        ...

    def calibrate_shape(self, body_id: str, seconds: float) -> None:
        """Estimate a person's betas anew, then freeze them."""
        ...


@dataclass(frozen=True)
class LiveModel:
    """A fitter that is ready, and what it was made from."""

    fitter: Fitter
    info: ModelInfo
    rest_joints: Callable[[np.ndarray], np.ndarray]
    """betas (10,) -> joints (55, 3) of the T-pose, m, SMPL-X axes."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """For diagnostics."""
    rehearse: Callable[[], None] = lambda: None
    """Fits made-up people once, with a fitter of its own."""
    close: Callable[[], None] = lambda: None
    """Frees what the garbage collector cannot."""


def load_live_model(config: Config) -> LiveModel:
    """Body model, prior and fitter of `config`.

    Raises:
        ModelFileError: the body model is missing or not SMPL-X-keyed.
        CheckpointError: the prior is missing, damaged or made for another body model.
    """
    from dposer_core.body_model import load_body
    from dposer_core.people import PeopleFitter
    from dposer_core.prior.runtime import load_prior

    tables = load_body(config.model.path).tables
    prior = load_prior(config.prior.checkpoint, config.prior.backend, tables.num_expression)

    def rehearse() -> None:
        _warm_up(PeopleFitter(tables, prior, config), tables, _WARM_UP_FRAMES)
        # Equations too stiff for float32 are solved in float64, as they are without a prior: the
        # first frame that needs it must not wait 5 s for the compiler.
        _warm_up(PeopleFitter(tables, None, config), tables, _FALLBACK_FRAMES)

    rehearse()

    return LiveModel(
        fitter=PeopleFitter(tables, prior, config),
        info=ModelInfo(name=f'{tables.name}/{tables.sha256[:8]}'),
        rest_joints=rest_joints_of(tables),
        details={
            'body': tables.name,
            'body_sha256': tables.sha256,
            'prior': config.prior.checkpoint,
            'prior_weight': config.prior.weight,
            'device': 'cpu',
        },
        rehearse=rehearse,
    )


def rest_joints_of(tables) -> Callable[[np.ndarray], np.ndarray]:
    """betas (10,) -> joints (55, 3) of the T-pose, m, SMPL-X axes."""
    return lambda betas: tables.joint_template + tables.joint_dirs[..., : len(betas)] @ betas


def _warm_up(fitter: Fitter, tables, frames: int) -> None:
    """Fit a standing person, seen by a camera and in 3D, and let them be predicted."""
    from dposer_core.camera import assumed_camera
    from dposer_core.evidence import BODY_POINTS

    camera = assumed_camera(960, 540)
    standing = (tables.point_weights[..., None] * tables.point_template).sum(axis=1)
    points = standing * (1.0, -1.0, -1.0) + (0.0, 0.0, 3.0)  # upright, facing the camera
    everything = np.ones(len(points))
    handless = np.zeros(len(points))
    handless[BODY_POINTS] = 1.0
    for seen, seen_by in ((camera.project(points), camera), (points, None)):
        for frame in range(1, frames + 1):
            stamp_ns = frame * _WARM_UP_PERIOD_NS
            confidence = everything if frame > 2 else handless
            fitter.step(stamp_ns, [Observation(stamp_ns, seen, confidence, seen_by)])
        fitter.predict(stamp_ns + _WARM_UP_PERIOD_NS)
        fitter.reset()
