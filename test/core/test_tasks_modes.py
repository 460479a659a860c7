"""Particles of several modes, and those that stand for all."""

import pytest
import torch
from torch import Tensor, nn

from dposer_core.prior.architecture import NUM_LABELS
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.sampling import normal_draw
from dposer_core.prior.sde import SubVP
from dposer_core.tasks.modes import anneal, representatives

_STD = 0.1
_CENTRES = torch.tensor([[1.0, 1.5], [1.0, -1.5], [-1.0, 0.0]])
"""Where the first entry is 1, the second is 1.5 or -1.5; where it is -1, it is 0."""


class Mixture(nn.Module):
    """The exact noise predictor of three narrow normal distributions."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        t = label[0] / (NUM_LABELS - 1)
        alpha, sigma = (f(t) for f in (SubVP().alpha, SubVP().sigma))
        variance = alpha**2 * _STD**2 + sigma**2
        offset = alpha * _CENTRES[:, None] - x  # (3, B, 2)
        share = torch.softmax(-(offset**2).sum(-1) / (2 * variance), dim=0)
        return -sigma * (share[..., None] * offset).sum(0) / variance


@pytest.fixture(scope='module')
def found() -> Tensor:
    observation = torch.tensor([[1.0, 99.0]]).repeat(400, 1)
    mask = torch.tensor([True, False])
    return anneal(DiffusionPrior(Mixture()), observation, mask, normal_draw(0))


def test_visible_entries_stay(found):
    assert bool((found[:, 0] == 1.0).all())


def test_particles_are_in_both_modes_that_fit_and_in_no_other(found):
    upper, lower = (found[:, 1] - 1.5).abs() < 0.4, (found[:, 1] + 1.5).abs() < 0.4
    # 400 particles: half of them within 4 deviations of 2.5 % each; nothing between the modes.
    assert 0.4 < float(upper.float().mean()) < 0.6
    assert float((upper | lower).float().mean()) > 0.97


def test_representatives_are_one_of_each_mode(found):
    points = torch.zeros(len(found), 1, 1, 3)
    points[:, 0, 0, 0] = found[:, 1]
    chosen = points[representatives(points, 2)[:, 0], 0, 0, 0]
    assert sorted(chosen.tolist()) == pytest.approx([-1.5, 1.5], abs=0.15)


def test_representatives_are_chosen_pose_by_pose():
    places = torch.tensor([[0.0, 5.0], [0.1, 0.0], [9.0, 0.1], [9.2, 0.2]])  # (particles, poses)
    points = places[..., None, None].expand(-1, -1, 1, 3)
    chosen = representatives(points, 2)
    kept = [set(places[chosen[:, n], n].tolist()) for n in range(2)]
    assert {round(v) for v in kept[0]} == {0, 9}
    assert {round(v) for v in kept[1]} == {0, 5}
