"""The live fitter on motion that is known exactly."""

import dataclasses

import numpy as np
import pytest

from dposer_core import skeleton
from dposer_core.body_model import load_body
from dposer_core.config import Config, from_mapping
from dposer_core.evidence import BODY_POINTS, LEFT_HAND_POINTS
from dposer_core.fitter import PoseFitter
from dposer_core.observation import NUM_POINTS
from dposer_core.prior.runtime import load_prior
from dposer_core.state import Quality, Source, Status
from test.swaying import FRAME_NS, mpjpe_mm, swaying


@pytest.fixture(scope='module')
def tables():
    """The open body, as built by `make setup`."""
    return load_body().tables


@pytest.fixture(scope='module')
def prior():
    """The shipped whole-body prior."""
    return load_prior(Config().prior.checkpoint)


def _hide(observation, points):
    confidence = observation.confidence.copy()
    confidence[points] = 0.0
    return dataclasses.replace(observation, confidence=confidence)


def _is_finite(state) -> bool:
    arrays = [value for value in vars(state).values() if isinstance(value, np.ndarray)]
    return all(np.isfinite(array).all() for array in arrays)


def test_3d_points_give_the_pose_back(tables, prior) -> None:
    """5 mm noise on every point: the body joints come out within 15 mm after half a second."""
    fitter = PoseFitter(tables, prior, Config())
    for truth, observation in swaying(tables, 20, dim=3, noise=0.005):
        result = fitter.step(observation)
    assert mpjpe_mm(result.state.joints, truth) < 15.0
    assert np.linalg.norm(result.state.joints[0] - truth[0]) < 0.015


@pytest.mark.parametrize('heading', np.arange(8) * np.pi / 4)
def test_cold_start_finds_any_heading_in_2d(tables, prior, heading: float) -> None:
    """Pixels only, 2 px noise: the hips and the shoulders point where they should, within 20
    degrees. Elbows and knees may still be a few centimetres off in depth."""
    fitter = PoseFitter(tables, prior, Config())
    for truth, observation in swaying(tables, 12, noise=2.0, heading=heading):
        result = fitter.step(observation)
    for left, right in (('left_hip', 'right_hip'), ('left_shoulder', 'right_shoulder')):
        left, right = skeleton.JOINT_INDEX[left], skeleton.JOINT_INDEX[right]
        found, true = (j[left] - j[right] for j in (result.state.joints, truth))
        cosine = found @ true / np.linalg.norm(found) / np.linalg.norm(true)
        assert np.degrees(np.arccos(cosine)) < 20.0
    assert mpjpe_mm(result.state.joints, truth) < 130.0


def test_known_height_fixes_the_distance(tables, prior) -> None:
    """2D alone cannot tell a tall person far away from a short one near by."""
    betas = np.zeros(skeleton.NUM_BETAS)
    betas[0] = 2.0
    height = float(tables.height_template + tables.height_dirs[: skeleton.NUM_BETAS] @ betas)
    errors = {}
    for known in (0.0, height):
        fitter = PoseFitter(tables, prior, from_mapping({'model.person_height': known}))
        for truth, observation in swaying(tables, 12, noise=2.0, betas=betas):
            result = fitter.step(observation)
        errors[known] = np.linalg.norm(result.state.joints[0] - truth[0])
    assert errors[height] < 0.15  # 4 % of the distance
    assert errors[height] < errors[0.0]


def test_pictures_leave_the_distance_open_and_the_covariance_says_so(tables, prior) -> None:
    """Short and tall people of unknown height: the error along the ray is within two sigmas, and
    the sigma is a few per cent of the distance; of 3D points it is millimetres."""
    for size in (-1.0, 1.0):
        betas = np.zeros(skeleton.NUM_BETAS)
        betas[0] = size
        depth = {}
        for dim in (2, 3):
            fitter = PoseFitter(tables, prior, Config())
            for truth, observation in swaying(
                tables, 12, dim, 2.0 if dim == 2 else 0.005, betas=betas
            ):
                result = fitter.step(observation)
            ray = truth[0] / np.linalg.norm(truth[0])
            sigma = np.sqrt(ray @ result.state.pelvis_covariance[:3, :3] @ ray)
            depth[dim] = abs((result.state.joints[0] - truth[0]) @ ray), sigma
        assert depth[2][0] < 2.0 * depth[2][1]
        assert 0.05 * 3.5 < depth[2][1] < 0.08 * 3.5
        assert depth[3][1] < 0.1 * depth[2][1]


