"""The trunk of a prior on a GPU, in every way that a machine may offer.

For `dposer gpu-check`: the live fit calls the denoiser on the CPU (`backends.py`). Each way is
built for one batch size, and gives a function from numpy to numpy, transfers included.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dposer_core.errors import ConfigError
from dposer_core.prior.architecture import GROUP_NORM_EPS, NUM_GROUPS, norm_stem
from dposer_core.prior.backends import Ensemble, Network, time_sizes
from dposer_core.prior.engines import cached_engine
from dposer_core.prior.onnx_trunk import trunk_graph
from dposer_core.prior.runtime import PriorNetworks

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Noise (B, D) of x (B, D) and the row (R,) of its time in a `TimeTable`; float32."""

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


def inputs_of(x: np.ndarray, time: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
    """Arguments of `Trunk.forward` on a device."""
    return torch.from_numpy(x).to(device), torch.from_numpy(time).to(device)


def require_cuda() -> None:
    """Raises Unavailable on a machine without an NVIDIA GPU that torch can use."""
    if not torch.cuda.is_available():
        raise Unavailable(
            f'no NVIDIA GPU: torch.cuda.is_available() is False (torch {torch.__version__}); the '
            'live fit needs none. With a GPU: install a CUDA build of torch and the driver'
        )


def eager(trunk: Trunk, x: np.ndarray, time: np.ndarray, device: str = 'cuda') -> Predict:
    """torch as it is, one kernel after the other."""
    module = trunk.to(device)

    def predict(x: np.ndarray, time: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(*inputs_of(x, time, device)).cpu().numpy()

    return predict


def inductor(trunk: Trunk, x: np.ndarray, time: np.ndarray, device: str = 'cuda') -> Predict:
    """`torch.compile`; on a GPU with CUDA graphs of its own."""
    compiled = torch.compile(trunk.to(device), mode='reduce-overhead')

    def predict(x: np.ndarray, time: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return compiled(*inputs_of(x, time, device)).cpu().numpy()

    predict(x, time)  # compiles
    return predict


def cuda_graph(trunk: Trunk, x: np.ndarray, time: np.ndarray) -> Predict:
    """The whole trunk as one captured graph with fixed buffers."""
    require_cuda()
    module = trunk.to('cuda')
    buffers = inputs_of(x, time, 'cuda')
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

    def predict(x: np.ndarray, time: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            for buffer, value in zip(buffers, (x, time), strict=True):
                buffer.copy_(torch.from_numpy(value))
            graph.replay()
            return out.cpu().numpy()  # waits, and copies before the next replay

    return predict


def onnxruntime_cuda(ensemble: Ensemble) -> Predict:
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


def tensorrt(trunk: Trunk, x: np.ndarray, time: np.ndarray) -> Predict:
    """Torch-TensorRT from the exported program, float32 without TF32."""
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
    inputs = inputs_of(x, time, 'cuda')
    program = torch.export.export(trunk.to('cuda'), inputs)
    module = torch_tensorrt.dynamo.compile(
        program, arg_inputs=inputs, disable_tf32=True, min_block_size=1
    )

    def predict(x: np.ndarray, time: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(*inputs_of(x, time, 'cuda')).cpu().numpy()

    return predict


_TENSORRT_LIBRARIES = "torch_tensorrt is there, but TensorRT's libraries are not ({})"


def _check_versions(package: str, found: str) -> None:
    """Each minor version of Torch-TensorRT is for that of torch."""
    needed, have = (version.split('.')[:2] for version in (package, found))
    if needed != have:
        raise Unavailable(
            f'torch_tensorrt {package} needs torch {".".join(needed)}, found {found}: install the '
            'two of one version'
        )


def tensorrt_rtx(networks: PriorNetworks, x: np.ndarray, time: np.ndarray) -> Predict:
    """TensorRT-RTX from the ONNX graph; its engine is kept (`engines.py`)."""
    require_cuda()
    trt = _import_tensorrt_rtx()
    capability = '.'.join(map(str, torch.cuda.get_device_capability()))
    key = {
        'weights': ' '.join(value[:12] for value in networks.facts.hashes.values()),
        'shapes': f'batch {_RTX_BATCHES}, dim {networks.ensemble.dim}',
        'tensorrt_rtx': trt.__version__,
        'device': f'{torch.cuda.get_device_name()}, compute capability {capability}',
    }
    name = 'tensorrt_rtx-' + '-'.join(networks.facts.hashes)
    content = cached_engine(name, key, lambda: build_tensorrt_rtx(networks.ensemble))
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(content)
    if engine is None:
        raise Unavailable(
            f"backend 'tensorrt_rtx': engine not loadable on {key['device']}; TensorRT-RTX lists "
            '7.5, 8.6, 8.9, 12.x. Use another back end'
        )
    context = engine.create_execution_context()
    given, row = inputs_of(x, time, 'cuda')
    out = torch.empty_like(given)
    context.set_input_shape('x', tuple(given.shape))
    for tensor, buffer in (('x', given), ('time', row), ('noise', out)):
        context.set_tensor_address(tensor, buffer.data_ptr())

    def predict(x: np.ndarray, time: np.ndarray) -> np.ndarray:
        given.copy_(torch.from_numpy(x))
        row.copy_(torch.from_numpy(time))
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        return out.cpu().numpy()

    return predict


def build_tensorrt_rtx(ensemble: Ensemble) -> bytes:
    """An engine of the ONNX graph; needs no GPU.

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
    profile.set_shape('x', *((batch, ensemble.dim) for batch in _RTX_BATCHES))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise Unavailable("backend 'tensorrt_rtx': no engine could be built; its log says why")
    return bytes(engine)


_RTX_BATCHES = (1, 8, 64)  # least, usual, most


def _import_tensorrt_rtx() -> Any:
    try:
        import tensorrt_rtx
    except Exception as error:  # libraries that do not load are reported in many ways
        raise Unavailable(
            f"backend 'tensorrt_rtx': cannot be imported ({error}); pip install tensorrt-rtx"
        ) from error
    return tensorrt_rtx
