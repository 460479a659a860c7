"""`dposer view`: what it takes from messages and bags, and what it puts on its page."""

import dataclasses
import re
import signal
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
from null_fitter import result
from people_bag import crossing_messages, write_bag

from dposer_core.body_model import load_body
from dposer_core.config import Config
from dposer_core.errors import DPoserError, MediaError, ModelFileError
from dposer_core.skeleton import LEFT_HAND_JOINTS, NUM_JOINTS
from dposer_core.state import Source, Status

pytestmark = pytest.mark.ros
viser = pytest.importorskip('viser', reason='viser is not installed: pip install dposer_ros[view]')

from dposer_ros.msg import FitStats, KeypointFrame, SmplxStateArray  # noqa: E402

from dposer_ros.conversions import ModelInfo, header_at, state_msg  # noqa: E402
from dposer_ros.viewer import page as view_page  # noqa: E402
from dposer_ros.viewer.moment import Moment, moment_from_msg  # noqa: E402
from dposer_ros.viewer.page import Page, ellipsoids, up_direction  # noqa: E402
from dposer_ros.viewer.sources import (  # noqa: E402
    Live,
    Recorded,
    Topics,
    read_moments,
    states_topic,
)

HIDDEN_HAND = np.full(NUM_JOINTS, Source.OBSERVED, np.uint8)
HIDDEN_HAND[LEFT_HAND_JOINTS] = Source.COMPLETED


@pytest.fixture(scope='module')
def body():
    try:
        return load_body('')
    except ModelFileError as error:
        pytest.skip(str(error))


def states(*results, model='null/00000000', stamp_ns=10**9, **stats) -> SmplxStateArray:
    header = header_at(stamp_ns, 'camera_optical_frame')
    msgs = [state_msg(r, header, ModelInfo(model), FitStats(**stats)) for r in results]
    return SmplxStateArray(header=header, states=msgs)


def standing(body, stamp_ns=10**9, body_id='p0001', source=HIDDEN_HAND, depth=3.0) -> Moment:
    """Somebody at rest before the camera, as the model itself has the joints."""
    person = result(stamp_ns, body_id, depth, source=source)
    state = person.state
    joints = body.joints(state.pose_rotvec, state.betas, state.expression, state.transl)[0]
    person = dataclasses.replace(person, state=dataclasses.replace(state, joints=joints))
    model = f'{body.tables.name}/{body.tables.sha256[:8]}'
    return moment_from_msg(states(person, model=model, stamp_ns=stamp_ns, fit=0.01, total=0.03))


def test_a_moment_is_what_the_message_says():
    pose = np.random.default_rng(0).normal(0.0, 0.4, (NUM_JOINTS, 3))
    told = result(pose_rotvec=pose, source=HIDDEN_HAND, betas=np.arange(10.0))
    moment = moment_from_msg(states(told, fit=0.012, total=0.034))
    (person,) = moment.people
    np.testing.assert_allclose(person.pose_rotvec, pose, atol=1e-6)  # through float32 quaternions
    np.testing.assert_allclose(person.joints, told.state.joints, atol=1e-6)
    np.testing.assert_allclose(person.covariance, told.state.position_covariance, atol=1e-9)
    np.testing.assert_array_equal(person.source, HIDDEN_HAND)
    assert (moment.fit_ms, moment.total_ms) == (pytest.approx(12.0), pytest.approx(34.0))


def test_times_that_nobody_measured_are_not_shown_as_zero():
    moment = moment_from_msg(states(result()))
    assert np.isnan(moment.fit_ms) and np.isnan(moment.total_ms)


def test_who_was_lost_is_gone():
    assert moment_from_msg(states(result(status=Status.LOST))).people == ()