def test_hidden_hand_is_completed_and_says_so(tables, prior) -> None:
    """Visible, then hidden: its fingers become COMPLETED, the time since evidence grows."""
    fitter = PoseFitter(tables, prior, Config())
    for k, (_, observation) in enumerate(swaying(tables, 20, noise=1.0)):
        result = fitter.step(_hide(observation, LEFT_HAND_POINTS) if k >= 10 else observation)
    source = result.state.source
    assert (source[skeleton.LEFT_HAND_JOINTS] == Source.COMPLETED).all()
    assert (source[skeleton.RIGHT_HAND_JOINTS] <= Source.PARTIAL).all()
    assert result.hand_occluded_s[0] == pytest.approx(10 * FRAME_NS * 1e-9)
    assert result.hand_occluded_s[1] == 0.0
    hidden = result.state.position_sigma[skeleton.LEFT_HAND_JOINTS].mean()
    seen = result.state.position_sigma[skeleton.RIGHT_HAND_JOINTS].mean()
    assert hidden > seen


def test_same_input_same_bytes(tables, prior) -> None:
    """Replay is deterministic: no clock, no noise."""
    outputs = []
    for _ in range(2):
        fitter = PoseFitter(tables, prior, Config())
        for _, observation in swaying(tables, 10, noise=2.0):
            result = fitter.step(observation)
        outputs.append(result.state.pose_rotvec.tobytes() + result.state.transl.tobytes())
    assert outputs[0] == outputs[1]


def test_too_few_points_are_predicted(tables, prior) -> None:
    """Three body points are no fit: the motion is extrapolated, nothing counts as observed."""
    fitter = PoseFitter(tables, prior, Config())
    for k, (_, observation) in enumerate(swaying(tables, 8, noise=1.0)):
        before = fitter.last
        result = fitter.step(_hide(observation, slice(3, None)) if k == 7 else observation)
    assert result.status == Status.PREDICTED
    assert result.observed_fraction == 0.0
    assert (result.state.position_sigma > before.state.position_sigma).all()
    assert set(np.delete(result.state.source, [23, 24])) == {Source.PREDICTED}


def test_nothing_is_known_before_the_first_evidence(tables, prior) -> None:
    """No state is invented from an empty picture."""
    fitter = PoseFitter(tables, prior, Config())
    _, observation = next(swaying(tables, 1))
    assert fitter.step(_hide(observation, slice(None))) is None
    assert fitter.predict(observation.stamp_ns + FRAME_NS) is None


def test_out_of_time_the_best_state_so_far_is_returned(tables, prior) -> None:
    """A budget of nothing still answers, after one iteration, and says that it was cut."""
    fitter = PoseFitter(tables, prior, Config())
    for k, (_, observation) in enumerate(swaying(tables, 6, noise=2.0)):
        result = fitter.step(observation, budget_s=0.0 if k else None)
    assert result.stats.iterations == 1
    assert result.quality in (Quality.FULL, Quality.REDUCED)
    assert result.quality == Quality.REDUCED or result.stats.converged
    assert _is_finite(result.state)


def test_wild_outliers_stay_finite_and_harmless(tables, prior) -> None:
    """A third of the points anywhere up to a million pixels away."""
    rng = np.random.default_rng(5)
    fitter = PoseFitter(tables, prior, Config())
    for k, (truth, observation) in enumerate(swaying(tables, 20, noise=1.0)):
        if k >= 10:
            wild = rng.random(133) < 0.33
            points = np.where(wild[:, None], rng.uniform(-1e6, 1e6, (133, 2)), observation.points)
            observation = dataclasses.replace(observation, points=points)
        result = fitter.step(observation)
        assert _is_finite(result.state)
    assert mpjpe_mm(result.state.joints, truth) < 100.0


def test_betas_freeze_after_the_configured_time(tables, prior) -> None:
    """Frozen betas no longer move with the noise."""
    fitter = PoseFitter(tables, prior, from_mapping({'fit.freeze_betas_after': 0.3}))
    betas = []
    for _, observation in swaying(tables, 25, noise=2.0):
        result = fitter.step(observation)
        betas.append(result.state.betas)
    assert result.state.betas_frozen
    assert np.abs(betas[-1] - betas[-5]).max() < 0.02


