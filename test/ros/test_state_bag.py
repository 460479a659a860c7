"""The bag of states holds what the node publishes, and the same bytes every time."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from node_probe import active_node, person, wait_for
from null_fitter import null_model, rest_joints, result
from people_bag import FRAME_ID, keypoints, write_bag
from rosbags.rosbag2 import Reader

from dposer_core.state import Status
from dposer_ros import bags
from dposer_ros.evaluation.comparison import identical
from dposer_ros.evaluation.run import Run, make_run
from dposer_ros.evaluation.state_bag import write_state_bag
from dposer_ros.node_config import NodeConfig, OutputsConfig, TfConfig
from dposer_ros.replay import Clip, Replay
from test.swaying import CAMERA

pytestmark = pytest.mark.ros

FIRST_NS, PERIOD_NS = 10_000_000_000, 40_000_000
EVERYTHING = NodeConfig(
    tf=TfConfig(mode='smplx_hands'),
    outputs=OutputsConfig(hand_poses=True, keypoints_completed=True, capsules=True),
)


def run_of(results, stamps=()) -> Run:
    """Answers of a null fitter; `stamps` are frames without people."""
    frames = sorted({*stamps, *(r.state.stamp_ns for r in results)})
    clip = Clip('test', [(stamp, []) for stamp in frames], CAMERA, frame_id=FRAME_ID)
    return make_run(clip, Replay(results=list(results)), 'null/00000000', 0.3)


def two_people(frames: int = 4) -> Run:
    results = [
        result(FIRST_NS + k * PERIOD_NS, body, 3.0 + i)
        for k in range(frames)
        for i, body in enumerate(('p0001', 'p0002'))
    ]
    results[-1] = dataclasses.replace(results[-1], status=Status.LOST)
    return run_of(results, stamps=[FIRST_NS + frames * PERIOD_NS])


def messages_of(path: Path) -> dict[str, list]:
    """Topic -> messages, read with the definitions that the bag itself holds."""
    store, found = bags.typestore(), {}
    for connection, recorded_ns, data in bags.raw_messages(path, ()):
        assert connection.msgdef.data, connection.topic
        bags.with_type(store, connection.msgtype)
        message = store.deserialize_cdr(data, connection.msgtype)
        found.setdefault(connection.topic, []).append((recorded_ns, message))
    return found


@pytest.fixture(scope='module')
def bag(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('bag') / 'states.mcap'
    write_state_bag(path, two_people(), EVERYTHING, rest_joints)
    return path


def test_every_frame_is_there_at_the_stamp_of_its_input(bag):
    states = messages_of(bag)['/human/smplx_states']
    assert [recorded for recorded, _ in states] == [FIRST_NS + k * PERIOD_NS for k in range(5)]
    for recorded, message in states:
        stamp = message.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == recorded
        assert message.header.frame_id == FRAME_ID
    assert [len(message.states) for _, message in states] == [2, 2, 2, 2, 0]
    assert states[3][1].states[1].status == Status.LOST


def test_no_time_of_the_machine_is_in_it(bag):
    for _, message in messages_of(bag)['/human/smplx_states']:
        for state in message.states:
            stats = state.stats
            assert (stats.age_in, stats.queue, stats.fit, stats.publish, stats.total) == (0,) * 5


def test_events_tell_who_came_and_went(bag):
    events = [(m.body_id, m.kind) for _, m in messages_of(bag)['/dposer_wholebody/events']]
    assert events[:3] == [('p0001', 0), ('p0002', 0), ('p0001', 9)]  # CREATED twice, PRIMARY
    assert ('p0002', 1) in events  # TrackEvent.LOST


def test_latched_topics_will_be_latched_again(bag):
    with Reader(bag) as reader:
        durability = {
            connection.topic: connection.ext.offered_qos_profiles[0].durability.name
            for connection in reader.connections
        }
    assert durability['/human/urdf'] == 'TRANSIENT_LOCAL'
    assert durability['/human/smplx_state'] == 'VOLATILE'


def test_equal_runs_give_equal_files(bag, tmp_path):
    write_state_bag(tmp_path / 'states.mcap', two_people(), EVERYTHING, rest_joints)
    assert (tmp_path / 'states.mcap').read_bytes() == bag.read_bytes()
    assert identical(tmp_path, bag.parent) == {'states.mcap': True}
    assert [path.name for path in tmp_path.iterdir()] == ['states.mcap']


def test_inputs_are_copied_at_their_time_on_request(tmp_path):
    frame = keypoints(FIRST_NS, [])
    late = FIRST_NS + PERIOD_NS + 5
    source = write_bag(tmp_path / 'in', [('/keypoints', late, bags.KEYPOINT_TYPE, frame)])
    path = tmp_path / 'states.mcap'
    write_state_bag(path, two_people(), NodeConfig(), rest_joints, (source, ['/keypoints']))
    ((recorded, message),) = messages_of(path)['/keypoints']
    assert recorded == late and message.layout == frame.layout


def test_a_result_that_is_not_finite_is_refused_and_counted(tmp_path):
    joints = result().state.joints.copy()
    joints[3] = np.nan
    broken = run_of([result(FIRST_NS, joints=joints)])
    written = write_state_bag(tmp_path / 'states.mcap', broken, NodeConfig(), rest_joints)
    assert sum(written.refused.values()) == 1
    assert written.messages['/human/smplx_state'] == 0


def test_bag_and_live_node_publish_the_same(tmp_path):
    overrides = {f'outputs__{name}': True for name in ('hand_poses', 'keypoints_completed')}
    with active_node(null_model, tf__mode='smplx_hands', outputs__capsules=True, **overrides) as (
        node,
        probe,
    ):
        stamp = probe.send(person())
        wait_for(lambda: probe.received['/human/joint_states'], what='an answer')
        wait_for(lambda: probe.received['/human/hands'], what='an answer')
        published = {
            name for name, _ in node.get_publisher_names_and_types_by_node('dposer_wholebody', '/')
        }
        live = {topic: list(messages) for topic, messages in probe.received.items()}
    path = tmp_path / 'states.mcap'
    run = run_of([result(stamp, 'p0001', 3.0)])
    run = dataclasses.replace(
        run, clip=dataclasses.replace(run.clip, frame_id='camera_optical', camera=CAMERA)
    )
    write_state_bag(path, run, EVERYTHING, rest_joints)
    recorded = messages_of(path)
    # What is not about frames: parameters, log, lifecycle, heartbeat, diagnostics.
    about_frames = {n for n in published if n.startswith('/human') or n == '/tf'}
    large = {n for n in about_frames if n not in recorded}
    assert all('mesh' in name or 'image' in name or 'overlay' in name for name in large), large
    store = bags.typestore()
    for topic, kind in (
        ('/human/smplx_state', 'dposer_ros/msg/SmplxState'),
        ('/human/hands', 'dposer_ros/msg/HandStateArray'),
        ('/human/joint_states', 'sensor_msgs/msg/JointState'),
    ):
        message = live[topic][0]
        for state in [message] if hasattr(message, 'stats') else []:
            state.stats = type(state.stats)()
        ((_, other),) = recorded[topic]
        if hasattr(other, 'stats'):
            other = dataclasses.replace(other, stats=store.types['dposer_ros/msg/FitStats'](
                *(type(v)() for v in vars(other.stats).values())
            ))  # fmt: skip
        assert bags.serialize(store, message, kind) == bags.serialize(store, other, kind), topic
