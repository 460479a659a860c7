import dataclasses
import time

import numpy as np
import pytest
from dposer_ros.msg import SmplxState, TrackEvent
from node_probe import active_node, node_and_probe, person, spinning, wait_for
from null_fitter import null_model, result
from rclpy.parameter import Parameter

from dposer_core import skeleton
from dposer_core.errors import ModelFileError
from dposer_core.state import Quality, Source, Status
from dposer_ros.events import ClockWatch, TrackWatch

pytestmark = pytest.mark.ros

FRAME_NS = 33_000_000


def kinds(events) -> list[int]:
    return [event.kind for event in events]


def at(frame, **fields):
    """The result of one frame of a stream."""
    states = {k: fields.pop(k) for k in ('source',) if k in fields}
    return dataclasses.replace(result(10**9 + frame * FRAME_NS, **states), **fields)


def hands(left: Source) -> np.ndarray:
    source = np.full(skeleton.NUM_JOINTS, Source.OBSERVED, dtype=np.uint8)
    source[skeleton.LEFT_HAND_JOINTS] = left
    return source


# --- what changes from frame to frame ---


def test_body_is_created_once_and_lost_once():
    watch = TrackWatch()
    assert kinds(watch.update([at(0)])) == [TrackEvent.CREATED]
    assert watch.update([at(1)]) == []
    (lost,) = watch.update([at(2, status=Status.LOST)])
    assert (lost.kind, lost.body_id) == (TrackEvent.LOST, 'p0001')
    assert watch.update([]) == []


def test_body_that_the_fit_gives_up_is_lost():
    watch = TrackWatch()
    watch.update([at(0)])
    assert kinds(watch.update([])) == [TrackEvent.LOST]


@pytest.mark.parametrize('gap, expected', [(3, []), (20, [TrackEvent.REACQUIRED])])
def test_only_a_real_gap_ends_with_a_reacquisition(gap, expected):
    watch = TrackWatch()
    watch.update([at(0)])
    for frame in range(1, 1 + gap):
        assert watch.update([at(frame, status=Status.PREDICTED)]) == []
    back = at(1 + gap)
    assert watch.reacquired(back) == bool(expected)
    assert kinds(watch.update([back])) == expected
    assert not watch.reacquired(at(2 + gap))


def test_another_name_by_the_detector_is_suspected_to_be_a_swap():
    watch = TrackWatch()
    watch.update([at(0, track_id='7')])
    assert watch.update([at(1, track_id='')]) == []  # a detector without a name for now
    (event,) = watch.update([at(2, track_id='9')])
    assert event.kind == TrackEvent.ID_SWAP_SUSPECTED
    assert "'9' instead of '7'" in event.reason
    assert watch.update([at(3, track_id='9')]) == []


def test_hand_changes_its_provenance_when_it_has_settled():
    watch = TrackWatch()
    watch.update([at(0)])
    flicker = [Source.COMPLETED, Source.OBSERVED, Source.COMPLETED, Source.COMPLETED]
    for frame, source in enumerate(flicker, start=1):
        assert watch.update([at(frame, source=hands(source))]) == []
    (event,) = watch.update([at(5, source=hands(Source.COMPLETED))])
    assert event.kind == TrackEvent.PROVENANCE
    assert event.reason == 'left hand: completed, was seen'


def test_degraded_after_five_poor_frames_and_recovered_after_fifteen_good_ones():
    watch = TrackWatch()
    qualities = [Quality.FULL, *[Quality.REDUCED] * 5, *[Quality.FULL] * 15]
    found = {}
    for frame, quality in enumerate(qualities):
        for event in watch.update([at(frame, quality=quality)]):
            found[event.kind] = frame
    assert found == {TrackEvent.CREATED: 0, TrackEvent.DEGRADED: 5, TrackEvent.RECOVERED: 20}


def test_clock_that_is_set_is_noticed_and_drift_is_not():
    watch = ClockWatch()
    assert watch.step_ns(10**18, 0) == 0
    assert watch.step_ns(10**18 + 10**8 + 50_000, 10**8) == 0
    assert watch.step_ns(10**18 - 5 * 10**9 + 2 * 10**8, 2 * 10**8) < -4_900_000_000


# --- over DDS ---


def test_life_of_a_body_is_told_and_reaches_late_subscribers():
    with active_node(null_model, occlusion__lost_timeout=0.6) as (node, probe):
        for name in ('a', 'b'):
            probe.send(person(track_id=name))
            wait_for(lambda n=name: probe.states() and probe.states()[-1].source_track_id == n)
        assert node.set_parameters([Parameter('fit.deadline', value=0.5)])[0].successful
        probe.send_camera(focal=900.0)
        time.sleep(0.4)  # predicted, not lost
        probe.send(person(track_id='b'))
        wait_for(lambda: probe.events('REACQUIRED'), what='REACQUIRED')
        again = next(s for s in probe.states() if s.status == SmplxState.REACQUIRED)
        assert again.header == probe.events('REACQUIRED')[0].header
        wait_for(lambda: probe.events('LOST'), what='LOST')
        wanted = ('CREATED', 'PRIMARY', 'ID_SWAP_SUSPECTED', 'REACQUIRED', 'LOST')
        told = [e.kind for e in probe.events(*wanted)]
        assert told == [getattr(TrackEvent, name) for name in wanted]
        assert {e.body_id for e in probe.events(*wanted)} == {'p0001'}
        assert [e.reason for e in probe.events('PARAMETERS')] == ['fit.deadline = 0.5']
        assert [e.reason for e in probe.events('CAMERA')] == ['another camera_info: 960x540']
        late = type(probe)(probe.context)
        try:
            with spinning(late):
                wait_for(lambda: len(late.events()) == len(probe.events()), what='latched events')
        finally:
            late.destroy_node()


def test_failed_configure_is_told_with_its_reason():
    def factory(config):
        raise ModelFileError('body.npz not found; run `dposer body build`')

    with node_and_probe(factory) as (node, probe):
        assert not node.start()
        wait_for(lambda: probe.events('FAILED'))
        assert 'body.npz not found' in probe.events('FAILED')[0].reason


def test_heart_beats_on_while_the_fit_hangs_and_says_so():
    with active_node(null_model, worker__hang_timeout=0.3) as (node, probe):
        probe.send(person())
        wait_for(lambda: probe.states())
        node._model.fitter.seconds = 0.8
        probe.send(person())
        wait_for(lambda: probe.events('FAILED'), what='FAILED')
        assert 'fit in progress' in probe.events('FAILED')[0].reason
        wait_for(lambda: probe.events('RECOVERED'), what='RECOVERED')
        time.sleep(0.3)
        topic = '/dposer_wholebody/heartbeat'
        beats, times = probe.received[topic], probe.received_at[topic]
    assert [b.beat for b in beats] == list(range(beats[0].beat, beats[0].beat + len(beats)))
    gap = max(np.diff(times))
    print(f'largest gap between beats at 10 Hz with a fit that hangs for 0.8 s: {gap:.3f} s')
    assert gap <= 0.3
    assert max(b.worker_age for b in beats) > 0.3
    assert beats[-1].worker_age < 0.3
    assert beats[-1].state == 'active'
