"""One frame as the page shows it, made from messages: of rclpy or out of a bag, alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dposer_core import skeleton
from dposer_core.errors import MediaError
from dposer_core.observation import Observation
from dposer_core.state import Quality, Source, Status
from dposer_ros.conversions import UPPER, ns_from_stamp

_LARGEST = 1e4  # m; what stands further away cannot be drawn with the rest


@dataclass(frozen=True, eq=False)
class Person:
    """One body of a frame; metres, in the frame of the states."""

    body_id: str
    status: Status
    quality: Quality
    confidence: float
    observed_fraction: float  # of the body and hand joints
    model: str
    """Name and first 8 digits of the SHA-256 of the body model."""
    pose_rotvec: np.ndarray  # (55, 3)
    transl: np.ndarray  # (3,)
    betas: np.ndarray  # (10,)
    expression: np.ndarray  # (E,)
    joints: np.ndarray  # (55, 3)
    covariance: np.ndarray  # (55, 3, 3) m^2
    source: np.ndarray  # (55,) Source


@dataclass(frozen=True, eq=False)
class Moment:
    """Everything that is shown at one time."""

    stamp_ns: int
    frame_id: str
    people: tuple[Person, ...]
    observations: tuple[Observation, ...] = ()
    """Keypoints that went in, if they are known."""
    picture: bytes = b''
    """Encoded image that they were found in, if it is known."""
    fit_ms: float = float('nan')
    """Time of the fit; NaN if nobody measured it."""
    total_ms: float = float('nan')
    """From the image to the published state, live."""


def moment_from_msg(
    msg: Any, observations: Sequence[Observation] = (), picture: bytes = b''
) -> Moment:
    """What a SmplxStateArray says; people that were lost are gone.

    Args:
        msg: of rclpy or rosbags.
        observations: that it was made from.
        picture: that these were found in.

    Raises:
        MediaError: numbers that are not finite, or values without a meaning.
    """
    stats = [state.stats for state in msg.states]
    return Moment(
        ns_from_stamp(msg.header.stamp),
        msg.header.frame_id,
        tuple(_person(state) for state in msg.states if state.status != Status.LOST),
        tuple(observations),
        picture,
        _slowest_ms(s.fit for s in stats),
        _slowest_ms(s.total for s in stats),
    )


def _slowest_ms(seconds) -> float:
    """0 stands for a time that was not measured."""
    return 1e3 * max((float(value) for value in seconds if value > 0.0), default=float('nan'))


def _person(msg: Any) -> Person:
    joints = _array(msg.positions, (skeleton.NUM_JOINTS, 3))
    quat_xyzw = _array(msg.rotations, (skeleton.NUM_JOINTS, 4))
    triangle = _array(msg.position_covariance, (skeleton.NUM_JOINTS, 6))
    covariance = np.empty((skeleton.NUM_JOINTS, 3, 3))
    covariance[:, *UPPER] = covariance[:, *UPPER[::-1]] = triangle
    norms = np.linalg.norm(quat_xyzw, axis=1)
    if (np.abs(joints) > _LARGEST).any() or (np.abs(norms - 1.0) > 1e-2).any():
        raise MediaError(f'the state of {msg.body_id[:40]!r} is no body')
    try:
        return Person(
            msg.body_id,
            Status(int(msg.status)),
            Quality(int(msg.quality)),
            float(msg.confidence),
            float(msg.observed_fraction),
            msg.model,
            Rotation.from_quat(quat_xyzw).as_rotvec(),
            _array(msg.transl, (3,)),
            _array(msg.betas, (skeleton.NUM_BETAS,)),
            _array(msg.expression, (-1,)),
            joints,
            covariance,
            np.array([Source(int(value)) for value in msg.source]),
        )
    except ValueError as error:
        raise MediaError(f'the state of {msg.body_id[:40]!r}: {error}') from error


def _array(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64).reshape(shape)
    if not np.isfinite(array).all():
        raise MediaError('a state holds numbers that are not finite')
    return array
