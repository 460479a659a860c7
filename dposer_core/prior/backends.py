"""Back ends of a TimeFC network: time table, trunk in ONNX Runtime or torch, reference formula.

Two fifths of a TimeFC network depend on the diffusion time only. They are evaluated once per time
and cached (`TimeTable`); what is left per call is the trunk. Each back end is compared with the
plain formula (`reference_noise`) when it is made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dposer_core.errors import ConfigError
from dposer_core.prior.architecture import (
    GROUP_NORM_EPS,
    NUM_GROUPS,
    TimeFCConfig,
    gaussian_gain,
    label_of,
    norm_stem,
    sigma_table,
    time_frequencies,
)
from dposer_core.prior.sde import SubVP

SELF_CHECK_LIMIT = 1e-4  # relative error of a float32 back end, BACKENDS 7
_SELF_CHECK_TIMES = (0.05, 0.15, 0.9)
_SELF_CHECK_INPUTS = 16
_SMALL = 1e-6  # norm below which an output counts as zero
_MAX_CACHED_TIMES = 512  # 20 kB each at full size; schedules use tens

Weights = Mapping[str, np.ndarray]


class Denoiser(Protocol):
    """A back end's network: predicted noise (B, D) of normalised x (B, D) at time t."""

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray: ...


def checked_denoiser(
    config: TimeFCConfig,
    weights: Weights,
    backend: str,
    reference: Denoiser | None = None,
) -> tuple[Denoiser, float]:
    """The back end's network, and its error relative to `reference` (None: the plain formula).

    Raises:
        ConfigError: the back end is not installed, or differs by more than `SELF_CHECK_LIMIT`.
    """
    predict = BACKENDS[backend](config, weights)
    x = (
        np.random.default_rng(0)
        .standard_normal((_SELF_CHECK_INPUTS, config.dim))
        .astype(np.float32)
    )
    error = 0.0
    for t in _SELF_CHECK_TIMES:
        expected = reference(x, t) if reference else reference_noise(config, weights, x, t)
        size = np.maximum(np.linalg.norm(expected, axis=-1), _SMALL)
        difference = np.linalg.norm(predict(x, t) - expected, axis=-1) / size
        error = max(error, float(difference.max()))
    if not error <= SELF_CHECK_LIMIT:  # NaN fails too
        raise ConfigError(
            f"prior.backend = '{backend}': differs from the reference by {error:.1e} "
            f'(limit {SELF_CHECK_LIMIT:.0e}), refused; use another back end'
        )
    return predict, error


# --- the network's formula, split into its time-dependent table and its trunk ---


def time_features(config: TimeFCConfig, weights: Weights, t: float) -> np.ndarray:
    """(E,) embedding of time t, before the learned layer."""
    label = np.float32(label_of(np.float32(t)))
    if config.embedding == 'fourier':
        angle = np.log(label) * weights['gauss_proj.W'] * np.float32(2 * np.pi)
    else:
        angle = label * time_frequencies(config.embed)
    return np.concatenate([np.sin(angle), np.cos(angle)])


def output_divisor(config: TimeFCConfig, t: float) -> float:
    """What the network's last layer is divided by at time t."""
    label = np.float32(label_of(np.float32(t)))
    if not config.scale_by_sigma:
        return 1.0
    return float(label if config.embedding == 'fourier' else sigma_table()[int(label)])


