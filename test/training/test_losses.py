"""Losses beyond the paper's: what they count, in which units."""

import pytest
import torch
from torch import nn

from dposer_core.prior.architecture import label_of
from dposer_core.prior.normalizer import Normalizer
from dposer_core.prior.sde import SubVP
from training.losses import Draw, LossConfig, LossContext, clean_joints


class Oracle(nn.Module):
    """Predicts the noise that leads to `target`, whatever it is shown."""

    def __init__(self, target: torch.Tensor) -> None:
        super().__init__()
        self._target = target

    def forward(self, x_t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        t = (label / label_of(1.0))[:, None]
        sde = SubVP()
        return (x_t - sde.alpha(t) * self._target) / sde.sigma(t)


@pytest.fixture(scope='module')
def context() -> LossContext:
    normalizer = Normalizer.z_score(torch.zeros(63).numpy(), torch.ones(63).numpy())
    return LossContext(LossConfig(name='clean_joints'), 'body', normalizer)


def draw(target: torch.Tensor, t: float) -> Draw:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(target.shape, generator=generator)
    return Draw(target, torch.full((len(target),), t), noise)


def test_joints_of_the_loss_are_those_of_the_body(context) -> None:
    raw = 0.4 * torch.randn(4, 63, generator=torch.Generator().manual_seed(1))
    joints, _ = context.points(raw)
    expected = joints[:, 1:22] - joints[:, :1]
    # A body's joints count from its pelvis, those of the loss too.
    torch.testing.assert_close(context.points.joints(raw), expected, atol=1e-5, rtol=0)


def test_a_perfect_denoiser_costs_nothing(context) -> None:
    truth = 0.3 * torch.randn(5, 63, generator=torch.Generator().manual_seed(2))
    losses = clean_joints(Oracle(truth), draw(truth, 0.2), context)
    assert float(losses['values']) < 1e-8
    assert float(losses['joints']) < 5e-3  # the millimetre that keeps it differentiable, over 0.4


def test_an_error_counts_in_units_of_the_noise(context) -> None:
    truth = torch.zeros(1, 63)
    wrong = truth.clone()
    wrong[0, 9] = 0.1  # left knee, about x
    for t in (0.1, 0.3):
        losses = clean_joints(Oracle(wrong), draw(truth, t), context)
        noise = float(1.0 / SubVP().snr(torch.tensor(t)))
        assert float(losses['values']) == pytest.approx((0.1 / noise) ** 2 / 63, rel=1e-3)
        moved = context.points.joints(wrong) - context.points.joints(truth)
        distance = (moved.square().sum(-1) + 1e-6).sqrt().mean()
        assert float(losses['joints']) == pytest.approx(float(distance) / noise, rel=1e-4)
