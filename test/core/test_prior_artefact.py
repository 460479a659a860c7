"""The portable folder of a prior, and engines on disk: equal, complete, and never trusted."""

import json
import sys

import numpy as np
import pytest

from dposer_core.errors import CheckpointError, ConfigError
from dposer_core.prior import gpu, runtime
from dposer_core.prior.artefact import export_artefact
from dposer_core.prior.engines import cache_dir, cached_engine


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The shipped mixed prior, exported."""
    folder = tmp_path_factory.mktemp('artefact')
    export_artefact(runtime.read_networks('mixed'), folder)
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """A copy that may be damaged."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_artefact_equals_the_prior_at_any_time(folder) -> None:
    own, found = runtime.load_prior('mixed'), runtime.load_prior(folder / 'prior.json')
    x = np.random.default_rng(0).standard_normal((3, own.dim)).astype(np.float32)
    for t in (0.0137, 0.1, 0.9):
        np.testing.assert_array_equal(found.denoise(x, t), own.denoise(x, t))
    np.testing.assert_array_equal(found.mean, own.mean)
    assert found.hashes == own.hashes and found.num_expression == own.num_expression


def test_rows_of_the_table_drive_the_graph_alone(folder) -> None:
    """As a program in another language would: ONNX file, one stored row, no code of ours."""
    import onnxruntime
    from safetensors.numpy import load_file

    tables = load_file(folder / 'tables.safetensors')
    session = onnxruntime.InferenceSession(folder / 'trunk.onnx')
    prior = runtime.load_prior('mixed')
    x = np.random.default_rng(1).standard_normal((2, prior.dim)).astype(np.float32)
    index = 9
    (found,) = session.run(None, {'x': x, 'time': tables['rows'][index]})
    expected = prior.predict_noise(x, float(tables['times'][index]))
    np.testing.assert_allclose(found, expected, atol=1e-5)  # float32 sums in another order


def test_exchanged_file_is_refused(copy) -> None:
    with (copy / 'trunk.onnx').open('ab') as file:
        file.write(b'x')
    with pytest.raises(CheckpointError, match=r'trunk\.onnx has sha256 .* export the prior again'):
        runtime.load_prior(copy / 'prior.json')


def test_missing_file_is_named(copy) -> None:
    (copy / 'trunk.onnx').unlink()
    with pytest.raises(CheckpointError, match=r'trunk\.onnx: No such file'):
        runtime.load_prior(copy / 'prior.json')


def test_outputs_that_differ_are_refused(copy) -> None:
    """A time path of another network: hashes are right, the self-check is not."""
    content = json.loads((copy / 'prior.json').read_text())
    correction = content['networks'][-1]['config']
    correction['scale_by_sigma'] = not correction['scale_by_sigma']
    (copy / 'prior.json').write_text(json.dumps(content))
    with pytest.raises(ConfigError, match='differs from the reference'):
        runtime.load_prior(copy / 'prior.json')


def test_artefact_runs_on_no_other_back_end(folder) -> None:
    with pytest.raises(ConfigError, match='holds an ONNX graph; use onnxruntime'):
        runtime.load_prior(folder / 'prior.json', 'torch')


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return cache_dir()


def test_engine_is_built_once(own_cache) -> None:
    built = []

    def build() -> bytes:
        built.append(1)
        return b'engine\nof two lines'

    for _ in range(2):
        assert cached_engine('small', {'weights': '1a2b'}, build) == b'engine\nof two lines'
    assert len(built) == 1
    assert [file.name for file in own_cache.iterdir()] == ['small.engine']


def test_stale_engine_is_rebuilt_and_both_keys_are_named(own_cache, caplog) -> None:
    cached_engine('small', {'device': 'sm_90', 'weights': '1a2b'}, lambda: b'old')
    new = cached_engine('small', {'device': 'sm_89', 'weights': '1a2b'}, lambda: b'new')
    assert new == b'new' and 'was built for device sm_90, now sm_89' in caplog.text


@pytest.mark.parametrize('damage', [b'', b'no json\n1', b'{"key": {}}\n1'])
def test_damaged_engine_is_rebuilt_with_a_warning(own_cache, caplog, damage) -> None:
    cached_engine('small', {}, lambda: b'old')
    (own_cache / 'small.engine').write_bytes(damage)
    assert cached_engine('small', {}, lambda: b'new') == b'new'
    assert 'building it anew' in caplog.text


def test_cut_engine_is_rebuilt_with_a_warning(own_cache, caplog) -> None:
    cached_engine('small', {}, lambda: b'old engine')
    file = own_cache / 'small.engine'
    file.write_bytes(file.read_bytes()[:-1])
    assert cached_engine('small', {}, lambda: b'new') == b'new'
    assert 'is damaged' in caplog.text


def test_missing_tensorrt_rtx_is_absent_with_the_remedy(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, 'tensorrt_rtx', None)
    with pytest.raises(gpu.Unavailable, match='pip install tensorrt-rtx'):
        gpu.build_tensorrt_rtx(runtime.read_networks('hand').ensemble, 1)


def test_tensorrt_rtx_compiles_the_graph_without_a_gpu() -> None:
    """Proves that a builder of the TensorRT family takes it; says nothing of speed or outputs."""
    pytest.importorskip('tensorrt_rtx', reason='TensorRT-RTX has wheels for x86-64 alone')
    networks = runtime.read_networks('mixed')
    weights = sum(w.nbytes for n in networks.ensemble.networks for k, w in n.weights.items()
                  if k.endswith('.weight') and '_t' not in k and 'embed' not in k)  # fmt: skip
    engine = gpu.build_tensorrt_rtx(networks.ensemble, 4)
    assert len(engine) > weights


@pytest.mark.gpu
def test_tensorrt_rtx_equals_the_plain_formula(own_cache) -> None:
    from dposer_ros.cli.gpu_check import check_all, ways

    pytest.importorskip('tensorrt_rtx', reason='pip install tensorrt-rtx (95 MB) to try')
    build = {'tensorrt_rtx': ways()['tensorrt_rtx']}
    checks = check_all(runtime.read_networks('mixed'), build, batches=(1, 8))
    assert {check.status for check in checks} <= {'passed', 'absent'}  # absent: an H100
