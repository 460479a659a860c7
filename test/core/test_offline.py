"""The offline reference fitter, on a small body and without trained weights."""

import dataclasses

import numpy as np
import pytest
import torch

from dposer_core import skeleton
from dposer_core.body_model import load_body
from dposer_core.camera import PinholeCamera
from dposer_core.keypoints import LEFT_HAND_POINTS
from dposer_core.observation import Observation
from dposer_core.offline import OfflineFitter
from dposer_core.rotations import mirror_rotvec
from test.synthetic_smplx import write_synthetic_smplx

CAMERA = PinholeCamera(fx=900.0, fy=900.0, cx=480.0, cy=270.0, width=960, height=540)
STEPS = 50


class PullToMean:
    """A prior whose every vector denoises to the mean, which bends the fingers."""

    def __init__(self, num_expression: int) -> None:
        dim = 3 * len(skeleton.PRIOR_JOINTS) + num_expression
        self.mean = np.zeros(dim, dtype=np.float32)
        self.mean[63:153] = 0.3
        self.std = np.full(dim, 0.3, dtype=np.float32)

    def denoise(self, x: np.ndarray, t: float, noise: np.ndarray | None = None) -> np.ndarray:
        assert 0.08 <= t <= 0.12
        return np.zeros_like(x)


@pytest.fixture(scope='module')
def body(tmp_path_factory):
    torch.set_num_threads(1)
    body = load_body(write_synthetic_smplx(tmp_path_factory.mktemp('body') / 'body.npz'))
    # Rigid landmarks without pose blend shapes: quick, and most points move with one bone.
    main = np.zeros_like(body.tables.point_weights)
    main[np.arange(len(main)), body.tables.point_weights.argmax(axis=1)] = 1.0
    tables = dataclasses.replace(body.tables, point_posedirs=None, point_weights=main)
    return dataclasses.replace(body, tables=tables)


@pytest.fixture(scope='module')
def truth(body):
    """Two people facing the camera, one turned by a third; joints and landmarks."""
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(0)
    pose = np.zeros((2, skeleton.NUM_JOINTS, 3))
    pose[:, skeleton.BODY_JOINTS] = rng.normal(0.0, 0.15, (2, 21, 3))
    facing = Rotation.from_rotvec([np.pi, 0, 0])
    pose[:, 0] = [(facing * Rotation.from_rotvec([0, turn, 0])).as_rotvec() for turn in (0.2, 2.0)]
    transl = np.array([[0.1, 0.0, 3.5], [-0.2, 0.1, 4.0]])
    betas, expression = np.zeros((2, 10)), np.zeros((2, body.tables.num_expression))
    inputs = (torch.from_numpy(value) for value in (pose, betas, expression, transl))
    return [value.numpy() for value in body.torch_forward(*inputs)]


def observed(landmarks: np.ndarray, dim: int) -> list[Observation]:
    confidence = np.ones(landmarks.shape[1])
    if dim == 3:
        return [Observation(0, points, confidence) for points in landmarks]
    return [Observation(0, CAMERA.project(points), confidence, CAMERA) for points in landmarks]


def limb_error(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Mean error (N,) in metres of the 22 body joints, pelvis aligned."""
    difference = (found - found[:, :1]) - (expected - expected[:, :1])
    return np.linalg.norm(difference[:, :22], axis=-1).mean(axis=-1)


def test_fit_to_metres_recovers_the_pose(body, truth):
    joints, landmarks = truth
    result = OfflineFitter(body, None, steps=STEPS).fit(observed(landmarks, 3))
    # A tenth of the paper's steps, and the spine shows in no point.
    assert limb_error(result.joints, joints).max() < 0.06


def test_fit_to_pixels_finds_heading_and_place(body, truth):
    joints, landmarks = truth
    result = OfflineFitter(body, None, steps=STEPS).fit(observed(landmarks, 2))
    across = result.joints[:, 16] - result.joints[:, 17]  # right to left shoulder
    expected = joints[:, 16] - joints[:, 17]
    cosine = (
        (across * expected).sum(-1)
        / np.linalg.norm(across, axis=-1)
        / np.linalg.norm(expected, axis=-1)
    )
    assert cosine.min() > 0.9
    assert np.linalg.norm(result.joints[:, 0] - joints[:, 0], axis=-1).max() < 0.5


def test_unseen_hand_takes_the_pose_of_the_prior(body, truth):
    carried = np.isin(body.tables.point_bones, np.r_[skeleton.LEFT_HAND_JOINTS])
    left = (carried & (body.tables.point_weights > 0)).any(axis=1)
    hidden = []
    for observation in observed(truth[1], 3):
        confidence = observation.confidence.copy()
        confidence[LEFT_HAND_POINTS] = 0.0
        confidence[left] = 0.0
        hidden.append(dataclasses.replace(observation, confidence=confidence))
    prior = PullToMean(body.tables.num_expression)
    result = OfflineFitter(body, prior, steps=STEPS).fit(hidden)
    # The prior's left hand is stored mirrored.
    expected = mirror_rotvec(np.full((15, 3), 0.3))
    np.testing.assert_allclose(result.pose_rotvec[:, 25:40], np.stack([expected] * 2), atol=1e-3)


def test_frames_are_fitted_independently(body, truth):
    observations = observed(truth[1], 3)
    fitter = OfflineFitter(body, None, steps=10)
    both, second = fitter.fit(observations), fitter.fit(observations[1:])
    np.testing.assert_allclose(
        both.joints[1], second.joints[0], atol=1e-3
    )  # float32, 110 Adam steps


def test_same_seed_gives_the_same_fit(body, truth):
    observations = observed(truth[1], 3)[:1]
    prior = PullToMean(body.tables.num_expression)
    first, second = (
        OfflineFitter(body, prior, steps=5, seed=3).fit(observations) for _ in range(2)
    )
    np.testing.assert_array_equal(first.pose_rotvec, second.pose_rotvec)
