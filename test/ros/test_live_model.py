"""The node with the real body, prior and fitter: keypoints of a swaying person over DDS."""

import subprocess
import sys
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
    start = dict(fit__deadline=1.0, fit__freeze_betas_after=0.05, input__max_age=5.0)
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


LATER_COMPILATIONS = """
import sys
from numba.core.dispatcher import Dispatcher
import numpy as np
from dposer_core.config import Config, from_mapping
from dposer_core.body_model import load_body
from dposer_core.camera import assumed_camera
from dposer_core.observation import Observation
from dposer_core import skeleton
from dposer_ros.live_model import load_live_model

def versions():
    modules = [m for name, m in sys.modules.items() if name.startswith('dposer_core.')]
    functions = {f for m in modules for f in vars(m).values() if isinstance(f, Dispatcher)}
    return {(f.py_func.__name__, str(s)) for f in functions for s in f.signatures}

fitter = load_live_model(Config()).fitter
warm = versions()
tables = load_body('').tables
points = (tables.point_weights[..., None] * tables.point_template).sum(axis=1)
points = points * (1.0, -1.0, -1.0) + (0.0, 0.0, 3.0)
camera = assumed_camera(960, 540)
pixels, stamp_ns = camera.project(points), 0
handless = np.ones(133) * (np.arange(133) < 91)
cases = [(points, None, None, 3), (points, None, np.tile(np.eye(3), (133, 1, 1)), 3),
         (pixels, camera, None, 2), (pixels, camera, np.tile(np.eye(2), (133, 1, 1)), 2)]
for weight in (6.0, 0.0):  # without a prior: float64
    fitter.reset()
    fitter.configure(from_mapping({'prior.weight': weight}))
    for seen, camera, sigma, dim in cases:
        for confidence in (handless, np.ones(133)):
            fitter.reset()
            for _ in range(2):
                stamp_ns += 33_000_000
                beside = Observation(stamp_ns, points, np.ones(133)) if dim == 2 else None
                seen_now = Observation(stamp_ns, seen, confidence, camera, sigma, '', beside)
                assert fitter.step(stamp_ns, [seen_now])
print(sorted(versions() - warm))
"""


def test_no_frame_waits_for_the_compiler_after_the_warm_up(standing):
    """One did for 5 s: the first whose equations were too stiff for float32."""
    found = subprocess.run(
        [sys.executable, '-c', LATER_COMPILATIONS], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == '[]'
