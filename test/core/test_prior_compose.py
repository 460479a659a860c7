"""Whole-body priors from several files: equal to the torch network, wrong files are refused."""

import dataclasses
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer_core.errors import CheckpointError, ConfigError
from dposer_core.prior import compose, runtime
from dposer_core.prior.architecture import TimeFCConfig, WholeBodyLayout, label_of
from dposer_core.prior.checkpoint import PriorCheckpoint, save_checkpoint
from dposer_core.prior.network import Combiner, TimeFC, WholeBody, correction_config, from_weights
from dposer_core.prior.prior import DiffusionPrior

LAYOUT = WholeBodyLayout(10)
# float32 sums in another order, and a folded matrix in place of two.
FOLDED = 1e-4
PARITY = Path(os.environ.get('DPOSER_PARITY', Path(__file__).parents[3] / 'shared' / 'parity'))


def tensors_of(network: torch.nn.Module, *prefixes: str) -> dict[str, np.ndarray]:
    """Numpy tensors under those key prefixes, as files store them."""
    return {
        key: value.numpy().copy()
        for key, value in network.state_dict().items()
        if key.startswith(prefixes or '') and not key.endswith('sigmas')
    }


def random_network(scale_by_sigma: bool, skip: bool) -> WholeBody:
    """Small untrained parts of different widths under a correction that is not zero."""
    torch.manual_seed(3)
    parts = [
        TimeFC(
            TimeFCConfig(
                dim, hidden=hidden, embed=32, scale_by_sigma=scale_by_sigma, gaussian_skip=skip
            )
        )
        for dim, hidden in ((63, 256), (45, 128), (13, 128))
    ]
    for part in parts:
        torch.nn.init.normal_(part.post_dense.weight, std=0.1)
    base = Combiner(*parts)
    config = correction_config(base, hidden=256, embed=32)
    network = WholeBody(base, dataclasses.replace(config, scale_by_sigma=scale_by_sigma))
    torch.nn.init.normal_(network.output_linear.weight, std=0.1)
    torch.nn.init.normal_(network.output_linear.bias)
    return network.eval()


def write(network: WholeBody, folder: Path, model: str = 'mixed') -> Path:
    """Its part files, correction file and composition."""
    rng = np.random.default_rng(0)
    base = network.base_model
    files, hashes = [], {}
    for name, part in zip(
        compose.BASE_PARTS, (base.body_model, base.hand_model, base.face_model), strict=True
    ):
        mean, std = rng.standard_normal(part.config.dim), rng.uniform(0.1, 1.0, part.config.dim)
        checkpoint = PriorCheckpoint(name, part.config, tensors_of(part), mean, std)
        files.append(folder / f'{name}.safetensors')
        hashes[name] = save_checkpoint(files[-1], checkpoint, half=False)
    correction = compose.Correction(
        model,
        network.mask_fc.config,
        tensors_of(network, 'mask_fc.', 'output_linear.'),
        hashes,
        licence='CC0',
        notes={'steps': 3},
    )
    compose.save_correction(folder / 'correction.safetensors', correction, half=False)
    compose.save_composition(folder / 'whole.json', *files, folder / 'correction.safetensors')
    return folder / 'whole.json'


@pytest.fixture(scope='module')
def network() -> WholeBody:
    return random_network(scale_by_sigma=True, skip=False)


@pytest.fixture
def composition(network, tmp_path) -> Path:
    return write(network, tmp_path)


