"""Promises of the interface that need the running node and belong to no single fault."""

import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dposer_ros.msg import KeypointFrame, SmplxState
from dposer_ros.srv import (
    GetStatus,
    LoadShape,
    ResetBody,
    SaveShape,
    SetPrimary,
    Snapshot,
)
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_probe import (
    active_node,
    node_and_probe,
    node_process,
    person,
    wait_for,
)
from null_fitter import null_model
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.clock import Clock
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from std_srvs.srv import Empty, SetBool
from test_faults import CAMERA, EVIDENCE, STATES, TIMING, Stream, stamp_ns, swaying
from tf2_msgs.msg import TFMessage

from dposer_core.state import Status
from dposer_ros import reports
from dposer_ros.live_model import load_live_model

HEARTBEAT = '/dposer_wholebody/heartbeat'
STEADY_MINUTES = float(os.environ.get('DPOSER_STEADY_MINUTES', '10'))
pytestmark = pytest.mark.ros

NODE = '/dposer_wholebody'
VALID = {  # state -> transition -> state afterwards
    'unconfigured': {'configure': 'inactive'},
    'inactive': {'activate': 'active', 'cleanup': 'unconfigured'},
    'active': {'deactivate': 'inactive'},
}
PATH = {'unconfigured': [], 'inactive': ['configure'], 'active': ['configure', 'activate']}
IDS = {
    'configure': Transition.TRANSITION_CONFIGURE,
    'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE,
    'cleanup': Transition.TRANSITION_CLEANUP,
    'callback success': Transition.TRANSITION_CALLBACK_SUCCESS,
    'error': Transition.TRANSITION_ON_ERROR_ERROR,
    'unknown': 200,
}


class Lifecycle:
    """The lifecycle services, called from outside."""

    def __init__(self, probe) -> None:
        self._change = probe.create_client(ChangeState, f'{NODE}/change_state')
        self._state = probe.create_client(GetState, f'{NODE}/get_state')
        assert self._change.wait_for_service(5.0) and self._state.wait_for_service(5.0)

    def change(self, name: str) -> bool:
        """Whether the node says that it made the transition."""
        request = ChangeState.Request(transition=Transition(id=IDS[name]))
        return self._call(self._change, request).success

    @property
    def state(self) -> str:
        return self._call(self._state, GetState.Request()).current_state.label

    def _call(self, client, request):
        future = client.call_async(request)
        wait_for(future.done)
        return future.result()


@pytest.mark.parametrize('state', VALID)
def test_transition_that_a_state_does_not_have_is_refused_and_changes_nothing(state):
    with node_and_probe(null_model) as (node, probe):
        lifecycle = Lifecycle(probe)
        assert all(lifecycle.change(name) for name in PATH[state])
        for name in IDS:
            if name not in VALID[state]:
                assert not lifecycle.change(name), name
                assert lifecycle.state == state
        for name, after in VALID[state].items():
            assert lifecycle.change(name) and lifecycle.state == after
            break
        assert node.error == ''


class SteppedClock:
    """The clock of a machine whose time is set by `step_s` at some moment."""

    def __init__(self, real: Clock) -> None:
        self._real, self.step_s = real, 0.0

    def now(self) -> Time:
        shifted = self._real.now().nanoseconds + int(self.step_s * 1e9)
        return Time(nanoseconds=shifted, clock_type=self._real.clock_type)

    def __getattr__(self, name: str):
        return getattr(self._real, name)


@pytest.mark.slow
@pytest.mark.parametrize('step_s', [-5.0, 5.0])
def test_clock_that_is_set_by_five_seconds_stalls_nothing(step_s, monkeypatch):
    """As by NTP, node and detector on the same machine."""
    with active_node(null_model) as (node, probe):
        clock = SteppedClock(node.get_clock())
        monkeypatch.setattr(node, 'get_clock', lambda: clock)
        monkeypatch.setattr(
            reports,
            'time',
            SimpleNamespace(
                time_ns=lambda: time.time_ns() + int(clock.step_s * 1e9),
                monotonic_ns=time.monotonic_ns,
                perf_counter=time.perf_counter,
            ),
        )
        stream = Stream(probe)
        stream.send(15)
        monkeypatch.setattr(probe, 'now_ns', lambda: clock.now().nanoseconds)
        count, clock.step_s = len(probe.states()), step_s
        stream.send(30)
        wait_for(lambda: len(probe.states()) >= count + 20)
        came = probe.received_at[STATES][count - 1 :]
        gap = float(np.max(np.diff(came)))
        print(f'clock set by {step_s:+.0f} s: longest gap of the states {gap * 1e3:.0f} ms')
        # Promised are 200 ms on a machine of one's own.
        assert gap < 0.5
        assert {s.status for s in probe.states()[count + 3 :]} == {Status.TRACKING}
        assert probe.events('TIME_JUMP')


