"""A student answers like its teacher, with and without noise, and a stopped run goes on."""

import dataclasses

import numpy as np
import pytest
import torch

from dposer_core.errors import ConfigError
from dposer_core.prior import runtime
from dposer_core.prior.architecture import TimeFCConfig
from dposer_core.prior.checkpoint import PriorCheckpoint, load_checkpoint, save_checkpoint
from dposer_core.prior.network import TimeFC
from training.distill import DistillConfig, Rows, compare, distil, load_teacher
from training.run_folder import RunFolder


@pytest.fixture
def packed():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(3_000, 6)) @ rng.normal(size=(6, 45)) * 0.15
    return {'hand': (factors + 0.03 * rng.normal(size=factors.shape)).astype(np.float32)}


@pytest.fixture
def teacher(packed, tmp_path):
    """A hand network that believes in other data than there is, so that its student must learn."""
    torch.manual_seed(0)
    network = TimeFC(TimeFCConfig(45, hidden=64, embed=32, dropout=0.0, gaussian_skip=True))
    network.gaussian.mean.fill_(0.5)
    network.gaussian.variance.fill_(0.3)
    weights = {k: v.numpy() for k, v in network.state_dict().items() if k != 'sigmas'}
    hand = packed['hand']
    notes = {'run': {'augment': {'noise_share': 0.5, 'noise_sigma': 0.2}}}
    part = PriorCheckpoint(
        'hand', network.config, weights, hand.mean(0), hand.std(0), 'CC0', 'abc', notes
    )
    save_checkpoint(tmp_path / 'teacher.safetensors', part, half=False)
    return str(tmp_path / 'teacher.safetensors')


@pytest.fixture
def config(teacher):
    return DistillConfig(
        teacher, hidden=64, embed=32, steps=150, batch=128, learning_rate=3e-3, warmup=5,
        truth_weight=0.0, save_every=40,
    )  # fmt: skip


def test_student_comes_close_to_its_teacher(config, packed, tmp_path):
    few = dataclasses.replace(config, steps=1)
    untrained = distil(few, packed, RunFolder(tmp_path / 'few'))
    trained = distil(config, packed, RunFolder(tmp_path / 'run'))
    live = {
        name: runtime.load_prior(path)
        for name, path in (('teacher', config.teacher), ('few', untrained), ('run', trained))
    }
    rows = Rows(load_teacher(config.teacher), packed, 0.5)
    x_0 = rows.batch(300, torch.Generator().manual_seed(9)).numpy()
    noise = np.random.default_rng(1).standard_normal(x_0.shape)
    for given in (None, noise):
        answer = {name: prior.denoise(x_0, 0.2, given) for name, prior in live.items()}
        far = np.linalg.norm(answer['few'] - answer['teacher'])
        assert np.linalg.norm(answer['run'] - answer['teacher']) < 0.7 * far
    notes = load_checkpoint(trained).notes
    assert notes['steps'] == 150
    assert notes['teacher']['sha256'] == {'hand': load_checkpoint(config.teacher).sha256}


def test_stopped_run_goes_on_with_the_same_result(config, packed, tmp_path, monkeypatch):
    config = dataclasses.replace(config, steps=8, save_every=4)
    whole = load_checkpoint(distil(config, packed, RunFolder(tmp_path / 'whole')))
    real = RunFolder.save_state

    def killed(self, state):
        real(self, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, 'save_state', killed)
    with pytest.raises(KeyboardInterrupt):
        distil(config, packed, RunFolder(tmp_path / 'cut'))
    monkeypatch.setattr(RunFolder, 'save_state', real)
    resumed = load_checkpoint(distil(config, packed, RunFolder(tmp_path / 'cut')))
    assert resumed.sha256 == whole.sha256


def test_comparison_uses_held_out_rows_and_both_kinds_of_noise(config, packed):
    rows = compare({'a': config.teacher, 'b': config.teacher}, packed)
    assert {row['noise'] for row in rows} == {0.0, 1.0}
    assert all(row['a_rms'] == row['b_rms'] for row in rows)


def test_times_beyond_the_diffusion_are_refused():
    with pytest.raises(ConfigError, match=r'max_t = 1\.5'):
        DistillConfig('wholebody', max_t=1.5)
