"""Body ids stay with their bodies where people cross (test 11 of the fault contract)."""

import pytest

from dposer_core.body_model import load_body
from dposer_core.config import Config
from dposer_core.prior.runtime import load_prior
from training.benchmarks.crossing import crossings, follow, run


@pytest.mark.parametrize('dim', [2, 3])
def test_ids_stay_where_the_detector_exchanges_its_own_for_good(dim: int) -> None:
    body, prior = load_body(), load_prior(Config().prior.checkpoint)
    crossing = list(crossings(body, dim, 3, (0.3, 1.0)))[2]
    assert len({o.track_id for frame in crossing.frames for o in frame}) == 2
    assert follow(body, prior, crossing) == {'swapped': 0, 'wrong_frames': 0, 'new_ids': 0}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_crossings() -> None:
    for row in run(100, (0.3, 1.0), [3, 2]):
        print(row)
        assert row['swapped'] == 0
    for row in run(50, (0.05, 0.3), [3, 2]):
        print(row)
        assert row['swapped'] <= 1
