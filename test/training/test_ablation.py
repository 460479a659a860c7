"""The arms of tables S-15 to S-17 differ in one thing only."""

import numpy as np
import pytest
import torch

from dposer_core.errors import ConfigError
from training.augment import AugmentConfig, Augmenter
from training.benchmarks.ablation import (
    AUXILIARY,
    SETTINGS,
    AblationConfig,
    ArmConfig,
    ArmSource,
    normalizer_of,
)
from training.settings import read_settings

ARMS = {
    'z': ArmConfig('z_score'),
    'min-max': ArmConfig('min_max'),
    'none': ArmConfig('none'),
    '6D': ArmConfig('z_score', rot6d=True),
}


@pytest.fixture(scope='module')
def data() -> Augmenter:
    torch.set_num_threads(1)
    poses = 0.3 * torch.randn(500, 63, generator=torch.Generator().manual_seed(0))
    return Augmenter(poses, torch.ones(500), 'body', AugmentConfig(std_floor=0.1))


def test_every_arm_sees_the_same_poses(data):
    found = []
    for arm in ARMS.values():
        source = ArmSource(data, arm)
        x, _ = source.batch(8, torch.Generator().manual_seed(1))
        assert x.shape == (8, source.dim)
        found.append(source.normalizer.denormalize(x.numpy()))
    for raw in found[1:]:
        np.testing.assert_allclose(raw, found[0], atol=1e-5)


def test_min_max_puts_nearly_all_values_between_minus_one_and_one(data):
    x, _ = ArmSource(data, ARMS['min-max']).batch(500, torch.Generator().manual_seed(1))
    assert 0.99 < (x.abs() <= 1).float().mean() <= 1
    assert x.abs().max() > 0.9


def test_unknown_normalisation_is_refused():
    with pytest.raises(ConfigError, match="'zscore' is unknown"):
        normalizer_of(np.zeros((2, 63)), ArmConfig('zscore'))


@pytest.mark.parametrize('settings', [SETTINGS, AUXILIARY])
def test_arms_of_the_settings_can_be_built(settings):
    config = read_settings(settings, AblationConfig)
    for arm in config.arms.values():
        run = config.run(arm, is_quick=True)
        assert run.steps == config.quick_steps
        assert run.network_config(63).blocks == arm.network.get('blocks', 2)
