"""Synthetic whole bodies."""

import numpy as np
import pytest
import torch

from dposer_core.skeleton import JOINT_INDEX, MIRROR_SIGN
from test.packed_bodies import packed_bodies
from training.composition import (
    CompositionConfig,
    heldout_parts,
    training_parts,
    wholebody_samples,
)

NUM_HANDS = 500


@pytest.fixture
def packed() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    body = rng.normal(size=(60, 63)).astype(np.float32) * 0.1
    return {
        'body': body,
        'body_weight': np.ones(60, np.float32),
        'hand': rng.normal(size=(NUM_HANDS, 45)).astype(np.float32) * 0.5,
        'face': rng.normal(size=(300, 13)).astype(np.float32),
    }


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(9)


def _hands(rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The left hand mirrored to a right one, and the right hand."""
    left, right = rows[:, 63:108].numpy(), rows[:, 108:153].numpy()
    return left * np.tile(MIRROR_SIGN, 15).astype(np.float32), right


def _hanging_bodies() -> np.ndarray:
    """Left arm down along the trunk, right arm out as in the T-pose."""
    body = np.zeros((40, 63), np.float32)
    body[:, 3 * (JOINT_INDEX['left_shoulder'] - 1) + 2] = -np.pi / 2
    return body


def test_all_parts_of_independent_rows_come_from_the_pools(packed):
    config = CompositionConfig(mirrored_share=0.0, relaxed_share=0.0)
    rows = wholebody_samples(packed, 50, _generator(), config)
    assert rows.shape == (50, 166)
    for hands in _hands(rows):
        nearest = np.abs(hands[:, None] - packed['hand'][None]).max(-1).min(1)
        np.testing.assert_allclose(nearest, 0.0, atol=1e-6)
    faces = np.abs(rows[:, None, 153:].numpy() - packed['face'][None]).max(-1).min(1)
    np.testing.assert_allclose(faces, 0.0, atol=1e-6)


def test_stated_share_of_the_hands_mirror_each_other(packed):
    config = CompositionConfig(mirrored_share=0.5, mirrored_blend=0.0, relaxed_share=0.0)
    left, right = _hands(wholebody_samples(packed, 4000, _generator(), config))
    same = (np.abs(left - right).max(1) < 1e-6).mean()
    assert same == pytest.approx(0.5, abs=0.03)  # 3.8 standard deviations


def test_only_the_hand_of_the_hanging_arm_is_relaxed(packed):
    packed['body'] = _hanging_bodies()
    packed['body_weight'] = np.ones(40, np.float32)
    config = CompositionConfig(mirrored_share=0.0, relaxed_share=1.0, relaxed_pool=0.02)
    rows = wholebody_samples(packed, 200, _generator(), config)
    hangs_left = rows[:, 3 * (JOINT_INDEX['left_shoulder'] - 1) + 2] < -1.0
    left, right = _hands(rows)
    relaxed = np.where(hangs_left[:, None].numpy(), left, right)
    free = np.where(hangs_left[:, None].numpy(), right, left)
    assert 0.3 < hangs_left.float().mean() < 0.7  # the others are mirrored
    assert len(np.unique(relaxed, axis=0)) <= NUM_HANDS * 0.02
    assert len(np.unique(free, axis=0)) > 100


def test_long_weighted_poses_come_as_often_as_they_weigh(packed):
    packed['body_weight'] = np.r_[np.full(30, 3.0), np.full(30, 1.0)].astype(np.float32)
    packed['body'][:, 0] = np.arange(60)  # left hip x; mirrored rows show it at the right hip
    rows = wholebody_samples(packed, 4000, _generator())
    index = torch.maximum(rows[:, 0], rows[:, 3])
    assert (index < 30).float().mean() == pytest.approx(0.75, abs=0.03)


def test_same_generator_gives_the_same_rows(packed):
    first = wholebody_samples(packed, 20, _generator())
    assert torch.equal(first, wholebody_samples(packed, 20, _generator()))


def test_measured_parts_are_not_trained_on(packed):
    packed |= packed_bodies(packed['body'], packed['body'][:7] + 1.0)
    training, heldout = training_parts(packed), heldout_parts(packed)
    for part in ('hand', 'face', 'body'):
        seen = {row.tobytes() for row in training[part]}
        assert heldout[part].shape[0] > 0
        assert not seen & {row.tobytes() for row in heldout[part]}


def test_bodies_of_sources_that_must_not_be_shipped_are_left_out(packed):
    packed |= packed_bodies(packed['body'], packed['body'][:7])
    sets = ('cmu_asf_amc', 'cmu_bvh', 'cmu_expmap', 'deepmimic')
    for number, name in enumerate(sets):
        packed[f'body_{name}'] = np.full((5, 63), float(number), np.float32)
        packed[f'weight_{name}'] = np.ones(5, np.float32)
        packed[f'repeats_{name}'] = np.zeros((5, 1), bool)
    packed['repeats_cmu_bvh'][:2] = True  # of a held-out clip
    body = training_parts(packed)['body']
    assert np.bincount(body[:, 0].astype(int)).tolist() == [5, 3, 5]
