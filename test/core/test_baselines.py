"""The competing priors: costs with gradients, samples that are poses, files that are refused."""

import pickle

import numpy as np
import pytest
import torch

from dposer_core import rotations
from dposer_core.baselines import (
    LIFTERS,
    METHODS,
    MOTION_METHODS,
    build,
    load_baseline,
    new_network,
    store,
)
from dposer_core.baselines.base import (
    LatentPrior,
    PosePrior,
    ProjectingPrior,
    SamplingPrior,
)
from dposer_core.baselines.distance_field import kinematic_parents, quat_wxyz, rotvec_of
from dposer_core.baselines.gmm import Gmm
from dposer_core.baselines.nrdf import perturbation
from dposer_core.errors import CheckpointError, ConfigError

_PARENTS = kinematic_parents('body')
CONFIGS = {
    'gmm': {'dim': 63, 'components': 2},
    'vposer': {'neurons': 16, 'latent': 4},
    'cvposer': {'neurons': 16, 'latent': 4, 'conditional': True},
    'gan_s': {'neurons': 16, 'latent': 4},
    'posendf': {'parents': _PARENTS, 'widths': (16, 8)},
    'nrdf': {'parents': _PARENTS, 'widths': (16, 8)},
}
HAVE_FILES = [
    (file.stem.rpartition('_')[0], file.stem.rpartition('_')[2])
    for file in sorted(store.BASELINE_DIR.glob('*.safetensors'))
]
PRIORS = [(method, part) for method, part in HAVE_FILES if method not in LIFTERS]
DIMS = {'body': 63, 'hand': 45, 'face': 13, 'wholebody': 166}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small(method: str):
    network = new_network(method, CONFIGS[method]).eval()
    network.projection_steps = 5
    return network


def stored(method: str, network) -> store.BaselineFile:
    weights = {key: value.numpy() for key, value in network.state_dict().items() if value.ndim}
    return store.BaselineFile(method, 'body', CONFIGS[method], weights)


@pytest.mark.parametrize('method', CONFIGS)
@pytest.mark.parametrize('scale', [0.0, 0.3, 3.0])
def test_cost_is_a_scalar_with_finite_gradients(method, scale):
    pose = (scale * torch.randn(5, 63)).requires_grad_()
    cost = small(method).loss(pose)
    cost.backward()
    assert cost.shape == ()
    assert torch.isfinite(cost)
    assert torch.isfinite(pose.grad).all()
    if scale:
        assert (pose.grad.abs().sum(dim=1) > 0).all()  # every pose of the batch is pulled


