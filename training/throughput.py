"""How much of a device's arithmetic a training step uses."""

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.losses import Draw
from training.train import Trainer

_REPEATS = 5
_DTYPES = {'32': torch.float32, 'tf32': torch.float32, 'bf16': torch.bfloat16, '16': torch.float16}


def step_flops(trainer: Trainer, draw: Draw) -> int:
    """Floating-point operations of the products in one step on `draw`, forward and back."""
    with FlopCounterMode(display=False) as counter:
        trainer.module(draw)['loss'].backward()
    trainer.optimizer.zero_grad()
    return counter.get_total_flops()


def peak_flops(device: torch.device, precision: str) -> float:
    """Operations per second of the best of some large matrix products on `device`.

    On the CPU it is that of as many threads as torch may use now.
    """
    on_gpu = device.type == 'cuda'
    size = 8192 if on_gpu else 1024
    a = torch.randn(size, size, device=device, dtype=_DTYPES[precision])
    best = float('inf')
    for _ in range(_REPEATS):
        began = time.perf_counter()
        for _ in range(4):
            a @ a
        if on_gpu:
            torch.cuda.synchronize(device)
        best = min(best, (time.perf_counter() - began) / 4)
    return 2.0 * size**3 / best
