"""The trunk as GPU back ends take it, as far as it can be checked without a GPU."""

import ctypes
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from dposer_core.errors import ConfigError, DPoserError
from dposer_core.prior import gpu
from dposer_core.prior.backends import SELF_CHECK_LIMIT
from dposer_core.prior.onnx_trunk import trunk_graph
from dposer_core.prior.runtime import load_prior, read_networks
from dposer_ros import cli
from dposer_ros.cli import gpu_check


@pytest.fixture(scope='module')
def networks():
    """The shipped mixed prior: parts with Gaussian skips, two hands, and a correction."""
    return read_networks('mixed')


@pytest.fixture
def on_cpu(monkeypatch) -> None:
    """A GPU that is the CPU."""
    monkeypatch.setattr(gpu, '_DEVICE', 'cpu')
    monkeypatch.setattr(gpu, 'require_cuda', lambda: None)
    monkeypatch.setattr(gpu, '_device', lambda: 'Imagined, compute capability 9.0')
    monkeypatch.setattr(gpu, '_stream', lambda: 0)


def test_trunk_equals_the_plain_formula(networks, on_cpu) -> None:
    (check,) = gpu_check.check_all(networks, {'eager': gpu.eager}, batches=(3,))
    assert check.status == 'passed' and check.error < SELF_CHECK_LIMIT
    assert check.p50_ms > 0.0


@pytest.mark.parametrize('rows', [1, 2, 3, 5, 9])
def test_any_batch_is_filled_up_to_one_that_is_built(networks, on_cpu, rows) -> None:
    ensemble, asked = networks.ensemble, []

    def build(ensemble, batch):
        predict = gpu.eager(ensemble, batch)
        return lambda x, time: asked.append(x.shape) or predict(x, time)

    x = np.random.default_rng(rows).standard_normal((rows, ensemble.dim)).astype(np.float32)
    found = gpu.padded(ensemble, build, (1, 4))(x, 0.1)
    assert found.shape == x.shape
    np.testing.assert_allclose(found, networks.reference(x, 0.1), rtol=1e-3, atol=1e-4)
    assert [shape[0] for shape in asked] == {1: [1], 2: [4], 3: [4], 5: [4, 1], 9: [4, 4, 1]}[rows]


def test_answers_outlive_the_buffer_they_came_from(on_cpu) -> None:
    given, row = torch.zeros(1, 2), torch.zeros(3)
    out = torch.zeros(1, 2)
    predict = gpu._of_buffers((given, row), out, lambda: out.copy_(2.0 * given + row[0]))
    first = predict(np.ones((1, 2), np.float32), np.ones(3, np.float32))
    second = predict(np.zeros((1, 2), np.float32), np.zeros(3, np.float32))
    assert first.tolist() == [[3.0, 3.0]] and second.tolist() == [[0.0, 0.0]]


class Engine:
    """An engine of TensorRT's Python interface that computes the plain formula."""

    num_io_tensors = 3

    def __init__(self, compute) -> None:
        self.compute, self.addresses = compute, {}

    def get_tensor_name(self, index: int) -> str:
        return ('x', 'time', 'output0')[index]

    def get_tensor_mode(self, name: str) -> str:
        return 'out' if name == 'output0' else 'in'

    def create_execution_context(self) -> 'Engine':
        return self

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> None:
        self.compute(self.addresses)


@pytest.fixture
def tensorrt(monkeypatch, networks, tmp_path) -> list[str]:
    """Stand-ins for torch_tensorrt and tensorrt; the list says what was built."""
    ensembles = {e.dim: e for e in (networks.ensemble, read_networks('hand').ensemble)}
    built = []

    def convert(program, arg_inputs, disable_tf32) -> bytes:
        assert disable_tf32
        built.append(f'batch {len(arg_inputs[0])}')
        return '{} {}'.format(*arg_inputs[0].shape).encode()

    def deserialize(content: bytes) -> Engine:
        batch, dim = map(int, content.split())
        trunk, (x, row) = gpu.Trunk(ensembles[dim]), gpu.inputs_of(ensembles[dim], batch)

        def compute(addresses: dict[str, int]) -> None:
            for name, tensor in (('x', x), ('time', row)):
                ctypes.memmove(tensor.data_ptr(), addresses[name], 4 * tensor.numel())
            noise = trunk(x, row).contiguous()
            ctypes.memmove(addresses['output0'], noise.data_ptr(), 4 * noise.numel())

        return Engine(compute)

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    dynamo = SimpleNamespace(convert_exported_program_to_serialized_trt_engine=convert)
    _stand_in(monkeypatch, 'torch_tensorrt', __version__=torch.__version__, dynamo=dynamo)
    _stand_in(
        monkeypatch,
        'tensorrt',
        __version__='11.1.0',
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=deserialize),
        Logger=type('Logger', (), {'ERROR': 1, '__init__': lambda self, level: None}),
        TensorIOMode=SimpleNamespace(OUTPUT='out'),
    )
    return built