@dataclass(frozen=True)
class TimeRow:
    """All that the trunk needs to know about one diffusion time."""

    rows: np.ndarray
    """(layers, H), each the sum of a layer's bias and its time term."""
    scale: np.ndarray
    """(1,) factor of the network's output."""
    centre: np.ndarray
    """(D,) alpha times the mean of the Gaussian skip, along its directions; empty without one."""
    gain: np.ndarray
    """(D,) predicted noise per unit of distance from there; empty without one."""

    def feed(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs of the trunk by name."""
        inputs = {'x': x, 'rows': self.rows, 'scale': self.scale}
        if self.gain.size:
            inputs |= {'centre': self.centre, 'gain': self.gain}
        return inputs


class TimeTable:
    """What depends on the diffusion time only, cached per time."""

    def __init__(self, config: TimeFCConfig, weights: Weights) -> None:
        self._config = config
        keys = [k for s in config.layers for k in (f'{s}_t.weight', f'{s}_t.bias', f'{s}.bias')]
        kept = ('shared_time_embed', 'gauss_proj', 'gaussian.')
        keys += [key for key in weights if key.startswith(kept)]
        self._weights = {key: weights[key] for key in keys}
        self._cache: dict[float, TimeRow] = {}

    def __call__(self, t: float) -> TimeRow:
        """The row of time t in (0, 1]."""
        if (found := self._cache.get(t)) is not None:
            return found
        w = self._weights
        features = time_features(self._config, w, t)
        embedded = _silu(
            w['shared_time_embed.0.weight'] @ features + w['shared_time_embed.0.bias']
        )
        rows = np.stack(
            [
                w[f'{s}_t.weight'] @ embedded + w[f'{s}_t.bias'] + w[f'{s}.bias']
                for s in self._config.layers
            ]
        )
        centre = gain = np.zeros(0)
        scale = 1.0 / output_divisor(self._config, t)
        if self._config.gaussian_skip:
            alpha, sigma = (float(f(float(t))) for f in (SubVP().alpha, SubVP().sigma))
            centre = alpha * w['gaussian.mean'] @ w['gaussian.basis']
            gain = gaussian_gain(w['gaussian.variance'], alpha, sigma)
            scale = alpha
        if len(self._cache) >= _MAX_CACHED_TIMES:
            self._cache.pop(next(iter(self._cache)))
        values = (rows, np.array([scale]), centre, gain)
        self._cache[t] = TimeRow(*(value.astype(np.float32) for value in values))
        return self._cache[t]


def reference_noise(config: TimeFCConfig, weights: Weights, x: np.ndarray, t: float) -> np.ndarray:
    """Predicted noise (B, D) of x (B, D) at time t: the formula in plain numpy, PROTOCOLS 1.1."""
    row = TimeTable(config, weights)(t)

    def layer(h: np.ndarray, index: int) -> np.ndarray:
        stem = config.layers[index]
        mixed = h @ weights[f'{stem}.weight'].T + row.rows[index]
        groups = mixed.reshape(len(h), NUM_GROUPS, -1)
        centred = groups - groups.mean(-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + GROUP_NORM_EPS)
        norm = norm_stem(stem)
        return _silu(
            unit.reshape(mixed.shape) * weights[f'{norm}.weight'] + weights[f'{norm}.bias']
        )

    h = layer(x, 0)
    for block in range(config.blocks):
        h = h + layer(layer(h, 2 * block + 1), 2 * block + 2)
    out = (h @ weights['post_dense.weight'].T + weights['post_dense.bias']) * row.scale
    if config.gaussian_skip:
        basis = weights['gaussian.basis']
        out = out + ((x @ basis - row.centre) * row.gain) @ basis.T
    return out


def _silu(x: np.ndarray) -> np.ndarray:
    with np.errstate(
        over='ignore'
    ):  # exp(-x) of a very negative x: the result is 0, as it should be
        return x / (1 + np.exp(-x))


# --- back ends ---


def _torch_denoiser(config: TimeFCConfig, weights: Weights) -> Denoiser:
    import torch

    from dposer_core.prior.network import from_weights

    network = from_weights(weights, scale_by_sigma=config.scale_by_sigma)

    def predict(x: np.ndarray, t: float) -> np.ndarray:
        with torch.inference_mode():
            label = torch.full((len(x),), float(label_of(np.float32(t))))
            return network(torch.from_numpy(x), label).numpy()

    return predict


def _onnxruntime_denoiser(config: TimeFCConfig, weights: Weights) -> Denoiser:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"prior.backend = 'onnxruntime': cannot be imported ({error}); "
            'pip install onnxruntime onnx, or use torch'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more threads lose on a machine that does other work
    options.inter_op_num_threads = 1
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    graph, matrices = trunk_graph(config, weights)
    # Handed over in memory: ORT keeps one packed copy, where an embedded one costs two.
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(matrix) for matrix in matrices.values()]
    options.add_external_initializers(list(matrices), values)
    session = onnxruntime.InferenceSession(graph, options, providers=['CPUExecutionProvider'])
    table = TimeTable(config, weights)

    def predict(x: np.ndarray, t: float) -> np.ndarray:
        return session.run(None, table(t).feed(x))[0]

    return predict


BACKENDS: dict[str, Callable[[TimeFCConfig, Weights], Denoiser]] = {
    'onnxruntime': _onnxruntime_denoiser,
    'torch': _torch_denoiser,
}


def trunk_graph(config: TimeFCConfig, weights: Weights) -> tuple[bytes, dict[str, np.ndarray]]:
    """The trunk as an ONNX model: x (N, D) and a `TimeRow` -> noise (N, D), any batch size N.

    Its matrices are left out of the model and returned beside it, by name.

    A group norm is an instance norm over the groups, so no operator sees a two-dimensional
    group norm (which converters to other runtimes refuse).
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError as error:
        raise ConfigError(
            f"prior.backend = 'onnxruntime': onnx cannot be imported ({error}); "
            'pip install onnx, or use torch'
        ) from error

    nodes, constants, matrices = [], [], {}

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def matrix(name: str) -> str:
        value = matrices[name] = np.ascontiguousarray(weights[name], dtype=np.float32)
        outside = onnx.TensorProto(
            name=name,
            dims=value.shape,
            data_type=onnx.TensorProto.FLOAT,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        outside.external_data.add(key='location', value='memory')
        constants.append(outside)
        return name

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    grouped = constant('grouped', np.array([0, NUM_GROUPS, -1], dtype=np.int64))
    flat = constant('flat', np.array([0, config.hidden], dtype=np.int64))
    ones = constant('ones', np.ones(NUM_GROUPS, dtype=np.float32))
    zeros = constant('zeros', np.zeros(NUM_GROUPS, dtype=np.float32))
    row_names = [f'row_{stem}' for stem in config.layers]
    nodes.append(
        helper.make_node('Split', ['rows'], row_names, axis=0, num_outputs=len(row_names))
    )

    def layer(h: str, index: int) -> str:
        stem = config.layers[index]
        norm = norm_stem(stem)
        weight = matrix(f'{stem}.weight')
        gain = constant(f'{norm}.weight', weights[f'{norm}.weight'])
        shift = constant(f'{norm}.bias', weights[f'{norm}.bias'])
        mixed = node('Gemm', [h, weight, row_names[index]], f'{stem}_mixed', transB=1)
        groups = node('Reshape', [mixed, grouped], f'{stem}_groups')
        unit = node(
            'InstanceNormalization', [groups, ones, zeros], f'{stem}_unit', epsilon=GROUP_NORM_EPS
        )
        unit = node('Reshape', [unit, flat], f'{stem}_flat')
        affine = node('Add', [node('Mul', [unit, gain], f'{stem}_gain'), shift], f'{stem}_affine')
        return node('Mul', [affine, node('Sigmoid', [affine], f'{stem}_gate')], f'{stem}_out')

    h = layer('x', 0)
    for block in range(config.blocks):
        h = node('Add', [h, layer(layer(h, 2 * block + 1), 2 * block + 2)], f'h_{block}')
    last = matrix('post_dense.weight')
    bias = constant('post_dense.bias', weights['post_dense.bias'])
    correction = node('Gemm', [h, last, bias], 'correction', transB=1)
    inputs = {
        'x': ['N', config.dim],
        'rows': [len(row_names), config.hidden],
        'scale': [1],
    }
    if config.gaussian_skip:
        inputs |= {'centre': [config.dim], 'gain': [config.dim]}
        basis = matrix('gaussian.basis')
        along = node('Sub', [node('MatMul', ['x', basis], 'turned'), 'centre'], 'along')
        along = node('Mul', [along, 'gain'], 'gained')
        skip = node('Gemm', [along, basis], 'skip', transB=1)
        node('Add', [skip, node('Mul', [correction, 'scale'], 'scaled')], 'out')
    else:
        node('Mul', [correction, 'scale'], 'out')

    def value(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        'trunk',
        [value(name, shape) for name, shape in inputs.items()],
        [value('out', ['N', config.output])],
        constants,
    )
    opset = [helper.make_opsetid('', 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return model.SerializeToString(), matrices
