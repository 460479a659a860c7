"""Rows of tables 4 and S-10."""

import numpy as np
import pytest
import torch

from dposer_core.body_model import Body, load_body
from dposer_core.errors import ModelFileError
from dposer_core.prior.sampling import normal_draw
from dposer_core.tasks.body_points import HandPoints
from training.benchmarks.hand_ik import Found, Live


@pytest.fixture(scope='module')
def body() -> Body:
    torch.set_num_threads(1)
    try:
        return load_body('')
    except ModelFileError as error:
        pytest.skip(str(error))


def hands(count: int) -> torch.Tensor:
    """Gently bent right hands; fingers of the right hand bend about z."""
    pose = torch.zeros(count, 15, 3)
    pose[..., 2] = 0.2 + 0.2 * torch.rand((count, 15), generator=torch.Generator().manual_seed(0))
    return pose.reshape(count, 45)


def test_hand_is_that_of_the_body_at_rest(body):
    poses = hands(2)
    full = np.zeros((2, 55, 3))
    full[:, 40:] = poses.reshape(2, 15, 3)
    found = Found.of(HandPoints(body), poses)
    assert found.points.numpy() == pytest.approx(body.landmarks(full)[:, 112:], abs=1e-5)
    ids = HandPoints(body).vertex_ids
    assert found.vertices.numpy() == pytest.approx(body.vertices(full)[:, ids], abs=1e-5)


def test_live_fitter_finds_a_hand_that_it_sees(body):
    hand, poses = HandPoints(body), hands(2)
    truth = Found.of(hand, poses)
    live = Live(body, is_noise_known=True)
    found = live(hand, truth.points, torch.ones(21, dtype=torch.bool), 0, normal_draw(0))
    for name in ('joints', 'points', 'vertices'):
        distance = torch.linalg.norm(getattr(found, name) - getattr(truth, name), dim=-1)
        assert float(distance.mean()) < 0.004, name  # m; exact points, but the prior pulls
