"""Tables of generation: what is compared with what."""

import numpy as np
import pytest

from dposer_core.errors import CheckpointError, ConfigError
from dposer_core.prior import sampling
from dposer_core.prior.checkpoint import WEIGHTS_DIR, load_checkpoint
from dposer_core.prior.network import from_weights
from dposer_core.prior.prior import DiffusionPrior
from training.benchmarks import generation
from training.benchmarks.generation import Counts, Judge, Reference
from training.benchmarks.tables import Options, get_table

COUNTS = Counts(samples=80, reference=100, nearest=20, apd=10)


@pytest.fixture
def reference() -> Reference:
    rng = np.random.default_rng(0)
    training = rng.normal(0, 0.3, (400, 6)).astype(np.float32)
    weights = np.ones(400)
    weights[200:] = 0.0  # never drawn in training
    heldout = {'others': rng.normal(0, 0.3, (50, 6)).astype(np.float32)}
    return Reference(training, weights, heldout, COUNTS, seed=1)


def test_reference_batch_follows_the_weights(reference):
    assert reference.draw(100, 0).max() < 200


def test_statistics_follow_the_weights(reference):
    mean, covariance = reference.statistics
    np.testing.assert_allclose(mean, reference.training[:200].mean(0), atol=1e-6)
    expected = np.cov(reference.training[:200], rowvar=False)
    np.testing.assert_allclose(covariance, expected, rtol=1e-5, atol=1e-7)


def test_training_row_does_not_find_itself(reference):
    judge = Judge(reference, rotations=6)
    row = judge.real_jobs()[0].run()
    assert row.values['dNN'] > 0.05


def test_repeated_training_poses_have_no_distance(reference):
    judge = Judge(reference, rotations=6)
    assert judge.values(reference.training[:80])['dNN'] == pytest.approx(0.0, abs=2e-3)


def test_samples_that_are_not_numbers_are_refused(reference):
    with pytest.raises(ConfigError, match='not finite'):
        Judge(reference, rotations=6).values(np.full((80, 6), np.nan))


def test_fast_sampling_is_that_of_the_reference_network():
    part = load_checkpoint(WEIGHTS_DIR / 'hand.safetensors')
    network = from_weights(part.weights, scale_by_sigma=part.config.scale_by_sigma)
    seed, count = 3, 4
    draw = sampling.normal_draw(seed * 1_000_003)
    expected = sampling.ddim(DiffusionPrior(network), (count, part.config.dim), draw, 3)
    expected = part.normalizer.denormalize(expected.numpy())
    found = generation.prior_samples('hand', count, seed, steps=3)
    # 150-fold growth of rounding at t = 1.
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_competitor_that_cannot_draw_says_so():
    with pytest.raises(ConfigError, match='cannot draw'):
        generation.baseline_draw('l2', 'body', 0)(5)


@pytest.mark.parametrize('id', ['1', '6', 'S-8', 'S-11'])
def test_table_is_registered(id):
    assert get_table(id).id == id


def test_asked_for_prior_is_measured_instead_of_the_shipped_one(tmp_path):
    path = tmp_path / 'mine.safetensors'
    assert generation.prior_path(Options(checkpoint=path), 'body') == path
    with pytest.raises(CheckpointError, match='not found'):
        generation.prior_samples(path, 1, 0)


def test_left_hands_of_whole_bodies_mirror_the_right_ones():
    rows = generation.prior_samples('base', 400, 0, steps=3)
    left, right = rows[:, 63:108].mean(0), rows[:, 108:153].mean(0)
    mirrored = left * np.tile([1.0, -1.0, -1.0], 15)
    assert np.abs(mirrored - right).max() < 0.15  # rad; the fingers bend by up to 1
