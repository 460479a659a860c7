"""A fitter that estimates nothing: everybody stands at rest. For tests of the node around it.

As a program it is the node with that fitter, and takes the same --ros-args.
"""

import dataclasses
import os
import time

import numpy as np

from dposer_core import skeleton
from dposer_core.config import Config
from dposer_core.errors import ModelFileError
from dposer_core.state import BodyState, FitResult, FitStats, Quality, Source, Status
from dposer_ros.conversions import ModelInfo
from dposer_ros.live_model import LiveModel


def rest_joints(betas=None) -> np.ndarray:
    """(55, 3) some rest pose with the hips to both sides; grows with the first beta."""
    joints = np.random.default_rng(3).normal(0.0, 0.3, (skeleton.NUM_JOINTS, 3))
    joints[0], joints[1], joints[2] = (0.0, 0.0, 0.0), (0.1, -0.1, 0.02), (-0.1, -0.1, 0.02)
    scale = 1.0 if betas is None else 1.0 + 0.05 * float(betas[0])
    return joints * scale


# All in one place, but for a finger tip to each side: nobody is a point in the picture.
LANDMARKS = np.zeros((133, 3))
LANDMARKS[[95, 116]] = (0.3, 0.4, 0.0), (-0.3, -0.4, 0.0)


def result(
    stamp_ns=10**9, body_id='p0001', depth=3.0, status=Status.TRACKING, **state
) -> FitResult:
    """A person at `depth` metres, facing the camera, with any field of the state replaced."""
    transl = np.array([0.0, 0.0, depth])
    pose = np.zeros((skeleton.NUM_JOINTS, 3))
    pose[0] = (np.pi, 0.0, 0.0)
    base = BodyState(
        stamp_ns=stamp_ns,
        pose_rotvec=pose,
        transl=transl,
        betas=np.zeros(10),
        expression=np.zeros(10),
        joints=rest_joints() * (1.0, -1.0, -1.0) + transl,
        landmarks=LANDMARKS + transl,
        joint_velocities=np.zeros((skeleton.NUM_JOINTS, 3)),
        rotation_sigma=np.full(skeleton.NUM_JOINTS, 0.1),
        position_covariance=np.tile(np.eye(3) * 0.02**2, (skeleton.NUM_JOINTS, 1, 1)),
        pelvis_covariance=np.eye(6) * 1e-3,
        source=np.full(skeleton.NUM_JOINTS, Source.OBSERVED, dtype=np.uint8),
    )
    return FitResult(
        body_id=body_id,
        track_id='',
        status=status,
        quality=Quality.FULL,
        state=dataclasses.replace(base, **state),
        observed_fraction=1.0,
        confidence=0.9,
        hand_occluded_s=(0.0, 0.5),
        stats=FitStats(iterations=3, reprojection_rms_px=1.0),
    )


class NullFitter:
    """Every observation is a person at rest; misbehaves on request of the track id."""

    def __init__(self, config: Config, seconds: float = 0.0) -> None:
        self.config = config
        self.seconds = seconds
        self.resets = 0
        self.shapes: dict[str, tuple[np.ndarray, float]] = {}  # betas, s until they freeze
        self._people: list[FitResult] = []

    def step(self, stamp_ns, observations, budget_s=None, foremost=''):
        time.sleep(self.seconds)
        results = []
        for i, observation in enumerate(observations):
            if observation.track_id == 'raise':
                raise RuntimeError('asked to raise')
            if observation.track_id == 'memory':
                np.empty(2**60)  # no machine has it
            fitted = self._shaped(result(stamp_ns, f'p{i + 1:04d}', 3.0 + i), observation)
            if observation.track_id == 'nan':
                joints = fitted.state.joints.copy()
                joints[7, 1] = np.nan
                fitted = result(stamp_ns, fitted.body_id, joints=joints)
            results.append(fitted)
        self._people = results
        return results

    def _shaped(self, fitted, observation):
        betas, seconds = self.shapes.get(fitted.body_id, (np.zeros(10), np.inf))
        self.shapes[fitted.body_id] = (betas, seconds - 1 / 30)
        state = dataclasses.replace(fitted.state, betas=betas, betas_frozen=seconds <= 0.0)
        return dataclasses.replace(fitted, state=state, track_id=observation.track_id)

    def predict(self, stamp_ns):
        results = []
        for person in self._people:
            silence = (stamp_ns - person.state.stamp_ns) * 1e-9
            is_lost = silence >= self.config.occlusion.lost_timeout
            status = Status.LOST if is_lost else Status.PREDICTED
            source = np.full(skeleton.NUM_JOINTS, Source.PREDICTED, dtype=np.uint8)
            state = dataclasses.replace(person.state, source=source)
            results.append(dataclasses.replace(person, status=status, state=state))
        self._people = [
            p for p, r in zip(self._people, results, strict=True) if r.status != Status.LOST
        ]
        return results

    def reset(self):
        self.resets += 1
        self._people = []

    def configure(self, config):
        self.config = config

    def forget(self, body_id):
        self._people = [p for p in self._people if p.body_id != body_id]

    def fix_shape(self, body_id, betas):
        self.shapes[body_id] = (np.asarray(betas, dtype=float), 0.0)

    def calibrate_shape(self, body_id, seconds):
        self.shapes[body_id] = (np.full(10, 0.5), seconds)


def null_model(config: Config) -> LiveModel:
    """For WholeBodyNode's `fitter_factory`; NULL_FITTER_LOAD is a time to load in seconds."""
    time.sleep(float(os.environ.get('NULL_FITTER_LOAD', '0')))
    return LiveModel(NullFitter(config), ModelInfo('null/00000000'), rest_joints)


def broken_model(config: Config) -> LiveModel:
    """A model that cannot be loaded."""
    raise ModelFileError('no such body; run `dposer body build`')


if __name__ == '__main__':
    from dposer_ros.node import main

    main(fitter_factory=null_model)
