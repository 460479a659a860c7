"""Several people: identity, limits, loss."""

import dataclasses

import numpy as np
import pytest

from dposer_core.body_model import load_body
from dposer_core.config import Config, from_mapping
from dposer_core.errors import ObservationError
from dposer_core.people import PeopleFitter
from dposer_core.prior.runtime import load_prior
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


def test_nearest_is_fitted_first(tables) -> None:
    """Two seen, one allowed: the one nearer to the camera is fitted."""
    fitter = PeopleFitter(tables, None, _quick(**{'input.max_people': 1}))
    seen = next(_people(tables, [(-0.7, 0.1, 5.0), (0.5, 0.1, 3.0)], 1))
    results = fitter.step(seen[0].stamp_ns, seen)
    assert len(results) == 1 and results[0].state.joints[0, 0] > 0.0


def test_more_people_than_may_be_fitted_take_turns(tables) -> None:
    """Seven seen, three allowed: the foremost in every frame, the others in every third."""
    fitter = PeopleFitter(tables, None, _quick(**{'input.max_people': 3}))
    places = [(0.9 * (i - 3), 0.1, 5.0) for i in range(7)]
    fitted: dict[str, list[int]] = {}
    for k, seen in enumerate(_people(tables, places, 24)):
        results = fitter.step(seen[0].stamp_ns, seen, foremost='p0002')
        now = [r.body_id for r in results if r.status != Status.PREDICTED]
        assert len(now) <= 3
        for body_id in now:
            fitted.setdefault(body_id, []).append(k)
        if k >= 12:
            # Size and distance are not known of anybody; the direction is.
            found = sorted(5.0 * r.state.joints[0, 0] / r.state.joints[0, 2] for r in results)
            np.testing.assert_allclose(found, [x for x, _, _ in places], atol=0.15)
    assert fitted.pop('p0002')[-20:] == list(range(4, 24))
    assert len(fitted) == 6
    for frames in fitted.values():
        assert max(np.diff([k for k in frames if k >= 9])) == 3


def test_so_many_people_that_their_turns_would_come_too_seldom_are_left_out(tables) -> None:
    """Four turns of one place: the fifth person is not tracked."""
    fitter = PeopleFitter(tables, None, _quick(**{'input.max_people': 1}))
    places = [(0.9 * (i - 2), 0.1, 5.0) for i in range(5)]
    for seen in _people(tables, places, 8):
        results = fitter.step(seen[0].stamp_ns, seen)
    assert len({r.body_id for r in results}) == len(results) == 4


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


def test_given_shape_is_kept_and_calibration_frees_it(tables) -> None:
    """Shape of a known person, then estimated anew for a moment, then frozen again."""
    fitter = PeopleFitter(tables, None, _quick())
    stream = _people(tables, [(0.0, 0.1, 3.5)], 9)
    given = np.linspace(-1.0, 1.0, 10)
    for _ in range(2):
        seen = next(stream)
        fitter.step(seen[0].stamp_ns, seen)
    fitter.fix_shape('p0001', given)
    for _ in range(3):
        seen = next(stream)
        (result,) = fitter.step(seen[0].stamp_ns, seen)
        assert result.state.betas_frozen
        np.testing.assert_allclose(result.state.betas, given, atol=1e-3)  # anchor: sigma 0.001
    fitter.calibrate_shape('p0001', 2.5 * FRAME_NS / SECOND)
    frozen = []
    for seen in stream:
        (result,) = fitter.step(seen[0].stamp_ns, seen)
        frozen.append(result.state.betas_frozen)
    assert np.abs(result.state.betas - given).max() > 0.1
    assert frozen == [False, False, False, True]  # 2.5 frames after the first of them


def test_forgotten_person_comes_back_under_a_new_id(tables) -> None:
    """And the other keeps its own."""
    fitter = PeopleFitter(tables, None, _quick())
    for k, seen in enumerate(_people(tables, [(-0.7, 0.1, 3.5), (0.7, 0.1, 3.5)], 3)):
        results = fitter.step(seen[0].stamp_ns, seen)
        if k == 1:
            fitter.forget('p0001')
    assert {r.body_id for r in results} == {'p0002', 'p0003'}


def test_out_of_time_everybody_is_still_of_this_frame(tables) -> None:
    """Too little time costs iterations, not age: each state is of the frame just given."""
    fitter = PeopleFitter(tables, None, _quick(**{'fit.max_iterations': 3}))
    people = _people(tables, [(-0.7, 0.1, 3.5), (0.7, 0.1, 3.5)], 4)
    for k, seen in enumerate(people):
        results = fitter.step(seen[0].stamp_ns, seen, budget_s=0.0 if k else None)
        assert [r.state.stamp_ns for r in results] == [seen[0].stamp_ns] * 2
    assert [r.stats.iterations for r in results] == [1, 1]


def test_side_by_side_equals_alone(tables) -> None:
    """One denoiser call for everybody changes nothing but rounding, and makes fewer calls."""
    prior, calls = load_prior('mixed'), []

    class Counting:
        dim, mean, std = prior.dim, prior.mean, prior.std

        def denoise(self, x, t):
            calls.append(len(x))
            return prior.denoise(x, t)

    places = [(-0.7, 0.1, 3.5), (0.7, 0.1, 3.5), (0.0, 0.1, 5.0)]
    together = PeopleFitter(tables, Counting(), Config())
    alone = [PeopleFitter(tables, prior, Config()) for _ in places]
    for seen in _people(tables, places, 5):
        calls.clear()
        found = together.step(seen[0].stamp_ns, seen)
        expected = [f.step(o.stamp_ns, [o])[0] for f, o in zip(alone, seen, strict=True)]
        places_x = [r.state.joints[0, 0] for r in found]
        for result in expected:
            near = int(np.argmin(np.abs(np.array(places_x) - result.state.joints[0, 0])))
            # Rounding of float32 through the iterations of a few frames.
            np.testing.assert_allclose(found[near].state.joints, result.state.joints, atol=1e-3)
    assert max(calls) > 3 and len(calls) <= Config().fit.max_iterations
