"""The synthetic hands and faces stay within what hands and faces do."""

import numpy as np

from dposer_core import skeleton
from training.faces import COEFFICIENTS, FaceGeneratorConfig, generate_faces
from training.hands import (
    HandGeneratorConfig,
    bone_directions,
    fit_directions,
    generate_hands,
    joint_limits,
)


def _hands(count: int) -> np.ndarray:
    anchors = np.random.default_rng(1).uniform(-2.0, 2.0, size=(7, 15, 3))
    return generate_hands(anchors, count, np.random.default_rng(2), HandGeneratorConfig())


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
    low, high = joint_limits(HandGeneratorConfig())
    poses = _hands(2000)
    assert (poses >= low).all() and (poses <= high).all()


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