@pytest.mark.parametrize(
    ('field', 'value'),
    [('positions', np.nan), ('rotations', 0.0), ('positions', 1e9), ('source', 9)],
)
def test_a_state_that_is_no_body_is_refused(field, value):
    msg = states(result())
    getattr(msg.states[0], field)[7] = value
    if field == 'rotations':
        msg.states[0].rotations[4:8] = 0.0
    with pytest.raises(MediaError):
        moment_from_msg(msg)


# --- the time line -------------------------------------------------------------------------------


class Gui:
    """The controls that a source asks for, as plain values."""

    def __init__(self) -> None:
        self.controls = {}

    def add_folder(self, label):
        return self

    __enter__ = __exit__ = lambda self, *_: None

    def _control(self, label, value):
        return self.controls.setdefault(label, SimpleNamespace(value=value))

    add_checkbox = _control

    def add_dropdown(self, label, options, initial_value):
        assert initial_value in options
        return self._control(label, initial_value)

    def add_slider(self, label, low, high, step, initial_value):
        return self._control(label, initial_value)

    def add_markdown(self, text):
        pass


def recorded(count: int, **options) -> tuple[Recorded, dict, list[Moment]]:
    moments = [Moment(k * 100_000_000, '', ()) for k in range(count)]
    source, gui = Recorded(moments, **options), Gui()
    source.add_controls(gui)
    return source, gui.controls, moments


def test_a_bag_plays_at_its_own_pace_and_starts_over(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, 'monotonic', lambda: now)
    source, controls, moments = recorded(5)
    shown = []
    for now in (0.0, 0.05, 0.12, 0.35, 0.45):
        shown.append(moments.index(source.recent()[-1]))
        assert controls['Frame'].value == shown[-1]
    assert shown == [0, 0, 1, 3, 0]
    controls['Speed'].value = '2'
    now = 0.55
    assert source.recent()[-1] is moments[2]


def test_a_paused_bag_shows_the_frame_of_the_slider():
    source, controls, moments = recorded(5, is_playing=False, first=3)
    assert source.recent()[-1] is moments[3]
    controls['Frame'].value = 1
    assert list(source.recent()) == moments[:2]


def test_a_bag_of_one_frame_is_shown():
    source, _, moments = recorded(1, first=7)
    assert list(source.recent()) == moments


# --- the scene -----------------------------------------------------------------------------------


def test_every_face_is_drawn_once_in_the_colour_of_its_worst_corner(body):
    moment = standing(body)
    page = Page(Recorded([moment]), body, 'test', port=0)
    try:
        parts = page._mesh_parts(moment.people[0])
    finally:
        page.close()
    assert set(parts) == {Source.OBSERVED, Source.COMPLETED}
    assert sum(len(faces) for _, faces in parts.values()) == len(body.faces)
    hand = parts[Source.COMPLETED][0]
    joints = moment.people[0].joints[LEFT_HAND_JOINTS]
    nearest = np.linalg.norm(hand[:, None] - joints, axis=2).min(axis=1)
    assert nearest.max() < 0.08  # m: the faces at the wrist are the furthest from a finger joint


def test_ellipsoids_reach_as_far_as_their_sigmas():
    covariance = np.diag([0.01, 0.02, 0.05])[None] ** 2
    vertices, faces = ellipsoids(np.array([[1.0, 2.0, 3.0]]), covariance)
    reach = np.abs(vertices - (1.0, 2.0, 3.0)).max(axis=0)
    np.testing.assert_allclose(reach, view_page.SIGMAS * np.array([0.01, 0.02, 0.05]), rtol=1e-6)
    assert faces.max() == len(vertices) - 1


@pytest.mark.parametrize(
    ('choice', 'frame', 'expected'),
    [('auto', 'left_optical_frame', '-y'), ('auto', 'map', '+z'), ('+x', 'map', '+x')],
)
def test_up_is_told_from_the_frame_or_by_the_user(choice, frame, expected):
    assert up_direction(choice, Moment(0, frame, ())) == expected


