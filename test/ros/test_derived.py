import numpy as np
import pytest
from null_fitter import result
from scipy.spatial.transform import Rotation

from dposer_core import keypoints, skeleton
from dposer_core.body_model import load_body
from dposer_core.config import InputConfig
from dposer_core.errors import ModelFileError
from dposer_core.state import Source
from dposer_ros import derived
from dposer_ros.conversions import header_at, observations_from_msg

pytestmark = pytest.mark.ros

HEADER = header_at(5, 'world')


@pytest.fixture(scope='module')
def body():
    try:
        return load_body('')
    except ModelFileError as error:
        pytest.skip(str(error))


def fitted(body, seed=0, **fields):
    """A result whose joints and landmarks are those of the body in a random pose."""
    rng = np.random.default_rng(seed)
    pose = rng.normal(0.0, 0.25, (skeleton.NUM_JOINTS, 3))
    betas = rng.normal(0.0, 1.0, 10)
    state = dict(pose_rotvec=pose, betas=betas, joints=body.joints(pose, betas)[0])
    return result(landmarks=body.landmarks(pose, betas)[0], **state, **fields)


def hidden_left_hand() -> np.ndarray:
    source = np.full(skeleton.NUM_JOINTS, Source.OBSERVED, dtype=np.uint8)
    source[skeleton.LEFT_HAND_JOINTS] = Source.COMPLETED
    return source


def test_completed_points_are_placed_and_only_measured_ones_count_as_evidence(body):
    person = fitted(body, source=hidden_left_hand())
    msg = derived.completed_keypoints([person], HEADER)
    (seen,), refused = observations_from_msg(msg, None, InputConfig())
    assert not refused
    fingers = slice(keypoints.POINT_INDEX['left_hand_root'] + 1, 112)
    assert not seen.confidence[fingers].any()
    shown = seen.confidence > 0.0
    assert shown.sum() == keypoints.NUM_POINTS - 20
    np.testing.assert_allclose(seen.points[shown], person.state.landmarks[shown], atol=1e-6)
    everything = np.array(msg.people[0].points).reshape(-1, 3)
    np.testing.assert_allclose(everything, person.state.landmarks, atol=1e-6)  # float32
    np.testing.assert_allclose(seen.sigma, 0.02, rtol=1e-6)


@pytest.mark.parametrize('seed', range(3))
def test_hand_poses_stand_on_the_hand_and_point_along_the_fingers(body, seed):
    person = fitted(body, seed, source=hidden_left_hand())
    msg = derived.hand_poses(person, HEADER)
    assert len(msg.name) == len(msg.pose) == len(msg.is_valid) == 50
    at = dict(zip(msg.name, msg.pose, strict=True))
    place = {name: np.array([p.position.x, p.position.y, p.position.z]) for name, p in at.items()}
    for side in ('left', 'right'):
        for ours, theirs in (('thumb4', 'THUMB_TIP'), ('pinky1', 'LITTLE_PROXIMAL')):
            point = person.state.landmarks[keypoints.POINT_INDEX[f'{side}_{ours}']]
            np.testing.assert_allclose(place[f'{side}_{theirs}'], point)
        for joint, following in (('PROXIMAL', 'INTERMEDIATE'), ('INTERMEDIATE', 'DISTAL')):
            q = at[f'{side}_INDEX_{joint}'].orientation
            ahead = -Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()[:, 2]
            step = place[f'{side}_INDEX_{following}'] - place[f'{side}_INDEX_{joint}']
            np.testing.assert_allclose(ahead, step / np.linalg.norm(step), atol=1e-6)
    valid = dict(zip(msg.name, msg.is_valid, strict=True))
    assert not valid['left_INDEX_TIP'] and valid['right_INDEX_TIP'] and valid['left_WRIST']


def test_back_of_the_hand_is_up_where_palms_face_down(body):
    """SMPL-X at rest: both palms face the ground, so y of every hand joint points up."""
    zeros = np.zeros((skeleton.NUM_JOINTS, 3))
    person = result(landmarks=body.landmarks(zeros, np.zeros(10))[0])
    msg = derived.hand_poses(person, HEADER)
    for name, pose in zip(msg.name, msg.pose, strict=True):
        if 'THUMB' not in name:  # thumbs are turned
            q = pose.orientation
            back = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()[:, 1]
            assert back[1] > 0.7, name


def test_hand_without_extent_has_some_orientation():
    """A fit that has collapsed must not cost the frame."""
    for landmarks in (np.zeros((133, 3)), np.arange(133.0)[:, None] * (0.0, 1.0, 0.0)):
        msg = derived.hand_poses(result(landmarks=landmarks), HEADER)
        quats = np.array([[q.x, q.y, q.z, q.w] for q in (p.orientation for p in msg.pose)])
        np.testing.assert_allclose(np.linalg.norm(quats, axis=1), 1.0)


def test_capsules_hold_the_surface(body):
    """The promise to whoever keeps a robot away: nearly all of the skin is inside."""
    shares, margins = [], []
    for seed in range(4):
        person = fitted(body, seed)
        state = person.state
        vertices = body.vertices(state.pose_rotvec, state.betas)[0]
        rest = body.joints(np.zeros((skeleton.NUM_JOINTS, 3)), state.betas)[0]
        depth = np.full(len(vertices), np.inf)
        for capsule in derived.capsules([person], HEADER, [rest]).capsules:
            p0, p1 = ([p.x, p.y, p.z] for p in (capsule.p0, capsule.p1))
            depth = np.minimum(depth, distance(vertices, p0, p1) - capsule.radius_m)
        shares.append(float((depth <= 0.0).mean()))
        margins.append(float(depth.max()))
    print(f'skin inside the capsules: {min(shares):.3f}; farthest outside {max(margins):.3f} m')
    assert min(shares) > 0.98
    assert max(margins) < 0.03


def distance(points, p0, p1) -> np.ndarray:
    """(N,) from a segment."""
    p0, along = np.array(p0), np.array(p1) - np.array(p0)
    share = np.clip((points - p0) @ along / max(along @ along, 1e-12), 0.0, 1.0)
    return np.linalg.norm(points - p0 - share[:, None] * along, axis=1)


def test_capsules_are_named_by_person_and_say_how_sure_they_are(body):
    people = [fitted(body, 1, body_id='a'), fitted(body, 2, body_id='b')]
    rest = body.joints(np.zeros((skeleton.NUM_JOINTS, 3)), np.zeros(10))[0]
    found = derived.capsules(people, HEADER, [rest, rest * 1.1]).capsules
    assert [c.body_id for c in found] == ['a'] * len(derived.LIMBS) + ['b'] * len(derived.LIMBS)
    assert found[-1].radius_m == pytest.approx(found[len(derived.LIMBS) - 1].radius_m * 1.1)
    assert all(c.sigma_m == pytest.approx(0.02) for c in found)
