"""The trunk of a prior on a GPU, in every way that a machine may offer.

Each way is built for one batch size, and gives a function from numpy to numpy, transfers included.
`padded` makes one of them a back end of the live fit (`backends.BACKENDS`); `dposer gpu-check`
builds, verifies and times them all.
"""

import hashlib
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dposer_core.errors import ConfigError
from dposer_core.prior.architecture import GROUP_NORM_EPS, NUM_GROUPS, norm_stem
from dposer_core.prior.backends import Denoiser, Ensemble, Network, TimeTable, time_sizes
from dposer_core.prior.engines import cached_engine
from dposer_core.prior.onnx_trunk import trunk_graph

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Noise (B, D) of x (B, D) and the row (R,) of its time in a `TimeTable`; float32."""

Build = Callable[[Ensemble, int], Predict]
"""Makes the trunk of these networks for this batch size."""

BATCHES = (1, 4, 16, 64)
"""That a live back end is built for; a frame asks for 3 rows a person, a start for 1."""
_DEVICE = 'cuda'
_WARM_UP_CALLS = 3  # on a side stream, before a CUDA graph is captured


class Unavailable(ConfigError):
    """This machine lacks what a back end needs."""


class Trunk(nn.Module):
    """All networks of a prior: what is left of them when a row of a `TimeTable` is given."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.widths = ensemble.widths
        self.networks = nn.ModuleList(_NetworkTrunk(network) for network in ensemble.networks)
        self.time_sizes = [
            size for network in ensemble.networks for size in time_sizes(network.config)
        ]
        offset = None if ensemble.correction is None else torch.from_numpy(ensemble.offset)
        self.register_buffer('offset', offset)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Predicted noise (B, D) of x (B, D) and the row (R,) of its time."""
        pieces = iter(time.split(self.time_sizes))
        outputs = [
            network(part, pieces)
            for network, part in zip(self.networks, x.split(self.widths, dim=1), strict=False)
        ]
        noise = torch.cat(outputs, dim=1)
        if self.offset is not None:
            noise = noise + self.networks[-1](x, pieces) + self.offset
        return noise


class _NetworkTrunk(nn.Module):
    """What is left of a TimeFC network when a `TimeRow` is given.

    A group norm is written as a layer norm over each group: converters refuse `nn.GroupNorm` of
    two-dimensional input (Torch-TensorRT: "expected at least 3 dimensions").
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.config, self.copies = network.config, network.copies
        layers = self.config.layers
        names = [f'{stem}.weight' for stem in layers]
        names += [f'{norm_stem(stem)}.{kind}' for stem in layers for kind in _AFFINE]
        names += ['post_dense.weight', 'post_dense.bias']
        names += ['gaussian.basis'] if self.config.gaussian_skip else []
        for name in names:
            value = torch.from_numpy(np.array(network.weights[name], dtype=np.float32))
            self.register_buffer(name.replace('.', '_'), value)

    def forward(self, x: Tensor, time: Iterator[Tensor]) -> Tensor:
        """Predicted noise; takes its pieces of the time row from `time`."""
        shape = x.shape
        x = x.reshape(-1, self.config.dim)
        rows = [next(time) for _ in self.config.layers]
        scale = next(time)
        h = self._layer(x, rows, 0)
        for block in range(self.config.blocks):
            inner = self._layer(h, rows, 2 * block + 1)
            h = h + self._layer(inner, rows, 2 * block + 2)
        out = functional.linear(h, self.post_dense_weight, self.post_dense_bias) * scale
        if self.config.gaussian_skip:
            centre, gain = next(time), next(time)
            out = out + ((x @ self.gaussian_basis - centre) * gain) @ self.gaussian_basis.T
        return out.reshape(shape)

    def _layer(self, h: Tensor, rows: list[Tensor], index: int) -> Tensor:
        stem = self.config.layers[index]
        norm = norm_stem(stem)
        mixed = functional.linear(h, getattr(self, f'{stem}_weight'), rows[index])
        groups = mixed.reshape(-1, NUM_GROUPS, self.config.hidden // NUM_GROUPS)
        unit = functional.layer_norm(groups, groups.shape[-1:], eps=GROUP_NORM_EPS)
        unit = unit.reshape(-1, self.config.hidden)
        return functional.silu(
            unit * getattr(self, f'{norm}_weight') + getattr(self, f'{norm}_bias')
        )


_AFFINE = ('weight', 'bias')


def padded(ensemble: Ensemble, build: Build, batches: tuple[int, ...] = BATCHES) -> Denoiser:
    """A denoiser of any batch size: rows are filled up to the next size that is built.

    All that compiles or captures happens here, none of it in a frame.
    """
    table, largest = TimeTable(ensemble.networks), max(batches)
    calls = {batch: build(ensemble, batch) for batch in sorted(batches)}

    def rows(x: np.ndarray, time: np.ndarray) -> np.ndarray:
        batch = next(batch for batch in calls if batch >= len(x))
        filled = np.zeros((batch, ensemble.dim), np.float32)
        filled[: len(x)] = x
        return calls[batch](filled, time)[: len(x)]

    def predict(x: np.ndarray, t: float) -> np.ndarray:
        time = table(t)
        pieces = [rows(x[i : i + largest], time) for i in range(0, len(x), largest)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    return predict


def inputs_of(ensemble: Ensemble, batch: int) -> tuple[Tensor, Tensor]:
    """Arguments of `Trunk.forward`, zero."""
    row = sum(size for network in ensemble.networks for size in time_sizes(network.config))
    return torch.zeros(batch, ensemble.dim, device=_DEVICE), torch.zeros(row, device=_DEVICE)


def require_cuda() -> None:
    """Raises Unavailable on a machine without an NVIDIA GPU that torch can use."""
    if not torch.cuda.is_available():
        raise Unavailable(
            f'no NVIDIA GPU: torch.cuda.is_available() is False (torch {torch.__version__}); the '
            'live fit needs none. With a GPU: install a CUDA build of torch and the driver'
        )


def eager(ensemble: Ensemble, batch: int) -> Predict:
    """torch as it is, one kernel after the other."""
    return _of_module(Trunk(ensemble).to(_DEVICE))


def inductor(ensemble: Ensemble, batch: int) -> Predict:
    """`torch.compile`; on a GPU with CUDA graphs of its own."""
    predict = _of_module(torch.compile(Trunk(ensemble).to(_DEVICE), mode='reduce-overhead'))
    predict(*(value.cpu().numpy() for value in inputs_of(ensemble, batch)))  # compiles
    return predict


def _of_module(module: Callable[[Tensor, Tensor], Tensor]) -> Predict:
    def predict(x: np.ndarray, time: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            given = (torch.from_numpy(value).to(_DEVICE) for value in (x, time))
            return module(*given).cpu().numpy()

    return predict


def cuda_graph(ensemble: Ensemble, batch: int) -> Predict:
    """The whole trunk as one captured graph with fixed buffers."""
    require_cuda()
    module, buffers = Trunk(ensemble).to(_DEVICE), inputs_of(ensemble, batch)
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_CALLS):
                module(*buffers)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = module(*buffers)
    return _of_buffers(buffers, out, graph.replay)


def _of_buffers(buffers: tuple[Tensor, Tensor], out: Tensor, run: Callable[[], object]) -> Predict:
    def predict(x: np.ndarray, time: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            for buffer, value in zip(buffers, (x, time), strict=True):
                buffer.copy_(torch.from_numpy(value))
            run()
            return out.to('cpu', copy=True).numpy()  # waits; the next call overwrites `out`

    return predict


def onnxruntime_cuda(ensemble: Ensemble, batch: int) -> Predict:
    """The live node's ONNX graph in ONNX Runtime's CUDA provider."""
    import onnxruntime

    if 'CUDAExecutionProvider' not in onnxruntime.get_available_providers():
        raise Unavailable(
            f'onnxruntime {onnxruntime.__version__} has no CUDA provider: pip install '
            'onnxruntime-gpu in place of onnxruntime'
        )
    graph, _ = trunk_graph(ensemble, embed=True)
    providers = [('CUDAExecutionProvider', {'use_tf32': '0'})]
    session = onnxruntime.InferenceSession(graph, providers=providers)
    if 'CUDAExecutionProvider' not in session.get_providers():
        raise Unavailable('onnxruntime fell back to the CPU: its CUDA libraries do not load')
    return lambda x, time: session.run(None, {'x': x, 'time': time})[0]


# --- TensorRT: an engine is built once for weights, shape, versions and device -------------------


def tensorrt(ensemble: Ensemble, batch: int) -> Predict:
    """An engine of Torch-TensorRT from the exported program, float32 without TF32."""
    require_cuda()  # first: the package raises all sorts of things where there is no GPU
    try:
        import torch_tensorrt
    except ModuleNotFoundError as error:
        if error.name != 'torch_tensorrt':
            raise Unavailable(_TENSORRT_LIBRARIES.format(error)) from error
        minor = '.'.join(torch.__version__.split('.')[:2])
        raise Unavailable(
            'torch_tensorrt is not installed: pip install --extra-index-url <the NVIDIA package '
            f"index> 'torch-tensorrt=={minor}.*'; PyPI alone lacks its libraries"
        ) from error
    except Exception as error:  # it raises a bare Exception where libnvinfer is missing
        raise Unavailable(_TENSORRT_LIBRARIES.format(error)) from error
    _check_versions(torch_tensorrt.__version__, torch.__version__)
    trt = importlib.import_module('tensorrt')  # what torch_tensorrt builds with

    def build() -> bytes:
        inputs = inputs_of(ensemble, batch)
        program = torch.export.export(Trunk(ensemble).to(_DEVICE), inputs)
        return torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program, arg_inputs=inputs, disable_tf32=True
        )

    versions = {'torch_tensorrt': torch_tensorrt.__version__, 'tensorrt': trt.__version__}
    return _engine(trt, ensemble, batch, build, versions, 'tensorrt')


_TENSORRT_LIBRARIES = "torch_tensorrt is there, but TensorRT's libraries are not ({})"


def _check_versions(package: str, found: str) -> None:
    """Each minor version of Torch-TensorRT is for that of torch."""
    needed, have = (version.split('.')[:2] for version in (package, found))
    if needed != have:
        raise Unavailable(
            f'torch_tensorrt {package} needs torch {".".join(needed)}, found {found}: install the '
            'two of one version'
        )


def tensorrt_rtx(ensemble: Ensemble, batch: int) -> Predict:
    """TensorRT-RTX from the ONNX graph."""
    require_cuda()
    trt = _import_tensorrt_rtx()
    versions = {'tensorrt_rtx': trt.__version__}

    def build() -> bytes:
        return build_tensorrt_rtx(ensemble, batch)

    return _engine(trt, ensemble, batch, build, versions, 'tensorrt_rtx')


def _engine(
    trt: ModuleType,
    ensemble: Ensemble,
    batch: int,
    build: Callable[[], bytes],
    versions: dict[str, str],
    name: str,
) -> Predict:
    """An engine with the inputs `x` and `time` and one output, from its file or newly built."""
    weights = weights_hash(ensemble)[:12]
    device = _device()
    shapes = f'batch {batch}, dim {ensemble.dim}'
    key = {'weights': weights, 'shapes': shapes, 'device': device, **versions}
    content = cached_engine(f'{name}-{weights}-{batch}', key, build)
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(content)
    if engine is None:
        raise Unavailable(
            f"backend '{name}': engine not loadable on {device} (TensorRT-RTX lists compute "
            'capabilities 7.5, 8.6, 8.9 and 12.x); use another back end'
        )
    context = engine.create_execution_context()
    given, row = inputs_of(ensemble, batch)
    out = torch.empty_like(given)
    tensors = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    (last,) = (t for t in tensors if engine.get_tensor_mode(t) == trt.TensorIOMode.OUTPUT)
    for tensor, buffer in (('x', given), ('time', row), (last, out)):
        context.set_tensor_address(tensor, buffer.data_ptr())

    def run() -> None:
        context.execute_async_v3(_stream())

    return _of_buffers((given, row), out, run)


def _device() -> str:
    capability = '.'.join(map(str, torch.cuda.get_device_capability()))
    return f'{torch.cuda.get_device_name()}, compute capability {capability}'


def _stream() -> int:
    return torch.cuda.current_stream().cuda_stream


def weights_hash(ensemble: Ensemble) -> str:
    """sha256 of all that a trunk is made of."""
    digest = hashlib.sha256(ensemble.offset.tobytes())
    for network in ensemble.networks:
        digest.update(repr((network.config, network.copies)).encode())
        for name, value in sorted(network.weights.items()):
            digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def build_tensorrt_rtx(ensemble: Ensemble, batch: int) -> bytes:
    """An engine of the ONNX graph for one batch size; needs no GPU.

    Raises:
        Unavailable: TensorRT-RTX is missing or refuses the graph.
    """
    trt = _import_tensorrt_rtx()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(trunk_graph(ensemble, embed=True)[0]):
        raise Unavailable(f"backend 'tensorrt_rtx': graph refused: {parser.get_error(0)}")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    config.clear_flag(trt.BuilderFlag.TF32)
    profile.set_shape('x', *[(batch, ensemble.dim)] * 3)  # least, usual, most
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise Unavailable("backend 'tensorrt_rtx': no engine could be built; its log says why")
    return bytes(engine)


def _import_tensorrt_rtx() -> ModuleType:
    try:
        import tensorrt_rtx
    except Exception as error:  # libraries that do not load are reported in many ways
        raise Unavailable(
            f"backend 'tensorrt_rtx': cannot be imported ({error}); pip install tensorrt-rtx"
        ) from error
    return tensorrt_rtx
