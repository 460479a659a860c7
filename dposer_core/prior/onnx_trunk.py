"""The trunk of all networks of a prior as one ONNX graph: one call where there would be four.

Measured (Xeon, one core, batch 1, shortest of 400 interleaved calls, prior `mixed`): 0.47 ms where
four sessions took 0.56 ms. Gathering the pointwise work of networks of one width saved another
0.05 ms at batch 1 and nothing at batch 3, and is left out.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from dposer_core.errors import ConfigError
from dposer_core.prior.architecture import GROUP_NORM_EPS, NUM_GROUPS, norm_stem
from dposer_core.prior.backends import Ensemble, Network, time_sizes

if TYPE_CHECKING:
    import onnx

_OPSET, _IR_VERSION = 18, 8  # what runtimes of 2023 read


def trunk_graph(ensemble: Ensemble, embed: bool = False) -> tuple[bytes, dict[str, np.ndarray]]:
    """An ONNX model: x (N, D) and time (R,) -> noise (N, D), any batch size N.

    `time` is what `TimeTable` gives. A group norm is an instance norm over the groups, so no
    operator sees a two-dimensional group norm (which converters to other runtimes refuse).

    Args:
        ensemble: the networks.
        embed: keep the matrices in the model; else they are named there and returned beside it.
    """
    graph = _Graph(embed)
    splits = [size for network in ensemble.networks for size in time_sizes(network.config)]
    names = iter(graph.split('time', splits, 'time', axis=0))
    slices = graph.split('x', ensemble.widths, 'part', axis=1)
    outputs = [
        _network(graph, f'n{i}', part, x, names)
        for i, (part, x) in enumerate(zip(ensemble.parts, slices, strict=True))
    ]
    noise = graph.node('Concat', outputs, 'parts', axis=1) if len(outputs) > 1 else outputs[0]
    if ensemble.correction is not None:
        correction = _network(graph, 'correction', ensemble.correction, 'x', names)
        noise = graph.node('Add', [noise, correction], 'corrected')
        noise = graph.node('Add', [noise, graph.constant('offset', ensemble.offset)], 'shifted')
    graph.node('Identity', [noise], 'noise')
    sizes = {'x': ['N', ensemble.dim], 'time': [sum(splits)]}
    return graph.model(sizes, {'noise': ['N', ensemble.dim]}), graph.matrices


def _network(graph: '_Graph', prefix: str, network: Network, x: str, time: Any) -> str:
    """Nodes of one network; takes its pieces of the time row from the iterator `time`."""
    config, weights = network.config, network.weights
    rows = [next(time) for _ in config.layers]
    scale = next(time)
    if network.copies > 1:
        x = graph.reshape(x, [-1, config.dim], f'{prefix}_x')

    def layer(h: str, index: int) -> str:
        stem = config.layers[index]
        name, norm = f'{prefix}_{stem}', norm_stem(stem)
        weight = graph.matrix(f'{name}.weight', weights[f'{stem}.weight'])
        gain = graph.constant(f'{name}.gain', weights[f'{norm}.weight'])
        shift = graph.constant(f'{name}.shift', weights[f'{norm}.bias'])
        mixed = graph.node('Gemm', [h, weight, rows[index]], f'{name}_mixed', transB=1)
        groups = graph.reshape(mixed, [0, NUM_GROUPS, -1], f'{name}_groups')
        unit = graph.node(
            'InstanceNormalization', [groups, graph.ones, graph.zeros], f'{name}_unit',
            epsilon=GROUP_NORM_EPS,
        )  # fmt: skip
        unit = graph.reshape(unit, [0, config.hidden], f'{name}_flat')
        scaled = graph.node('Mul', [unit, gain], f'{name}_scaled')
        affine = graph.node('Add', [scaled, shift], f'{name}_affine')
        gate = graph.node('Sigmoid', [affine], f'{name}_gate')
        return graph.node('Mul', [affine, gate], f'{name}_out')

    h = layer(x, 0)
    for block in range(config.blocks):
        inner = layer(layer(h, 2 * block + 1), 2 * block + 2)
        h = graph.node('Add', [h, inner], f'{prefix}_h{block}')
    last = graph.matrix(f'{prefix}_last.weight', weights['post_dense.weight'])
    bias = graph.constant(f'{prefix}_last.bias', weights['post_dense.bias'])
    out = graph.node('Gemm', [h, last, bias], f'{prefix}_last', transB=1)
    out = graph.node('Mul', [out, scale], f'{prefix}_noise')
    if config.gaussian_skip:
        centre, gain = next(time), next(time)
        basis = graph.matrix(f'{prefix}_basis', weights['gaussian.basis'])
        turned = graph.node('MatMul', [x, basis], f'{prefix}_turned')
        along = graph.node('Sub', [turned, centre], f'{prefix}_along')
        along = graph.node('Mul', [along, gain], f'{prefix}_gained')
        skip = graph.node('Gemm', [along, basis], f'{prefix}_skip', transB=1)
        out = graph.node('Add', [skip, out], f'{prefix}_skipped')
    if network.copies > 1:
        out = graph.reshape(out, [-1, network.copies * config.dim], f'{prefix}_whole')
    return out


class _Graph:
    """Nodes and constants of an ONNX graph as they are added."""

    def __init__(self, embed: bool) -> None:
        self._onnx = _import_onnx()
        self._embed = embed
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self.matrices: dict[str, np.ndarray] = {}
        self.ones = self.constant('ones', np.ones(NUM_GROUPS, np.float32))
        self.zeros = self.constant('zeros', np.zeros(NUM_GROUPS, np.float32))

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        make = self._onnx.helper.make_node
        self._nodes.append(make(operator, inputs, [output], **attributes))
        return output

    def split(self, value: str, sizes: list[int], prefix: str, axis: int) -> list[str]:
        """Names of consecutive pieces of `value`."""
        if len(sizes) == 1:
            return [value]
        outputs = [f'{prefix}_{i}' for i in range(len(sizes))]
        inputs = [value, self.constant(f'{prefix}_sizes', np.array(sizes, np.int64))]
        self._nodes.append(self._onnx.helper.make_node('Split', inputs, outputs, axis=axis))
        return outputs

    def reshape(self, value: str, shape: list[int], output: str) -> str:
        """`value` in another shape; 0 keeps a size, -1 takes what is left."""
        name = 'shape_' + '_'.join(map(str, shape))
        if name not in self._constants:
            self.constant(name, np.array(shape, np.int64))
        return self.node('Reshape', [value, name], output)

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant that stays in the model."""
        self._constants[name] = self._onnx.numpy_helper.from_array(np.asarray(value), name)
        return name

    def matrix(self, name: str, value: np.ndarray) -> str:
        """Add a constant that may be large."""
        value = np.ascontiguousarray(value, dtype=np.float32)
        if self._embed:
            return self.constant(name, value)
        self.matrices[name] = value
        tensor = self._onnx.TensorProto
        outside = tensor(
            name=name,
            dims=value.shape,
            data_type=tensor.FLOAT,
            data_location=tensor.EXTERNAL,
        )
        outside.external_data.add(key='location', value='memory')
        self._constants[name] = outside
        return name

    def model(self, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> bytes:
        """The serialised model with inputs and outputs of these shapes."""
        helper, float_ = self._onnx.helper, self._onnx.TensorProto.FLOAT
        given, made = (
            [helper.make_tensor_value_info(name, float_, shape) for name, shape in v.items()]
            for v in (inputs, outputs)
        )
        graph = helper.make_graph(self._nodes, 'trunk', given, made, [*self._constants.values()])
        opset = [helper.make_opsetid('', _OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
        return model.SerializeToString()


def _import_onnx() -> Any:
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError as error:
        raise ConfigError(
            f"prior.backend = 'onnxruntime': onnx cannot be imported ({error}); "
            'pip install onnx, or use torch'
        ) from error
    return onnx