@pytest.mark.slow
def test_the_node_around_the_fit_costs_a_millisecond():
    """With a fitter that does nothing, in a process of its own; everything is subscribed to.

    A state counts until DDS has it (its source timestamp), a frame until all topics are out.
    """
    with node_process(Path(__file__).with_name('null_fitter.py')) as (probe, _):
        probe.listen('/tf', TFMessage)
        published: dict[int, int] = {}  # stamp of the frame -> when its state was, ns

        def on_state(message: SmplxState, info) -> None:
            published[stamp_ns(message)] = info['source_timestamp']

        probe.create_subscription(SmplxState, '/human/smplx_state', on_state, 50)
        wait_for(lambda: (bool(probe.send(person())) and bool(probe.states())) or
                 probe.send_camera(), 20.0)  # fmt: skip
        probe.received.clear()
        Stream(probe).send(240)
        timing = [t for t in probe.received[TIMING] if t.age_in > 0.0]
        state = np.array(
            [
                (published[stamp_ns(s)] - stamp_ns(s)) * 1e-6
                - 1e3 * (s.stats.age_in + s.stats.fit)
                for s in probe.states()
                if s.status in EVIDENCE and stamp_ns(s) in published
            ]
        )
    stages = 1e3 * np.array([[t.queue, t.preprocess, t.postprocess, t.publish] for t in timing])
    frame, names = stages.sum(axis=1), 'queue, preprocess, postprocess, publish'
    for name, own in (('the state', state), ('all topics', frame)):
        p50, p99 = np.percentile(own, (50, 99))
        print(f'arrival to {name}, without the fit: {own.min():.2f} ms at least, p50 {p50:.2f}, '
              f'p99 {p99:.2f}')  # fmt: skip
    print(f'{names}: {", ".join(f"{v:.2f}" for v in np.median(stages, axis=0))} ms')
    # Promised is 1 ms at the median. Other work on the machine shows in the median, and less in
    # the frame that it disturbed least.
    assert len(state) > 100 and state.min() < 1.0 and np.median(state) < 2.5
    assert len(frame) > 100 and frame.min() < 2.0


@pytest.mark.slow
@pytest.mark.timeout(60 * STEADY_MINUTES + 120)
def test_a_steady_stream_is_answered_frame_by_frame(standing):
    """One person at 30 Hz for ten minutes into the real fit, in a process of its own."""
    count = round(1800 * STEADY_MINUTES)
    with node_process('-m', 'dposer_ros.node') as (probe, _):
        stream = Stream(probe)
        stream.send(30, None, [swaying(standing, 0.0)])
        probe.received.clear()
        probe.received_at.clear()
        sent = [stream.send(1, None, [swaying(standing, i / 30.0)])[0] for i in range(count)]
        wait_for(lambda: stamp_ns(probe.states()[-1]) >= sent[-1], 5.0, 'the last answer')
        states = {stamp_ns(s): s for s in probe.states()}
        timing = [t for t in probe.received[TIMING] if t.age_in > 0.0]
        at = dict(zip(map(stamp_ns, probe.states()), probe.received_at[STATES], strict=True))
    answered = [stamp for stamp in sent if stamp in states]
    last = states[answered[-1]].stats
    jitter = 1e3 * np.abs(np.diff([at[stamp] for stamp in answered], 2)).mean()
    for name, values in (
        ('fit', [t.fit for t in timing]),
        ('stamp to all topics out', [t.total for t in timing]),
        ('stamp to state at another process', [at[stamp] - stamp * 1e-9 for stamp in answered]),
    ):
        p50, p99, most = 1e3 * np.percentile(values, (50, 99, 100))
        print(f'{name}: p50 {p50:.1f}, p99 {p99:.1f}, max {most:.1f} ms')
    print(f'{len(answered)} of {count} frames answered, {last.dropped_inputs} overtaken, '
          f'{last.rejected_inputs} refused; mean jitter {jitter:.2f} ms')  # fmt: skip
    # DDS may lose a frame, since the input is best effort; the node loses none unseen.
    assert len(answered) + last.dropped_inputs + last.rejected_inputs >= 0.999 * count
    assert len(answered) >= 0.99 * count


@pytest.mark.slow
@pytest.mark.parametrize('latched', [False, True])
@pytest.mark.parametrize('reliable', [False, True])
def test_every_qos_of_a_detector_is_heard(reliable, latched):
    qos = QoSProfile(depth=1)
    qos.reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    qos.durability = (
        DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    )  # fmt: skip
    with active_node(null_model) as (node, probe):
        probe.destroy_publisher(probe.keypoints)
        probe.keypoints = probe.create_publisher(KeypointFrame, 'keypoints', qos)
        wait_for(lambda: bool(probe.send(person())) and bool(probe.states()), what='a state')
        assert node.refusals.counts['incompatible_qos'] == 0