def test_the_page_follows_the_people(body):
    gone = Moment(3 * 10**9, 'camera_optical_frame', ())
    source = Recorded([standing(body), gone], is_playing=False)
    page = Page(source, body, 'test', port=0)
    try:
        page.update()
        assert {name.split('/')[3] for name in page._nodes} == {'mesh', 'skeleton', 'label'}
        assert 'p0001' in page._status.content and 'completed' in page._status.content
        page._layers['Uncertainty'].value, page._layers['Mesh'].value = True, False
        page.update()
        assert {n.split('/')[3] for n in page._nodes} == {'skeleton', 'uncertainty', 'label'}
        source._slider.value = 1
        page.update()
        assert page._nodes == set() and 'nobody' in page._status.content
    finally:
        page.close()


def test_names_out_of_a_message_are_no_markup(body):
    moment = standing(body)
    person = dataclasses.replace(moment.people[0], body_id='<script>alert(1)</script>')
    moment = dataclasses.replace(moment, people=(person,), frame_id='<img src=x>')
    status = view_page._status(moment, '')
    assert '<script>' not in status and '<img' not in status


def test_another_body_model_gives_no_mesh_but_a_note(body):
    moment = standing(body)
    person = dataclasses.replace(moment.people[0], model='other/12345678')
    page = Page(Recorded([dataclasses.replace(moment, people=(person,))]), body, 'test', port=0)
    try:
        page.update()
        assert not any('mesh' in name for name in page._nodes)
        assert '--model' in page._status.content
    finally:
        page.close()


# --- live ----------------------------------------------------------------------------------------


def test_live_shows_states_with_the_keypoints_of_their_stamp(ros_domain, body):
    import rclpy
    from node_probe import camera_info, frame, person, wait_for
    from rclpy.context import Context

    source = Live(Topics(), Config())
    source.add_controls(Gui())
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node('speaker', context=context)
    try:
        publishers = [
            node.create_publisher(kind, topic, 1)
            for kind, topic in (
                (type(camera_info()), 'camera_info'),
                (KeypointFrame, 'keypoints'),
                (SmplxStateArray, '/human/smplx_states'),
            )
        ]
        wait_for(lambda: all(p.get_subscription_count() == 1 for p in publishers), 30.0)
        camera, keypoints, told = publishers
        wait_for(lambda: camera.publish(camera_info()) or source._cameras is not None, 30.0)
        seen = frame(person(), stamp_ns=2 * 10**9)
        wait_for(lambda: keypoints.publish(seen) or len(source._waiting) == 1, 30.0)
        bad = states(result(), stamp_ns=10**9)
        bad.states[0].positions[0] = np.nan
        told.publish(bad)
        wait_for(lambda: source.refusals.counts['not_shown'] == 1, 30.0)
        told.publish(states(result(), stamp_ns=2 * 10**9))
        wait_for(lambda: len(source.recent()) == 1, 30.0)
        (moment,) = source.recent()
        told.publish(states(result(), stamp_ns=3 * 10**9))
        wait_for(lambda: len(source.recent()) == 2, 30.0)
        told.publish(states(stamp_ns=10**9))  # time goes back
        wait_for(lambda: [m.stamp_ns for m in source.recent()] == [10**9], 30.0)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
        source.close()
    assert moment.stamp_ns == 2 * 10**9 and moment.people[0].body_id == 'p0001'
    assert len(moment.observations) == 1 and moment.observations[0].camera.width == 960


# --- bags ----------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def keypoint_bag(tmp_path_factory, body):
    return write_bag(tmp_path_factory.mktemp('bag') / 'people', crossing_messages(num_frames=8))


