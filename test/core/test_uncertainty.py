"""What is published as uncertain is so."""

import json
from pathlib import Path

import numpy as np
import pytest

from dposer_core import evidence, skeleton
from dposer_core.body_model import load_body
from dposer_core.config import Config
from dposer_core.fitter import PoseFitter
from dposer_core.kinematics import PRIOR_ROTATIONS, Kinematics, exp_many
from dposer_core.observation import NUM_POINTS, Observation
from dposer_core.prior.runtime import load_prior
from dposer_core.uncertainty import Forgetting, forget_unseen, size_covariance
from dposer_core.window import Pose

ROOT = Path(__file__).parents[2]
SIZE = 3 * len(skeleton.PRIOR_JOINTS)


@pytest.fixture(scope='module')
def kinematics() -> Kinematics:
    return Kinematics(load_body().tables)


STD = np.random.default_rng(0).uniform(0.1, 0.5, SIZE)
MUCH, NOTHING = np.full(SIZE, 1e5), np.zeros(SIZE)  # information, rad^-2


def _pose(kinematics: Kinematics) -> Pose:
    rng = np.random.default_rng(1)
    turns = rng.normal(0.0, 0.3, (1 + len(skeleton.PRIOR_JOINTS), 3))
    return Pose(
        np.array([0.1, 0.2, 3.0]), exp_many(turns), rng.normal(size=kinematics.num_coefficients)
    )


def _posed(kinematics: Kinematics, pose: Pose):
    local = np.tile(np.eye(3), (skeleton.NUM_JOINTS, 1, 1))
    local[0], local[skeleton.PRIOR_JOINTS] = pose.rotations[0], pose.rotations[1:]
    return kinematics.pose(pose.pelvis, local, pose.coefficients)


def _seen(*groups) -> np.ndarray:
    seen = np.zeros(NUM_POINTS, dtype=bool)
    for group in groups:
        seen[group] = True
    return seen


def _information(*hidden: str) -> np.ndarray:
    """Much of all axes but those of these joints."""
    information = MUCH.copy().reshape(-1, 3)
    for name in hidden:
        information[list(skeleton.PRIOR_JOINTS).index(skeleton.JOINT_INDEX[name])] = 0.0
    return information.ravel()


def test_what_is_measured_has_the_spread_of_the_normal_equations() -> None:
    small = np.full(SIZE, 1e-4)
    np.testing.assert_array_equal(Forgetting(STD).variance(10**9, MUCH, small), small)


def test_what_was_never_seen_has_the_spread_of_the_prior() -> None:
    variance = Forgetting(STD).variance(10**9, NOTHING, np.full(SIZE, 1e-4))
    np.testing.assert_allclose(variance, STD**2)


def test_what_was_seen_is_forgotten_steadily_hands_before_legs() -> None:
    forgetting, small = Forgetting(STD), np.full(SIZE, 1e-4)
    forgetting.variance(10**9, MUCH, small)
    shares = np.array(
        [
            (forgetting.variance(10**9 + k * 33_000_000, NOTHING, small) - small)
            / (STD**2 - small)
            for k in range(31)
        ]
    )  # fmt: skip
    assert (np.diff(shares, axis=0) > -1e-12).all()
    assert shares[0].max() < 1e-9
    assert shares[1].max() < 0.1  # one frame later nearly all is known
    np.testing.assert_allclose(shares[-1], 1.0, atol=1e-4)
    of_joint = dict(zip(skeleton.PRIOR_JOINTS, shares[5].reshape(-1, 3)[:, 0], strict=True))
    finger, wrist, knee = (
        of_joint[skeleton.JOINT_INDEX[f'left_{n}']] for n in ('index2', 'wrist', 'knee')
    )
    assert finger == pytest.approx(wrist)
    assert wrist > knee


def test_what_is_hinted_at_is_known_better_than_the_prior_and_worse_than_the_hint_says() -> None:
    information = np.full(SIZE, 2.0) / STD**2
    variance = Forgetting(STD).variance(10**9, information, np.full(SIZE, 1e-4))
    assert (variance < STD**2 / 2.0).all()
    assert (variance > 1e-3).all()


def test_a_reset_forgets_what_was_seen() -> None:
    forgetting = Forgetting(STD)
    forgetting.variance(10**9, MUCH, np.full(SIZE, 1e-4))
    forgetting.reset()
    variance = forgetting.variance(10**9 + 1, NOTHING, np.full(SIZE, 1e-4))
    np.testing.assert_allclose(variance, STD**2)


