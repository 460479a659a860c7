"""`dposer gpu-check`: build, verify and time the denoiser on this machine's GPU, every way."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dposer_core.config import PriorConfig
from dposer_core.files import write_json
from dposer_core.prior.backends import SELF_CHECK_LIMIT, TimeTable
from dposer_ros.report_file import check_writable

_BATCHES = (1, 8, 64)
_TIMES = (0.05, 0.1, 0.25, 0.9)
_TIMED_T = 0.1
_CALLS = 300
_WARM_UP = 20


@dataclass(frozen=True)
class Check:
    """One back end with one batch size."""

    backend: str
    batch: int
    status: str  # passed, failed, absent
    detail: str = ''  # why it is absent or failed
    build_s: float = float('nan')
    error: float = float('nan')  # largest relative difference to the plain formula
    p50_ms: float = float('nan')
    p99_ms: float = float('nan')


def gpu_check(
    prior: Annotated[
        str, typer.Option(help='Prior to run: a shipped name or a file.')
    ] = PriorConfig().checkpoint,
    json_file: Annotated[
        Path | None, typer.Option('--json', help='Write the figures to this file, too.')
    ] = None,
) -> None:
    """Build, verify and time the denoiser in every GPU back end that this machine has.

    torch eager, torch.compile, CUDA graphs, ONNX Runtime with CUDA, Torch-TensorRT, TensorRT-RTX.
    Each is compared with the plain formula. What is not installed is named with what to install.
    Exit status 0: all that is there works; 1: something fails; 2: there is no GPU.
    """
    if json_file is not None:
        check_writable(json_file)
    import torch

    from dposer_core.prior import gpu
    from dposer_core.prior.runtime import read_networks

    gpu.require_cuda()
    device = torch.cuda.get_device_name()
    typer.echo(f'{device}, torch {torch.__version__}, CUDA {torch.version.cuda}')
    checks = check_all(read_networks(prior), ways())
    passed, failed, absent = (
        sum(check.status == status for check in checks)
        for status in ('passed', 'failed', 'absent')
    )
    if json_file is not None:
        rows = [asdict(check) for check in checks]
        write_json(json_file, {'device': device, 'torch': torch.__version__, 'checks': rows})
    typer.echo(f'{passed} passed, {failed} failed, {absent} absent')
    if failed:
        raise typer.Exit(1)


def ways() -> dict[str, Callable[..., Any]]:
    """Back end -> function of (ensemble, batch) that builds it."""
    from dposer_core.prior import gpu

    return {
        'eager': gpu.eager,
        'cudagraph': gpu.cuda_graph,
        'torch.compile': gpu.inductor,
        'onnxruntime': gpu.onnxruntime_cuda,
        'tensorrt': gpu.tensorrt,
        'tensorrt_rtx': gpu.tensorrt_rtx,
    }


def check_all(
    networks: Any,
    builders: dict[str, Callable[..., Any]],
    batches: tuple[int, ...] = _BATCHES,
) -> list[Check]:
    """Every back end with every batch size, one line each as it is done.

    Args:
        networks: `PriorNetworks` of the prior to run.
        builders: as `ways` gives them.
        batches: their sizes.
    """
    checks = []
    for backend, build in builders.items():
        for batch in batches:
            check = _check(networks, backend, build, batch)
            checks.append(check)
            typer.echo(_line(check))
            if check.status == 'absent':  # for other batches, too
                break
    return checks


def _check(networks: Any, backend: str, build: Any, batch: int) -> Check:
    from dposer_core.prior.gpu import Unavailable

    ensemble = networks.ensemble
    table = TimeTable(ensemble.networks)
    x = np.random.default_rng(0).standard_normal((batch, ensemble.dim)).astype(np.float32)
    start = time.perf_counter()
    try:
        predict = build(ensemble, batch)
        build_s = time.perf_counter() - start
        error = max(_error(predict(x, table(t)), networks.reference(x, t)) for t in _TIMES)
        if not error <= SELF_CHECK_LIMIT:  # NaN fails too
            detail = f'differs by {error:.1e}, limit {SELF_CHECK_LIMIT:.0e}'
            return Check(backend, batch, 'failed', detail, build_s, error)
        p50, p99 = _milliseconds(lambda: predict(x, table(_TIMED_T)))
    except Unavailable as missing:
        return Check(backend, batch, 'absent', str(missing))
    except Exception as error:  # a compiler's failure is what this command is there to report
        return Check(backend, batch, 'failed', f'{type(error).__name__}: {error}')
    return Check(backend, batch, 'passed', '', build_s, error, p50, p99)


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    size = np.maximum(np.linalg.norm(expected, axis=-1), 1e-6)
    return float((np.linalg.norm(found - expected, axis=-1) / size).max())


def _milliseconds(call: Callable[[], Any]) -> tuple[float, float]:
    seconds = []
    for _ in range(_WARM_UP + _CALLS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    p50, p99 = np.percentile(seconds[_WARM_UP:], (50, 99))
    return 1e3 * float(p50), 1e3 * float(p99)


def _line(check: Check) -> str:
    head = f'{check.backend}, batch {check.batch}: {check.status}'
    if check.status != 'passed':
        return f'{head}: {check.detail.strip().splitlines()[0]}'
    return (
        f'{head}, p50 {check.p50_ms:.3f} ms, p99 {check.p99_ms:.3f} ms, '
        f'error {check.error:.1e}, built in {check.build_s:.1f} s'
    )
