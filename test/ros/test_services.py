import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
from dposer_ros.action import CalibrateShape, WarmUp
from dposer_ros.srv import GetStatus, LoadShape, ResetBody, SaveShape, SetPrimary, Snapshot
from node_probe import active_node, node_and_probe, person, wait_for
from null_fitter import null_model, rest_joints, result
from rclpy.action import ActionClient
from std_srvs.srv import Empty, SetBool

from dposer_core.errors import ConfigError, ModelFileError
from dposer_core.state import Status
from dposer_ros.bags import read_messages
from dposer_ros.outputs import primary_result
from dposer_ros.shape_files import Shape, read_shape, shape_path, write_shape

pytestmark = pytest.mark.ros

NODE = '/dposer_wholebody'


class Caller:
    """Calls the node's services and keeps how long each answer took."""

    def __init__(self, probe) -> None:
        self._probe, self._clients = probe, {}
        self.seconds: list[float] = []

    def __call__(self, kind, name, **request):
        if name not in self._clients:
            self._clients[name] = self._probe.create_client(kind, f'{NODE}/{name}')
            assert self._clients[name].wait_for_service(5.0), name
        begin = time.perf_counter()
        future = self._clients[name].call_async(kind.Request(**request))
        wait_for(future.done, what=name)
        self.seconds.append(time.perf_counter() - begin)
        return future.result()


def show(probe, *people) -> None:
    """Send a frame and wait until it has been answered."""
    stamp_ns, answers = probe.send(*people), probe.received['/human/smplx_states']
    wait_for(lambda: answers and stamp_ns_of(answers[-1]) >= stamp_ns, what='the answer')


def stamp_ns_of(msg) -> int:
    return msg.header.stamp.sec * 10**9 + msg.header.stamp.nanosec


def test_services_answer_with_a_fit_in_progress_and_do_what_they_say(tmp_path):
    overrides = {'storage__folder': str(tmp_path), 'snapshot__seconds': 5.0}
    with active_node(null_model, **overrides) as (node, probe):
        call = Caller(probe)
        show(probe, person(), person())
        node._model.fitter.seconds = 0.3
        probe.send(person(), person())  # from now on a fit is in progress
        time.sleep(0.02)
        status = call(GetStatus, 'get_status')
        assert (status.state, status.enabled, status.input_type) == (
            'active',
            True,
            'keypoint_frame',
        )
        assert list(status.body_ids) == ['p0001', 'p0002']
        assert (status.primary_id, status.primary_policy) == ('p0001', 'nearest')
        assert status.model == 'null/00000000'
        assert status.worker_age > 0.0
        assert not call(SetPrimary, 'set_primary').ok
        assert not call(SetPrimary, 'set_primary', policy='tallest').ok
        assert call(SetPrimary, 'set_primary', body_id='p0002').ok
        saved = call(SaveShape, 'save_shape', person_id='ada', body_id='p0001')
        assert saved.ok and json.loads((tmp_path / 'shapes' / 'ada.json').read_text())['betas']
        missing = call(LoadShape, 'load_shape', person_id='bob')
        assert not missing.ok and 'bob.json not found' in missing.message
        assert not call(ResetBody, 'reset_body', body_id='p0009').ok
        node._model.fitter.seconds = 0.0
        show(probe, person(), person())
        wait_for(lambda: probe.states()[-1].body_id == 'p0002', what='the chosen primary')
        saved_betas = np.linspace(-1.0, 1.0, 10)
        write_shape(tmp_path / 'shapes' / 'bob.json', Shape('bob', 'null/00000000', saved_betas))
        assert call(LoadShape, 'load_shape', person_id='bob', body_id='p0002').ok
        wait_for(lambda: 'p0002' in node._model.fitter.shapes)
        wait_for(lambda: show(probe, person(), person()) or probe.states()[-1].betas_frozen)
        np.testing.assert_allclose(probe.states()[-1].betas, saved_betas, atol=1e-6)
        snapshot = call(Snapshot, 'snapshot')
        assert snapshot.ok, snapshot.message
        assert not call(Snapshot, 'snapshot', seconds=1e9).ok
        wait_for(lambda: any(snapshot.path in e.reason for e in probe.events('PROGRESS')))
        topics = [topic for topic, _, _ in read_messages(Path(snapshot.path), ['/keypoints'])]
        assert len(topics) >= 3
        resets = node._model.fitter.resets
        call(Empty, 'reset')
        wait_for(lambda: node._model.fitter.resets == resets + 1)
        wait_for(lambda: probe.events('RESET'))
        assert call(SetBool, 'set_enabled', data=False).success
        before = len(probe.states())
        probe.send(person())
        time.sleep(0.1)
        assert len(probe.states()) == before
        assert call(SetBool, 'set_enabled', data=True).success
        show(probe, person())
        print(f'slowest of {len(call.seconds)} service calls: {max(call.seconds) * 1e3:.1f} ms')
        # Promised are 50 ms; a machine shared with other work may pause one call.
        assert sorted(call.seconds)[-2] < 0.05


