"""The trunk as GPU back ends take it, as far as it can be checked without a GPU."""

import sys

import numpy as np
import onnx
import pytest
import torch

from dposer_core.errors import DPoserError
from dposer_core.prior import gpu
from dposer_core.prior.backends import SELF_CHECK_LIMIT, TimeTable
from dposer_core.prior.onnx_trunk import trunk_graph
from dposer_core.prior.runtime import read_networks
from dposer_ros import cli
from dposer_ros.cli import gpu_check


@pytest.fixture(scope='module')
def networks():
    """The shipped mixed prior: parts with Gaussian skips, two hands, and a correction."""
    return read_networks('mixed')


@pytest.fixture(scope='module')
def example(networks):
    """Input of batch 3 and the row of one time."""
    ensemble = networks.ensemble
    x = np.random.default_rng(1).standard_normal((3, ensemble.dim)).astype(np.float32)
    return x, TimeTable(ensemble.networks)(0.1)


def test_trunk_equals_the_plain_formula(networks) -> None:
    build = {'eager': gpu_check.ways('cpu')['eager']}
    (check,) = gpu_check.check_all(networks, build, batches=(3,))
    assert check.status == 'passed' and check.error < SELF_CHECK_LIMIT
    assert check.p50_ms > 0.0


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
def test_exported_trunk_has_no_group_norm(networks, example) -> None:
    """Torch-TensorRT's converter of group norm refuses two-dimensional input."""
    program = torch.export.export(gpu.Trunk(networks.ensemble), gpu.inputs_of(*example, 'cpu'))
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


def test_missing_torch_tensorrt_is_absent_with_the_remedy(monkeypatch, networks, example) -> None:
    monkeypatch.setattr(gpu, 'require_cuda', lambda: None)
    monkeypatch.delitem(sys.modules, 'torch_tensorrt', raising=False)
    with pytest.raises(gpu.Unavailable, match='pip install --extra-index-url'):
        gpu.tensorrt(gpu.Trunk(networks.ensemble), *example)


@pytest.mark.parametrize('error', [Exception, RuntimeError, AssertionError, ImportError])
def test_missing_tensorrt_libraries_are_absent(monkeypatch, networks, example, error, tmp_path):
    package = tmp_path / 'torch_tensorrt.py'
    package.write_text(f"raise {error.__name__}('Could not find libnvinfer.so.11')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gpu, 'require_cuda', lambda: None)
    monkeypatch.delitem(sys.modules, 'torch_tensorrt', raising=False)
    with pytest.raises(DPoserError, match='libnvinfer'):
        gpu.tensorrt(gpu.Trunk(networks.ensemble), *example)


@pytest.mark.gpu
def test_cuda_graph_equals_the_plain_formula(networks) -> None:
    build = {'cuda graph': gpu_check.ways()['cuda graph']}
    checks = gpu_check.check_all(networks, build, batches=(1, 8))
    assert [check.status for check in checks] == ['passed', 'passed']


def test_versions_that_do_not_belong_together_are_named() -> None:
    with pytest.raises(gpu.Unavailable, match=r'2\.13\.0 needs torch 2\.13, found 2\.11\.0'):
        gpu._check_versions('2.13.0', '2.11.0')
