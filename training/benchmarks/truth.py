"""Known truth for the fitters: held-out real motion on a body of random shape, seen by a camera.

The body moves as people moved in the held-out excerpts; fingers, jaw and expression, which those
recordings lack, move smoothly between random poses of the synthetic generators.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from dposer_core import skeleton
from dposer_core.body_model import Body
from dposer_core.camera import PinholeCamera
from dposer_core.evidence import LEFT_HAND_POINTS
from dposer_core.files import whole
from dposer_core.observation import NUM_POINTS, Observation
from training.data.heldout import load_excerpts

CAMERA = PinholeCamera(fx=900.0, fy=900.0, cx=480.0, cy=270.0, width=960, height=540)
_CAMERA_HEIGHT = 1.0  # m
_DISTANCE = 4.0  # m, plus the extent of the motion
_KEY_SECONDS = 0.5  # between random finger and face poses
_MAX_BETA = 2.0
_LOWER_BODY = np.r_[11:23]


FINGERS_AND_FACES = Path(__file__).parents[2] / 'test' / 'fixtures' / 'fingers_and_faces.npz'
_RESOLUTION = 1e-3  # rad, or units of expression, per integer step of that file


@dataclass(frozen=True)
class Scenario:
    """How the truth is seen."""

    name: str
    dim: int
    noise: float  # px (2D) or m (3D), one sigma, per axis
    hidden: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))  # keypoints
    is_height_known: bool = False


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario('3d', 3, 0.005),
        Scenario('2d', 2, 2.0),
        Scenario('2d_height', 2, 2.0, is_height_known=True),
        Scenario('2d_left_hand_hidden', 2, 2.0, np.r_[LEFT_HAND_POINTS]),
        Scenario('2d_lower_body_hidden', 2, 2.0, _LOWER_BODY),
    )
}


@dataclass(frozen=True)
class TruthClip:
    """Truth and what is seen of it; output frame = optical frame of the camera."""

    name: str
    pose_rotvec: np.ndarray  # (T, 55, 3) rad, parent-relative
    joints: np.ndarray  # (T, 55, 3) m
    height: float  # m
    observations: list[Observation]


def truth_clips(
    body: Body, scenario: Scenario, count: int, frames: int, seed: int = 0
) -> Iterator[TruthClip]:
    """`count` clips of up to `frames` frames; the same motion and shapes for every scenario."""
    excerpts = load_excerpts()
    order = np.random.default_rng(seed).permutation(len(excerpts))[:count]
    for index in order:
        rng = np.random.default_rng([seed, int(index)])
        excerpt = excerpts[index]
        pose = excerpt.pose_rotvec[:frames].copy()
        seconds = np.arange(len(pose)) / excerpt.fps
        expression = _add_fingers_and_face(pose, seconds, body.tables.num_expression, rng)
        betas = np.clip(rng.standard_normal(skeleton.NUM_BETAS), -_MAX_BETA, _MAX_BETA)
        pose, pelvis = in_camera(pose, excerpt.pelvis[:frames], rng)
        joints, landmarks = _pose(body, pose, pelvis, betas, expression)
        tables = body.tables
        height = tables.height_template + tables.height_dirs[: skeleton.NUM_BETAS] @ betas
        stamps = 1_000_000_000 + np.round(seconds * 1e9).astype(np.int64)
        observations = [
            _observe(scenario, int(stamp), points, rng)
            for stamp, points in zip(stamps, landmarks, strict=True)
        ]
        yield TruthClip(excerpt.name, pose, joints, float(height), observations)


def _observe(
    scenario: Scenario, stamp_ns: int, landmarks: np.ndarray, rng: np.random.Generator
) -> Observation:
    points = CAMERA.project(landmarks) if scenario.dim == 2 else landmarks
    points = points + rng.normal(0.0, scenario.noise, points.shape)
    confidence = np.ones(NUM_POINTS)
    if scenario.dim == 2:
        inside = (points >= 0).all(1) & (points < [CAMERA.width, CAMERA.height]).all(1)
        confidence[~inside] = 0.0
    confidence[scenario.hidden] = 0.0
    points = np.where(confidence[:, None] > 0.0, points, 0.0)
    camera = CAMERA if scenario.dim == 2 else None
    return Observation(stamp_ns, points, confidence, camera, np.full(NUM_POINTS, scenario.noise))


def in_camera(
    pose: np.ndarray, pelvis: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Motion in a y-up world as seen by a level camera from a random side."""
    azimuth = Rotation.from_rotvec([0.0, rng.uniform(0, 2 * np.pi), 0.0])
    R_cam_world = Rotation.from_matrix(np.diag([1.0, -1.0, -1.0])) * azimuth
    centre = pelvis.mean(axis=0)
    distance = _DISTANCE + float(np.linalg.norm(np.ptp(pelvis, axis=0)[[0, 2]])) / 2
    turned = R_cam_world.apply(pelvis - [centre[0], _CAMERA_HEIGHT, centre[2]])
    pose[:, 0] = (R_cam_world * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    return pose, turned + [0.0, 0.0, distance]


def _add_fingers_and_face(
    pose: np.ndarray, seconds: np.ndarray, num_expression: int, rng: np.random.Generator
) -> np.ndarray:
    """Fills hands and jaw of `pose` (T, 55, 3); returns the expression (T, E)."""
    keys = int(np.ceil(seconds[-1] / _KEY_SECONDS)) + 2
    with np.load(FINGERS_AND_FACES) as stored:
        hands, faces = (stored[name] * _RESOLUTION for name in ('hands', 'faces'))
    right, left = (
        hands[rng.integers(len(hands), size=keys)].reshape(keys, 15, 3) for _ in range(2)
    )
    known = faces[rng.integers(len(faces), size=keys)][:, : 3 + num_expression]
    face = np.zeros((keys, 3 + num_expression))  # a body may have more expressions than the file
    face[:, : known.shape[1]] = known
    pose[:, skeleton.RIGHT_HAND_JOINTS] = _between(right, seconds)
    pose[:, skeleton.LEFT_HAND_JOINTS] = _between(left * skeleton.MIRROR_SIGN, seconds)
    pose[:, skeleton.JAW_JOINT] = _between(face[:, :3], seconds)
    return _between(face[:, 3:], seconds)


def _between(keys: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Smooth interpolation (raised cosine) between poses `_KEY_SECONDS` apart."""
    position = seconds / _KEY_SECONDS
    before = np.floor(position).astype(int)
    share = 0.5 - 0.5 * np.cos(np.pi * (position - before))
    share = share.reshape(-1, *[1] * (keys.ndim - 1))
    return keys[before] * (1 - share) + keys[before + 1] * share


def _pose(body, pose, pelvis, betas, expression) -> tuple[np.ndarray, np.ndarray]:
    """Joints (T, 55, 3) and landmarks (T, 133, 3) through the live kinematics."""
    from dposer_core.kinematics import Kinematics, exp_many

    kinematics = Kinematics(body.tables)
    joints, landmarks = [], []
    for rotvec, root, face in zip(pose, pelvis, expression, strict=True):
        posed = kinematics.pose(root, exp_many(rotvec), np.concatenate([betas, face]))
        joints.append(posed.joints)
        landmarks.append(kinematics.landmarks(posed))
    return np.array(joints), np.array(landmarks)


def write_fingers_and_faces(count: int = 200, seed: int = 7) -> None:
    """Samples of the synthetic generators for this file's users, who lack the archives."""
    from training.data.archives import archive_folder
    from training.faces import FaceGeneratorConfig, generate_faces
    from training.hands import HandGeneratorConfig, generate_hands, load_anchors

    rng = np.random.default_rng(seed)
    _, anchors = load_anchors(archive_folder('hands_handy'))
    hands = generate_hands(anchors, count, rng, HandGeneratorConfig()).reshape(count, 45)
    faces = generate_faces(count, rng, FaceGeneratorConfig())
    with whole(FINGERS_AND_FACES) as partial:
        np.savez_compressed(
            partial,
            hands=np.round(hands / _RESOLUTION).astype(np.int16),
            faces=np.round(faces / _RESOLUTION).astype(np.int16),
        )
