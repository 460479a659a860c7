import threading
import time

import pytest

from dposer_ros.latest import LatestWorker

pytestmark = pytest.mark.ros


class Recorder:
    """Handles items slowly on request, and records what happens."""

    def __init__(self, idle_period=10.0):
        self.handled, self.errors, self.idles = [], [], 0
        self.go_on = threading.Event()
        self.started = threading.Event()
        self.worker = LatestWorker(self._handle, self._idle, self.errors.append, idle_period)

    def _handle(self, item):
        self.started.set()
        if item == 'wait':
            assert self.go_on.wait(5.0)
        if item == 'raise':
            raise RuntimeError('no')
        self.handled.append(item)

    def _idle(self):
        self.idles += 1

    def until(self, condition):
        end = time.monotonic() + 5.0
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.001)


@pytest.fixture
def recorder():
    recorder = Recorder()
    recorder.worker.start()
    yield recorder
    recorder.go_on.set()
    assert recorder.worker.stop(5.0)


def test_newest_item_wins_and_the_others_are_counted(recorder):
    recorder.worker.put('wait')
    recorder.started.wait(5.0)
    for item in (1, 2, 3):
        recorder.worker.put(item)
    recorder.go_on.set()
    recorder.until(lambda: recorder.handled == ['wait', 3])
    assert recorder.worker.dropped == 2


def test_worker_survives_an_exception(recorder):
    recorder.worker.put('raise')
    recorder.until(lambda: recorder.errors)
    recorder.worker.put(1)
    recorder.until(lambda: recorder.handled == [1])


def test_busy_time_is_that_of_the_call_in_progress(recorder):
    assert recorder.worker.busy_for == 0.0
    recorder.worker.put('wait')
    recorder.started.wait(5.0)
    time.sleep(0.02)
    assert recorder.worker.busy_for >= 0.02


def test_stop_reports_a_call_that_hangs(recorder):
    recorder.worker.put('wait')
    recorder.started.wait(5.0)
    assert not recorder.worker.stop(0.01)


def test_stop_forgets_what_waits(recorder):
    recorder.worker.put('wait')
    recorder.started.wait(5.0)
    recorder.worker.put(1)
    recorder.worker.stop(0.0)
    recorder.go_on.set()
    assert recorder.worker.stop(5.0)
    assert recorder.handled == ['wait']


def test_silence_is_noticed():
    recorder = Recorder(idle_period=0.005)
    recorder.worker.start()
    try:
        recorder.until(lambda: recorder.idles >= 3)
    finally:
        assert recorder.worker.stop(5.0)
