"""First guesses for a person about whom nothing is known yet, from one frame."""

import numpy as np

from dposer_core.kinematics import Kinematics
from dposer_core.observation import Observation
from dposer_core.skeleton import NUM_JOINTS, PRIOR_JOINTS
from dposer_core.window import Pose

_NUM_HEADINGS = 8
_NUM_ROLLS = 4  # upright, lying on either side, upside down
_MIN_DEPTH = 0.2


def initial_poses(
    kinematics: Kinematics,
    observation: Observation,
    precision: np.ndarray,
    joint_rotations: np.ndarray,
    count: int,
) -> list[Pose]:
    """The `count` best placements of a body in its mean pose, cheapest first.

    2D: several headings and rolls; for each the translation is linear in the pixels. 3D: rigid
    alignment in closed form (Kabsch 1976), one guess.

    Args:
        precision: (133,) weight of each point; 0 for absent ones.
        joint_rotations: (52, 3, 3) rotations of PRIOR_JOINTS to start from.
    """
    coefficients = np.zeros(kinematics.num_coefficients)
    local = np.tile(np.eye(3), (NUM_JOINTS, 1, 1))
    local[PRIOR_JOINTS] = joint_rotations
    body = kinematics.landmarks(kinematics.pose(np.zeros(3), local, coefficients))
    place = _place_3d if observation.dim == 3 else _place_2d
    guesses = []
    for rotation, pelvis in place(body, observation, precision)[:count]:
        rotations = np.concatenate([rotation[None], joint_rotations])
        guesses.append(Pose(pelvis, rotations, coefficients))
    return guesses


def _place_3d(body, observation, precision) -> list[tuple[np.ndarray, np.ndarray]]:
    weight = precision / precision.sum()
    centre_body = weight @ body
    centre_seen = weight @ observation.points
    covariance = (body - centre_body).T @ ((observation.points - centre_seen) * weight[:, None])
    u, _, vt = np.linalg.svd(covariance)
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))])
    rotation = vt.T @ flip @ u.T
    return [(rotation, centre_seen - rotation @ centre_body)]


def _place_2d(body, observation, precision) -> list[tuple[np.ndarray, np.ndarray]]:
    camera = observation.camera
    rays = (observation.points - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    weight = np.sqrt(precision)
    guesses = []
    for rotation in _headings():
        turned = body @ rotation.T
        # x (Z + tz) = X + tx, and the same for y: linear in the translation.
        zero, one = np.zeros(len(rays)), np.ones(len(rays))
        rows = np.concatenate(
            [np.stack([one, zero, -rays[:, 0]], 1), np.stack([zero, one, -rays[:, 1]], 1)]
        )
        values = np.concatenate([rays[:, i] * turned[:, 2] - turned[:, i] for i in (0, 1)])
        both = np.concatenate([weight, weight])
        pelvis = np.linalg.lstsq(rows * both[:, None], values * both, rcond=None)[0]
        pelvis[2] = max(pelvis[2], _MIN_DEPTH - turned[:, 2].min())  # the whole body in front
        seen = turned + pelvis
        error = seen[:, :2] / seen[:, 2:] - rays
        # Squared angles times depth: a guess must not win by moving far away.
        cost = float((precision[:, None] * np.square(error)).sum()) * pelvis[2] ** 2
        guesses.append((cost, rotation, pelvis))
    guesses.sort(key=lambda guess: guess[0])
    return [(rotation, pelvis) for _, rotation, pelvis in guesses]


def _headings() -> list[np.ndarray]:
    """Root rotations: SMPL-X axes (y up, facing z) to the optical frame (y down, z forward)."""
    facing_camera = np.diag([1.0, -1.0, -1.0])
    rotations = []
    for roll in np.arange(_NUM_ROLLS) * (2 * np.pi / _NUM_ROLLS):
        c, s = np.cos(roll), np.sin(roll)
        in_plane = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        for heading in np.arange(_NUM_HEADINGS) * (2 * np.pi / _NUM_HEADINGS):
            c, s = np.cos(heading), np.sin(heading)
            about_up = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
            rotations.append(in_plane @ facing_camera @ about_up)
    return rotations
