"""Back ends of a prior's networks: time table, trunk in each of them, reference formula.

Two fifths of a TimeFC network depend on the diffusion time only. They are evaluated once per time
and cached (`TimeTable`); what is left per call is the trunk. All networks of a prior are called as
one (`Ensemble`), and each back end is compared with the plain formula when it is made.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

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

if TYPE_CHECKING:
    import types

    import onnxruntime

SELF_CHECK_LIMIT = 1e-4  # relative error of a float32 back end, BACKENDS 7
_SELF_CHECK_TIMES = (0.05, 0.15, 0.9)
_SELF_CHECK_INPUTS = 16
_SMALL = 1e-6  # norm below which an output counts as zero
_MAX_CACHED_TIMES = 512  # 30 kB each; schedules use tens

Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Network:
    """One TimeFC network and what of the vector it denoises."""

    config: TimeFCConfig
    """Its sizes."""
    weights: Weights
    """Its tensors; float32."""
    copies: int = 1
    """Consecutive slices of the vector that it denoises, each alone; 2: both hands."""


@dataclass(frozen=True)
class Ensemble:
    """The networks of one prior: parts side by side, and perhaps a correction of all of them."""

    parts: Sequence[Network]
    """In the order of the vector."""
    correction: Network | None = None
    """Over the whole vector; its output is added to that of the parts."""
    offset: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """(D,) added beside a correction; empty without one."""

    @property
    def networks(self) -> list[Network]:
        """The parts, then the correction."""
        return [*self.parts, *([] if self.correction is None else [self.correction])]

    @property
    def widths(self) -> list[int]:
        """Numbers of the vector that each part denoises."""
        return [part.copies * part.config.dim for part in self.parts]

    @property
    def dim(self) -> int:
        """Size of the vector, D."""
        return sum(self.widths)


class Denoiser(Protocol):
    """Predicted noise (B, D) of normalised x (B, D) float32 at time t."""

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray: ...


def checked_denoiser(
    ensemble: Ensemble, backend: str, reference: Denoiser | None = None
) -> tuple[Denoiser, float]:
    """The back end's form of the networks, and its error relative to `reference`.

    Args:
        ensemble: the networks.
        backend: a key of `BACKENDS`.
        reference: what it must equal; None: the plain formula.

    Raises:
        ConfigError: the back end is not installed, or differs by more than `SELF_CHECK_LIMIT`.
    """
    predict = BACKENDS[backend](ensemble)
    expected = check_values(reference or reference_denoiser(ensemble), ensemble.dim)
    return predict, self_check(backend, predict, expected, ensemble.widths)


def check_values(denoise: Denoiser, dim: int) -> np.ndarray:
    """(times, inputs, D) outputs for the inputs of the self-check."""
    x = np.random.default_rng(0).standard_normal((_SELF_CHECK_INPUTS, dim)).astype(np.float32)
    return np.stack([denoise(x, t) for t in _SELF_CHECK_TIMES])


def self_check(
    backend: str, denoise: Denoiser, expected: np.ndarray, widths: Sequence[int]
) -> float:
    """Largest error of any part's output, relative to its norm; raises ConfigError beyond limit.

    Args:
        backend: its name, for the message.
        denoise: under test.
        expected: `check_values` of the reference.
        widths: `Ensemble.widths`: a small part must not hide behind a large one.
    """
    cuts = np.cumsum(widths)[:-1]
    found = check_values(denoise, expected.shape[-1])
    error = max(
        float(np.max(np.linalg.norm(a - b, axis=-1) / _size(b)))
        for a, b in zip(np.split(found, cuts, -1), np.split(expected, cuts, -1), strict=True)
    )
    if not error <= SELF_CHECK_LIMIT:  # NaN fails too
        raise ConfigError(
            f"prior.backend = '{backend}': differs from the reference by {error:.1e} "
            f'(limit {SELF_CHECK_LIMIT:.0e}), refused; use another back end'
        )
    return error


def _size(values: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.norm(values, axis=-1), _SMALL)


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

    def flat(self) -> np.ndarray:
        """All of it one after the other, as long as `time_sizes` says."""
        return np.concatenate([self.rows.ravel(), self.scale, self.centre, self.gain])


def time_sizes(config: TimeFCConfig) -> list[int]:
    """Lengths of the pieces of `TimeRow.flat`: a row per layer, scale, centre and gain if any."""
    skip = [config.dim, config.dim] if config.gaussian_skip else []
    return [*([config.hidden] * len(config.layers)), 1, *skip]


def time_row(network: Network, t: float) -> TimeRow:
    """The row of one network at time t in (0, 1]."""
    config, w = network.config, network.weights
    features = time_features(config, w, t)
    embedded = _silu(w['shared_time_embed.0.weight'] @ features + w['shared_time_embed.0.bias'])
    rows = np.stack(
        [w[f'{s}_t.weight'] @ embedded + w[f'{s}_t.bias'] + w[f'{s}.bias'] for s in config.layers]
    )
    centre = gain = np.zeros(0)
    scale = 1.0 / output_divisor(config, t)
    if config.gaussian_skip:
        alpha, sigma = (float(f(float(t))) for f in (SubVP().alpha, SubVP().sigma))
        centre = alpha * w['gaussian.mean'] @ w['gaussian.basis']
        gain = gaussian_gain(w['gaussian.variance'], alpha, sigma)
        scale = alpha
    values = (rows, np.array([scale]), centre, gain)
    return TimeRow(*(value.astype(np.float32) for value in values))


def time_weights(network: Network) -> dict[str, np.ndarray]:
    """The tensors that `time_row` reads."""
    layers = network.config.layers
    keys = [k for s in layers for k in (f'{s}_t.weight', f'{s}_t.bias', f'{s}.bias')]
    kept = ('shared_time_embed', 'gauss_proj', 'gaussian.')
    keys += [key for key in network.weights if key.startswith(kept)]
    return {key: network.weights[key] for key in keys}


class TimeTable:
    """What of the networks depends on the diffusion time only, cached per time.

    Args:
        networks: in the order of `Ensemble.networks`; only their `time_weights` are kept.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = [Network(n.config, time_weights(n), n.copies) for n in networks]
        self._cache: dict[float, np.ndarray] = {}

    def __call__(self, t: float) -> np.ndarray:
        """(R,) float32 `TimeRow.flat` of every network at time t in (0, 1]."""
        if (found := self._cache.get(t)) is not None:
            return found
        if len(self._cache) >= _MAX_CACHED_TIMES:
            self._cache.pop(next(iter(self._cache)))
        row = np.concatenate([time_row(network, t).flat() for network in self._networks])
        self._cache[t] = row
        return row


