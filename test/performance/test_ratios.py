"""Speed, as ratios of two things timed in turn in one process, so that any machine can judge.

`baseline.json` holds what was measured, and by what factor a run may be worse: timings of single
calls differ by tens of percent on a machine that does other work, a lost optimisation by more.
Absolute times are reported by `dposer benchmark latency`.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dposer_core.body_model import load_body
from dposer_core.config import Config, from_mapping
from dposer_core.fitter import PoseFitter
from dposer_core.offline import OfflineFitter
from dposer_core.people import PeopleFitter
from dposer_core.prior.onnx_trunk import trunk_graph
from dposer_core.prior.runtime import load_prior, read_networks
from test.swaying import swaying

BASELINE = json.loads(Path(__file__).with_name('baseline.json').read_text())
_WARM = 24  # frames until the longest window is full and everything is compiled

_CROWD_FRAMES = 16  # the first half is warm-up


@pytest.fixture(scope='module')
def body():
    """The open body, as built by `make setup`."""
    return load_body()


@pytest.fixture(scope='module')
def prior():
    """The prior that the live fit uses unless told otherwise."""
    return load_prior(Config().prior.checkpoint)


@pytest.fixture(scope='module')
def observations(body):
    """A little over a second of one person."""
    return [observation for _, observation in swaying(body.tables, _WARM + 12, noise=2.0)]


def _shortest(call: Callable[[], object]) -> float:
    """CPU seconds of one call: what others take from the core does not count."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def _frame_times(fitters: list[PoseFitter], observations) -> np.ndarray:
    """(fitters,) shortest warm frame of each; they take turns, so load hits them alike."""
    times = np.array(
        [[_shortest(lambda f=f, o=o: f.step(o)) for f in fitters] for o in observations]
    )
    return times[_WARM:].min(axis=0)


def _judge(name: str, ratio: float) -> None:
    entry = BASELINE[name]
    worst = entry['ratio'] * entry['tolerance']
    is_better_small = entry['tolerance'] > 1.0
    fine = ratio <= worst if is_better_small else ratio >= worst
    print(f'{name}: {ratio:.2f}')
    assert fine, f'{name}: {ratio:.2f}; measured {entry["ratio"]}, limit {worst:.2f}'


def test_live_frame_against_reference_fit(body, prior, observations) -> None:
    """A frame of the live fit against 500 Adam steps, of which 15 are timed: they cost alike."""
    live = _frame_times([PoseFitter(body.tables, prior, Config())], observations)[0]
    reference = {}
    for steps in (5, 20):  # the difference leaves the placement out
        fitter = OfflineFitter(body, prior, steps)
        reference[steps] = min(
            _shortest(lambda f=fitter: f.fit(observations[:1])) for _ in range(2)
        )
    ratio = 500 / 15 * (reference[20] - reference[5]) / live
    _judge('reference_over_live', ratio)


def test_cost_does_not_grow_with_the_window(body, prior, observations) -> None:
    """Older frames are not factorised again: 20 frames in the window cost what 5 cost."""
    fitters = [
        PoseFitter(body.tables, prior, from_mapping({'fit.window': size})) for size in (5, 20)
    ]
    short, long = _frame_times(fitters, observations)
    _judge('window_20_over_5', long / short)


def test_people_cost_no_more_than_their_number(body, prior, observations) -> None:
    """Eight people against eight times one person."""
    crowd, one = (
        PeopleFitter(body.tables, prior, from_mapping({'input.max_people': 8})) for _ in range(2)
    )
    times = []
    for observation in observations[:_CROWD_FRAMES]:
        shifted = [
            type(observation)(
                observation.stamp_ns, observation.points + [500.0 * i, 0.0],
                observation.confidence, observation.camera, observation.sigma,
            )
            for i in range(8)
        ]  # fmt: skip
        stamp = observation.stamp_ns
        times.append(
            (
                _shortest(lambda s=stamp, o=shifted: crowd.step(s, o)),
                _shortest(lambda s=stamp, o=shifted: one.step(s, o[:1])),
            )
        )
    many, single = np.array(times)[_CROWD_FRAMES // 2 :].min(axis=0)
    assert len(crowd.predict(stamp)) == 8
    _judge('eight_people_over_one', many / single)


def test_denoiser_against_memory_bandwidth(prior) -> None:
    """A call reads each weight once; reading as many bytes with one BLAS product is the floor.

    Not all of it is reading: there are normalisations, and the way into ONNX Runtime.
    """
    x = np.zeros((1, prior.dim), np.float32)
    _, matrices = trunk_graph(read_networks(Config().prior.checkpoint).ensemble)
    floats = sum(matrix.size for matrix in matrices.values())
    print(f'{4e-6 * floats:.1f} MB of weights')
    weights, vector = np.ones((1024, floats // 1024), np.float32), np.ones(1024, np.float32)
    floor, call = np.inf, np.inf
    for _ in range(200):
        floor = min(floor, _shortest(lambda: vector @ weights))
        call = min(call, _shortest(lambda: prior.denoise(x, 0.1)))
    _judge('denoiser_over_bandwidth', call / floor)