@pytest.mark.parametrize('method', CONFIGS)
def test_samples_are_poses_and_follow_the_generator(method):
    prior = small(method)
    first, again, other = (
        prior.sample(6, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (6, 63)
    assert torch.isfinite(first).all()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    if method != 'gmm':  # the others make rotations, a Gaussian any vector
        assert (first.reshape(6, 21, 3).norm(dim=-1) <= np.pi + 1e-4).all()


@pytest.mark.parametrize('method', CONFIGS)
def test_methods_offer_what_their_kind_offers(method):
    prior = small(method)
    assert isinstance(prior, PosePrior)
    assert isinstance(prior, SamplingPrior)
    assert isinstance(prior, ProjectingPrior) == (method in ('posendf', 'nrdf'))
    assert isinstance(prior, LatentPrior) == (method in ('vposer', 'cvposer', 'gan_s'))


@pytest.mark.parametrize('method', ['posendf', 'nrdf'])
def test_projection_brings_poses_nearer(method):
    field = small(method)
    with torch.no_grad():  # far enough from zero to have somewhere to go
        list(field.dfnet.children())[-1].bias += 0.3
    pose = torch.randn(8, 63)
    before, after = field.distance(pose), field.distance(field.project(pose, steps=20))
    assert (after < before).all()


def test_gan_inversion_finds_a_pose_of_its_own():
    gan = small('gan_s')
    pose = gan.sample(4, torch.Generator().manual_seed(3))
    truth = rotations.rotvec_to_rotmat(pose.reshape(4, 21, 3))

    def error(steps: int) -> torch.Tensor:
        latent = gan.invert(pose, steps=steps, generator=torch.Generator().manual_seed(4))
        return (gan.generator(latent) - truth).square().mean(dim=(1, 2, 3)).detach()

    start, found = error(0), error(200)
    assert (found < start).all()
    assert found.median() < 1e-3 * start.median()  # a start may run into a local minimum


def test_conditional_completion_keeps_what_was_seen():
    prior, pose = small('cvposer'), torch.randn(4, 63)
    mask = torch.ones(63)
    mask[9:12] = 0
    unseen = pose.clone()
    unseen[:, 9:12] = 99.0
    found = prior.complete(pose, mask, torch.Generator().manual_seed(1))
    assert torch.equal(found[:, mask > 0], pose[:, mask > 0])
    again = prior.complete(unseen, mask, torch.Generator().manual_seed(1))
    assert torch.equal(found, again)  # hidden entries are not looked at


def test_mixture_density_is_that_of_one_gaussian():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    covar, mean = root @ root.T + np.eye(6), rng.normal(size=6)
    gmm = Gmm.from_arrays(mean[None], covar[None], np.ones(1))
    pose = torch.from_numpy(rng.normal(size=(4, 6))).float()
    exact = torch.distributions.MultivariateNormal(
        torch.from_numpy(mean).float(), torch.from_numpy(covar).float()
    ).log_prob(pose)
    torch.testing.assert_close(gmm.log_density(pose), exact)
    # SMPLify's constant leaves out the determinant of the smallest component
    offset = gmm.negative_log_likelihood(pose) + exact
    torch.testing.assert_close(offset, offset[:1].expand(4), rtol=1e-4, atol=1e-4)


def test_mixture_samples_have_its_moments():
    covar = np.diag([0.01, 0.04, 0.09])
    gmm = Gmm.from_arrays(np.array([[1.0, 2.0, 3.0]]), covar[None], np.ones(1))
    rows = gmm.sample(20_000, torch.Generator().manual_seed(0)).numpy()
    np.testing.assert_allclose(rows.mean(0), [1, 2, 3], atol=0.01)
    np.testing.assert_allclose(np.cov(rows.T), covar, atol=0.003)


def test_quaternions_and_back():
    pose = torch.randn(10, 63).clamp(-1.5, 1.5)
    quat = quat_wxyz(pose)
    assert (quat[..., 0] >= 0).all()
    torch.testing.assert_close(rotvec_of(quat), pose, rtol=1e-4, atol=1e-5)


def test_perturbation_turns_joints_by_the_wanted_mean_angle():
    distance = torch.tensor([0.3, -0.8])
    quat = perturbation(distance, 21, torch.Generator().manual_seed(0))
    angle = 2 * torch.atan2(quat[..., 1:].norm(dim=-1), quat[..., 0])
    torch.testing.assert_close(angle.mean(dim=1), distance.abs(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('method', CONFIGS)
def test_file_brings_back_the_network(method, tmp_path):
    network = small(method)
    path = tmp_path / 'x.safetensors'
    store.save_file(path, stored(method, network), half=False)
    loaded = load_baseline(method, 'body', path)
    pose = torch.randn(3, 63)
    torch.testing.assert_close(loaded.loss(pose), network.loss(pose).detach())
    assert not any(p.requires_grad for p in loaded.parameters())


def test_bad_files_are_refused(tmp_path):
    path = tmp_path / 'x.safetensors'
    store.save_file(path, stored('vposer', small('vposer')))
    content = path.read_bytes()
    for bad, words in (
        (content[:-100], 'truncated'),
        (b'', 'truncated'),
        (content[:-4] + b'\0\1\2\3', 'altered'),
    ):
        broken = tmp_path / 'bad.safetensors'
        broken.write_bytes(bad)
        with pytest.raises(CheckpointError, match=words):
            load_baseline('vposer', 'body', broken)
    with pytest.raises(CheckpointError, match="'vposer', expected 'nrdf'"):
        load_baseline('nrdf', 'body', path)
    with pytest.raises(CheckpointError, match="'body', expected 'hand'"):
        load_baseline('vposer', 'hand', path)
    with pytest.raises(CheckpointError, match='not found'):
        load_baseline('vposer', 'body', tmp_path / 'none.safetensors')


def test_tensors_that_do_not_fit_their_configuration_are_refused():
    file = stored('vposer', small('vposer'))
    smaller = {key: value for key, value in file.weights.items() if 'mu' not in key}
    for weights, config in (
        (smaller, file.config),
        (file.weights, file.config | {'latent': 7}),
        (file.weights, file.config | {'wings': 2}),
    ):
        with pytest.raises(CheckpointError, match='does not fit'):
            build(store.BaselineFile('vposer', 'body', config, weights))


def test_unknown_method_and_missing_part_say_what_there_is():
    with pytest.raises(ConfigError, match='known: l2, gmm'):
        load_baseline('vposr')
    with pytest.raises(ConfigError, match='is shipped'):
        load_baseline('gan_s', 'face')


def _published(network, version: int) -> dict[str, torch.Tensor]:
    """The state dict as VPoser's authors name it."""
    names = {v: k for k, v in _v1_names().items()}
    state = {}
    for key, value in network.state_dict().items():
        stem, _, kind = key.rpartition('.')
        if version == 1:
            state[f'{names[stem]}.{kind}'] = value
        elif key.startswith('encoder_net.'):
            index, _, rest = key.removeprefix('encoder_net.').partition('.')
            state[f'vp_model.encoder_net.{int(index) + 1}.{rest}'] = value
        else:
            state[f'vp_model.{key}'] = value
    return state


def _v1_names() -> dict[str, str]:
    from dposer_core.baselines.vposer import _V1_NAMES

    return _V1_NAMES


@pytest.mark.parametrize('version', [1, 2])
def test_published_vposer_loads(version, tmp_path):
    network = new_network('vposer', CONFIGS['vposer'] | {'version': version}).eval()
    path = tmp_path / 'vposer.ckpt'
    if version == 1:  # files of 2019 have torch's old format
        torch.save(_published(network, 1), path, _use_new_zipfile_serialization=False)
    else:
        extra = {'bm_train.v_template': torch.zeros(3)}  # the body model travels with it
        content = {'state_dict': _published(network, 2) | extra, 'epoch': 13}
        torch.save(content, path)
    loaded = load_baseline('vposer', 'body', path)
    pose = torch.randn(4, 63)
    assert loaded.config.version == version
    torch.testing.assert_close(loaded.encode(pose)[0], network.encode(pose)[0].detach())
    codes = torch.randn(4, 4)
    torch.testing.assert_close(loaded.decode(codes), network.decode(codes).detach())


def test_published_distance_field_loads_or_names_the_tensor(tmp_path):
    config = {'parents': _PARENTS}
    network = new_network('nrdf', config).eval()
    path = tmp_path / 'nrdf.pt'
    torch.save({'epoch': 3, 'model_state_dict': network.state_dict()}, path)
    pose = torch.randn(3, 63)
    loaded = load_baseline('nrdf', 'body', path)
    torch.testing.assert_close(loaded.loss(pose), network.loss(pose).detach())
    torch.save({'model_state_dict': small('nrdf').state_dict()}, path)
    with pytest.raises(CheckpointError, match=r'dfnet.lin0.weight has shape \(16, 126\)'):
        load_baseline('nrdf', 'body', path)


@pytest.mark.parametrize('method', ['vposer', 'posendf', 'nrdf', 'gmm'])
@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 cut', b'\x80\x02not a pickle'])
def test_damaged_published_file_is_refused(method, content, tmp_path):
    path = tmp_path / 'x.pt'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'x\.pt'):
        load_baseline(method, 'body', path)


class _Malice:
    def __reduce__(self):
        return print, ('executed',)


def test_mixture_file_cannot_execute_code(tmp_path, capsys):
    path = tmp_path / 'gmm_08.pkl'
    path.write_bytes(pickle.dumps({'means': _Malice()}))
    with pytest.raises(CheckpointError, match='not allowed'):
        load_baseline('gmm', 'body', path)
    assert 'executed' not in capsys.readouterr().out


def test_smplify_mixture_loads_from_an_old_pickle(tmp_path):
    rng = np.random.default_rng(0)
    content = {
        'means': rng.normal(size=(2, 69)),
        'covars': np.stack([np.eye(69), 2 * np.eye(69)]),
        'weights': np.array([0.25, 0.75]),
    }
    path = tmp_path / 'gmm_08.pkl'
    path.write_bytes(pickle.dumps(content, protocol=2))
    gmm = load_baseline('gmm', 'body', path)
    assert gmm.sample(5).shape == (5, 63)
    assert torch.isfinite(gmm.loss(torch.zeros(2, 63)))
    content['covars'][0] *= -1
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match='not positive'):
        load_baseline('gmm', 'body', path)


@pytest.mark.parametrize(('method', 'part'), PRIORS)
def test_shipped_file_prefers_rest_to_wild_poses(method, part):
    assert method in METHODS
    prior = load_baseline(method, part)
    shape = (8, 8, DIMS[part]) if method in MOTION_METHODS else (64, DIMS[part])
    wild = 1.5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    calm = torch.zeros(shape)
    if method == 'gan_s':  # its verdict is relative: its own samples must please it more
        calm = prior.sample(64, torch.Generator().manual_seed(1))
    assert prior.loss(calm) < prior.loss(wild)


def test_shipped_files_have_cards_and_are_small():
    assert HAVE_FILES
    files = sorted(store.BASELINE_DIR.glob('*.safetensors'))
    assert sum(file.stat().st_size for file in files) <= 12e6
    for file in files:
        assert store.load_file(file).sha256[:16] in file.with_suffix('.md').read_text()
