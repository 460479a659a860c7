import array
import dataclasses

import numpy as np
import pytest
from dposer_ros.msg import FitStats, KeypointFrame
from node_probe import camera_info, frame, person
from null_fitter import result
from scipy.spatial.transform import Rotation

from dposer_core import keypoints, skeleton
from dposer_core.config import InputConfig
from dposer_core.errors import ObservationError
from dposer_core.state import Source
from dposer_ros import conversions
from dposer_ros.conversions import ModelInfo, header_at, observations_from_msg
from dposer_ros.refusals import Refused

pytestmark = pytest.mark.ros

CONFIG = InputConfig()
HEADER = header_at(12_345_678_901, 'camera_optical')


def cameras(**kwargs):
    return conversions.cameras_from_msg(camera_info(**kwargs))


def observe(msg, with_cameras=None):
    return observations_from_msg(msg, with_cameras or cameras(), CONFIG)


def state_msg(fitted):
    return conversions.state_msg(fitted, HEADER, ModelInfo('body/12345678'), FitStats())


def random_result(**state):
    rng = np.random.default_rng(0)
    pose = rng.normal(0.0, 0.5, (skeleton.NUM_JOINTS, 3))
    defaults = dict(
        pose_rotvec=pose, betas=rng.normal(size=10), expression=rng.normal(size=10),
        joint_velocities=rng.normal(size=(skeleton.NUM_JOINTS, 3)),
        landmarks=rng.normal(size=(133, 3)),
    )  # fmt: skip
    return result(**(defaults | state))


# --- in ---


def test_stamp_and_header_are_inverse():
    assert conversions.ns_from_stamp(HEADER.stamp) == 12_345_678_901


def test_hub_keypoints_arrive_unchanged():
    msg = frame(person(track_id='7'), stamp_ns=5)
    (observation,), refused = observe(msg)
    assert not refused
    np.testing.assert_array_equal(observation.points.ravel(), msg.people[0].points)
    np.testing.assert_array_equal(observation.confidence, np.float32(0.9))
    assert (observation.stamp_ns, observation.track_id) == (5, '7')
    assert observation.camera.fx == 800.0


def test_nan_point_is_absent_and_nan_confidence_is_unknown():
    someone = person()
    someone.points[0:2] = array.array('f', [np.nan, np.nan])
    someone.confidence[1] = np.nan
    (observation,), _ = observe(frame(someone))
    assert observation.confidence[0] == 0.0
    assert observation.confidence[1] == keypoints.NEUTRAL_CONFIDENCE
    assert np.isfinite(observation.points).all()


def test_left_out_confidence_is_unknown():
    someone = person()
    someone.confidence = []
    (observation,), _ = observe(frame(someone))
    assert (observation.confidence == keypoints.NEUTRAL_CONFIDENCE).all()


def test_covariance_becomes_a_sigma_per_point():
    someone = person()
    covariance = np.zeros((133, 3), np.float32)
    covariance[:, 0] = covariance[:, 2] = 4.0  # xx, xy, yy
    covariance[3, 0] = np.nan
    someone.covariance = covariance.ravel().tolist()
    (observation,), _ = observe(frame(someone))
    assert (np.delete(observation.sigma, 3) == 2.0).all()
    assert observation.confidence[3] == 0.0 and np.isfinite(observation.sigma).all()


def test_a_full_covariance_reaches_the_fit_whole_and_is_mirrored_with_the_picture():
    """Its Cholesky factor; a covariance that is none costs the point, not the person."""
    rng = np.random.default_rng(2)
    factor = np.tril(rng.uniform(0.5, 1.0, (133, 2, 2)))
    covariance = factor @ factor.transpose(0, 2, 1)
    someone = person()
    upper = covariance[:, [0, 0, 1], [0, 1, 1]].astype(np.float32)
    upper[3] = (1.0, 2.0, 1.0)  # indefinite
    someone.covariance = upper.ravel().tolist()
    msg = frame(someone)
    (observation,), _ = observe(msg)
    others = np.delete(np.arange(133), 3)
    np.testing.assert_allclose(observation.sigma[others], factor[others], rtol=1e-4)
    assert observation.confidence[3] == 0.0 and np.isfinite(observation.sigma).all()
    msg.mirrored = True
    (observation,), _ = observe(msg)
    wrists = [keypoints.POINT_INDEX[f'{side}_wrist'] for side in ('left', 'right')]
    seen = observation.sigma[wrists[0]] @ observation.sigma[wrists[0]].T
    np.testing.assert_allclose(seen, covariance[wrists[1]] * [[1, -1], [-1, 1]], rtol=1e-4)


