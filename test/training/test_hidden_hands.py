"""Hidden and invented hands, lost frames, cropped people (tests 5, 12, 13 of the contract)."""

import pytest

from dposer_core.body_model import load_body
from dposer_core.config import Config
from dposer_core.prior.runtime import load_prior
from training.benchmarks.hidden_hands import (
    CROPPED,
    SECONDS,
    cropped,
    hidden,
    invented,
    lost,
    real_hands,
)

CLIPS = 4


@pytest.fixture(scope='module')
def fit_parts() -> tuple:
    """Body and prior."""
    return load_body(), load_prior(Config().prior.checkpoint)


def test_a_hidden_hand_is_called_so_and_trusted_when_it_is_back(fit_parts) -> None:
    row = hidden(*fit_parts, dim=3, seconds=0.1, count=1)
    assert row['hidden_called_hidden'] == row['seen_called_seen'] == 1.0
    assert row['jump_short_or_in_region'] >= 0.9
    assert row['trusted_after_frames'] <= 2


@pytest.fixture(scope='module', params=[(d, s) for d in (2, 3) for s in SECONDS], ids=str)
def hidden_row(fit_parts, request) -> dict:
    """All held-out clips, for one dimension and time."""
    row = hidden(*fit_parts, *request.param, count=14)
    print(row)
    return row


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_hidden_hands_are_called_so_and_trusted_when_they_are_back(hidden_row) -> None:
    assert hidden_row['hidden_called_hidden'] == 1.0
    assert hidden_row['seen_called_seen'] > 0.995  # a hand in full swing counted as outlier once
    assert hidden_row['trusted_within_2_frames'] >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_errors_of_hidden_hands_are_what_is_published(hidden_row) -> None:
    share = hidden_row['within_1_sigma']
    if hidden_row['dim'] == 3:
        assert share == pytest.approx(0.68, abs=0.05)
    else:
        assert 0.63 < share < 0.83
        if share > 0.73:
            pytest.xfail('one camera: the size of these bodies shows in their proportions')


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_hands_come_back_where_they_were_said_to_be(hidden_row) -> None:
    share = hidden_row['jump_short_or_in_region']  # of 14 hands; 95 % if true
    if hidden_row['seconds'] == 3.0:
        assert share > 0.75
        pytest.xfail('tails of hidden fingers are longer than a Gaussian (docs/PEOPLE.md)')
    assert share > 0.9


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('dim', [2, 3])
def test_hands_that_are_real_are_believed_and_invented_ones_not(fit_parts, dim: int) -> None:
    # One camera cannot always tell these from real ones; docs/PEOPLE.md has their shares.
    most = {'the other hand, moved here': 0.1, 'pointing back': 0.12} if dim == 2 else {}
    for row in invented(*fit_parts, dim, count=14):
        print(row)
        assert row['real_refused'] == 0.0
        if row['passed_on'] is not None:
            assert row['passed_on'] <= most.get(row['invented'], 0.02)


@pytest.mark.slow
def test_hands_of_a_real_detector_are_believed(fit_parts) -> None:
    row = real_hands(*fit_parts)
    print(row)
    assert row['share'] == 0.0


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
def test_cropped_people_bend_no_further_than_whole_ones_and_do_not_flip(fit_parts, dim) -> None:
    rows = {part: cropped(*fit_parts, dim, part, CLIPS) for part in CROPPED}
    for row in rows.values():
        print(row)
        assert row['flipped'] == 0
        # One camera takes some whole people for ones who bend too far, too.
        allowed = rows['nothing']['beyond_limits'] + 0.05 * row['frames']
        assert row['beyond_limits'] <= (allowed if dim == 2 else 0)
