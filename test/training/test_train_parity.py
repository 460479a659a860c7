"""Golden files of the official code: training loss, learning rate and moving average.

The files are not part of the repository, see test/core/test_prior_parity.py.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer_core.prior.checkpoint import load_official_weights
from dposer_core.prior.network import from_weights
from training.train import EPS_T, Ema, TrainConfig, loss_of, rate_factor

PARITY = Path(os.environ.get('DPOSER_PARITY', Path(__file__).parents[3] / 'shared' / 'parity'))

pytestmark = pytest.mark.skipif(
    not PARITY.is_dir(), reason=f'golden files not found at {PARITY}; set DPOSER_PARITY'
)


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(PARITY / f'{name}.npz', allow_pickle=False) as file:
        return dict(file)


def test_training_loss_is_the_official_one():
    data = golden('train_losses')
    network = from_weights(load_official_weights(PARITY / 'ckpt' / 'body_reduced.ckpt'))
    x, u, noise = (
        torch.from_numpy(data[key]) for key in ('x', 'mean/noise_0000', 'mean/noise_0001')
    )
    with torch.no_grad():
        loss = loss_of(network, x, u * (1 - EPS_T) + EPS_T, noise)
    assert loss.item() == pytest.approx(float(data['mean/loss']), rel=1e-5)


def test_learning_rate_follows_the_official_schedule():
    data = golden('ema_lr')
    config = TrainConfig(part='body', steps=200000, warmup=5000)
    factors = [rate_factor(int(step), config) for step in data['lr_steps']]
    # A root of a rounding error at the last step, where the factor is zero.
    np.testing.assert_allclose(
        factors, data['lr_factor_warmup5000_max200000'], rtol=1e-6, atol=1e-12
    )


def test_moving_average_follows_the_official_one():
    data = golden('ema_lr')
    network = torch.nn.ParameterList([torch.zeros(7)])
    (parameter,) = network.parameters()
    parameter.data = torch.from_numpy(data['param_traj'][0].copy())
    average = Ema(network, decay=0.9999)
    for step in range(1, len(data['param_traj'])):
        parameter.data = torch.from_numpy(data['param_traj'][step].copy())
        average.update(network, step)
        (shadow,) = average.shadow.values()
        np.testing.assert_allclose(shadow, data['shadow_traj'][step], rtol=1e-5, atol=1e-6)
