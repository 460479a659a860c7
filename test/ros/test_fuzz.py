"""Random messages: refused or understood, never an exception that nobody expected."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from dposer_ros.msg import KeypointFrame
from node_probe import (
    Probe,
    camera_info,
    frame,
    node_and_probe,
    person,
    ros_context,
    spinning,
    wait_for,
)
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float32MultiArray, MultiArrayDimension, String

from dposer_core.body_model import load_body
from dposer_core.config import InputConfig, from_mapping
from dposer_core.errors import ModelFileError
from dposer_core.people import PeopleFitter
from dposer_ros.adapters import Context, convert
from dposer_ros.conversions import cameras_from_msg, header_at, observations_from_msg
from dposer_ros.faults import FAULTS, NASTY, Chance, Injector, random_frame, random_json
from dposer_ros.live_model import load_live_model
from dposer_ros.refusals import Refused

pytestmark = pytest.mark.ros

CONTEXT = Context(Time(sec=7), 'camera')
CAMERAS = cameras_from_msg(camera_info())
CONFIG = InputConfig()
ROWS = [[10.0 * i, 20.0 * i, 0.9] for i in range(17)]
GOOD_JSON = [
    json.dumps([{'keypoints': ROWS}]),
    json.dumps({'people': [{'pose_keypoints_2d': [v for row in ROWS * 2 for v in row][:75]}]}),
]
FIT_PERIOD_NS = 33_000_000
OVER_DDS = 20_000  # messages
BATCH = 50_000  # of the million in process


def multiarray(chance: Chance) -> Float32MultiArray:
    """Often consistent, often not."""
    one = chance.one
    sizes = [one.choice((0, 1, 2, 17, 2**32 - 1)), one.choice((17, 33, 5)), one.choice((2, 3, 4))]
    sizes = sizes[one.randrange(3) :]
    msg = Float32MultiArray()
    msg.layout.dim = [MultiArrayDimension(size=size) for size in sizes]
    msg.layout.data_offset = one.choice((0, 0, 0, 7, 2**32 - 1))
    count = one.choice((int(np.prod([min(size, 200) for size in sizes])), one.randrange(100)))
    msg.data = [one.choice(NASTY) if one.random() < 0.1 else 100.0 for _ in range(min(count, 300))]
    return msg


def any_frame(chance: Chance) -> KeypointFrame:
    """A KeypointFrame made at random, or what an adapter makes of a random message."""
    kind = chance.one.random()
    if kind < 0.85:
        return random_frame(chance)
    if kind < 0.95:
        text = random_json(chance.one, chance.one.choice(GOOD_JSON))
        return convert('json', String(data=text), CONTEXT)
    return convert('multiarray', multiarray(chance), CONTEXT)


def fuzz(count: int, seed: int, fitter: PeopleFitter | None = None, every: int = 1) -> Counter:
    """How many messages were refused, by cause, and how many people were understood.

    Args:
        count: messages.
        seed: of all chance.
        fitter: given the people of one message in `every` that were understood.
        every: see `fitter`.
    """
    chance, counts, stamp_ns = Chance(seed), Counter(), 0
    for _ in range(count):
        try:
            observations, refused = observations_from_msg(any_frame(chance), CAMERAS, CONFIG)
        except Refused as refusal:
            counts[refusal.cause] += 1
            continue
        counts.update(refusal.cause for refusal in refused)
        counts['understood'] += len(observations)
        for seen in observations:
            assert np.isfinite(seen.points).all()
            assert np.isfinite(seen.confidence).all()
            assert seen.sigma is None or np.isfinite(seen.sigma).all()
        if fitter is not None and observations and counts['understood'] % every == 0:
            stamp_ns += FIT_PERIOD_NS
            counts.update(fitted(fitter, stamp_ns, observations))
    return counts


def fitted(fitter: PeopleFitter, stamp_ns: int, observations: list) -> dict[str, int]:
    """Fit the people; the dimension of a stream changes only with a reset."""
    dim = observations[0].dim
    if getattr(fitter, 'fuzzed_dim', dim) != dim:
        fitter.reset()
    fitter.fuzzed_dim = dim
    results = fitter.step(stamp_ns, [o for o in observations if o.dim == dim], 0.025)
    numbers = [r.state.joints for r in results] + [r.state.rotation_sigma for r in results]
    return {'fitted': len(results), 'not finite': sum(not np.isfinite(n).all() for n in numbers)}


def test_20_000_random_messages_are_refused_or_understood():
    begin = time.perf_counter()
    counts = fuzz(20_000, seed=1)
    seconds = time.perf_counter() - begin
    print(f'20,000 messages in {seconds:.1f} s, 0 exceptions: {dict(counts.most_common())}')
    assert counts['understood'] > 1000  # not everything is refused at the door
    assert {'not_finite', 'layout', 'count', 'unit', 'dim', 'adapter', 'no_points'} <= set(counts)


@pytest.mark.slow
@pytest.mark.timeout(480)
@pytest.mark.parametrize('seed', range(10, 30))
def test_a_million_random_messages_through_the_fitter_too(seed):
    """Twenty times 50,000, so that a run that was cut short says how far it came; one in
    50 of those understood is fitted.
    """
    try:
        tables = load_body('').tables
    except ModelFileError as error:
        pytest.skip(str(error))
    config = from_mapping({'fit.cold_iterations': 4, 'fit.max_iterations': 1})
    fitter = PeopleFitter(tables, None, config)
    with np.errstate(all='ignore'):
        counts = fuzz(BATCH, seed, fitter, every=50)
    print(f'{BATCH} messages, 0 exceptions: {dict(counts.most_common())}')
    assert counts['fitted'] > 100
    assert counts['not finite'] == 0


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_20_000_random_messages_over_dds_leave_the_real_node_alive():
    """Reliable and deep for once, so that all of them reach the node."""
    reliable = {
        'qos_overrides./keypoints.subscription.reliability': 'reliable',
        'qos_overrides./keypoints.subscription.depth': 1000,
        'input.max_age': 10.0,
        'input.max_people': 1,
        'occlusion.lost_timeout': 0.6,
        # Few iterations: every other message meets somebody who was never seen before.
        'fit.deadline': 0.005,
        'fit.cold_iterations': 1,
        'fit.max_iterations': 1,
    }
    with node_and_probe(load_live_model, **reliable) as (node, probe):
        probe.destroy_publisher(probe.keypoints)  # best effort: does not fit
        assert node.start()
        wait_for(lambda: probe.send_camera() or node.has_camera, 20.0, 'camera_info')
        qos = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
        publisher = probe.create_publisher(KeypointFrame, 'keypoints', qos)
        wait_for(lambda: publisher.get_subscription_count() == 1)
        chance = Chance(3)
        for sent in range(OVER_DDS):
            msg = random_frame(chance)
            msg.header = header_at(probe.now_ns(), chance.one.choice(('camera', 'camera', '')))
            publisher.publish(msg)
            # All are received; those that come while the fit is busy replace one another.
            patience = time.monotonic() + 0.005
            while node.worker_age > 0.0 and time.monotonic() < patience:
                time.sleep(0.0002)
            while node.diagnostics.summary().received <= sent:
                time.sleep(0.0002)
        wait_for(lambda: node.diagnostics.summary().received >= OVER_DDS, 60.0, 'all messages')
        counts = Counter(node.refusals.counts)
        uncaught = counts['callback_failed'] + counts['fit_failed'] + counts['output_failed']
        judged = OVER_DDS - node.dropped
        print(f'{OVER_DDS} messages over DDS, {judged} of them judged or fitted, {uncaught} '
              f'uncaught exceptions: {dict(counts)}')  # fmt: skip
        print(f'{len(probe.states())} states, {counts["result_not_finite"]} not finite refused')
        assert uncaught == 0
        assert judged > 0.2 * OVER_DDS
        for state in probe.states():
            for field in ('positions', 'rotations', 'position_sigma', 'velocities'):
                assert np.isfinite(getattr(state, field)).all(), field
        assert node.state == 'active'


# --- the injector ---


def stream(count: int = 24) -> list[KeypointFrame]:
    """Two people, a frame a second."""
    people = [person(num_points=17, track_id=name) for name in 'ab']
    return [
        copy.deepcopy(frame(*people, stamp_ns=(100 + i) * 10**9, layout='coco17'))
        for i in range(count)
    ]


@pytest.mark.parametrize('name', FAULTS)
def test_every_fault_changes_the_stream_in_the_same_way_for_the_same_seed(name):
    def run() -> list[KeypointFrame]:
        injector = Injector(name, seed=4)
        return [out for msg in stream() for out in injector(msg)]

    once, again = run(), run()
    assert repr(once) == repr(again)
    assert repr(once) != repr(stream())


def test_share_lets_the_others_pass():
    injector = Injector('zero', share=0.3, seed=1)
    stamps = [m.header.stamp.sec for msg in stream(300) for m in injector(msg)]
    assert 60 < stamps.count(0) < 120


@pytest.mark.slow
def test_injector_node_stands_between_detector_and_fit():
    """`dposer inject` as a process of its own, on the topics of a running system."""
    with ros_context() as context:
        probe = Probe(context)
        probe.listen('/keypoints_faulty', KeypointFrame)
        command = [sys.executable, '-m', 'dposer_ros.cli', 'inject', 'zero', '--share', '0.5']
        environment = os.environ | {'ROS_DOMAIN_ID': str(context.get_domain_id())}
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            with spinning(probe):
                wait_for(lambda: probe.keypoints.get_subscription_count() == 1, 20.0, 'start')
                received = probe.received['/keypoints_faulty']
                wait_for(lambda: bool(probe.send(person())) and len(received) >= 40, 10.0)
            child.send_signal(signal.SIGINT)
            output, _ = child.communicate(timeout=5.0)
        finally:
            child.kill()
            child.wait()
            probe.destroy_node()
    zeros = sum(msg.header.stamp.sec == 0 for msg in received)
    assert child.returncode == 0
    assert 'messages came' in output
    assert 0.2 * len(received) < zeros < 0.8 * len(received)
