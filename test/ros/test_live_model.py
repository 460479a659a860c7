"""The node with the real body, prior and fitter: keypoints of a swaying person over DDS."""

import time

import numpy as np
import pytest
from node_probe import active_node, person, wait_for
from urdf_chain import urdf_positions

from dposer_core.camera import PinholeCamera
from dposer_core.state import Status
from dposer_ros.live_model import load_live_model

pytestmark = pytest.mark.ros

CAMERA = PinholeCamera(800.0, 800.0, 480.0, 270.0, 960, 540)  # that of node_probe.camera_info


def seen(points):
    someone = person()
    someone.points = CAMERA.project(points).astype(np.float32).ravel().tolist()
    return someone


def test_real_fit_answers_and_its_urdf_stands_where_the_state_does(standing):
    start = dict(fit__deadline=1.0, fit__freeze_betas_after=0.3, input__max_age=5.0)
    with active_node(load_live_model, **start) as (node, probe):
        for i in range(20):  # each answered before the next: a busy machine must not drop any
            probe.send(seen(standing + (0.02 * np.sin(i / 3), 0.0, 0.0)))
            wait_for(lambda n=i: len(probe.received['/dposer_wholebody/timing']) > n, 20.0)
        wait_for(lambda: probe.states()[-1].betas_frozen, 10.0)
        time.sleep(1.1)  # a URDF of settled betas may wait for its period
        probe.received['/human/joint_states'].clear()
        probe.send(seen(standing))
        wait_for(lambda: probe.received['/human/joint_states'])
        late = probe.received['/human/joint_states'][-1]
        state = next(s for s in probe.states() if s.header == late.header)
        assert state.status in (Status.TRACKING, Status.PREDICTED, Status.REACQUIRED)
        assert node.refusals.total == 0
        angles = dict(zip(late.name, late.position, strict=True))
        p, q = state.body.position, state.body.orientation
        origin, quat = (p.x, p.y, p.z), (q.x, q.y, q.z, q.w)
        found = urdf_positions(probe.urdf(), angles, state.body_id, origin, quat)
        assert np.abs(found - state.positions.reshape(55, 3)).max() < 0.001
