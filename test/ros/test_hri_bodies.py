"""Keypoints from the topics of REP-155, one per body."""

from contextlib import contextmanager

import numpy as np
import pytest
from node_probe import node_and_probe, wait_for
from null_fitter import null_model

from dposer_core.config import from_mapping
from dposer_core.errors import ConfigError
from dposer_ros.hri import ROOT
from dposer_ros.replay import adapter_of_type

pytestmark = pytest.mark.ros

hri_msgs = pytest.importorskip('hri_msgs.msg')


@contextmanager
def listening():
    """An active node and a probe."""
    with node_and_probe(null_model, input__type='hri_bodies') as (node, probe):
        assert node.start()
        wait_for(lambda: probe.send_camera() or node.has_camera, what='camera_info')
        yield node, probe


class Detector:
    """Publishes as a ROS4HRI body detector does."""

    def __init__(self, probe) -> None:
        self.probe = probe
        self.tracked = probe.create_publisher(hri_msgs.IdsList, f'{ROOT}/tracked', 1)
        self.bodies = {}

    def say(self, *ids: str) -> None:
        """Who is tracked."""
        self.tracked.publish(hri_msgs.IdsList(ids=list(ids)))
        for body_id in ids:
            if body_id in ('anna', 'ben', 'mute') and body_id not in self.bodies:
                self.bodies[body_id] = self.probe.create_publisher(
                    hri_msgs.Skeleton2D, f'{ROOT}/{body_id}/skeleton2d', 1
                )

    def send(self, *ids: str, frame_id: str = 'camera_optical') -> int:
        """A picture with these bodies; its stamp in ns."""
        stamp = self.probe.now_ns()
        for body_id in ids:
            msg = hri_msgs.Skeleton2D()
            msg.header.frame_id = frame_id
            msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp, 10**9)
            place = np.random.default_rng(len(body_id)).uniform(0.3, 0.7, (18, 2))
            for point, (x, y) in zip(msg.skeleton, place, strict=True):
                point.x, point.y, point.c = float(x), float(y), 0.9
            self.bodies[body_id].publish(msg)
        return stamp


def newest(probe) -> dict[str, str]:
    """Track id -> body id of the newest frame."""
    arrays = probe.received['/human/smplx_states']
    return {s.source_track_id: s.body_id for s in arrays[-1].states} if arrays else {}


def test_all_bodies_of_a_picture_are_one_frame_and_come_and_go():
    with listening() as (node, probe):
        detector = Detector(probe)

        def until(expected: set[str], *ids: str) -> bool:
            detector.say(*ids)
            detector.send(*ids)
            return set(newest(probe)) == expected

        wait_for(lambda: until({'anna'}, 'anna'), what='the first body')
        wait_for(lambda: until({'anna', 'ben'}, 'anna', 'ben'), what='the second')
        stamp = detector.send('anna', 'ben')
        wait_for(lambda: any(
            m.header.stamp.sec * 10**9 + m.header.stamp.nanosec == stamp and len(m.states) == 2
            for m in probe.received['/human/smplx_states']
        ), what='both in one frame')  # fmt: skip
        wait_for(lambda: until({'ben'}, 'ben'), what='one left')
        assert node.input_type == 'hri_bodies'
        assert node.refusals.total == 0, node.refusals.counts
        # The detector owns these topics.
        assert probe.count_publishers(f'{ROOT}/tracked') == 1
        assert probe.count_publishers(f'{ROOT}/p0001/roi') == 0


def test_a_body_without_a_skeleton_holds_nobody_up_for_long():
    with listening() as (node, probe):
        detector = Detector(probe)

        def until() -> bool:
            detector.say('anna', 'mute')
            detector.send('anna')
            return bool(newest(probe))

        wait_for(until, what='a body beside one that says nothing')
        assert set(newest(probe)) == {'anna'}
        assert node.refusals.total == 0


def test_ids_that_are_no_part_of_a_topic_are_refused_and_others_followed():
    with listening() as (node, probe):
        detector = Detector(probe)

        def until() -> bool:
            detector.say('anna', '../x', '', 'a b', '7up', 'x' * 1000, 'é')
            detector.send('anna')
            return bool(newest(probe))

        wait_for(until, what='the good body')
        assert node.refusals.counts['adapter'] > 0
        assert node.refusals.counts['callback_failed'] == 0


def test_bodies_of_one_picture_in_two_frames_are_refused():
    with listening() as (node, probe):
        detector = Detector(probe)

        def until() -> bool:
            detector.say('anna', 'ben')
            stamp = detector.probe.now_ns()
            for body_id, frame_id in (('anna', 'left'), ('ben', 'right')):
                msg = hri_msgs.Skeleton2D()
                msg.header.frame_id = frame_id
                msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp, 10**9)
                detector.bodies[body_id].publish(msg)
            return node.refusals.counts['frame'] > 0

        wait_for(until, what='the refusal')


def test_a_bag_has_one_body_at_a_time():
    with pytest.raises(ConfigError, match='is for the live node'):
        adapter_of_type(from_mapping({'input.type': 'hri_bodies'}))
