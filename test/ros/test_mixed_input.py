"""3D points beside a 2D frame: from two topics into one observation."""

import dataclasses

import numpy as np
import pytest
from dposer_ros.msg import KeypointFrame, PersonKeypoints
from node_probe import active_node, camera_info, frame, wait_for
from null_fitter import NullFitter, rest_joints

from dposer_core.config import InputConfig
from dposer_core.keypoints import POINT_NAMES
from dposer_ros.conversions import (
    ModelInfo,
    cameras_from_msg,
    header_at,
    observations_from_msg,
    with_beside,
)
from dposer_ros.live_model import LiveModel
from dposer_ros.refusals import Refused

pytestmark = pytest.mark.ros
CONFIG = InputConfig()
HAND = slice(91, 112)


def picture(standing: np.ndarray) -> PersonKeypoints:
    """A 2D body of 17 points."""
    camera = cameras_from_msg(camera_info()).raw[0]
    points = camera.project(standing)[:17].astype(np.float32)
    return PersonKeypoints(points=points.ravel().tolist(), confidence=[0.9] * 17)


def hand_frame(standing: np.ndarray, stamp_ns: int = 10**9) -> KeypointFrame:
    """The left hand in 3D."""
    names = list(POINT_NAMES[HAND])
    msg = KeypointFrame(layout='custom', names=names, dim=3, unit=KeypointFrame.UNIT_METRE)
    msg.header = header_at(stamp_ns, 'camera_optical')
    points = standing[HAND].astype(np.float32)
    msg.people = [PersonKeypoints(points=points.ravel().tolist(), confidence=[0.8] * len(names))]
    return msg


def seen(standing: np.ndarray) -> list:
    msg = frame(picture(standing), layout='coco17')
    observations, _ = observations_from_msg(msg, cameras_from_msg(camera_info()), CONFIG)
    return observations


def test_the_hand_stands_beside_the_body(standing) -> None:
    (person,), refused = with_beside(
        seen(standing), 'camera_optical', hand_frame(standing), CONFIG
    )
    assert not refused
    np.testing.assert_allclose(person.beside.points[HAND], standing[HAND], atol=1e-6)
    assert (person.beside.confidence[HAND] > 0.7).all() and not person.beside.confidence[:91].any()


def test_points_on_nobody_are_counted_and_the_body_stays(standing) -> None:
    far = hand_frame(standing + [1.0, 0.0, 0.0])
    (person,), (refused,) = with_beside(seen(standing), 'camera_optical', far, CONFIG)
    assert person.beside is None and refused.cause == 'unclaimed'


def test_another_frame_or_dimension_is_refused(standing) -> None:
    with pytest.raises(Refused, match="'camera_optical' beside 2D ones in 'base_link'"):
        with_beside(seen(standing), 'base_link', hand_frame(standing), CONFIG)
    with pytest.raises(Refused, match='must be DIM_3D'):
        with_beside(seen(standing), 'camera_optical', frame(picture(standing)), CONFIG)
    flat = [dataclasses.replace(o, points=np.zeros((133, 3))) for o in seen(standing)]
    with pytest.raises(Refused, match='in 3D'):
        with_beside(flat, 'camera_optical', hand_frame(standing), CONFIG)


class Keeping(NullFitter):
    """Remembers what it was given."""

    def __init__(self, config) -> None:
        super().__init__(config)
        self.given: list = []

    def step(self, stamp_ns, observations, budget_s=None, foremost=''):
        self.given.append((stamp_ns, observations))
        return super().step(stamp_ns, observations, budget_s, foremost)


def keeping_model(config) -> LiveModel:
    return LiveModel(Keeping(config), ModelInfo('null/00000000'), rest_joints)


def test_two_topics_become_one_observation_and_a_silent_tracker_delays_nobody(standing) -> None:
    """Hands come 10 ms later than their frames, stop, and the frames go on alone."""
    with active_node(keeping_model, input__beside='keypoint_frame') as (node, probe):
        hands = probe.create_publisher(KeypointFrame, 'keypoints_3d', 5)
        wait_for(lambda: hands.get_subscription_count() == 1, what='discovery')
        given = node.model.fitter.given

        def both() -> None:
            stamp_ns = probe.send(picture(standing), layout='coco17')
            hands.publish(hand_frame(standing, stamp_ns + 5_000_000))

        def is_joined() -> bool:
            both()
            wait_for(lambda: given, what='a fit')
            return any(o.beside is not None for _, (o,) in given)

        wait_for(is_joined, what='a mixed observation')
        given.clear()
        stamp_ns = probe.send(picture(standing), layout='coco17')
        wait_for(lambda: given, what='the frame alone')
        assert given[0][0] == stamp_ns and given[0][1][0].beside is None
        hands.publish(hand_frame(standing, probe.now_ns() + 3_000_000_000))
        wait_for(lambda: node.refusals.counts['unpaired'] == 1, what='the unpaired hand')


def test_by_default_nobody_listens_to_keypoints_3d() -> None:
    with active_node(keeping_model) as (node, _):
        assert node.count_subscribers('keypoints_3d') == 0