def test_services_of_a_node_that_is_not_active_say_so():
    with node_and_probe(null_model) as (_, probe):
        call = Caller(probe)
        assert call(GetStatus, 'get_status').state == 'unconfigured'
        answer = call(SetPrimary, 'set_primary', policy='first')
        assert not answer.ok and 'unconfigured' in answer.message
        assert not call(SaveShape, 'save_shape', person_id='ada').ok
        assert not call(Snapshot, 'snapshot').ok
        call(Empty, 'reset')


def send_goal(probe, kind, name, **goal):
    client = ActionClient(probe, kind, f'{NODE}/{name}')
    assert client.wait_for_server(5.0)
    feedback = []
    future = client.send_goal_async(kind.Goal(**goal), feedback_callback=feedback.append)
    wait_for(future.done)
    return client, future.result(), feedback


def test_calibration_gives_feedback_and_freezes_and_can_be_canceled():
    with active_node(null_model) as (_, probe):
        show(probe, person())
        client, goal, feedback = send_goal(probe, CalibrateShape, 'calibrate_shape', duration=0.6)
        assert goal.accepted
        other, refused, _ = send_goal(probe, CalibrateShape, 'calibrate_shape', duration=0.6)
        assert not refused.accepted  # one at a time
        answer = goal.get_result_async()
        wait_for(lambda: show(probe, person()) or time.sleep(0.02) or answer.done(), what='result')
        assert answer.result().result.ok
        assert answer.result().result.body_id == 'p0001'
        np.testing.assert_allclose(answer.result().result.betas, 0.5)
        assert feedback and feedback[0].feedback.elapsed > 0.0
        other.destroy()
        other, goal, _ = send_goal(probe, CalibrateShape, 'calibrate_shape', duration=30.0)
        assert goal.accepted
        wait_for(goal.cancel_goal_async().done)
        answer = goal.get_result_async()
        wait_for(answer.done, what='canceled')
        assert not answer.result().result.ok
        other.destroy()
        client.destroy()


def test_warm_up_runs_while_inactive_only():
    def model(config):
        ready = null_model(config)
        return dataclasses.replace(ready, rehearse=lambda: time.sleep(0.01))

    with node_and_probe(model) as (node, probe):
        client, goal, _ = send_goal(probe, WarmUp, 'warmup', fits=3)
        assert not goal.accepted
        client.destroy()
        node.trigger_configure()
        client, goal, _ = send_goal(probe, WarmUp, 'warmup', fits=3)
        answer = goal.get_result_async()
        wait_for(answer.done)
        assert answer.result().result.ok
        assert 0.01 <= answer.result().result.median <= answer.result().result.slowest < 1.0
        client.destroy()


# --- files and policies ---


def test_shape_survives_its_file(tmp_path):
    path = shape_path(tmp_path, 'ada', '')
    write_shape(path, Shape('ada', 'open/12345678', np.linspace(-2, 2, 10)))
    again = read_shape(path, 'open/12345678')
    np.testing.assert_allclose(again.betas, np.linspace(-2, 2, 10), atol=1e-6)
    with pytest.raises(ModelFileError, match='body model open/12345678'):
        read_shape(path, 'smplx/87654321')


@pytest.mark.parametrize(
    'person_id, path',
    [
        ('../x', ''),
        ('', ''),
        ('a', '/etc/passwd.json'),
        ('a', '../../x.json'),
        ('a', 'x.npz'),
        ('a', 'x\0.json'),
        ('a', 'shapes/../..'),
    ],
)
def test_shape_is_nowhere_but_below_the_folder(tmp_path, person_id, path):
    with pytest.raises(ConfigError):
        shape_path(tmp_path, person_id, path)


BAD_SHAPES = [
    b'',
    b'{',
    b'[' * 100_000,
    b'[1]',
    b'{"format": "dposer_shape_1"}',
    json.dumps({'format': 'dposer_shape_1', 'model': 'm', 'person_id': 'a', 'betas': 3}).encode(),
    b'{"format": "dposer_shape_1", "model": "m", "person_id": "a", "betas": ['
    + b', '.join([b'NaN'] * 10)
    + b']}',
    b' ' * 70_000,
]


@pytest.mark.parametrize('content', BAD_SHAPES, ids=range(len(BAD_SHAPES)))
def test_damaged_shape_is_an_error_and_nothing_else(tmp_path, content):
    path = tmp_path / 'a.json'
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match='not the shape of a person'):
        read_shape(path, 'm')


def test_primary_policies():
    near, far = result(body_id='near', depth=2.0), result(body_id='far', depth=6.0)
    giant = result(body_id='giant', depth=4.0, joints=rest_joints() * 5.0 + (0.0, 0.0, 4.0))
    people = [far, near, giant]
    assert primary_result(people, '').body_id == 'near'
    assert primary_result(people, '', 'largest').body_id == 'giant'
    assert primary_result(people, '', 'first').body_id == 'far'
    assert primary_result(people, 'near', 'first').body_id == 'near'
    lost = result(body_id='near', status=Status.LOST)
    assert primary_result([lost, far], 'near', 'first').body_id == 'far'
    close = result(body_id='close', depth=1.8)
    assert primary_result([near, close], 'near').body_id == 'near'  # hysteresis
