"""Live prior: equals the torch network, refuses what does not fit, never falls back unasked."""

import builtins
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from dposer_core.errors import CheckpointError, ConfigError
from dposer_core.prior import backends, checkpoint, compose, runtime
from dposer_core.prior.architecture import TimeFCConfig, WholeBodyLayout
from dposer_core.prior.network import Combiner, TimeFC, from_weights
from dposer_core.prior.prior import DiffusionPrior
from training.evaluate import denoise_gaussian

NUM_EXPRESSION = 10
FLOAT32 = 1e-5  # two float32 sums in different order


def random_part(part: str, dim: int, seed: int) -> checkpoint.PriorCheckpoint:
    """A small untrained network with statistics that are not trivial."""
    torch.manual_seed(seed)
    # Eight channels per group: a group norm over two would magnify rounding.
    config = TimeFCConfig(dim, hidden=256, embed=32)
    weights = {k: v.numpy() for k, v in TimeFC(config).state_dict().items() if k != 'sigmas'}
    rng = np.random.default_rng(seed)
    mean = rng.standard_normal(dim).astype(np.float32)
    std = rng.uniform(0.1, 1.0, dim).astype(np.float32)
    return checkpoint.PriorCheckpoint(
        part, config, weights, mean, std, licence='none', source_commit='test'
    )


@pytest.fixture(scope='module')
def parts() -> dict[str, checkpoint.PriorCheckpoint]:
    dims = {'body': 63, 'hand': 45, 'face': 3 + NUM_EXPRESSION}
    return {name: random_part(name, dim, seed) for seed, (name, dim) in enumerate(dims.items())}


