"""A simple known motion for the fitter's tests: somebody who sways and swings the arms."""

from collections.abc import Iterator

import numpy as np

from dposer_core import skeleton
from dposer_core.body_model import BodyTables
from dposer_core.camera import PinholeCamera
from dposer_core.kinematics import Kinematics, exp_many
from dposer_core.observation import NUM_POINTS, Observation

CAMERA = PinholeCamera(900.0, 900.0, 480.0, 270.0, 960, 540)
FRAME_NS = 33_333_333
START_NS = 10_000_000_000


def swaying(
    tables: BodyTables,
    frames: int,
    dim: int = 2,
    noise: float = 0.0,
    heading: float = 0.0,
    pelvis: tuple[float, float, float] = (0.0, 0.1, 3.5),
    betas: np.ndarray | None = None,
    seed: int = 0,
) -> Iterator[tuple[np.ndarray, Observation]]:
    """True joints (55, 3) and what is seen of them; heading 0 faces the camera."""
    rng, model = np.random.default_rng(seed), Kinematics(tables)
    coefficients = np.zeros(model.num_coefficients)
    if betas is not None:
        coefficients[: skeleton.NUM_BETAS] = betas
    joint = skeleton.JOINT_INDEX
    for k in range(frames):
        seconds = k * FRAME_NS * 1e-9
        swing = np.sin(2 * np.pi * 0.5 * seconds)
        rotvec = np.zeros((skeleton.NUM_JOINTS, 3))
        rotvec[joint['left_shoulder']] = [0, 0.4 * swing, -0.9]
        rotvec[joint['right_shoulder']] = [0, 0.4 * swing, 0.9]
        rotvec[joint['left_elbow']] = [0, -0.7 - 0.3 * swing, 0]
        rotvec[joint['right_elbow']] = [0, 0.7 - 0.3 * swing, 0]
        rotvec[joint['left_hip']] = [-0.2 * swing, 0, 0]
        rotvec[joint['right_hip']] = [0.2 * swing, 0, 0]
        rotvec[joint['left_knee']] = rotvec[joint['right_knee']] = [0.3, 0, 0]
        local = exp_many(rotvec)
        about_up = exp_many(np.array([[0.0, heading + 0.1 * swing, 0.0]]))[0]
        local[0] = np.diag([1.0, -1.0, -1.0]) @ about_up
        posed = model.pose(np.array(pelvis), local, coefficients)
        points = model.landmarks(posed)
        points = CAMERA.project(points) if dim == 2 else points
        points = points + rng.normal(0.0, noise, points.shape)
        stamp = START_NS + k * FRAME_NS
        camera = CAMERA if dim == 2 else None
        sigma = np.full(NUM_POINTS, noise) if noise else None
        yield posed.joints, Observation(stamp, points, np.ones(NUM_POINTS), camera, sigma)


def mpjpe_mm(joints: np.ndarray, truth: np.ndarray) -> float:
    """Pelvis-aligned mean error of the 22 body joints, mm."""
    difference = (joints - joints[:1]) - (truth - truth[:1])
    return float(np.linalg.norm(difference[:22], axis=1).mean() * 1e3)