def test_hidden_hand_relaxes_towards_the_mean_pose(tables, prior) -> None:
    """It must not keep for ever the pose it was last seen in: flat here, the mean is curled."""
    fitter = PoseFitter(tables, prior, Config())
    mean = prior.mean[63:108].reshape(15, 3) * skeleton.MIRROR_SIGN
    distances = []
    for k, (_, observation) in enumerate(swaying(tables, 40, noise=1.0)):
        result = fitter.step(_hide(observation, LEFT_HAND_POINTS) if k >= 5 else observation)
        fingers = result.state.pose_rotvec[skeleton.LEFT_HAND_JOINTS]
        distances.append(float(np.abs(fingers - mean).mean()))
    assert distances[-1] < 0.5 * distances[5]


def test_equations_too_stiff_for_float32_are_solved_in_float64(tables, prior) -> None:
    """A prior of next to no weight beside exact 3D points: one frame is lost, no more."""
    config = from_mapping({'prior.weight': 1e-4, 'fit.sigma_m': 0.001})
    fitter = PoseFitter(tables, prior, config)
    results = [fitter.step(seen) for _, seen in swaying(tables, 4, dim=3)]
    assert results[0] is None  # so float32 was tried
    assert all(r.status != Status.PREDICTED and _is_finite(r.state) for r in results[1:])


def _only(observation, points):
    others = np.setdiff1d(np.arange(NUM_POINTS), np.r_[points])
    return _hide(observation, others)


def test_hands_in_3d_beside_a_body_in_2d_place_hands_and_pelvis(tables, prior) -> None:
    """A tall person, 2 px and 5 mm noise: depth, which 2D alone guesses, comes from the hands."""
    errors, betas = {}, np.zeros(skeleton.NUM_BETAS)
    betas[0] = 2.0
    pixels, metres = (
        swaying(tables, 15, dim, noise, betas=betas) for dim, noise in ((2, 2.0), (3, 0.005))
    )
    alone, mixed = (PoseFitter(tables, prior, Config()) for _ in range(2))
    for (truth, seen), (_, hands) in zip(pixels, metres, strict=True):
        body = _only(seen, BODY_POINTS)
        beside = _only(hands, slice(91, NUM_POINTS))
        for name, fitter, observation in (
            ('alone', alone, body),
            ('mixed', mixed, dataclasses.replace(body, beside=beside)),
        ):
            joints = fitter.step(observation).state.joints
            errors[name] = np.linalg.norm(joints - truth, axis=1)
    fingers = skeleton.LEFT_HAND_JOINTS
    assert errors['mixed'][fingers].mean() < 0.010 < 0.030 < errors['alone'][fingers].mean()
    assert errors['mixed'][0] < 0.5 * errors['alone'][0]


def test_a_hand_seen_only_in_what_is_beside_is_observed(tables, prior) -> None:
    fitter = PoseFitter(tables, prior, Config())
    pixels, metres = (swaying(tables, 3, dim) for dim in (2, 3))
    for (_, seen), (_, hands) in zip(pixels, metres, strict=True):
        beside = _only(hands, LEFT_HAND_POINTS)
        result = fitter.step(dataclasses.replace(_only(seen, BODY_POINTS), beside=beside))
    assert (result.state.source[skeleton.LEFT_HAND_JOINTS] == Source.OBSERVED).all()
    assert (result.state.source[skeleton.RIGHT_HAND_JOINTS] == Source.COMPLETED).all()


def test_a_covariance_long_along_the_ray_says_which_part_of_an_error_to_believe(
    tables, prior
) -> None:
    """The left arm is 0.3 m off along its rays, and 5 mm across: told so, the fit is not misled
    (20 mm: the depth of three points is then the prior's guess)."""
    errors = {}
    arm = [7, 9, *range(LEFT_HAND_POINTS.start, LEFT_HAND_POINTS.stop)]
    for name in ('told', 'not told'):
        fitter = PoseFitter(tables, prior, Config())
        for truth, observation in swaying(tables, 15, dim=3, noise=0.005):
            points, factor = observation.points.copy(), np.tile(0.005 * np.eye(3), (133, 1, 1))
            ray = points[arm] / np.linalg.norm(points[arm], axis=1, keepdims=True)
            points[arm] += 0.3 * ray
            along = 0.3**2 * ray[:, :, None] * ray[:, None, :]
            if name == 'told':
                factor[arm] = np.linalg.cholesky(0.005**2 * np.eye(3) + along)
            seen = dataclasses.replace(observation, points=points, sigma=factor)
            result = fitter.step(seen)
        across = (np.eye(3) - np.outer(ray[1], ray[1])) @ (result.state.joints[20] - truth[20])
        errors[name] = mpjpe_mm(result.state.joints, truth), np.linalg.norm(across) * 1e3
    assert errors['told'][0] < 0.5 * errors['not told'][0]
    assert errors['told'][1] < 20.0
