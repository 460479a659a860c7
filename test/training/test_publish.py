"""What is shipped says where it is from, and is rounded only where that does no harm."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from dposer_core.errors import CheckpointError
from dposer_core.prior import compose
from dposer_core.prior.architecture import TimeFCConfig
from dposer_core.prior.checkpoint import PriorCheckpoint, load_checkpoint, save_checkpoint
from dposer_core.prior.network import TimeFC
from training import cards, publish
from training.publish import storage_error
from training.train_config import TrainConfig

STORAGE = {'largest_rms': 2e-5, 'bits': 16}


def checkpoint_of(part: str, dim: int) -> PriorCheckpoint:
    torch.manual_seed(0)
    config = TimeFCConfig(dim, hidden=256, embed=32, scale_by_sigma=False)
    weights = {k: v.numpy() for k, v in TimeFC(config).state_dict().items() if k != 'sigmas'}
    run = dataclasses.asdict(TrainConfig(part, seed=7, batch=33, low_t=0.4, low_t_share=0.5))
    notes = {'run': run, 'steps': 12, 'seconds': 120}
    ones = np.ones(dim, np.float32)
    return PriorCheckpoint(
        part, config, weights, 0 * ones, ones, 'Free.', 'abc123', notes, sha256='5' * 64
    )


def test_card_tells_run_data_licences_and_figures():
    report = {'sources': {'cmu_bvh': {'clips': 3, 'frames': 400, 'kept': 50}}}
    rows = [{'test': 'held out', 't': 0.1, 'network_mm': 12.345678}]
    text = cards.part_card(checkpoint_of('body', 63), 2048, STORAGE, report, rows)
    for fact in (
        'seed 7, 12 of 200000 steps of 33 rows',
        '`5555555555555555`',
        'commit `abc123`',
        'CMU motion capture, BVH conversion',
        '3 clips, 400 frames at 30 fps, 50 poses kept',
        'Synthetic share: no row is synthetic',
        'at most 2.0e-05',
        '| held out | 0.1 | 12.35 |',
        '70% of the training samples have t below 0.4',
    ):
        assert fact in text, fact
    # The licence of the database asks for these words.
    assert 'obtained from mocap.cs.cmu.edu' in text
    assert 'NSF EIA-0196217' in text.replace('\n', ' ')


def test_card_of_a_synthetic_part_says_so():
    report = {'arrays': {'hand': [900, 45]}}
    text = cards.part_card(checkpoint_of('hand', 45), 2048, STORAGE, report, [{'t': 0.1}])
    assert 'Synthetic share: all rows are synthetic' in text
    assert '900 samples' in text
    assert 'copyright (c) 2020-2021 Stewart Smith' in text


def test_sixteen_bits_are_taken_only_where_harmless():
    part = checkpoint_of('body', 63)
    harmless = storage_error(part.config, part.weights)
    assert harmless['bits'] == 16
    assert 0.0 < harmless['largest_rms'] < publish.HARMLESS_RMS
    large = part.weights | {'post_dense.weight': 100 * part.weights['post_dense.weight']}
    assert storage_error(part.config, large)['bits'] == 32


def test_correction_over_other_parts_is_not_published(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, 'WEIGHTS_DIR', tmp_path)
    hashes = {}
    for part, dim in (('body', 63), ('hand', 45), ('face', 13)):
        file = tmp_path / f'{part}.safetensors'
        hashes[part] = save_checkpoint(file, checkpoint_of(part, dim))
    config = TimeFCConfig(4 * 256, out_dim=166, hidden=32, embed=16)
    weights = {f'mask_fc.{k}': v.numpy() for k, v in TimeFC(config).state_dict().items()}
    del weights['mask_fc.sigmas']
    weights['output_linear.weight'] = np.zeros((166, 166), np.float32)
    weights['output_linear.bias'] = np.zeros(166, np.float32)
    other = compose.Correction('fused', config, weights, hashes | {'face': '0' * 64})
    compose.save_correction(tmp_path / 'run.safetensors', other)
    with pytest.raises(CheckpointError, match='another face network than the shipped one'):
        publish.publish_correction('fused', tmp_path / 'run.safetensors', tmp_path / 'none.npz')
    with pytest.raises(CheckpointError, match="is a 'fused' network; publish it as that"):
        publish.publish_correction('mixed', tmp_path / 'run.safetensors', tmp_path / 'none.npz')
    assert not (tmp_path / 'fused.json').exists()


def test_shipped_cards_belong_to_the_shipped_files():
    for part in compose.BASE_PARTS:
        file = publish.WEIGHTS_DIR / f'{part}.safetensors'
        assert load_checkpoint(file).sha256[:16] in file.with_suffix('.md').read_text()
    for file in publish.WEIGHTS_DIR.glob('*.json'):
        text = file.with_suffix('.md').read_text()
        named = json.loads(file.read_text())
        assert all(entry['sha256'][:12] in text for entry in named['parts'].values())