def test_a_bag_of_states_is_read_with_its_keypoints(tmp_path, keypoint_bag, body):
    from dposer_ros import bags

    assert states_topic(keypoint_bag) == '/truth/states'
    messages = [
        ('/human/smplx_states', stamp, 'dposer_ros/msg/SmplxStateArray', states(result(stamp)))
        for stamp in (1, 2)
    ]
    for k, (_, _, _, msg) in enumerate(messages):
        msg.header.stamp.sec, msg.header.stamp.nanosec = 10, 33_333_333 * k
    bag = write_bag(tmp_path / 'states', messages)
    assert bags.is_bag(bag)
    topics = Topics(keypoints='/keypoints')
    moments = read_moments(bag, Config(), topics, keypoint_bag, {10**10: 7.5})
    assert [len(moment.observations) for moment in moments] == [2, 2]
    assert moments[0].fit_ms == 7.5 and np.isnan(moments[1].fit_ms)


def dposer_view(*arguments: str) -> None:
    from dposer_ros.cli import build_app

    build_app('view')(args=['view', *arguments], standalone_mode=False)


@pytest.mark.slow
def test_keypoints_are_fitted_first(monkeypatch, keypoint_bag, body):
    shown = []

    def run(page) -> None:
        page.update()
        shown.append((page._source._moments, set(page._nodes), page.url))

    monkeypatch.setattr(Page, 'run', run)
    dposer_view(str(keypoint_bag), '--fit', '--port', '0', '--no-play', '--topic', '/keypoints')
    ((moments, nodes, url),) = shown
    assert [len(moment.people) for moment in moments] == [2] * 8
    assert all(moment.fit_ms > 0.0 and len(moment.observations) == 2 for moment in moments)
    assert sum('/skeleton' in name for name in nodes) == 2 and '/camera' in nodes
    assert url.startswith('http://localhost:')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'give either a bag or --live'),
        (['x.mcap', '--live'], 'give either a bag or --live'),
        (['{bag}', '--states-topic', '/s'], "no states on '/s'"),
        (['{bag}', '--fit'], 'several topics'),
        (['--live', '--camera-topic', 'a b'], 'not a topic name'),
        (['x.mcap', '--host', '192.0.2.1'], 'cannot be listened on'),
        (['x.mcap', '--host', 'nowhere.invalid'], 'cannot be listened on'),
        (['/nowhere.mcap'], 'does not exist'),
        (['/nowhere.mcap', '--up', 'skyward'], 'choose one of auto'),
        (['/nowhere.mcap', '--model', '/nowhere.npz'], 'nowhere.npz'),
        (['/nowhere.mcap', '--params', '/nowhere.yaml'], 'not a readable YAML'),
    ],
)
def test_wrong_use_is_told_in_one_line(arguments, message, keypoint_bag):
    with pytest.raises(DPoserError, match=message) as caught:
        dposer_view(*(argument.format(bag=keypoint_bag) for argument in arguments))
    assert '\n' not in str(caught.value)


def test_states_of_another_body_model_are_refused(tmp_path, body):
    message = ('/human/smplx_states', 1, 'dposer_ros/msg/SmplxStateArray', states(result()))
    bag = write_bag(tmp_path / 'other', [message])
    with pytest.raises(MediaError, match='fitted with body model null/00000000'):
        dposer_view(str(bag))


def test_truncated_states_are_told_with_the_remedy(tmp_path, body):
    bag = write_bag(
        tmp_path / 'old', [('/s', 1, 'dposer_ros/msg/SmplxStateArray', states(result()))]
    )
    (storage,) = bag.glob('*.mcap')
    storage.write_bytes(storage.read_bytes()[:2000])
    with pytest.raises(MediaError, match='not a readable ROS 2 bag'):
        dposer_view(str(bag))


@pytest.mark.slow
def test_the_command_serves_its_page_until_it_is_told_to_stop(ros_domain, body):
    command = [sys.executable, '-m', 'dposer_ros.cli', 'view', '--live', '--port', '0']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = re.search(r'http://\S+', process.stdout.readline()).group()
            with urllib.request.urlopen(url, timeout=10) as page:
                assert b'<html' in page.read().lower()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 0
            assert process.stdout.read() == 'closed\n'
        finally:
            process.kill()