def test_the_covariance_of_normalised_points_is_stretched_as_they_are():
    someone = person()
    pixels = np.array(someone.points)
    someone.points = (pixels.reshape(-1, 2) / (960, 540)).astype(np.float32).ravel().tolist()
    someone.covariance = np.tile(np.float32([1e-4, 0.0, 4e-4]), 133).tolist()
    msg = frame(someone)
    msg.unit = KeypointFrame.UNIT_NORMALIZED
    (observation,), _ = observe(msg)
    np.testing.assert_allclose(
        observation.sigma, np.tile(np.diag([9.6, 10.8]), (133, 1, 1)), rtol=1e-5
    )


def test_normalised_keypoints_become_pixels():
    someone = person()
    pixels = np.array(someone.points)
    someone.points = (pixels.reshape(-1, 2) / (960, 540)).astype(np.float32).ravel().tolist()
    msg = frame(someone)
    msg.unit = KeypointFrame.UNIT_NORMALIZED
    (observation,), _ = observe(msg)
    np.testing.assert_allclose(observation.points.ravel(), pixels, atol=1e-3)  # float32


def test_mirrored_picture_is_turned_back():
    straight = frame(person())
    (expected,), _ = observe(straight)
    mirrored = frame(person())
    points, _ = keypoints.mirror_hub(expected.points, expected.confidence, 960)
    mirrored.people[0].points = points.astype(np.float32).ravel().tolist()
    mirrored.mirrored = True
    (observation,), _ = observe(mirrored)
    np.testing.assert_allclose(observation.points, expected.points, atol=1e-3)  # float32


def test_distortion_is_removed_unless_the_picture_is_rectified():
    info = camera_info()
    info.d = [-0.2, 0.05, 0.0, 0.0, 0.0]
    both = conversions.cameras_from_msg(info)
    raw, rectified = frame(person()), frame(person())
    rectified.rectified = True
    (bent,), _ = observe(raw, both)
    (straight,), _ = observe(rectified, both)
    np.testing.assert_array_equal(straight.points.ravel(), rectified.people[0].points)
    assert np.abs(bent.points - straight.points).max() > 1.0


def test_rectified_keypoints_use_the_projection_matrix():
    info = camera_info()
    info.p = [500.0, 0, 480, 0, 0, 500, 270, 0, 0, 0, 1, 0]
    assert conversions.cameras_from_msg(info).rectified[0].fx == 500.0
    assert conversions.cameras_from_msg(info).raw[0].fx == 800.0


def test_3d_keypoints_need_no_camera():
    msg = frame(person(dim=3))
    msg.dim, msg.unit = KeypointFrame.DIM_3D, KeypointFrame.UNIT_METRE
    (observation,), _ = observations_from_msg(msg, None, CONFIG)
    assert observation.dim == 3 and observation.camera is None


def test_frame_without_people_gives_none():
    assert observe(frame()) == ([], [])


def changed(**fields):
    msg = frame(person())
    for name, value in fields.items():
        setattr(msg, name, value)
    return msg


@pytest.mark.parametrize(
    'fields, cause, words',
    [
        (dict(layout='coco_wholebody'), 'layout', 'coco_wholebody133'),
        (dict(layout=''), 'layout', 'Known'),
        (dict(layout='custom'), 'layout', 'names'),
        (dict(dim=4), 'dim', '4'),
        (dict(dim=3), 'unit', 'UNIT_METRE'),
        (dict(unit=2), 'unit', '2'),
        (dict(image_width=1920, image_height=1080), 'image_size', '1920'),
    ],
)
def test_bad_frame_is_refused_by_cause(fields, cause, words):
    with pytest.raises(Refused, match=words) as refusal:
        observe(changed(**fields))
    assert refusal.value.cause == cause


def test_2d_keypoints_without_camera_are_refused():
    with pytest.raises(Refused) as refusal:
        observations_from_msg(frame(person()), None, CONFIG)
    assert refusal.value.cause == 'no_camera'


def filled(value, share=1.0):
    someone = person()
    count = int(share * len(someone.points))
    someone.points[:count] = array.array('f', [value] * count)
    return someone


@pytest.mark.parametrize(
    'bad, cause',
    [
        (person(num_points=17), 'count'),
        (person(num_points=0), 'count'),
        (person(confidence=0.0), 'no_points'),
        (person(confidence=0.1), 'no_points'),
        (person(confidence=-1.0), 'not_finite'),
        (person(confidence=1e30), 'not_finite'),
        (filled(np.nan), 'no_points'),
        (filled(np.inf), 'not_finite'),
        (filled(-1e30, share=0.6), 'not_finite'),
    ],
)
def test_bad_person_is_left_out_and_the_other_is_kept(bad, cause):
    observations, (refusal,) = observe(frame(bad, person()))
    assert refusal.cause == cause
    assert len(observations) == 1
    assert np.isfinite(observations[0].points).all()


def test_some_bad_points_cost_only_themselves():
    (observation,), refused = observe(frame(filled(np.inf, share=0.4)))
    assert not refused
    assert (observation.confidence == 0.0).sum() == pytest.approx(0.4 * 133, abs=1)
    assert np.isfinite(observation.points).all()


