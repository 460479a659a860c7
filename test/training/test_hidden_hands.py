"""Hidden and invented hands, lost frames, cropped people (tests 5, 12, 13 of the contract)."""

import pytest

from dposer_core.body_model import load_body
from dposer_core.config import Config
from dposer_core.prior.runtime import load_prior
from training.benchmarks.hidden_hands import CROPPED, cropped, hidden, invented, lost, real_hands

CLIPS = 14


@pytest.fixture(scope='module')
def fit_parts() -> tuple:
    """Body and prior."""
    return load_body(), load_prior(Config().prior.checkpoint)


def test_a_hidden_hand_is_called_so_and_trusted_when_it_is_back(fit_parts) -> None:
    row = hidden(*fit_parts, dim=3, seconds=0.1, count=1)
    assert row['hidden_called_hidden'] == row['seen_called_seen'] == 1.0
    assert row['jump_short_or_in_region'] >= 0.9
    assert row['trusted_after_frames'] <= 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('dim', [2, 3])
@pytest.mark.parametrize('seconds', [0.1, 0.3, 1.0, 3.0])
def test_hidden_hands(fit_parts, dim: int, seconds: float) -> None:
    row = hidden(*fit_parts, dim, seconds, CLIPS)
    print(row)
    assert row['hidden_called_hidden'] == 1.0
    assert row['seen_called_seen'] >= 0.99  # the fastest swings count as outliers for a frame
    assert row['trusted_within_2_frames'] >= 0.9
    # Too careful soon after the hand was last seen; docs/PEOPLE.md has the figures.
    assert row['within_1_sigma'] == pytest.approx(0.73, abs=0.1)
    assert row['jump_short_or_in_region'] >= 0.7


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('dim', [2, 3])
def test_hands_that_are_real_are_believed_and_most_invented_ones_not(fit_parts, dim: int) -> None:
    rows = list(invented(*fit_parts, dim, CLIPS))
    for row in rows:
        print(row)
    assert rows[0]['real_refused'] <= 0.001


@pytest.mark.slow
def test_hands_of_a_real_detector_are_believed(fit_parts) -> None:
    row = real_hands(*fit_parts)
    print(row)
    assert row['share'] <= 0.01


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('dim', [2, 3])
def test_lost_frames_cost_neither_identity_nor_accuracy(fit_parts, dim: int) -> None:
    row = lost(*fit_parts, dim, CLIPS)
    print(row)
    assert row['new_ids'] == row['restarts'] == 0
    assert row['growth'] <= 0.15


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('dim', [2, 3])
@pytest.mark.parametrize('part', CROPPED)
def test_cropped_people_keep_within_limits_and_do_not_flip(fit_parts, dim: int, part: str) -> None:
    row = cropped(*fit_parts, dim, part, CLIPS)
    print(row)
    assert row['beyond_limits'] == row['flipped'] == 0
