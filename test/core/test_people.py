"""Several people: identity, limits, loss."""

import dataclasses

import numpy as np
import pytest

from dposer_core.body_model import load_body
from dposer_core.config import Config, from_mapping
from dposer_core.errors import ObservationError
from dposer_core.people import PeopleFitter
from dposer_core.state import Status
from test.swaying import FRAME_NS, START_NS, swaying

SECOND = 1_000_000_000


@pytest.fixture(scope='module')
def tables():
    """The open body, as built by `make setup`."""
    return load_body().tables


def _people(tables, places, frames, swap=False):
    streams = [
        swaying(tables, frames, pelvis=place, noise=1.0, seed=i) for i, place in enumerate(places)
    ]
    for k in range(frames):
        seen = [next(stream)[1] for stream in streams]
        yield seen[::-1] if swap and k % 2 else seen


def _quick(**values) -> Config:
    return from_mapping({'fit.max_iterations': 1, 'fit.cold_iterations': 6, **values})


def test_ids_follow_people_and_not_the_order_of_the_detector(tables) -> None:
    """The detector lists the two in another order at every second frame."""
    fitter = PeopleFitter(tables, None, _quick())
    for seen in _people(tables, [(-0.7, 0.1, 3.5), (0.7, 0.1, 3.5)], 6, swap=True):
        results = fitter.step(seen[0].stamp_ns, seen)
    assert [r.body_id for r in results] == ['p0001', 'p0002']
    left, right = sorted(results, key=lambda r: r.body_id)
    assert abs(left.state.joints[0, 0] - right.state.joints[0, 0]) > 1.0


def test_upstream_id_does_not_override_geometry(tables) -> None:
    """Swapped detector ids: the body keeps its id, the result names the detector's new one."""
    fitter = PeopleFitter(tables, None, _quick())
    results = []
    for k, seen in enumerate(_people(tables, [(-0.7, 0.1, 3.5), (0.7, 0.1, 3.5)], 4)):
        names = ('a', 'b') if k < 3 else ('b', 'a')
        seen = [dataclasses.replace(o, track_id=n) for o, n in zip(seen, names, strict=True)]
        before = {r.body_id: r for r in results}
        results = fitter.step(seen[0].stamp_ns, seen)
    assert {r.body_id for r in results} == {'p0001', 'p0002'}
    for result in results:
        old = before[result.body_id]
        assert result.track_id == {'a': 'b', 'b': 'a'}[old.track_id]
        np.testing.assert_allclose(result.state.joints[0], old.state.joints[0], atol=0.3)


def test_no_more_people_than_configured_and_the_nearest_first(tables) -> None:
    """Two seen, one allowed: the one nearer to the camera is fitted."""
    fitter = PeopleFitter(tables, None, _quick(**{'input.max_people': 1}))
    seen = next(_people(tables, [(-0.7, 0.1, 5.0), (0.5, 0.1, 3.0)], 1))
    results = fitter.step(seen[0].stamp_ns, seen)
    assert len(results) == 1 and results[0].state.joints[0, 0] > 0.0


def test_silence_is_predicted_then_lost_once(tables) -> None:
    """PREDICTED until 2.0 s, one LOST, then nobody; a new person has a new id."""
    fitter = PeopleFitter(tables, None, _quick())
    frames = list(_people(tables, [(0.0, 0.1, 3.5)], 3))
    for seen in frames[:2]:
        fitter.step(seen[0].stamp_ns, seen)
    last = frames[1][0].stamp_ns
    assert [r.status for r in fitter.predict(last + SECOND)] == [Status.PREDICTED]
    assert [r.status for r in fitter.predict(last + 2 * SECOND)] == [Status.LOST]
    assert fitter.predict(last + 3 * SECOND) == []
    again = dataclasses.replace(frames[2][0], stamp_ns=last + 4 * SECOND)
    assert [r.body_id for r in fitter.step(again.stamp_ns, [again])] == ['p0002']


def test_empty_frames_are_answered(tables) -> None:
    """Nobody seen yet is an empty answer, not an error."""
    fitter = PeopleFitter(tables, None, Config())
    assert fitter.step(START_NS, []) == []


def test_time_going_backwards_is_refused(tables) -> None:
    """The error names both stamps and the remedy; after reset() the stamp is accepted."""
    fitter = PeopleFitter(tables, None, Config())
    fitter.step(START_NS, [])
    with pytest.raises(ObservationError, match=rf'{START_NS - FRAME_NS} ns is not newer.*reset'):
        fitter.step(START_NS - FRAME_NS, [])
    fitter.reset()
    assert fitter.step(START_NS - FRAME_NS, []) == []
