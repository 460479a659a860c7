"""The measuring stick of the hand prior, and what the shipped one must pass on it."""

from pathlib import Path

import numpy as np
import pytest

from dposer_core import skeleton
from dposer_core.body_model import load_body
from dposer_core.errors import MediaError
from dposer_core.prior.checkpoint import WEIGHTS_DIR, load_checkpoint
from dposer_core.prior.sde import SubVP
from training.evaluate import denoise_network
from training.evaluate_hands import HandSkeleton, read_hands

_HANDS = Path(__file__).parents[1] / 'fixtures' / 'fingers_and_faces.npz'


@pytest.fixture(scope='module')
def hand() -> HandSkeleton:
    return HandSkeleton(load_body(''))


def test_joints_are_those_of_the_body_model(hand: HandSkeleton) -> None:
    pose = np.random.default_rng(0).normal(scale=0.4, size=(3, 45))
    full = np.zeros((3, skeleton.NUM_JOINTS, 3))
    full[:, skeleton.RIGHT_HAND_JOINTS] = pose.reshape(3, 15, 3)
    joints = load_body('').joints(full)
    wrist = joints[:, skeleton.JOINT_INDEX['right_wrist'], None]
    expected = (joints[:, skeleton.RIGHT_HAND_JOINTS] - wrist).reshape(3, 5, 3, 3)
    np.testing.assert_allclose(hand.points(pose)[:, :, :3], expected, atol=1e-6)


def test_end_joint_moves_its_tip_only(hand: HandSkeleton) -> None:
    pose = np.zeros((1, 45))
    pose[0, 3 * 2 + 2] = 0.5  # index, end joint
    moved = np.linalg.norm(hand.points(pose) - hand.points(0 * pose), axis=-1)[0]
    assert np.argwhere(moved > 1e-9).tolist() == [[0, 3]]
    chord = 2 * np.sin(0.25) * np.linalg.norm(hand.offsets[0, 3][:2])
    assert hand.error_mm(pose, 0 * pose) == pytest.approx(1000 * chord / 20, rel=0.02)


def test_left_hands_are_mirrored(tmp_path) -> None:
    values = np.random.default_rng(1).normal(size=(2, 45))
    np.savez(tmp_path / 'people.npz', left_hand_pose=values, right_hand_pose=values)
    found = read_hands(tmp_path / 'people.npz')
    np.testing.assert_array_equal(found['people right_hand_pose'], values)
    left = found['people left_hand_pose'].reshape(2, 15, 3)
    np.testing.assert_array_equal(left, values.reshape(2, 15, 3) * [1.0, -1.0, -1.0])


def test_file_without_hands_is_named(tmp_path) -> None:
    np.savez(tmp_path / 'feet.npz', toes=np.zeros(3))
    with pytest.raises(MediaError, match=r'feet\.npz: no hands; expected one of the arrays'):
        read_hands(tmp_path / 'feet.npz')


@pytest.mark.parametrize(('t', 'share'), [(0.15, 1.0), (0.2, 0.95), (0.3, 0.8)])
def test_shipped_prior_cleans_hands(hand: HandSkeleton, t: float, share: float) -> None:
    checkpoint = load_checkpoint(WEIGHTS_DIR / 'hand.safetensors', part='hand')
    with np.load(_HANDS) as file:
        raw = file['hands'] * 1e-3
    x_0 = checkpoint.normalizer.normalize(raw)
    x_t = SubVP().add_noise(x_0, t, np.random.default_rng(0).normal(size=x_0.shape))
    back = checkpoint.normalizer.denormalize(denoise_network(checkpoint, x_t, t))
    noisy = checkpoint.normalizer.denormalize(x_t / SubVP().alpha(t))
    assert hand.error_mm(back, raw) < share * hand.error_mm(noisy, raw)