def _stand_in(monkeypatch, name: str, **content) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)  # torch looks for it
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.filterwarnings('ignore:.isinstance.treespec, LeafSpec:FutureWarning')
def test_the_live_prior_runs_engines_that_are_built_once(on_cpu, tensorrt, networks) -> None:
    prior = load_prior('mixed', 'tensorrt')
    assert (prior.backend, tensorrt) == ('tensorrt', [f'batch {b}' for b in gpu.BATCHES])
    assert prior.self_check_error < SELF_CHECK_LIMIT
    x = np.random.default_rng(0).standard_normal((3, prior.dim)).astype(np.float32)
    np.testing.assert_allclose(
        prior.predict_noise(x, 0.2), networks.reference(x, 0.2), rtol=1e-3, atol=1e-4
    )
    load_prior('mixed', 'tensorrt')
    assert len(tensorrt) == len(gpu.BATCHES)
    load_prior('hand', 'tensorrt')  # other weights, other files
    assert len(tensorrt) == 2 * len(gpu.BATCHES)


def test_an_engine_that_does_not_load_names_the_device(on_cpu, tensorrt, monkeypatch) -> None:
    none = SimpleNamespace(deserialize_cuda_engine=lambda content: None)
    monkeypatch.setattr(sys.modules['tensorrt'], 'Runtime', lambda logger: none)
    with pytest.raises(ConfigError, match=r"'tensorrt': .*not loadable on Imagined.*9\.0"):
        load_prior('mixed', 'tensorrt')


@pytest.mark.skipif(torch.cuda.is_available(), reason='about a machine without a GPU')
@pytest.mark.parametrize('backend', ['cudagraph', 'tensorrt', 'tensorrt_rtx'])
def test_a_gpu_that_is_not_there_is_one_error_and_no_fallback(backend) -> None:
    message = f"prior.backend = '{backend}': no NVIDIA GPU.*or use onnxruntime"
    with pytest.raises(ConfigError, match=message):
        load_prior('mixed', backend)


def test_wrong_output_fails_the_check(networks) -> None:
    def build(*_):
        return lambda x, time: np.zeros_like(x)

    (check,) = gpu_check.check_all(networks, {'zero': build}, batches=(2,))
    assert check.status == 'failed' and 'differs by 1.0e+00' in check.detail


def test_a_back_end_that_does_not_build_is_reported(networks) -> None:
    def build(*_):
        raise RuntimeError('no kernel image')

    (check,) = gpu_check.check_all(networks, {'broken': build}, batches=(2,))
    assert check.status == 'failed' and 'no kernel image' in check.detail


# torch.export uses what torch itself has deprecated.
@pytest.mark.filterwarnings('ignore:.isinstance.treespec, LeafSpec:FutureWarning')
def test_exported_trunk_has_no_group_norm(networks, on_cpu) -> None:
    """Torch-TensorRT's converter of group norm refuses two-dimensional input."""
    ensemble = networks.ensemble
    program = torch.export.export(gpu.Trunk(ensemble), gpu.inputs_of(ensemble, 3))
    operators = {str(node.target) for node in program.graph.nodes if node.op == 'call_function'}
    assert not [name for name in operators if 'group_norm' in name]
    assert [name for name in operators if 'layer_norm' in name]


def test_group_norms_of_the_onnx_trunk_are_three_dimensional(networks) -> None:
    """Written as instance norms, each of what a reshape to (N, groups, -1) gave."""
    graph = onnx.load_model_from_string(trunk_graph(networks.ensemble)[0]).graph
    made_by = {output: node for node in graph.node for output in node.output}
    shapes = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer if c.raw_data}
    norms = [node for node in graph.node if 'Normalization' in node.op_type]
    assert len(norms) == sum(len(n.config.layers) for n in networks.ensemble.networks)
    for norm in norms:
        reshape = made_by[norm.input[0]]
        assert norm.op_type == 'InstanceNormalization' and reshape.op_type == 'Reshape'
        assert len(shapes[reshape.input[1]]) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason='about a machine without a GPU')
def test_without_a_gpu_the_command_says_so_in_one_line(capsys) -> None:
    with pytest.raises(SystemExit) as refused:
        cli.main(['gpu-check'])
    message = capsys.readouterr().err.strip()
    assert refused.value.code == 2
    assert 'no NVIDIA GPU' in message and '\n' not in message


def test_missing_torch_tensorrt_is_absent_with_the_remedy(monkeypatch, networks) -> None:
    monkeypatch.setattr(gpu, 'require_cuda', lambda: None)
    monkeypatch.delitem(sys.modules, 'torch_tensorrt', raising=False)
    with pytest.raises(gpu.Unavailable, match='pip install --extra-index-url'):
        gpu.tensorrt(networks.ensemble, 3)


@pytest.mark.parametrize('error', [Exception, RuntimeError, AssertionError, ImportError])
def test_missing_tensorrt_libraries_are_absent(monkeypatch, networks, error, tmp_path):
    package = tmp_path / 'torch_tensorrt.py'
    package.write_text(f"raise {error.__name__}('Could not find libnvinfer.so.11')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gpu, 'require_cuda', lambda: None)
    monkeypatch.delitem(sys.modules, 'torch_tensorrt', raising=False)
    with pytest.raises(DPoserError, match='libnvinfer'):
        gpu.tensorrt(networks.ensemble, 3)


@pytest.mark.gpu
def test_cuda_graph_equals_the_plain_formula(networks) -> None:
    checks = gpu_check.check_all(networks, {'cudagraph': gpu.cuda_graph}, batches=(1, 8))
    assert [check.status for check in checks] == ['passed', 'passed']


def test_versions_that_do_not_belong_together_are_named() -> None:
    with pytest.raises(gpu.Unavailable, match=r'2\.13\.0 needs torch 2\.13, found 2\.11\.0'):
        gpu._check_versions('2.13.0', '2.11.0')