def test_only_hidden_joints_are_given_another_spread(kinematics) -> None:
    covariance = np.eye(kinematics.num_dof) * 1e-4
    seen = _seen(slice(0, 91), evidence.RIGHT_HAND_POINTS)
    forget_unseen(
        covariance, seen, _posed(kinematics, _pose(kinematics)), Forgetting(STD), 10**9,
        _information('left_wrist', 'left_index1'),
    )  # fmt: skip
    variance = np.diagonal(covariance)[PRIOR_ROTATIONS].reshape(-1, 3)
    names = [skeleton.JOINT_NAMES[j] for j in skeleton.PRIOR_JOINTS]
    for name, own, std in zip(names, variance, STD.reshape(-1, 3), strict=True):
        hidden = name in ('left_wrist', 'left_index1')
        np.testing.assert_allclose(own, std**2 if hidden else 1e-4, rtol=1e-9)


def test_the_twist_of_a_straight_arm_is_not_known_while_its_hand_is_hidden() -> None:
    """With the hand seen it is; the elbow's other axes are known in both cases."""
    body = load_body()
    prior = load_prior(Config().prior.checkpoint)
    tables = body.tables
    kinematics = Kinematics(tables)
    rotations = np.tile(np.eye(3), (1 + len(skeleton.PRIOR_JOINTS), 1, 1))
    points = kinematics.landmarks(
        _posed(
            kinematics,
            Pose(np.array([0.0, 0.0, 3.0]), rotations, np.zeros(kinematics.num_coefficients)),
        )
    )
    sigma = {}
    for hand_seen in (True, False):
        fitter = PoseFitter(tables, prior, Config())
        confidence = np.ones(NUM_POINTS)
        if not hand_seen:
            confidence[evidence.LEFT_HAND_POINTS] = 0.0
        for k in range(12):
            state = fitter.step(Observation((k + 30) * 33_000_000, points, confidence, None)).state
        shoulder = skeleton.JOINT_INDEX['left_shoulder']
        sigma[hand_seen] = np.degrees(state.rotation_sigma[shoulder])
    assert sigma[False] > 2.0 * sigma[True], sigma


def test_with_the_legs_alone_seen_it_is_the_rest_that_may_turn(kinematics) -> None:
    """Nothing above the left knee is seen: the knee's own spread moves all but the shank."""
    pose = _pose(kinematics)
    posed = _posed(kinematics, pose)
    ankle, foot, knee = (skeleton.JOINT_INDEX[f'left_{n}'] for n in ('ankle', 'foot', 'knee'))
    covariance = np.eye(kinematics.num_dof) * 1e-6
    before = covariance.copy()
    seen = _seen([15, 17, 18, 19])
    forget_unseen(covariance, seen, posed, Forgetting(STD), 10**9, _information())
    index = list(skeleton.PRIOR_JOINTS).index(knee)
    gain = (covariance - before)[PRIOR_ROTATIONS, PRIOR_ROTATIONS]
    assert np.diagonal(gain)[3 * index : 3 * index + 3].min() > 0.0
    added = kinematics.joint_covariance(posed, covariance - before)
    sigma = np.sqrt(np.maximum(np.einsum('nii->n', added), 0.0))  # of no spread at all: rounding
    assert sigma[[knee, ankle, foot]].max() < 0.05 * sigma[skeleton.JOINT_INDEX['head']]


def test_one_camera_knows_least_along_the_ray() -> None:
    points = np.array([[0.0, 0.0, 4.0], [1.0, -2.0, 3.0]])
    for is_known, other in ((True, False), (False, True)):
        covariance = size_covariance(points, is_known)
        values, axes = np.linalg.eigh(covariance)
        np.testing.assert_allclose(values[:, :2], 0.0, atol=1e-12)
        rays = points / np.linalg.norm(points, axis=1, keepdims=True)
        np.testing.assert_allclose(np.abs((axes[:, :, 2] * rays).sum(axis=1)), 1.0)
        grows = np.trace(covariance[0]) > np.trace(size_covariance(points, other)[0])
        assert grows == (not is_known)


def test_the_table_of_the_page_is_what_was_measured() -> None:
    from training.benchmarks.uncertainty import markdown

    results = ROOT / 'training' / 'benchmarks' / 'results' / 'uncertainty.json'
    table = markdown(json.loads(results.read_text()))
    assert table in (ROOT / 'docs' / 'UNCERTAINTY.md').read_text()