def test_camera_that_is_not_calibrated_is_refused_by_name():
    with pytest.raises(ObservationError, match='not calibrated'):
        cameras(focal=0.0)


def test_camera_of_an_unknown_lens_is_refused_by_name():
    info = camera_info()
    info.distortion_model, info.d = 'thin_prism', [0.1] * 4
    with pytest.raises(ObservationError, match="'thin_prism' is not supported.*plumb_bob"):
        conversions.cameras_from_msg(info)


# --- out ---


def test_state_round_trip():
    fitted = random_result()
    msg, state = state_msg(fitted), fitted.state
    rotations = Rotation.from_quat(msg.rotations.reshape(55, 4)).as_rotvec()
    np.testing.assert_allclose(rotations, state.pose_rotvec, atol=1e-6)  # float32
    np.testing.assert_allclose(msg.positions.reshape(55, 3), state.joints, atol=1e-6)
    np.testing.assert_allclose(msg.betas, state.betas, atol=1e-6)
    np.testing.assert_allclose(msg.expression, state.expression, atol=1e-6)
    np.testing.assert_array_equal(msg.source, state.source)
    assert msg.header == HEADER
    assert (msg.body_id, msg.status, msg.model) == ('p0001', 1, 'body/12345678')


def test_pelvis_covariance_is_position_then_rotation():
    covariance = np.random.default_rng(1).normal(size=(6, 6))
    msg = state_msg(result(pelvis_covariance=covariance))
    np.testing.assert_array_equal(msg.pelvis.covariance.reshape(6, 6), covariance)


def test_pelvis_twist_is_that_of_a_rigid_motion():
    omega, speed = np.array([0.3, -1.0, 2.0]), np.array([1.0, 0.5, -0.2])
    joints = result().state.joints
    velocities = speed + np.cross(omega, joints - joints[0])
    twist = state_msg(result(joint_velocities=velocities)).pelvis_twist.twist
    np.testing.assert_allclose([twist.linear.x, twist.linear.y, twist.linear.z], speed)
    np.testing.assert_allclose([twist.angular.x, twist.angular.y, twist.angular.z], omega)


def test_wrist_orientation_is_that_of_the_whole_chain():
    fitted = random_result()
    for side, name in enumerate(('left_wrist', 'right_wrist')):
        world = Rotation.identity()
        for joint in reversed(skeleton.ancestors(skeleton.JOINT_INDEX[name])):
            world = world * Rotation.from_rotvec(fitted.state.pose_rotvec[joint])
        q = conversions.hand_msgs(fitted, HEADER)[side].wrist.pose.orientation
        assert (world.inv() * Rotation.from_quat([q.x, q.y, q.z, q.w])).magnitude() < 1e-9


def test_hand_points_are_those_of_the_side():
    fitted = random_result()
    left, right = conversions.hand_msgs(fitted, HEADER)
    np.testing.assert_allclose(left.keypoints.reshape(21, 3), fitted.state.landmarks[91:112], 1e-6)
    np.testing.assert_allclose(right.keypoints.reshape(21, 3), fitted.state.landmarks[112:], 1e-6)
    assert (left.side, right.side) == (0, 1)
    assert (left.occluded_for, right.occluded_for) == (0.0, 0.5)


@pytest.mark.parametrize(
    'sources, expected',
    [
        ([0] * 15, Source.OBSERVED),
        ([0] + [2] * 14, Source.PARTIAL),
        ([2] * 15, Source.COMPLETED),
        ([3] * 15, Source.PREDICTED),
    ],
)
def test_hand_is_called_observed_only_if_all_of_it_is(sources, expected):
    assert conversions.hand_source(np.array(sources)) == expected


FIELDS = (
    'joints', 'joint_velocities', 'betas', 'position_covariance', 'transl', 'expression',
    'landmarks', 'rotation_sigma', 'pelvis_covariance', 'pose_rotvec',
)  # fmt: skip
# A rotation has no size, and the covariance of the pelvis is float64 in the message.
LARGE = [field for field in FIELDS if field not in ('pose_rotvec', 'pelvis_covariance')]


@pytest.mark.parametrize(
    ('field', 'value'),
    [(f, v) for f in FIELDS for v in (np.nan, np.inf)] + [(field, 1e300) for field in LARGE],
)
@pytest.mark.filterwarnings('ignore::RuntimeWarning')  # the overflow to float32 is what is tested
def test_a_number_that_is_not_finite_is_found_before_publishing(field, value):
    good = result()
    changed = np.array(getattr(good.state, field), dtype=np.float64)
    changed[-1] = value
    bad = result(**{field: changed})
    assert conversions.is_finite(state_msg(good), good)
    assert not conversions.is_finite(state_msg(bad), bad)


def test_a_time_that_is_not_finite_is_found_before_publishing():
    bad = dataclasses.replace(result(), hand_occluded_s=(0.0, np.inf))
    assert not conversions.is_finite(state_msg(bad), bad)
