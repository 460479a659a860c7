"""The prior of the live fitter: one-step denoising in numpy, fast on one CPU thread, no torch.

Two fifths of a TimeFC network depend on the diffusion time only. They are evaluated once per time
and cached; what is left per call (the trunk) runs in ONNX Runtime, or in torch as the reference.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dposer_core.errors import CheckpointError, ConfigError
from dposer_core.prior import checkpoint
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
from dposer_core.prior.checkpoint import PriorCheckpoint
from dposer_core.prior.sde import SubVP

AUTO_ORDER = ('onnxruntime', 'torch')
SELF_CHECK_LIMIT = 1e-4  # relative error of a float32 back end, BACKENDS 7
_SELF_CHECK_TIMES = (0.05, 0.15, 0.9)
_SELF_CHECK_INPUTS = 16
_MAX_CACHED_TIMES = 512  # 20 kB each at full size; schedules use tens

_logger = logging.getLogger(__name__)
Weights = Mapping[str, np.ndarray]


class Denoiser(Protocol):
    """A back end's network: predicted noise (B, D) of normalised x (B, D) at time t."""

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray: ...


@dataclass(frozen=True)
class _Block:
    """A network and the consecutive slices of the vector that it denoises."""

    start: int
    stop: int
    copies: int  # 2: both hands in one call
    denoiser: Denoiser


class LivePrior:
    """A prior over normalised pose vectors, all visible parts denoised in one step.

    The whole-body vector is body 63 | left hand 45 | right hand 45 | jaw 3 | expression E; the
    left hand is stored mirrored to a right hand (`rotations.mirror_rotvec`), the statistics too
    are those of the mirrored vector. A prior of a single part has that part's vector.
    """

    def __init__(self, parts: Iterable[tuple[PriorCheckpoint, int]], backend: str) -> None:
        """`parts`: checkpoint and how many times it occurs in a row, in the order of the vector.

        They are taken one by one, so that a generator keeps only one in memory.
        """
        self.backend = backend
        self.self_check_error = 0.0
        self.num_expression = 0
        self.hashes: dict[str, str] = {}
        self._sde = SubVP()
        self._blocks: list[_Block] = []
        means, stds, start = [], [], 0
        for part, copies in parts:
            denoiser, error = _checked_denoiser(part, backend)
            stop = start + copies * part.config.dim
            self._blocks.append(_Block(start, stop, copies, denoiser))
            start = stop
            means.append(np.tile(part.mean, copies))
            stds.append(np.tile(part.std, copies))
            self.self_check_error = max(self.self_check_error, error)
            self.num_expression += part.num_expression
            self.hashes[part.part] = part.sha256
        self.dim = start
        self.mean = np.concatenate(means)
        """(D,) float32 mean of the raw vectors."""
        self.std = np.concatenate(stds)
        """(D,) float32 standard deviation of the raw vectors."""

    def denoise(self, x: np.ndarray, t: float, noise: np.ndarray | None = None) -> np.ndarray:
        """One-step denoised vectors, x0_hat of x_t = alpha x + sigma noise.

        Args:
            x: (B, D) float32 normalised.
            t: diffusion time in (0, 1]; any value, its time table is made once and cached.
            noise: (B, D) standard normal; None: x_t = alpha x.

        Returns:
            (B, D) float32 normalised.
        """
        x = np.asarray(x, dtype=np.float32)
        alpha, sigma = np.float32(self._sde.alpha(t)), np.float32(self._sde.sigma(t))
        x_t = alpha * x
        if noise is not None:
            x_t += sigma * np.asarray(noise, dtype=np.float32)
        return (x_t - sigma * self.predict_noise(x_t, t)) / alpha

    def predict_noise(self, x_t: np.ndarray, t: float) -> np.ndarray:
        """The networks' noise prediction (B, D) for x_t (B, D) float32 at time t."""
        eps = np.empty_like(x_t)
        for block in self._blocks:
            rows = np.ascontiguousarray(x_t[:, block.start : block.stop])
            out = block.denoiser(rows.reshape(len(rows) * block.copies, -1), t)
            eps[:, block.start : block.stop] = out.reshape(len(rows), -1)
        return eps

    def warm_up(self, times: Any, batches: tuple[int, ...] = (1,)) -> None:
        """Make the time tables of `times` and touch every kernel, so that no frame pays for it."""
        for t in times:
            for batch in batches:
                self.denoise(np.zeros((batch, self.dim), np.float32), float(t))

    def info(self) -> dict[str, str]:
        """Back end, self-check figure and weight hashes, for diagnostics."""
        hashes = {f'sha256 {name}': value[:12] for name, value in self.hashes.items()}
        return {'backend': self.backend, 'self check': f'{self.self_check_error:.1e}', **hashes}


