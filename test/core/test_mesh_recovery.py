"""Mesh recovery beyond the recorded runs: side views, depth from size, refused input."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from dposer_core import rotations, skeleton
from dposer_core.body_model import load_body
from dposer_core.errors import ModelFileError, ObservationError
from dposer_core.keypoints import to_hub
from dposer_core.tasks import mesh_recovery
from dposer_core.tasks.body_points import KeypointBody
from dposer_core.tasks.mesh_recovery import Keypoints
from dposer_core.tasks.prior_term import NoTerm

POINTS = 12
FOCAL = 1000.0


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def puppet() -> torch.Tensor:
    """(P, 3): a stiff, asymmetric body, as wide as it is deep."""
    return 0.5 * torch.randn(POINTS, 3, generator=torch.Generator().manual_seed(0))


def forward(variables) -> torch.Tensor:
    turned = rotations.rotvec_to_rotmat(variables['global_orient'])
    stretch = 1 + 0.1 * variables['betas'][:, :1, None]
    return stretch * (puppet() @ turned.transpose(1, 2))


def variables(count: int, orient: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> dict:
    return {
        'camera': torch.tensor([[0.0, 0.0, 5.0]]).repeat(count, 1),
        'global_orient': torch.tensor([orient]).repeat(count, 1),
        'pose': torch.zeros(count, 63),
        'betas': torch.zeros(count, 10),
    }


def seen_of(truth: dict) -> Keypoints:
    count = len(truth['camera'])
    blank = Keypoints(
        torch.zeros(count, POINTS, 2), torch.ones(count, POINTS),
        torch.full((count,), FOCAL), torch.full((count, 2), 300.0),
    )  # fmt: skip
    return dataclasses.replace(blank, pixels=blank.project(forward(truth), truth['camera']))


def none(_variables, _step):
    return NoTerm()(torch.zeros(1, 1), 0)


PROTOCOL = dataclasses.replace(
    mesh_recovery.BODY.shortened(20), camera_points=tuple(range(POINTS)), ignored=(), angle=None
)


def test_turned_person_is_found_again():
    truth = variables(2, (0.3, -0.2, 0.1))
    found = mesh_recovery.recover(seen_of(truth), variables(2), forward, none, PROTOCOL)
    # Adam's step is 0.01 rad and it still swings when it ends.
    assert found.variables['global_orient'].numpy() == pytest.approx(
        truth['global_orient'].numpy(), abs=0.01
    )


def side_views() -> tuple[Keypoints, dict, dict]:
    """Two people, seen from behind their start; the shoulders of the first are one point."""
    truth = variables(2, (0.0, math.pi, 0.0))
    seen = seen_of(truth)
    pixels = seen.pixels.clone()
    pixels[0, 5] = pixels[0, 2]
    pixels[1, 5] = pixels[1, 2] + 200.0
    confidence = seen.confidence.clone()
    confidence[:, [2, 5]] = 0.0
    return dataclasses.replace(seen, pixels=pixels, confidence=confidence), variables(2), truth


def test_only_those_seen_from_the_side_are_tried_from_behind():
    seen, start, _ = side_views()
    protocol = PROTOCOL.shortened(10, [1])
    once = mesh_recovery.recover(seen, start, forward, none, protocol)
    found = mesh_recovery.recover_body(seen, start, forward, none, protocol)
    assert found.reprojection[0] < 0.5 * once.reprojection[0]
    assert found.reprojection[1] == once.reprojection[1]
    for name, value in once.variables.items():
        assert torch.equal(found.variables[name][1], value[1])


@pytest.fixture(scope='module')
def open_body():
    try:
        return load_body('')
    except ModelFileError as error:
        pytest.skip(str(error))


def test_keypoint_body_is_the_body_model(open_body):
    rng = np.random.default_rng(0)
    orient, pose = rng.normal(0, 0.4, (2, 3)), rng.normal(0, 0.4, (2, 63))
    betas = rng.normal(0, 1, (2, 10))
    full = np.zeros((2, 55, 3))
    full[:, 0], full[:, 1:22] = orient, pose.reshape(2, 21, 3)
    joints = open_body.joints(full, betas)
    landmarks = open_body.landmarks(full, betas) - joints[:, :1]
    body = KeypointBody(open_body)
    found, points = body(*(torch.from_numpy(v).float() for v in (orient, pose, betas)))
    expected = (joints - joints[:, :1])[:, :22]
    assert found.numpy() == pytest.approx(expected, abs=1e-5)  # single precision, metres
    hub, seen = to_hub(points[0].numpy(), np.ones(25), 'openpose25')
    shown = seen > 0
    assert shown.sum() == 23  # neck and middle of the hips are no points of the hub
    assert hub[shown] == pytest.approx(landmarks[0][shown], abs=1e-5)
    for point, joint in ((1, 'neck'), (8, 'pelvis')):
        assert torch.equal(points[:, point], found[:, skeleton.JOINT_INDEX[joint]])


def test_depth_from_the_length_of_edges():
    truth = variables(3)
    truth['camera'][:, 2] = torch.tensor([20.0, 40.0, 80.0])
    flat = puppet() * torch.tensor([1.0, 1.0, 0.0])
    blank = seen_of(truth)
    points = flat.expand(3, -1, -1)
    seen = dataclasses.replace(blank, pixels=blank.project(points, truth['camera']))
    found = mesh_recovery.place_by_size(seen, points, ((0, 1), (2, 3)))
    assert found[:, 2].tolist() == pytest.approx([20.0, 40.0, 80.0], rel=1e-5)
    assert not found[:, :2].any()


def test_depth_without_a_seen_edge_is_refused():
    seen = seen_of(variables(1))
    confidence = torch.zeros(1, POINTS)
    confidence[0, 8] = 1.0
    seen = dataclasses.replace(seen, confidence=confidence)
    with pytest.raises(ObservationError, match='no edge'):
        mesh_recovery.place_by_size(seen, puppet()[None], ((0, 1), (2, 3)))


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [('confidence', 0.0, r'images \[1\]'), ('confidence', np.nan, 'finite'),
     ('pixels', np.inf, 'finite')],
)  # fmt: skip
def test_useless_keypoints_are_refused(field, value, message):
    seen = seen_of(variables(2))
    changed = getattr(seen, field).clone()
    changed[1] = value
    with pytest.raises(ObservationError, match=message):
        dataclasses.replace(seen, **{field: changed})
