"""Golden files of the official code: every formula of the prior reproduces their numbers.

The files are not part of the repository: `DPOSER_PARITY` or ../shared/parity. Without them these
tests skip. Tolerances: 1e-5 relative per call (float32 sums in another order), row by row, because
outputs at t = 1 are 5000 times those at t = 0; 1e-3 after optimisation loops.
"""

import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer_core.prior import checkpoint, network, sde
from dposer_core.prior.architecture import label_of

PARITY = Path(os.environ.get('DPOSER_PARITY', Path(__file__).parents[3] / 'shared' / 'parity'))
PER_CALL = 1e-5
AFTER_LOOP = 1e-3

pytestmark = pytest.mark.skipif(
    not PARITY.is_dir(),
    reason=f'golden files not found at {PARITY}; set DPOSER_PARITY to their folder',
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@functools.cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(PARITY / f'{name}.npz', allow_pickle=False) as file:
        return dict(file)


def tensor(values) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def row_error(found, expected) -> float:
    """Largest error of a row relative to the size of that row."""
    found = np.asarray(found, dtype=np.float64)
    expected = np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    found, expected = (a.reshape(-1, a.shape[-1] if a.ndim > 1 else 1) for a in (found, expected))
    scale = np.maximum(np.linalg.norm(expected, axis=-1), 1e-6)
    return float((np.linalg.norm(found - expected, axis=-1) / scale).max())


def check(record_property, name: str, found, expected, tolerance: float = PER_CALL) -> None:
    error = row_error(found, expected)
    record_property(name, error)
    assert error <= tolerance, f'{name}: {error:.2e} > {tolerance:.0e}'


@functools.cache
def reduced(name: str, ema: bool = True) -> torch.nn.Module:
    """A reduced network from its official checkpoint."""

    def weights(stem: str) -> dict[str, np.ndarray]:
        file = 'body_v1_reduced.pth' if stem == 'body_v1' else f'{stem}_reduced.ckpt'
        return checkpoint.load_official_weights(PARITY / 'ckpt' / file, ema=ema)

    if name == 'base':  # official code always assembles it from EMA weights
        parts = (reduced(part, True) for part in ('body', 'hand', 'face'))
        return network.Combiner(*parts).eval()
    if name == 'fullface':
        return network.FullFace(reduced('face', ema), reduced('face_shape', ema)).eval()
    return network.from_weights(
        weights(f'wholebody_{name}' if name in ('fused', 'mixed') else name)
    )


@pytest.mark.parametrize('ema', [True, False])
@pytest.mark.parametrize(
    'name', ['body', 'hand', 'face', 'face_shape', 'base', 'fused', 'mixed', 'body_v1']
)
def test_official_checkpoint_reproduces_outputs(name, ema, record_property):
    data, kind = golden(f'models/{name}'), 'ema' if ema else 'raw'
    net = reduced(name, ema)
    with torch.no_grad():
        out = net(tensor(data['x']), label_of(tensor(data['t'])))
        check(record_property, f'models/{name}', out, data[f'out_{kind}'])
        if 'mask' in data:
            out = net(tensor(data['x']), label_of(tensor(data['t'])), tensor(data['mask']))
            check(record_property, f'models/{name}:mask', out, data[f'out_masked_{kind}'])
        if f'score_{kind}' in data:
            t = tensor(data['t_score'])
            score = sde.SubVP().score(net(tensor(data['x']), label_of(t)), t)
            check(record_property, f'models/{name}:score', score, data[f'score_{kind}'])


def test_full_face_reproduces_outputs(record_property):
    data = golden('models/fullface')
    with torch.no_grad():
        out = reduced('fullface')(tensor(data['x']), label_of(tensor(data['t'])))
    check(record_property, 'models/fullface', out, data['out'])


@pytest.mark.parametrize('name', ['body_rot6d', 'body_fourier'])
def test_variant_reproduces_outputs(name, record_property):
    data = golden(f'models/{name}')
    weights = {key[3:]: value for key, value in data.items() if key.startswith('sd/')}
    with torch.no_grad():
        out = network.from_weights(weights)(tensor(data['x']), label_of(tensor(data['t'])))
    check(record_property, f'models/{name}', out, data['out'])