def load_prior(
    name_or_path: str | Path = 'wholebody',
    backend: str = 'auto',
    num_expression: int | None = None,
) -> LivePrior:
    """The shipped prior of that name, or that of a composition .json or part .safetensors.

    Args:
        name_or_path: for example 'wholebody' or 'body'.
        backend: 'onnxruntime', 'torch', or 'auto' (the first of these that works). One asked
            for by name is used or an error, never replaced.
        num_expression: expression coefficients of the body model, checked against the face part.

    Raises:
        CheckpointError: no such prior, a damaged or unfit file.
        ConfigError: the back end is unknown, not installed, or fails its self-check.
    """
    path = _resolve(name_or_path)
    if backend != 'auto':
        if backend not in AUTO_ORDER:
            raise ConfigError(
                f"prior.backend = '{backend}': choose one of auto, {', '.join(AUTO_ORDER)}"
            )
        return LivePrior(_parts(path, num_expression), backend)
    for name in AUTO_ORDER[:-1]:
        try:
            return LivePrior(_parts(path, num_expression), name)
        except ConfigError as error:
            _logger.warning('%s; trying the next back end', error)
    return LivePrior(_parts(path, num_expression), AUTO_ORDER[-1])


def _resolve(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix in ('.json', '.safetensors'):
        if not path.is_file():
            raise CheckpointError(
                f'prior {path} not found; give a composition .json, a .safetensors, or a name'
            )
        return path
    shipped = sorted(checkpoint.WEIGHTS_DIR.glob('*.json')) + sorted(
        checkpoint.WEIGHTS_DIR.glob('*.safetensors')
    )
    for candidate in shipped:
        if candidate.stem == str(name_or_path):
            return candidate
    names = ', '.join(sorted({candidate.stem for candidate in shipped})) or 'none'
    raise CheckpointError(
        f"no shipped prior is named '{name_or_path}'; shipped: {names}; or give a file"
    )


def _parts(path: Path, num_expression: int | None) -> Iterator[tuple[PriorCheckpoint, int]]:
    """Checkpoints and their copies in the order of the vector, read one by one."""
    if path.suffix == '.safetensors':
        parts = iter([checkpoint.load_checkpoint(path)])
    else:
        parts = checkpoint.composition_parts(path)
    for part in parts:
        if part.part == 'face' and num_expression not in (None, part.num_expression):
            raise CheckpointError(
                f'prior {path}: its face part has {part.num_expression} expression coefficients, '
                f'the body model {num_expression}; their spaces differ, use a face prior trained '
                'on this body model'
            )
        yield part, 2 if part.part == 'hand' and path.suffix == '.json' else 1


def _checked_denoiser(part: PriorCheckpoint, backend: str) -> tuple[Denoiser, float]:
    """The back end's network for `part`, compared with the reference formula."""
    predict = _BACKENDS[backend](part)
    x = (
        np.random.default_rng(0)
        .standard_normal((_SELF_CHECK_INPUTS, part.config.dim))
        .astype(np.float32)
    )
    error = 0.0
    for t in _SELF_CHECK_TIMES:
        expected = reference_noise(part.config, part.weights, x, t)
        difference = np.linalg.norm(predict(x, t) - expected, axis=-1) / np.linalg.norm(
            expected, axis=-1
        )
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


def _torch_denoiser(part: PriorCheckpoint) -> Denoiser:
    import torch

    from dposer_core.prior.network import from_weights

    network = from_weights(part.weights, scale_by_sigma=part.config.scale_by_sigma)

    def predict(x: np.ndarray, t: float) -> np.ndarray:
        with torch.inference_mode():
            label = torch.full((len(x),), float(label_of(np.float32(t))))
            return network(torch.from_numpy(x), label).numpy()

    return predict


def _onnxruntime_denoiser(part: PriorCheckpoint) -> Denoiser:
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
    graph, matrices = trunk_graph(part.config, part.weights)
    # Handed over in memory: ORT keeps one packed copy, where an embedded one costs two.
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(matrix) for matrix in matrices.values()]
    options.add_external_initializers(list(matrices), values)
    session = onnxruntime.InferenceSession(graph, options, providers=['CPUExecutionProvider'])
    table = TimeTable(part.config, part.weights)

    def predict(x: np.ndarray, t: float) -> np.ndarray:
        return session.run(None, table(t).feed(x))[0]

    return predict


_BACKENDS: dict[str, Callable[[PriorCheckpoint], Denoiser]] = {
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
