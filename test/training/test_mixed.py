"""Whole-body batches and training."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dposer_core.errors import CheckpointError, ConfigError
from dposer_core.prior.architecture import WholeBodyLayout
from dposer_core.prior.checkpoint import load_checkpoint, save_checkpoint
from dposer_core.prior.normalizer import Normalizer, wholebody_normalizer
from test.packed_bodies import packed_bodies
from training.losses import LossConfig
from training.mixed import MixedConfig, PartDropout, SetConfig, WholeBodySource, part_masks
from training.result import load_whole_body, write_result
from training.run_folder import RunFolder
from training.settings import read_settings
from training.sources import CHECKOUT, draw_step, open_source
from training.train import train
from training.train_config import TrainConfig

CONFIGS = Path(__file__).parents[2] / 'training' / 'configs'
NETWORK = {'hidden': 64, 'embed': 8, 'blocks': 1}
HAND_SIGN = np.tile([1.0, -1.0, -1.0], 15).astype(np.float32)


@pytest.fixture
def packed() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    whole = rng.normal(size=(30, 166)).astype(np.float32)
    return {
        'body': rng.normal(size=(50, 63)).astype(np.float32) * 0.2,  # of a prepared set
        **packed_bodies(
            rng.normal(size=(50, 63)).astype(np.float32) * 0.2,
            rng.normal(size=(20, 63)).astype(np.float32) * 0.2,
        ),
        'hand': rng.normal(size=(80, 45)).astype(np.float32) * 0.3,
        'face': rng.normal(size=(80, 13)).astype(np.float32),
        'wholebody': whole,
        'wholebody_source': np.repeat(np.uint8([0, 1]), 15),
        'wholebody_sources': np.array(['grab', 'beat2']),
    }


def _unit() -> Normalizer:
    parts = [Normalizer.z_score(np.zeros(n), np.ones(n)) for n in (63, 45, 13)]
    return wholebody_normalizer(*parts)


def _source(packed, **settings) -> WholeBodySource:
    sets = {name: SetConfig(**values) for name, values in settings.pop('sets').items()}
    return WholeBodySource(packed, _unit(), MixedConfig(sets=sets, **settings))


def _batch(source: WholeBodySource, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    x_0, mask = source.batch(count, torch.Generator().manual_seed(1))
    return x_0.numpy(), mask.numpy()


def test_sets_come_in_their_shares_with_their_masks(packed):
    sets = {'whole': {'mask': '1111', 'weight': 3.0}, 'body': {'mask': '1000', 'weight': 1.0}}
    _, mask = _batch(_source(packed, sets=sets), 4000)
    assert mask.all(1).mean() == pytest.approx(0.75, abs=0.03)
    assert set(map(tuple, mask.astype(int))) == {(1, 1, 1, 1), (1, 0, 0, 0)}


def test_missing_parts_are_the_normalised_mean(packed):
    x_0, _ = _batch(_source(packed, sets={'face': {'mask': '0001', 'weight': 1.0}}))
    assert (x_0[:, :153] == 0.0).all() and (x_0[:, 153:] != 0.0).any()


def test_rows_of_one_source_only(packed):
    sets = {'a': {'array': 'wholebody', 'source': 'beat2', 'mask': '1111', 'weight': 0.5}}
    x_0, _ = _batch(_source(packed, sets=sets))
    pool = packed['wholebody'][15:].copy()
    pool[:, 63:108] *= HAND_SIGN  # the left hand is mirrored before normalisation
    assert np.abs(x_0[:, None] - pool[None]).max(-1).min(1).max() < 1e-6


def test_weight_of_a_set_is_that_of_its_rows(packed):
    sets = {
        'whole': {'array': 'wholebody', 'mask': '1111', 'weight': 2.0},  # 30 rows
        'body': {'array': 'body', 'mask': '1000', 'weight': 0.6, 'every': 5},  # 10 rows
    }
    assert _source(packed, sets=sets).shares.tolist() == pytest.approx([60 / 66, 6 / 66])


def test_misspelt_data_set_loses_its_weight_only_on_request(packed):
    row = {'array': 'wholebody', 'mask': '1111', 'weight': 5.0, 'official_weight': 1.0}
    sets = {'egobody': row, 'face': {'array': 'face', 'mask': '0001', 'weight': 1.0}}
    shares = [
        _source(packed, sets=sets, official_weights=bug).shares[0].item() for bug in (False, True)
    ]
    assert shares == pytest.approx([150 / 230, 30 / 110])


@pytest.mark.parametrize('bug', [False, True])
def test_single_left_hand_is_mirrored_twice_only_on_request(packed, bug):
    sets = {'hand': {'array': 'hand', 'mask': 'one_hand', 'weight': 1.0}}
    x_0, mask = _batch(_source(packed, sets=sets, official_double_mirror=bug))
    is_left = mask[:, 1]
    assert (mask.sum(1) == 1).all() and 0.4 < is_left.mean() < 0.6
    # In normalised form both slots hold right hands.
    left = x_0[is_left, 63:108] * (HAND_SIGN if bug else 1.0)
    for rows in (left, x_0[~is_left, 108:153]):
        assert np.abs(rows[:, None] - packed['hand'][None]).max(-1).min(1).max() < 1e-6


def test_parts_of_complete_rows_alone_are_hidden():
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    uniform = torch.tensor([[0.1, 0.9, 0.1, 0.9], [0.5, 0.79, 0.81, 0.0]])
    layout = WholeBodyLayout(10)
    visible, counted = part_masks(present, PartDropout(), uniform, layout)
    expected = [[1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 1]]
    assert visible.int().tolist() == expected
    assert counted[0].all() and counted[1].sum() == 63
    seen_only = PartDropout(loss_on_hidden=False)
    _, counted = part_masks(present, seen_only, uniform, layout)
    assert counted[0].sum() == 63 + 45


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'sets': {}}, 'name at least one set'),
        ({'sets': {'a': {'mask': '1111', 'array': 'two_hands', 'weight': 1.0}}}, 'lacks'),
        ({'sets': {'a': {'mask': '1111'}}}, 'weigh nothing'),
        (
            {'sets': {'a': {'mask': '1111', 'array': 'wholebody', 'source': 'x', 'weight': 1.0}}},
            "'x' is not among",
        ),
    ],
)
def test_sets_that_cannot_be_are_refused(packed, settings, message):
    with pytest.raises(ConfigError, match=message):
        _source(packed, **settings)


def _run(name: str, **settings) -> TrainConfig:
    config = read_settings(CONFIGS / f'{name}.yaml', TrainConfig)
    small = dict(network=NETWORK, steps=30, batch=64, warmup=5, save_every=10)
    return dataclasses.replace(config, **(small | settings))


@pytest.mark.parametrize('name', ['fused', 'mixed'])
def test_whole_body_run_trains_the_correction_alone(packed, tmp_path, name):
    config = _run(name)
    source = open_source(config, packed)
    folder = RunFolder(tmp_path / 'run')
    folder.path.mkdir()
    network, figures = train(config, source, folder)
    fresh = load_whole_body(write_result(config, network, source, figures, folder.path), config)
    assert all(not p.requires_grad for p in network.base_model.parameters())
    for key, value in network.base_model.state_dict().items():
        assert torch.equal(value, fresh.base_model.state_dict()[key])
    assert network.output_linear.weight.abs().max() > 0.0
    draw = draw_step(source, config, 0)
    label = draw.t * 999
    with torch.no_grad():
        a, b = network(draw.x_0, label), fresh(draw.x_0, label)
    torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)  # 16 bits


def test_correction_starts_at_nothing(packed, tmp_path):
    config = _run('mixed', steps=1)  # the first step stands still
    source = open_source(config, packed)
    folder = RunFolder(tmp_path / 'run')
    folder.path.mkdir()
    network, _ = train(config, source, folder)
    draw = draw_step(source, config, 3)
    with torch.no_grad():
        whole = network(draw.x_0, draw.t * 999)
        assert torch.equal(whole, network.base_model(draw.x_0, draw.t * 999))


def test_correction_over_other_parts_is_refused(packed, tmp_path):
    config = _run('fused', steps=2)
    source = open_source(config, packed)
    folder = RunFolder(tmp_path / 'run')
    folder.path.mkdir()
    network, figures = train(config, source, folder)
    path = write_result(config, network, source, figures, tmp_path)
    hand = load_checkpoint(CHECKOUT / config.base.hand)
    other = dataclasses.replace(hand, mean=hand.mean + 0.1)
    save_checkpoint(tmp_path / 'hand.safetensors', other)
    base = dataclasses.replace(config.base, hand=str(tmp_path / 'hand.safetensors'))
    with pytest.raises(CheckpointError, match='trained over other part networks'):
        load_whole_body(path, dataclasses.replace(config, base=base))


SHIPPED = ('body', 'hand', 'face', 'fused', 'mixed')
PAPER = {  # part, optimizer, learning rate, steps, batch, hidden, embed
    'body': ('body', 'radam', 2e-4, 200_000, 1280, 1024, 512),
    'hand': ('hand', 'radam', 2e-4, 200_000, 1280, 1024, 512),
    'face': ('face', 'radam', 2e-4, 100_000, 512, 1024, 512),
    'face_shape': ('face_shape', 'radam', 1e-4, 200_000, 128, 512, 256),
    'fused': ('wholebody', 'adam', 2e-4, 400_000, 1280, 512, 256),
    'mixed': ('wholebody', 'adam', 2e-4, 400_000, 1280, 512, 256),
}


@pytest.mark.parametrize('name', PAPER)
def test_paper_settings_are_those_of_the_released_code(name):
    config = read_settings(CONFIGS / 'paper' / f'{name}.yaml', TrainConfig)
    network = config.network
    found = (config.part, config.optimizer, config.learning_rate, config.steps, config.batch)
    assert (*found, network['hidden'], network['embed']) == PAPER[name]
    assert (config.warmup, config.clip_norm, config.ema_decay, config.seed) == (
        5000,
        1,
        0.9999,
        42,
    )
    assert (network['blocks'], network['dropout']) == (2, 0.1)
    assert config.low_t_share == 0.0 and config.loss == LossConfig()
    assert config.augment == type(config.augment)()


def test_slips_of_the_released_code_are_a_variant():
    path = CONFIGS / 'paper' / 'mixed.yaml'
    mixed = read_settings(path, TrainConfig).mixed
    assert mixed.random_masks and mixed.dropout.keep == 0.8
    assert not (mixed.official_double_mirror or mixed.official_weights)
    assert mixed.sets['grab'].mask == mixed.sets['arctic'].mask == '1110'
    released = read_settings(path, TrainConfig, 'released_code').mixed
    assert released.dropout.keep == 0.2
    assert released.official_double_mirror and released.official_base_dropout
    assert not read_settings(CONFIGS / 'paper' / 'fused.yaml', TrainConfig).mixed.random_masks


FILES = [*CONFIGS.glob('paper/*.yaml'), *(CONFIGS / f'{name}.yaml' for name in SHIPPED)]


@pytest.mark.parametrize('path', FILES, ids=lambda path: f'{path.parent.name}-{path.stem}')
def test_every_configuration_can_be_read_with_its_variants(path):
    for variant in ('', *yaml.safe_load(path.read_text()).get('variants', {})):
        assert read_settings(path, TrainConfig, variant).steps >= 1