@pytest.fixture(scope='module')
def composition(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp('prior')
    files = [folder / f'{name}.safetensors' for name in parts]
    for file, part in zip(files, parts.values(), strict=True):
        checkpoint.save_checkpoint(file, part, half=False)
    compose.save_composition(folder / 'wholebody.json', *files)
    return folder / 'wholebody.json'


@pytest.mark.parametrize('backend', ['onnxruntime', 'torch'])
@pytest.mark.parametrize('batch', [1, 3, 8])
def test_live_denoise_equals_the_torch_prior(composition, parts, backend, batch):
    live = runtime.load_prior(composition, backend)
    reference = DiffusionPrior(Combiner(*(from_weights(part.weights) for part in parts.values())))
    rng = np.random.default_rng(batch)
    x, noise = rng.standard_normal((2, batch, live.dim)).astype(np.float32)
    for t in (0.001, 0.0637, 0.15, 1.0):
        with torch.no_grad():
            x_t = reference.sde.add_noise(
                torch.from_numpy(x), torch.tensor(t), torch.from_numpy(noise)
            )
            expected = reference.denoise(x_t, t).numpy()
        found = live.denoise(x, t, noise)
        assert found.dtype == np.float32
        assert np.linalg.norm(found - expected) <= FLOAT32 * np.linalg.norm(expected)


def test_no_noise_means_zero_noise(composition):
    live = runtime.load_prior(composition)
    x = np.random.default_rng(0).standard_normal((2, live.dim)).astype(np.float32)
    np.testing.assert_array_equal(live.denoise(x, 0.1), live.denoise(x, 0.1, np.zeros_like(x)))


def test_statistics_follow_the_vector_layout(composition, parts):
    live = runtime.load_prior(composition)
    layout = WholeBodyLayout(NUM_EXPRESSION)
    assert (live.dim, live.num_expression) == (layout.dim, NUM_EXPRESSION)
    np.testing.assert_array_equal(live.mean[layout.body], parts['body'].mean)
    for hand in (layout.left_hand, layout.right_hand):
        np.testing.assert_array_equal(live.std[hand], parts['hand'].std)
    np.testing.assert_array_equal(live.mean[layout.face], parts['face'].mean)


def test_auto_prefers_onnxruntime_and_does_not_import_torch(composition):
    code = (
        'import sys; from dposer_core.prior.runtime import load_prior; import numpy as np\n'
        f'prior = load_prior({str(composition)!r}); prior.denoise(np.zeros((1, prior.dim)), 0.1)\n'
        'print(prior.backend, "torch" in sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['onnxruntime', 'False']


def test_part_alone_is_a_prior(composition):
    live = runtime.load_prior(composition.parent / 'hand.safetensors')
    assert live.denoise(np.zeros((2, 45), np.float32), 0.1).shape == (2, 45)


def test_half_precision_file_is_close(parts, tmp_path):
    checkpoint.save_checkpoint(tmp_path / 'body.safetensors', parts['body'])
    stored = checkpoint.load_checkpoint(tmp_path / 'body.safetensors')
    x = np.random.default_rng(0).standard_normal((4, 63)).astype(np.float32)
    exact, rounded = (
        backends.reference_noise(part.config, part.weights, x, 0.1)
        for part in (parts['body'], stored)
    )
    # 16 bits carry 11 of mantissa: 5e-4 relative per weight.
    assert np.linalg.norm(rounded - exact) <= 2e-3 * np.linalg.norm(exact)


def test_expression_space_of_another_body_is_refused(composition):
    with pytest.raises(CheckpointError, match=r'10 expression coefficients, the body model 100'):
        runtime.load_prior(composition, num_expression=100)


def test_unknown_name_lists_the_shipped_priors():
    with pytest.raises(
        CheckpointError, match="no prior is named 'wholebdy'; shipped or imported: "
    ):
        runtime.load_prior('wholebdy')


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r'absent\.json not found'):
        runtime.load_prior(tmp_path / 'absent.json')


def test_unknown_backend_is_refused(composition):
    with pytest.raises(
        ConfigError, match="backend = 'openvino': choose one of auto, onnxruntime, torch"
    ):
        runtime.load_prior(composition, 'openvino')


@pytest.fixture
def without_onnxruntime(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split('.')[0] == 'onnxruntime':
            raise ImportError('No module named onnxruntime')
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', refuse)


def test_named_backend_never_falls_back(composition, without_onnxruntime):
    with pytest.raises(ConfigError, match='onnxruntime.*pip install'):
        runtime.load_prior(composition, 'onnxruntime')


def test_auto_falls_back_with_a_warning(composition, without_onnxruntime, caplog):
    assert runtime.load_prior(composition).backend == 'torch'
    assert 'pip install onnxruntime' in caplog.text


def test_backend_that_differs_is_refused(composition, monkeypatch):
    true = backends.BACKENDS['torch']

    def wrong(ensemble):
        predict = true(ensemble)
        return lambda x, t: predict(x, t) * 1.01

    monkeypatch.setitem(backends.BACKENDS, 'torch', wrong)
    with pytest.raises(
        ConfigError, match=r'differs from the reference by 1\.0e-02 \(limit 1e-04\), refused'
    ):
        runtime.load_prior(composition, 'torch')


def test_exchanged_part_file_is_noticed(composition, parts, tmp_path):
    for file in composition.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    checkpoint.save_checkpoint(tmp_path / 'hand.safetensors', random_part('hand', 45, seed=9))
    with pytest.raises(CheckpointError, match=r'names hand\.safetensors with sha256 .* found'):
        runtime.load_prior(tmp_path / 'wholebody.json')


def test_composition_of_another_format_is_refused(tmp_path):
    (tmp_path / 'other.json').write_text(json.dumps({'format': 'x', 'model': 'base'}))
    with pytest.raises(CheckpointError, match='not a composition of this version'):
        runtime.load_prior(tmp_path / 'other.json')


def test_cached_time_tables_are_bounded(parts):
    table = backends.TimeTable([backends.Network(parts['body'].config, parts['body'].weights)])
    for t in np.linspace(0.01, 1.0, backends._MAX_CACHED_TIMES + 5):
        table(float(t))
    assert len(table._cache) == backends._MAX_CACHED_TIMES


@pytest.mark.parametrize('backend', ['onnxruntime', 'torch'])
@pytest.mark.parametrize(
    'options', [{'scale_by_sigma': False}, {'embedding': 'fourier'}, {'gaussian_skip': True}]
)
def test_network_variants_run_on_every_backend(options, backend, tmp_path):
    torch.manual_seed(0)
    config = TimeFCConfig(63, hidden=256, embed=32, **options)
    network = TimeFC(config).eval()
    if config.gaussian_skip:
        network.gaussian.fit(torch.randn(500, 63) @ torch.randn(63, 63))
        torch.nn.init.normal_(network.post_dense.weight)
    weights = {k: v.numpy() for k, v in network.state_dict().items() if k != 'sigmas'}
    ones = np.ones(63, np.float32)
    part = checkpoint.PriorCheckpoint('body', config, weights, 0 * ones, ones)
    checkpoint.save_checkpoint(tmp_path / 'body.safetensors', part, half=False)
    x = np.random.default_rng(0).standard_normal((3, 63)).astype(np.float32)
    found = runtime.load_prior(tmp_path / 'body.safetensors', backend).predict_noise(x, 0.1)
    with torch.no_grad():
        expected = network(torch.from_numpy(x), torch.full((3,), 99.9)).numpy()
    # The logarithmic Fourier features turn the last digit of t into 1e-4 rad.
    assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)


def test_gaussian_skip_that_learned_nothing_is_the_posterior_mean():
    rng = np.random.default_rng(0)
    x_0 = torch.from_numpy(rng.normal(size=(4000, 63)) @ rng.normal(size=(63, 63)) * 0.1 + 0.3)
    network = TimeFC(TimeFCConfig(63, hidden=64, embed=32, gaussian_skip=True))
    network.gaussian.fit(x_0)
    x_t = rng.normal(size=(5, 63))
    mean, covariance = x_0.mean(0).numpy(), np.cov(x_0.numpy(), rowvar=False)
    for t in (0.02, 0.2, 0.9):
        with torch.no_grad():
            found = DiffusionPrior(network.eval()).denoise(torch.from_numpy(x_t).float(), t)
        expected = denoise_gaussian(mean, covariance, x_t, t)
        np.testing.assert_allclose(found, expected, atol=2e-3)  # float32 over alpha of 0.02
