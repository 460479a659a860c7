"""The measuring stick, and what the shipped weights must pass on it."""

import json

import numpy as np
import pytest

from dposer_core.prior.checkpoint import WEIGHTS_DIR, load_checkpoint
from dposer_core.prior.sde import SubVP
from training.data.heldout import load_excerpts
from training.evaluate import (
    angle_error_deg,
    body_joints,
    denoise_gaussian,
    denoise_network,
    joint_error_mm,
)


def test_gaussian_posterior_of_one_value_is_the_textbook_one() -> None:
    t, mean, variance, x_t = 0.2, 0.5, 4.0, 1.7
    alpha, sigma = SubVP().alpha(t), SubVP().sigma(t)
    precision = 1 / variance + (alpha / sigma) ** 2
    expected = (mean / variance + alpha * x_t / sigma**2) / precision
    found = denoise_gaussian(np.array([mean]), np.array([[variance]]), np.array([[x_t]]), t)
    np.testing.assert_allclose(found, [[expected]])


def test_angle_error_of_one_turned_joint() -> None:
    truth, pose = np.zeros((1, 63)), np.zeros((1, 63))
    pose[0, 3] = np.radians(21.0)
    assert angle_error_deg(pose, truth) == pytest.approx(1.0)  # one of 21 joints


def test_turned_knee_moves_only_what_hangs_on_it() -> None:
    offsets = np.zeros((55, 3))
    offsets[:, 1] = -0.4
    pose = np.zeros((1, 63))
    pose[0, 3 * 3] = 1.0  # left knee is joint 4
    moved = np.linalg.norm(body_joints(pose, offsets) - body_joints(pose * 0, offsets), axis=-1)[0]
    assert np.flatnonzero(moved > 1e-9).tolist() == [6, 9]  # left ankle and foot
    assert joint_error_mm(pose, pose, offsets) == 0.0


@pytest.mark.parametrize('part', ['body', 'hand', 'face'])
def test_shipped_weights_have_a_card_that_names_their_hash(part: str) -> None:
    checkpoint = load_checkpoint(WEIGHTS_DIR / f'{part}.safetensors', part=part)
    card = (WEIGHTS_DIR / f'{part}.md').read_text()
    assert checkpoint.sha256[:16] in card
    assert checkpoint.licence and checkpoint.source_commit
    assert 'ynthetic' in card


def test_body_card_carries_the_acknowledgement_of_cmu() -> None:
    assert 'NSF EIA-0196217' in ' '.join((WEIGHTS_DIR / 'body.md').read_text().split())


def test_composition_names_the_shipped_parts() -> None:
    content = json.loads((WEIGHTS_DIR / 'base.json').read_text())
    for part, entry in content['parts'].items():
        assert entry['sha256'] == load_checkpoint(WEIGHTS_DIR / f'{part}.safetensors').sha256


@pytest.mark.parametrize('t', [0.15, 0.2, 0.3])
def test_body_prior_cleans_held_out_motion(t: float) -> None:
    checkpoint = load_checkpoint(WEIGHTS_DIR / 'body.safetensors')
    body = np.concatenate([motion.body for motion in load_excerpts()])
    x_0 = checkpoint.normalizer.normalize(body)
    x_t = SubVP().add_noise(x_0, t, np.random.default_rng(0).normal(size=x_0.shape))
    back = checkpoint.normalizer.denormalize(denoise_network(checkpoint, x_t, t))
    noisy = checkpoint.normalizer.denormalize(x_t / SubVP().alpha(t))
    assert angle_error_deg(back, body) < 0.95 * angle_error_deg(noisy, body)
