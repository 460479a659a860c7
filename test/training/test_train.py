"""The training loop and its batches."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer_core.prior.checkpoint import load_checkpoint, save_checkpoint
from training.augment import AugmentConfig, Augmenter, mirror_body
from training.data.heldout import load_excerpts
from training.train import TrainConfig, checkpoint_of, draw_times, rate_factor, train

CONFIG = TrainConfig(
    part='hand', hidden=32, embed=8, blocks=1, steps=6, batch=8, warmup=2, save_every=2
)


def _hands() -> Augmenter:
    poses = torch.randn(40, 45, generator=torch.Generator().manual_seed(5))
    return Augmenter(poses, torch.ones(40), 'hand', AugmentConfig(noise_share=0.5))


class _KilledError(Exception):
    pass


def _kill_at(step: int):
    def on_step(number: int, loss: float) -> None:
        if number == step:
            raise _KilledError

    return on_step


def test_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, _ = train(CONFIG, _hands(), tmp_path / 'whole.state')
    with pytest.raises(_KilledError):
        train(CONFIG, _hands(), tmp_path / 'cut.state', _kill_at(5))
    resumed, progress = train(CONFIG, _hands(), tmp_path / 'cut.state')
    assert progress['step'] == CONFIG.steps
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_checkpoint_holds_the_trained_weights(tmp_path: Path) -> None:
    data = _hands()
    network, progress = train(CONFIG, data, tmp_path / 'a.state')
    save_checkpoint(tmp_path / 'hand.safetensors', checkpoint_of(CONFIG, network, data, progress))
    loaded = load_checkpoint(tmp_path / 'hand.safetensors', part='hand')
    assert loaded.notes['steps'] == CONFIG.steps
    expected = network.post_dense.bias.detach().numpy()
    np.testing.assert_allclose(loaded.weights['post_dense.bias'], expected, atol=1e-3)  # 16 bits


def test_rate_starts_at_zero_and_ends_at_zero() -> None:
    config = dataclasses.replace(CONFIG, steps=1000, warmup=100)
    assert rate_factor(0, config) == 0.0
    assert rate_factor(100, config) == pytest.approx(0.5 * (1 + np.cos(0.1 * np.pi)))
    assert rate_factor(1000, config) == pytest.approx(0.0)


def test_most_times_are_those_the_fits_use() -> None:
    t = draw_times(4000, CONFIG, torch.Generator().manual_seed(0))
    assert (t < CONFIG.low_t).float().mean() > CONFIG.low_t_share
    assert t.min() > 0 and t.max() <= 1


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
