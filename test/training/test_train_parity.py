"""Golden files of the official code: losses, masks, schedules and whole short trainings.

The files are not part of the repository, see test/core/test_prior_parity.py.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from dposer_core.prior.architecture import WholeBodyLayout
from dposer_core.prior.checkpoint import load_official_weights
from dposer_core.prior.network import from_weights
from dposer_core.prior.normalizer import (
    Normalizer,
    load_official_normalizer,
    wholebody_normalizer,
)
from training.losses import EPS_T, Draw, LossConfig, LossContext, denoised, eps_mse
from training.mixed import PartDropout, expand_mask, part_masks
from training.train import Ema, Trainer, rate_factor
from training.train_config import TrainConfig

PARITY = Path(os.environ.get('DPOSER_PARITY', Path(__file__).parents[3] / 'shared' / 'parity'))
LAYOUT = WholeBodyLayout(100)
PART_KEYS = {
    'body': ('body_pose',),
    'hand': ('hand_pose',),
    'face': ('jaw_pose', 'expression'),
    'face_shape': ('betas',),
    'wholebody': ('body_pose', 'left_hand_pose', 'right_hand_pose', 'jaw_pose', 'expression'),
}
NORMALIZERS = {
    'body': ('body_normalizer',),
    'hand': ('hand_normalizer',),
    'face': ('jaw_normalizer', 'expression_normalizer'),
    'face_shape': ('betas_normalizer',),
}

pytestmark = pytest.mark.skipif(
    not PARITY.is_dir(), reason=f'golden files not found at {PARITY}; set DPOSER_PARITY'
)


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(PARITY / f'{name}.npz', allow_pickle=False) as file:
        return dict(file)


def tensor(data: dict[str, np.ndarray], key: str) -> torch.Tensor:
    return torch.from_numpy(data[key])


def context(dim: int, part: str = 'body', **settings) -> LossContext:
    unit = Normalizer.z_score(np.zeros(dim), np.ones(dim))
    return LossContext(LossConfig(**settings), part, unit)


def recorded(data: dict[str, np.ndarray], x: str, noise: str, first: int = 0) -> Draw:
    """The recorded uniform numbers and noise of a step from the draw `first` on."""
    u = tensor(data, f'{noise}noise_{first:04d}')
    return Draw(
        tensor(data, x), u * (1 - EPS_T) + EPS_T, tensor(data, f'{noise}noise_{first + 1:04d}')
    )


@pytest.mark.parametrize(
    ('tag', 'settings'),
    [
        ('mean', {}),
        ('sum', {'reduction': 'half_sum'}),
        ('lw_mean', {'likelihood_weighting': True}),
        ('aux10', {}),
    ],
)
def test_training_loss_is_the_official_one(tag, settings):
    data = golden('train_losses')
    network = from_weights(load_official_weights(PARITY / 'ckpt' / 'body_reduced.ckpt'))
    with torch.no_grad():
        losses = eps_mse(network, recorded(data, 'x', f'{tag}/'), context(63, **settings))
    assert losses['loss'].item() == pytest.approx(float(data[f'{tag}/loss']), rel=1e-5)


def test_ten_step_denoiser_of_the_auxiliary_loss_is_the_official_one():
    data = golden('train_losses')
    network = from_weights(load_official_weights(PARITY / 'ckpt' / 'body_reduced.ckpt'))
    with torch.no_grad():
        clean, snr = denoised(network, recorded(data, 'x', 'aux10/'))
    np.testing.assert_allclose(snr, data['aux10/SNR'][:, 0], rtol=1e-5)
    # Ten calls, each to 1e-5 of the size of its row.
    for row, expected in zip(clean.numpy(), data['aux10/clean_sample'], strict=True):
        assert np.abs(row - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ('tag', 'given', 'on_hidden'),
    [
        ('wb_fused', True, None),
        ('wb_mixed_applyloss', True, True),
        ('wb_mixed_noapply', True, False),
        ('wb_nomask_randpart', False, True),
    ],
)
def test_loss_with_part_masks_is_the_official_one(tag, given, on_hidden):
    data = golden('train_losses')
    file = PARITY / 'ckpt' / 'wholebody_mixed_reduced.ckpt'
    network = from_weights(load_official_weights(file))
    present = tensor(data, 'wb_mask') if given else None
    if on_hidden is None:
        visible, counted = present, expand_mask(present, LAYOUT)
    else:
        dropout = PartDropout(official_mask_bug=True, loss_on_hidden=on_hidden)
        uniform = tensor(data, f'{tag}/noise_0002')
        visible, counted = part_masks(present, dropout, uniform, LAYOUT)
    draw = recorded(data, 'wb', f'{tag}/')._replace(network_mask=visible, loss_mask=counted)
    with torch.no_grad():
        loss = eps_mse(network, draw, context(256, 'wholebody'))['loss']
    assert loss.item() == pytest.approx(float(data[f'{tag}/loss']), rel=1e-5)


def test_random_part_mask_is_the_official_one():
    data = golden('train_losses')
    dropout = PartDropout(official_mask_bug=True)
    present, uniform = tensor(data, 'wb_mask'), tensor(data, 'arpm/noise_0000')
    visible, counted = part_masks(present, dropout, uniform, LAYOUT)
    np.testing.assert_array_equal(visible, data['arpm/combined'])
    np.testing.assert_array_equal(counted, data['arpm/loss_mask'])


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


def normalizer(part: str) -> Normalizer:
    """The synthetic statistics that the recorded trainings used."""
    if part == 'wholebody':
        face = Normalizer.concatenate([_folder(name) for name in NORMALIZERS['face']])
        return wholebody_normalizer(normalizer('body'), normalizer('hand'), face)
    return Normalizer.concatenate([_folder(name) for name in NORMALIZERS[part]])


def _folder(name: str) -> Normalizer:
    (folder,) = (PARITY / 'normalizers').rglob(name)
    return load_official_normalizer(folder)


def official_run(run: str, part: str, disturbed: int = -1) -> tuple[Trainer, list[float], dict]:
    """Train on the recorded batches and noise; returns trainer, losses and the golden file.

    `disturbed`: seed of a relative change of the start by 1e-7, a rounding error; -1: none.
    """
    data = golden(run)
    whole, mixed = part == 'wholebody', run.endswith('mixed')
    config = TrainConfig(
        part=part,
        optimizer='adam' if whole else 'radam',
        learning_rate=1e-3 if whole else 0.02,
        steps=50,
        warmup=2,
    )
    weights = {key[5:]: data[key] for key in data if key.startswith('init/')}
    network = from_weights(weights, dropout=0.0)
    if disturbed >= 0:
        generator = torch.Generator().manual_seed(disturbed)
        for p in network.parameters():
            p.data *= 1.0 + 1e-7 * torch.randn(p.shape, generator=generator)
    trainer = Trainer(config, network, normalizer(part), Fabric(accelerator='cpu'))
    losses = []
    draws = 3 if mixed else 2
    for step in range(4):
        assert rate_factor(step, config) * config.learning_rate == pytest.approx(data['lr'][step])
        keys = [f'batch{step}/{key}' for key in PART_KEYS[part]]
        raw = np.concatenate([data[key] for key in keys], 1)
        data['x_0'] = normalizer(part).normalize(raw)
        draw = recorded(data, 'x_0', '', draws * step)
        if whole:
            present = tensor(data, f'batch{step}/mask')
            visible, counted = present, expand_mask(present, LAYOUT)
            if mixed:
                uniform = tensor(data, f'noise_{draws * step + 2:04d}')
                dropout = PartDropout(official_mask_bug=True)
                visible, counted = part_masks(present, dropout, uniform, LAYOUT)
            draw = draw._replace(network_mask=visible, loss_mask=counted)
        losses.append(trainer.update(draw)['loss'].item())
    return trainer, losses, data


@pytest.mark.parametrize('part', ['body', 'hand', 'face', 'face_shape'])
def test_training_of_a_part_reproduces_the_official_run(part):
    trainer, losses, data = official_run(f'train_{part}', part)
    # A difference of 1e-7 in a weight grows about tenfold per step (README of the files).
    np.testing.assert_allclose(losses, data['loss'], rtol=1e-4)
    final = trainer.network.state_dict()
    for key, expected in data.items():
        if key.startswith('final/'):
            _assert_close(final[key[6:]].numpy(), expected, key)
    for index, shadow in enumerate(trainer.ema.shadow.values()):
        _assert_close(shadow.numpy(), data[f'ema/{index:03d}'], f'average {index}')


def _assert_close(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    """To 2e-3 of the size of the tensor, the tolerance given with the files."""
    error = np.abs(found - expected).max()
    assert error < 2e-3 * np.abs(expected).max() + 1e-7, name


@pytest.mark.parametrize('kind', ['fused', 'mixed'])
def test_whole_body_training_is_as_near_to_the_official_as_rounding_allows(kind):
    """The recorded network turns rounding errors into other weights within two steps.

    Its group normalisation has two channels per group, so every output is nearly a sign, and
    Adam makes steps of full size of the smallest gradients. What is left to compare is whether
    the official run lies among runs of ours whose starts differ by rounding.
    """
    run = f'train_wholebody_{kind}'
    ours = [official_run(run, 'wholebody', seed) for seed in range(-1, 4)]
    _, losses, data = ours[0]
    np.testing.assert_allclose(losses[:2], data['loss'][:2], rtol=1e-4)  # before the first step
    init = {key[5:]: value for key, value in data.items() if key.startswith('init/')}
    frozen = [key for key in init if key.startswith('base_model.')]
    for key in frozen:
        np.testing.assert_array_equal(ours[0][0].network.state_dict()[key], init[key])
    trained = [key for key in init if key not in frozen and not key.endswith('sigmas')]

    def moved(state) -> np.ndarray:
        return np.concatenate([(np.asarray(state[k]) - init[k]).ravel() for k in trained])

    paths = [moved(trainer.network.state_dict()) for trainer, _, _ in ours[1:]]
    own = np.mean([np.linalg.norm(a - b) for i, a in enumerate(paths) for b in paths[:i]])
    official = moved({key: data[f'final/{key}'] for key in trained})
    distance = np.mean([np.linalg.norm(official - path) for path in paths])
    assert distance < 1.25 * own
    assert own < 0.8 * np.linalg.norm(official)  # two unrelated paths: 1.4