def test_folder_that_cannot_be_written_is_an_answer_and_not_a_crash(tmp_path):
    file = tmp_path / 'a file'
    file.write_text('')
    with active_node(null_model, storage__folder=str(file / 'below')) as (node, probe):
        probe.send(person())
        wait_for(lambda: bool(probe.states()))
        for kind, name, request in (
            (SaveShape, 'save_shape', SaveShape.Request(person_id='anna')),
            (Snapshot, 'snapshot', Snapshot.Request(seconds=1.0)),
        ):
            client = probe.create_client(kind, f'{NODE}/{name}')
            assert client.wait_for_service(5.0)
            future = client.call_async(request)
            wait_for(future.done, what=name)
            answer = future.result()
            assert not answer.ok
            assert 'a file' in answer.message, answer.message
        assert node.state == 'active'


@pytest.mark.slow
def test_crowd_of_eight_that_comes_and_goes_never_costs_the_primary_a_frame(standing):
    """No more than `input.max_people` are fitted at once; the others take turns."""
    places = [(0.0, 0.0, 0.0), *((0.8 * side, 0.0, 2.0 + row) for row in range(4)
                                 for side in (-1, 1))][:8]  # fmt: skip

    def seen(i: int):
        someone = person()
        points = CAMERA.project(standing + places[i])
        someone.points = points.astype(np.float32).ravel().tolist()
        return someone

    with active_node(load_live_model, fit__deadline=0.2) as (node, probe):
        stream, most = Stream(probe, 5.0), node.settings.core.input.max_people
        for second in range(6):
            others = range(1, 8) if second % 2 == 0 else range(1, 4)
            stream.send(5, None, [seen(i) for i in (*others, 0)])
        time.sleep(0.5)
        arrays = probe.received['/human/smplx_states']
        primaries = {s.body_id for s in probe.states() if s.status in EVIDENCE}
        answered = {stamp_ns(s) for s in probe.states() if s.status in EVIDENCE}
        fitted = [[s.body_id for s in a.states if s.status in EVIDENCE] for a in arrays]
        fitted = [ids for ids in fitted if ids]
        people = {body_id for ids in fitted for body_id in ids}
        print(f'crowd: {len(fitted)} of 30 frames answered, {len(answered)} with the primary; '
              f'{len(people)} people, {max(map(len, fitted))} at most in one frame')  # fmt: skip
        assert len(fitted) >= 15
        assert len(answered) == len(fitted)
        assert len(primaries) == 1
        assert len(people) >= 8 and max(map(len, fitted)) <= most
        assert node.refusals.counts['fit_failed'] == 0


SERVICES = {
    'reset': Empty, 'reset_body': ResetBody, 'set_enabled': SetBool, 'set_primary': SetPrimary,
    'save_shape': SaveShape, 'load_shape': LoadShape, 'snapshot': Snapshot,
    'get_status': GetStatus, 'get_parameters': GetParameters, 'set_parameters': SetParameters,
}  # fmt: skip


def test_an_exception_in_any_callback_costs_that_call_and_nothing_else(tmp_path):
    log = tmp_path / 'log'
    program = Path(__file__).with_name('raising_node.py')
    with log.open('wb') as out, node_process(program, stdout=out) as (probe, child):
        wait_for(lambda: (bool(probe.send(person())) and bool(probe.states())) or
                 probe.send_camera(focal=800.0 + time.monotonic() % 1.0), 20.0)  # fmt: skip
        for name, kind in SERVICES.items():
            client = probe.create_client(kind, f'{NODE}/{name}')
            assert client.wait_for_service(5.0), name
            client.call_async(kind.Request())  # raises, and stays without an answer
            again = client.call_async(kind.Request())
            wait_for(again.done, 5.0, what=name)
        probe.received.clear()
        probe.send(person())  # `set_enabled` was called with false
        probe.send(person())
        wait_for(lambda: probe.received[HEARTBEAT], 2.0, 'the heart')
        wait_for(lambda: probe.received['/diagnostics'], 5.0, 'diagnostics')
        assert child.poll() is None
    text = log.read_text()
    raised = set(re.findall('^raised: (.*)$', text, re.M))
    print(f'{len(raised)} callbacks raised once, the node went on: {", ".join(sorted(raised))}')
    assert text.count('RuntimeError: injected into') >= len(raised) >= len(SERVICES) + 5
    assert {'subscription keypoints', 'subscription camera_info'} <= raised
