"""Steps down under load and up again, by a clock of the test's own."""

import dataclasses
import itertools

import pytest
from null_fitter import result

from dposer_core.config import Config
from dposer_core.state import Quality
from dposer_ros.ladder import QualityLadder
from dposer_ros.node_config import DegradeConfig

CONFIG = DegradeConfig()


class Stream:
    """Frames at a period, each taking `full` or `reduced` seconds of work."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ladder = QualityLadder(lambda: self.now)

    def run(self, seconds, period, full, reduced, config=CONFIG) -> list[bool]:
        """After every frame: whether quality is reduced."""
        found = []
        for _ in range(round(seconds / period)):
            self.now += period
            self.ladder.arrived()
            self.ladder.answered(reduced if self.ladder.is_reduced else full, config)
            found.append(self.ladder.is_reduced)
        return found


def test_quality_is_full_while_the_fit_keeps_up():
    assert not any(Stream().run(5.0, 1 / 30, 0.02, 0.016))


def test_quality_steps_down_under_overload_once_and_stays_there():
    found = Stream().run(10.0, 1 / 120, 0.011, 0.009)
    assert 0.3 < found.index(True) / 120 < 1.0
    assert all(found[found.index(True) :])


def test_quality_is_full_again_within_two_seconds_after_the_overload():
    stream = Stream()
    assert stream.run(3.0, 1 / 120, 0.011, 0.009)[-1]
    found = stream.run(3.0, 1 / 30, 0.011, 0.009)
    assert found.index(False) / 30 <= 2.0
    assert not any(found[found.index(False) :])


@pytest.mark.parametrize('work', [0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.2, 2.0])
def test_a_steady_load_never_makes_it_waver(work):
    """A reduced fit costs four fifths or more: what makes room for the full one keeps it."""
    for ratio in (0.8, 0.83, 0.9, 1.0):
        period = 1 / 60
        found = Stream().run(20.0, period, work * period, ratio * work * period)
        assert sum(a != b for a, b in itertools.pairwise(found)) <= 1


def test_a_single_slow_frame_changes_nothing():
    stream = Stream()
    stream.run(2.0, 1 / 30, 0.02, 0.016)
    assert not any(stream.run(1 / 30, 1 / 30, 0.3, 0.3) + stream.run(2.0, 1 / 30, 0.02, 0.016))


def test_switched_off_it_stays_full():
    off = dataclasses.replace(CONFIG, enable=False)
    assert not any(Stream().run(3.0, 1 / 120, 0.02, 0.016, off))


def test_reduced_means_fewer_iterations_and_says_so():
    stream, full = Stream(), Config()
    assert stream.ladder.config(full) == full
    assert stream.ladder.marked([result()])[0].quality == Quality.FULL
    stream.run(3.0, 1 / 120, 0.02, 0.016)
    assert stream.ladder.config(full).fit.max_iterations < full.fit.max_iterations
    held = dataclasses.replace(result(), quality=Quality.HOLD)
    found = [r.quality for r in stream.ladder.marked([result(), held])]
    assert found == [Quality.REDUCED, Quality.HOLD]
