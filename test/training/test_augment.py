"""Batches of a part: mirrored, recombined, filled up."""

import numpy as np
import pytest
import torch

from training.augment import AugmentConfig, Augmenter, balanced_weights, mirror_body
from training.data.heldout import load_excerpts


def test_mirrored_body_swaps_the_elbows() -> None:
    body = torch.zeros(1, 63)
    body[0, 3 * 17 : 3 * 18] = torch.tensor([0.1, -0.8, 0.2])  # left elbow is joint 18
    np.testing.assert_allclose(mirror_body(body)[0, 3 * 18 : 3 * 19], [0.1, 0.8, -0.2], atol=1e-7)


def test_joints_at_rest_are_filled_up_to_the_floor() -> None:
    poses = torch.randn(200, 63, generator=torch.Generator().manual_seed(1)) * 0.3
    poses[:, 27:33] = 0.0  # both feet
    config = AugmentConfig(std_floor=0.08)
    data = Augmenter(poses, torch.ones(200), 'body', config)
    assert data.std.min() >= 0.08 - 1e-6
    raw = data.batch(4000, torch.Generator().manual_seed(2)) * data.std + data.mean
    assert raw[:, 27:33].std(dim=0).numpy() == pytest.approx(0.08, rel=0.1)


def test_recombined_limbs_come_from_the_data() -> None:
    poses = torch.arange(30.0)[:, None].expand(30, 63) * 0.01
    data = Augmenter(poses, torch.ones(30), 'body', AugmentConfig(recombine_share=1.0))
    raw = data.batch(50, torch.Generator().manual_seed(3)) * data.std + data.mean
    values = torch.round(raw / 0.01)
    assert len({tuple(row.unique().tolist()) for row in values}) > 1
    assert (values.unique() >= 0).all() and (values.unique() <= 29).all()
    assert all(len(row[3 * 17 : 3 * 18].unique()) == 1 for row in values)  # a joint stays whole


def test_held_out_fixture_is_real_motion_at_30_fps() -> None:
    motions = load_excerpts()
    assert len(motions) == 20
    assert all(motion.pose_rotvec.shape == (60, 55, 3) for motion in motions)
    assert {motion.subject for motion in motions} == {'cmu02', 'cmu03'}
    height = np.concatenate([motion.pelvis[:, 1] for motion in motions])
    assert height.min() > 0.3 and height.max() < 1.7  # metres above the floor, y up


def test_rare_kinds_of_pose_are_drawn_as_often_as_common_ones():
    rng = np.random.default_rng(0)
    standing = rng.normal(0.0, 0.05, (1900, 63)).astype(np.float32)
    rolling = rng.normal(1.5, 0.05, (100, 63)).astype(np.float32)
    weights = balanced_weights(np.r_[standing, rolling], np.ones(2000, np.float32), 2)
    assert weights[1900:].sum() == pytest.approx(weights[:1900].sum(), rel=1e-4)