def assert_same(live: runtime.LivePrior, network: torch.nn.Module, limit: float) -> None:
    """Same one-step denoised vectors at several times, with noise, with and without masks."""
    reference = DiffusionPrior(network)
    rng = np.random.default_rng(5)
    x, noise = rng.standard_normal((2, 5, live.dim)).astype(np.float32)
    hidden = np.array([[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    for t in (0.01, 0.0637, 0.2, 1.0):
        for mask in (None, hidden, hidden.astype(bool)):
            with torch.no_grad():
                x_t = reference.sde.add_noise(torch.from_numpy(x), t, torch.from_numpy(noise))
                seen = None if mask is None else torch.from_numpy(mask)
                eps = reference.predict_noise(x_t, t, seen).numpy()
                expected = reference.denoise(x_t, t, seen).numpy()
            found = live.predict_noise(x_t.numpy(), t, mask)
            assert np.linalg.norm(found - eps) <= limit * np.linalg.norm(eps)
            clean = live.denoise(x, t, noise, mask)
            assert clean.dtype == np.float32
            assert np.linalg.norm(clean - expected) <= limit * np.linalg.norm(expected)


@pytest.mark.parametrize('backend', ['onnxruntime', 'torch'])
@pytest.mark.parametrize(
    ('scale_by_sigma', 'skip'), [(True, False), (False, False), (False, True)]
)
def test_live_prior_equals_the_torch_whole_body(backend, scale_by_sigma, skip, tmp_path):
    network = random_network(scale_by_sigma, skip)
    live = runtime.load_prior(write(network, tmp_path), backend, num_expression=10)
    assert live.dim == LAYOUT.dim
    assert_same(live, network, FOLDED)


def recipe(name: str) -> dict[str, np.ndarray]:
    """Tensors of the golden files' recipe, each from the CRC32 of its key."""
    listing = json.loads((PARITY / 'state_dict_shapes.json').read_text())[name]['state_dict']
    weights = {}
    for key, shape in listing.items():
        if not key.endswith('sigmas') and not key.startswith('output_linear.'):
            rng = np.random.RandomState(zlib.crc32(key.encode()))
            values = rng.standard_normal(shape)
            if len(shape) == 2:
                values /= np.sqrt(shape[1])
            else:
                values *= 0.1
                values += 1.0 if 'gnorm' in key and key.endswith('weight') else 0.0
            weights[key] = values.astype(np.float32)
    for kind in ('weight', 'bias'):
        weights[f'output_linear.{kind}'] = weights[f'zero_linear.{kind}']
    return weights


@pytest.mark.slow
@pytest.mark.skipif(not PARITY.is_dir(), reason=f'golden files not found at {PARITY}')
@pytest.mark.parametrize('model', ['fused', 'mixed'])
def test_live_prior_equals_the_golden_whole_body_at_full_size(model, tmp_path):
    live = runtime.load_prior(write(from_weights(recipe('wholebody_mixed')), tmp_path, model))
    with np.load(PARITY / 'full_size' / f'wholebody_{model}.npz') as golden:
        for row, t in enumerate(golden['t']):
            x = golden['x'][row : row + 1].astype(np.float32)
            expected = golden['out'][row]
            found = live.predict_noise(x, float(t))[0]
            assert np.linalg.norm(found - expected) <= FOLDED * np.linalg.norm(expected)


def test_folding_saves_the_wide_input(composition):
    loaded = compose.load_composition(composition)
    correction = loaded.correction()
    body, hand, face = (compose.first_layer(part) for part in loaded.parts())
    folded = compose.fold(correction, [body, hand, hand, face])
    assert (correction.config.dim, folded.config.dim) == (256 + 3 * 128, LAYOUT.dim)
    compose_label = float(label_of(0.1))
    x = torch.randn(2, LAYOUT.dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = from_weights(folded.weights)(x, torch.full((2,), compose_label)).numpy()
    expected = compose.reference_correction(correction, [body, hand, hand, face])(x.numpy(), 0.1)
    assert np.linalg.norm(plain - expected) <= FOLDED * np.linalg.norm(expected)


def test_base_takes_masks_too(network, composition):
    content = json.loads(composition.read_text())
    del content['correction']
    (composition.parent / 'base.json').write_text(json.dumps(content | {'model': 'base'}))
    live = runtime.load_prior(composition.parent / 'base.json')
    x = np.random.default_rng(0).standard_normal((1, live.dim)).astype(np.float32)
    hidden = x.copy()
    hidden[:, LAYOUT.left_hand] = 0.0
    mask = np.array([[1, 0, 1, 1]])
    np.testing.assert_array_equal(
        live.predict_noise(x, 0.1, mask), live.predict_noise(hidden, 0.1)
    )


def test_whole_body_student_has_the_same_interface(tmp_path):
    torch.manual_seed(0)
    network = TimeFC(TimeFCConfig(LAYOUT.dim, hidden=256, embed=32, gaussian_skip=True)).eval()
    torch.nn.init.normal_(network.post_dense.weight, std=0.1)
    zeros = np.zeros(LAYOUT.dim, np.float32)
    part = PriorCheckpoint('wholebody', network.config, tensors_of(network), zeros, zeros + 1)
    save_checkpoint(tmp_path / 'student.safetensors', part, half=False)
    live = runtime.load_prior(tmp_path / 'student.safetensors', num_expression=10)
    assert (live.dim, live.num_expression) == (LAYOUT.dim, 10)

    def masked(x, label, mask=None):
        if mask is not None:
            widths = [part.stop - part.start for part in LAYOUT.parts]
            x = x * mask.repeat_interleave(torch.tensor(widths), dim=1)
        return network(x, label)

    assert_same(live, masked, FOLDED)


def test_correction_round_trip_keeps_everything(network, composition):
    loaded = compose.load_correction(composition.parent / 'correction.safetensors')
    assert (loaded.model, loaded.licence, loaded.notes) == ('mixed', 'CC0', {'steps': 3})
    assert loaded.config == network.mask_fc.config
    assert len(loaded.sha256) == 64
    np.testing.assert_array_equal(
        loaded.weights['output_linear.weight'], network.output_linear.weight.detach()
    )


def test_correction_over_other_parts_is_refused(composition):
    loaded = compose.load_correction(composition.parent / 'correction.safetensors')
    other = dataclasses.replace(loaded, parts=loaded.parts | {'hand': 'f' * 64})
    file = composition.parent / 'other.safetensors'
    compose.save_correction(file, other)
    parts = [composition.parent / f'{name}.safetensors' for name in compose.BASE_PARTS]
    with pytest.raises(CheckpointError, match='trained over the hand network ffffffffffff'):
        compose.save_composition(composition.parent / 'x.json', *parts, file)


def test_altered_correction_is_refused(composition):
    file = composition.parent / 'correction.safetensors'
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match='the file was altered'):
        runtime.load_prior(composition)


def test_correction_with_nan_cannot_be_saved(composition, tmp_path):
    loaded = compose.load_correction(composition.parent / 'correction.safetensors')
    loaded.weights['output_linear.bias'][3] = np.nan
    with pytest.raises(CheckpointError, match=r'output_linear\.bias is not finite'):
        compose.save_correction(tmp_path / 'x.safetensors', loaded)


def test_correction_alone_is_no_prior(composition):
    with pytest.raises(CheckpointError, match='dposer-correction-1'):
        runtime.load_prior(composition.parent / 'correction.safetensors')


def test_mask_of_a_single_part_is_refused(composition):
    live = runtime.load_prior(composition.parent / 'hand.safetensors')
    with pytest.raises(ConfigError, match='part masks need a whole-body prior'):
        live.denoise(np.zeros((1, 45), np.float32), 0.1, mask=np.ones((1, 4)))


def test_mask_of_another_shape_is_refused(composition):
    live = runtime.load_prior(composition)
    with pytest.raises(ConfigError, match=r'part mask of shape \(3,\) for 1 rows'):
        live.denoise(np.zeros((1, live.dim), np.float32), 0.1, mask=np.ones(3))