def reference_noise(config: TimeFCConfig, weights: Weights, x: np.ndarray, t: float) -> np.ndarray:
    """Predicted noise (B, D) of x (B, D) at time t: the formula in plain numpy, PROTOCOLS 1.1."""
    row = time_row(Network(config, weights), t)

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


def reference_denoiser(ensemble: Ensemble, correct: Denoiser | None = None) -> Denoiser:
    """The plain formula of all networks together.

    Args:
        ensemble: the networks.
        correct: computes the correction in another way, without its offset; None: as the parts.
    """
    calls = [_formula(network) for network in ensemble.networks]
    if correct is not None:
        calls[-1] = correct
    return _one_by_one(ensemble, calls)


def _formula(network: Network) -> Denoiser:
    return lambda x, t: reference_noise(network.config, network.weights, x, t)


def _one_by_one(ensemble: Ensemble, calls: Sequence[Denoiser]) -> Denoiser:
    """One call per network, put together."""
    cuts = np.cumsum(ensemble.widths)[:-1]

    def predict(x: np.ndarray, t: float) -> np.ndarray:
        outputs = []
        for part, call, given in zip(
            ensemble.parts, calls, np.split(x, cuts, axis=1), strict=False
        ):
            rows = np.ascontiguousarray(given).reshape(-1, part.config.dim)
            outputs.append(call(rows, t).reshape(given.shape))
        noise = np.concatenate(outputs, axis=1)
        if ensemble.correction is not None:
            noise += calls[-1](x, t) + ensemble.offset
        return noise

    return predict


# --- back ends ---


def _torch_denoiser(ensemble: Ensemble) -> Denoiser:
    return _one_by_one(ensemble, [_torch_network(network) for network in ensemble.networks])


def _torch_network(part: Network) -> Denoiser:
    import torch

    from dposer_core.prior.network import from_weights

    network = from_weights(part.weights, scale_by_sigma=part.config.scale_by_sigma)

    def predict(x: np.ndarray, t: float) -> np.ndarray:
        with torch.inference_mode():
            label = torch.full((len(x),), float(label_of(np.float32(t))))
            return network(torch.from_numpy(x), label).numpy()

    return predict


def _onnxruntime_denoiser(ensemble: Ensemble) -> Denoiser:
    from dposer_core.prior.onnx_trunk import trunk_graph

    options = onnxruntime_options()
    graph, matrices = trunk_graph(ensemble)
    # Handed over in memory: ORT keeps one packed copy, where an embedded one costs two.
    values = [_import_onnxruntime().OrtValue.ortvalue_from_numpy(m) for m in matrices.values()]
    options.add_external_initializers(list(matrices), values)
    return onnxruntime_trunk(graph, options, TimeTable(ensemble.networks))


def onnxruntime_options() -> 'onnxruntime.SessionOptions':
    """One thread that waits quietly: more lose on a machine that does other work."""
    options = _import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    return options


def onnxruntime_trunk(
    model: bytes, options: 'onnxruntime.SessionOptions', table: TimeTable
) -> Denoiser:
    """A trunk in ONNX form with its time table."""
    providers = ['CPUExecutionProvider']
    session = _import_onnxruntime().InferenceSession(model, options, providers=providers)

    def predict(x: np.ndarray, t: float) -> np.ndarray:
        return session.run(None, {'x': x, 'time': table(t)})[0]

    return predict


def _import_onnxruntime() -> 'types.ModuleType':
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"prior.backend = 'onnxruntime': cannot be imported ({error}); "
            'pip install onnxruntime onnx, or use torch'
        ) from error
    return onnxruntime


def _gpu_denoiser(name: str, way: str) -> Callable[[Ensemble], Denoiser]:
    def make(ensemble: Ensemble) -> Denoiser:
        from dposer_core.prior import gpu  # torch, and a GPU

        try:
            return gpu.padded(ensemble, getattr(gpu, way))
        except gpu.Unavailable as error:
            raise ConfigError(f"prior.backend = '{name}': {error}; or use onnxruntime") from error

    return make


BACKENDS: dict[str, Callable[[Ensemble], Denoiser]] = {
    'onnxruntime': _onnxruntime_denoiser,
    'torch': _torch_denoiser,
    'cudagraph': _gpu_denoiser('cudagraph', 'cuda_graph'),
    'tensorrt': _gpu_denoiser('tensorrt', 'tensorrt'),
    'tensorrt_rtx': _gpu_denoiser('tensorrt_rtx', 'tensorrt_rtx'),
}
