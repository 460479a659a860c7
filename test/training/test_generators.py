"""The synthetic hands and faces stay within what hands and faces do."""

import numpy as np

from dposer_core import skeleton
from training.faces import COEFFICIENTS, FaceGeneratorConfig, generate_faces
from training.hand_contacts import penetration_mm
from training.hands import (
    HandGeneratorConfig,
    bone_directions,
    fit_directions,
    generate_hands,
    joint_frames,
    joint_limits,
)

# Contacts take nearly all of the time and may move a joint beyond its limit.
_NO_CONTACTS = HandGeneratorConfig(touch=1e3, overlap_limit=1e3)


def _hands(count: int, config: HandGeneratorConfig = _NO_CONTACTS) -> np.ndarray:
    anchors = np.random.default_rng(1).uniform(-2.0, 2.0, size=(7, 15, 3))
    return generate_hands(anchors, count, np.random.default_rng(2), config)


def _turns(poses: np.ndarray) -> np.ndarray:
    """(N, 5, 3, 3) degrees of twist, sideways and flexion."""
    return np.degrees(np.einsum('fjki,nfji->nfjk', joint_frames(), poses.reshape(-1, 5, 3, 3)))


def test_direction_fit_returns_the_bones_it_was_given() -> None:
    bones = bone_directions(_hands(50))
    np.testing.assert_allclose(bone_directions(fit_directions(bones)), bones, atol=1e-9)


def test_straight_hand_has_zero_pose() -> None:
    np.testing.assert_allclose(
        fit_directions(bone_directions(np.zeros((1, 15, 3)))), 0.0, atol=1e-9
    )


def test_bent_index_finger_is_positive_z() -> None:
    pose = np.zeros((1, 15, 3))
    pose[0, 0, 2] = 1.0  # right hand, palm down: bending lowers the finger
    assert bone_directions(pose)[0, 0, 0, 1] < -0.5


def test_hands_respect_joint_limits_even_from_wild_anchors() -> None:
    low, high = np.degrees(joint_limits(_NO_CONTACTS))
    turns = _turns(_hands(2000))
    assert (turns >= low - 1e-9).all() and (turns <= high + 1e-9).all()


def test_axes_of_a_joint_are_orthonormal() -> None:
    frames = joint_frames()
    unit = np.broadcast_to(np.eye(3), frames.shape)
    np.testing.assert_allclose(frames @ frames.swapaxes(-1, -2), unit, atol=1e-12)


def test_bent_knuckles_turn_sideways_less() -> None:
    turns = _turns(_hands(2000))[:, :4, 0]
    bent = turns[..., 2] > 80.0
    assert np.abs(turns[..., 1][bent]).max() <= 28.0 * 0.4
    assert np.abs(turns[..., 1][turns[..., 2] < 20.0]).max() > 20.0


def test_end_joints_follow_the_middle_joints() -> None:
    middle, end = np.moveaxis(_turns(_hands(2000))[:, :4, 1:, 2], -1, 0)
    assert np.corrcoef(middle.ravel(), end.ravel())[0, 1] > 0.7
    low, high = _NO_CONTACTS.end_play
    away = end - _NO_CONTACTS.end_ratio * middle
    # The middle joint may be clipped at -5 and 112 degrees, the end joint at -18 and 85, after.
    assert (away[(middle < 110) & (middle > -4) & (end > -17)] >= low - 1e-6).all()
    assert (away[middle > -4] <= high + 1e-6).all()


def test_fingers_of_generated_hands_do_not_pass_through_each_other() -> None:
    config = HandGeneratorConfig()
    assert penetration_mm(_hands(40, config)).max() <= config.overlap_limit


def test_hands_are_reproducible() -> None:
    np.testing.assert_array_equal(_hands(10), _hands(10))


def _faces(count: int) -> np.ndarray:
    return generate_faces(count, np.random.default_rng(3), FaceGeneratorConfig())


def test_faces_respect_limits() -> None:
    config = FaceGeneratorConfig()
    faces = _faces(5000)
    assert np.abs(faces[:, 3:]).max() <= config.coefficient_limit
    assert faces[:, 0].min() >= 0.0
    assert np.degrees(faces[:, 0].max()) <= config.jaw_limit_deg + 1e-9


def test_open_jaw_parts_the_lips() -> None:
    faces = _faces(5000)
    lips = faces[:, 3 + COEFFICIENTS.index('lips apart')]
    assert np.corrcoef(faces[:, 0], lips)[0, 1] > 0.2


def test_face_has_one_value_per_coefficient() -> None:
    assert _faces(4).shape == (4, 3 + len(COEFFICIENTS))
    assert skeleton.NUM_JOINTS == 55
