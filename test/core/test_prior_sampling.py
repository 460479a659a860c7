"""Samplers and likelihood on data whose score is known: independent normal numbers."""

import math

import numpy as np
import pytest
import torch

from dposer_core.prior import sampling, schedule
from dposer_core.prior.architecture import NUM_LABELS
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.sde import SubVP

STD = 0.5  # of the data, in every dimension


class GaussianNetwork(torch.nn.Module):
    """The exact noise predictor of data N(0, STD^2)."""

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        t = (label / (NUM_LABELS - 1))[:, None]
        sde = SubVP()
        return sde.sigma(t) * x / (sde.alpha(t) ** 2 * STD**2 + sde.sigma(t) ** 2)


@pytest.fixture
def prior() -> DiffusionPrior:
    torch.set_num_threads(1)
    return DiffusionPrior(GaussianNetwork())


def test_euler_maruyama_samples_have_the_spread_of_the_data(prior):
    samples = sampling.euler_maruyama(prior, (4000, 4), sampling.normal_draw(0), steps=200)
    # 16000 numbers know their spread to 0.6 %; 200 coarse steps add a little.
    assert samples.std().item() == pytest.approx(STD, rel=0.03)


def test_ddim_samples_have_the_spread_of_the_data(prior):
    samples = sampling.ddim(prior, (4000, 4), sampling.normal_draw(0), steps=50)
    assert samples.std().item() == pytest.approx(STD, rel=0.05)


@pytest.mark.parametrize(
    'corrector', [sampling.LangevinCorrector(), sampling.AnnealedLangevinCorrector()]
)
def test_corrected_samples_have_the_spread_of_the_data(prior, corrector):
    samples = sampling.predictor_corrector(
        prior, (4000, 4), sampling.normal_draw(0), steps=200, corrector=corrector
    )
    # A Langevin step of this length overestimates the spread by some percent.
    assert samples.std().item() == pytest.approx(STD, rel=0.06)


def test_same_seed_gives_the_same_samples(prior):
    first, second = (sampling.ddim(prior, (3, 4), sampling.normal_draw(7)) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_probability_flow_scales_the_latent_by_the_marginal_spread(prior):
    latent = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    sample = sampling.probability_flow(prior, latent)
    sde, t = SubVP(), sampling.MIN_TIME
    spread = [math.hypot(sde.alpha(time) * STD, sde.sigma(time)) for time in (t, 1.0)]
    torch.testing.assert_close(sample, latent * spread[0] / spread[1], rtol=1e-3, atol=1e-4)


def test_likelihood_is_that_of_the_normal_distribution(prior):
    x = STD * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    bits, latent = sampling.bits_per_dim(prior, x, torch.ones_like(x))
    nats = 0.5 * (x / STD) ** 2 + math.log(STD * math.sqrt(2 * math.pi))
    expected = nats.mean(-1).double() / math.log(2)
    # The flow ends at t = 1, where 4e-5 of the data's variance is left.
    torch.testing.assert_close(bits, expected, rtol=0, atol=2e-3)
    torch.testing.assert_close(latent, x / STD, rtol=1e-2, atol=1e-2)


def test_truncated_times_fall_from_below_the_maximum_to_the_minimum():
    times = schedule.truncated_times(0.12, 0.08, 500)
    assert np.all(np.diff(times) < 0)
    assert (times[0], times[-1]) == (pytest.approx(0.12 - 0.04 / 500), 0.08)


def test_random_times_stay_in_range():
    times = schedule.random_times(1000, np.random.default_rng(0))
    assert schedule.MIN_TIME <= times.min() < times.max() < 1.0


def test_uniform_times_cover_the_whole_range():
    times = schedule.uniform_times(1000)
    assert (times[0], times[-1]) == (pytest.approx(1.0, abs=2e-3), schedule.MIN_TIME)
