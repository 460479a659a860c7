"""Golden files of the competitors' official code: our networks reproduce their numbers.

Like test_prior_parity.py: skipped without the files, 1e-5 relative per call, row by row.
"""

import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer_core.baselines import gmm, vposer
from dposer_core.baselines.base import L2
from dposer_core.baselines.distance_field import DistanceFieldConfig, kinematic_parents
from dposer_core.baselines.gan_s import GanS, GanSConfig
from dposer_core.baselines.nrdf import NRDF
from dposer_core.baselines.posendf import OFFICIAL_PARENTS, PoseNDF

PARITY = Path(os.environ.get('DPOSER_PARITY', Path(__file__).parents[3] / 'shared' / 'parity'))
PER_CALL = 1e-5

pytestmark = pytest.mark.skipif(
    not PARITY.is_dir(),
    reason=f'golden files not found at {PARITY}; set DPOSER_PARITY to their folder',
)


@functools.cache
def golden(name: str) -> dict[str, torch.Tensor]:
    with np.load(PARITY / f'{name}.npz', allow_pickle=False) as file:
        return {key: torch.from_numpy(np.array(value)) for key, value in file.items()}


def state(name: str, prefix: str = 'sd/') -> dict[str, torch.Tensor]:
    tensors = golden(name).items()
    return {key.removeprefix(prefix): value for key, value in tensors if key.startswith(prefix)}


def check(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    error = (found.detach() - expected).flatten(1).norm(dim=1)
    assert (error <= PER_CALL * expected.flatten(1).norm(dim=1).clamp_min(1e-6)).all(), error


@pytest.mark.parametrize('name', ['vposer_x', 'cvposer_x'])
def test_vposer_reproduces_codes_and_poses(name):
    data = golden(f'baselines/{name}')
    weights = {key: value.numpy() for key, value in state(f'baselines/{name}').items()}
    network = vposer.from_state_dict(weights)
    mean, std = network.encode(data['x'], data.get('cond'))
    check(mean, data['mean'])
    check(std, data['std'])
    rotmat, _ = network.decode_parts(data['z'], data.get('cond'))
    check(rotmat.flatten(2), data['matrot'])
    check(network.decode(data['z'], data.get('cond')), data['pose'].flatten(1))


@pytest.mark.parametrize(
    ('name', 'network'),
    [
        (
            'posendf',
            PoseNDF(DistanceFieldConfig(OFFICIAL_PARENTS, (32, 64, 32), over_joints=True)),
        ),
        (
            'nrdf',
            NRDF(DistanceFieldConfig(kinematic_parents('body'), (32, 64, 32))),
        ),
    ],
)
def test_distance_field_reproduces_distances(name, network):
    data = golden(f'baselines/{name}')
    assert data['parent'].tolist() == list(network.config.parents)
    network.load_state_dict(state(f'baselines/{name}'))
    check(network(data['quat'])[:, None], data['dist'])
    if 'feat' in data:
        check(network.encode(data['quat']), data['feat'])


def test_gan_s_reproduces_poses_and_verdicts():
    data = golden('baselines/gans')
    network = GanS(GanSConfig(neurons=64, latent=8)).eval()
    network.generator.load_state_dict(state('baselines/gans', 'g/'))
    network.discriminator.load_state_dict(state('baselines/gans', 'd/'))
    check(network.generator(data['z']).flatten(2), data['matrot'])
    each, whole = network.discriminator(data['matrot'].unflatten(-1, (3, 3)))
    check(each, data['d_each'])
    check(whole, data['d_all'])


def test_gmm_and_l2_reproduce_costs():
    data = golden('gmm')
    mixture = gmm.load_smplify(PARITY / 'gmm_synth' / 'gmm_04.pkl')
    check(mixture.means, data['mix_means'])
    check(mixture.mean_pose()[None], data['mean'])
    check(mixture.negative_log_likelihood(data['pose'])[:, None], data['nll'][:, None])
    check(L2().loss(data['pose'])[None, None], data['l2prior'][None, None])
