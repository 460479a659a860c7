import pytest

from dposer_core.config import InputConfig
from dposer_ros.gate import StampGate
from dposer_ros.refusals import Refusals, Refused

pytestmark = pytest.mark.ros

NOW = 1_000 * 10**9
CONFIG = InputConfig(max_age=0.5, max_future=0.05)


def seconds(value: float) -> int:
    return round(value * 1e9)


@pytest.mark.parametrize(
    'stamp_ns, cause',
    [
        (0, 'stamp_zero'),
        (NOW + seconds(0.06), 'stamp_future'),
        (NOW + seconds(10.0), 'stamp_future'),
        (NOW - seconds(0.51), 'stamp_stale'),
        (NOW - seconds(10.0), 'stamp_stale'),
    ],
)
def test_stamp_that_cannot_be_answered_is_refused_by_cause(stamp_ns, cause):
    with pytest.raises(Refused) as refusal:
        StampGate().admit(stamp_ns, NOW, CONFIG)
    assert refusal.value.cause == cause


@pytest.mark.parametrize('age', [0.5, 0.0, -0.05])
def test_stamp_at_a_bound_is_admitted(age):
    StampGate().admit(NOW - seconds(age), NOW, CONFIG)


@pytest.mark.parametrize('back, cause', [(0.0, 'stamp_repeated'), (0.2, 'stamp_order')])
def test_stamp_out_of_order_is_refused(back, cause):
    gate = StampGate()
    gate.admit(NOW, NOW, CONFIG)
    with pytest.raises(Refused) as refusal:
        gate.admit(NOW - seconds(back), NOW, CONFIG)
    assert refusal.value.cause == cause
    gate.admit(NOW + 1, NOW, CONFIG)


def test_time_that_starts_again_is_admitted():
    gate = StampGate()
    gate.admit(NOW, NOW, CONFIG)
    again = NOW - seconds(30.0)
    gate.admit(again, again, CONFIG)
    gate.admit(again + 1, again, CONFIG)


def test_refused_stamps_do_not_move_the_gate():
    gate = StampGate()
    with pytest.raises(Refused):
        gate.admit(NOW + seconds(1.0), NOW, CONFIG)
    gate.admit(NOW, NOW, CONFIG)


class FakeLogger:
    def __init__(self):
        self.lines = []

    def warning(self, line):
        self.lines.append(('warning', line))

    def error(self, line):
        self.lines.append(('error', line))


def test_each_cause_is_counted_always_and_logged_once_in_five_seconds():
    logger = FakeLogger()
    refusals = Refusals(logger)
    for _ in range(100):
        refusals.add('layout', 'a')
        refusals.add_error('fit_failed', RuntimeError('b'))
    refusals.add_error('fit_failed', Refused('camera_info', 'c'))
    assert refusals.counts == {'layout': 100, 'fit_failed': 100, 'camera_info': 1}
    assert refusals.total == 201
    assert [level for level, _ in logger.lines] == ['warning', 'error', 'error']
    assert 'RuntimeError: b' in logger.lines[1][1]


def test_drop_refuses_until_time_has_caught_up():
    gate = StampGate('drop')
    gate.admit(NOW, NOW, CONFIG)
    for back in (5.0, 1.0, 0.0):
        with pytest.raises(Refused):
            gate.admit(NOW - seconds(back), NOW - seconds(back), CONFIG)
    gate.admit(NOW + 1, NOW + 1, CONFIG)
