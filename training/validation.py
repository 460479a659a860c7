"""Errors on held-out data during a run: one denoising step with the averaged weights."""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from dposer_core.errors import ModelFileError
from dposer_core.prior.prior import DiffusionPrior
from training.composition import HOLD_OUT_EVERY, Composer, CompositionConfig, heldout_parts
from training.evaluate import denoise_gaussian, joint_error_mm, open_body_offsets

if TYPE_CHECKING:
    from training.sources import Source
    from training.train import Ema

TIMES = (0.1, 0.2, 0.3)
MAX_ROWS = 2_000
_GAUSSIAN_ROWS = 20_000


class Validation:
    """Measures the same rows with the same noise every time."""

    def __init__(self, part: str, rows: np.ndarray, source: 'Source') -> None:
        """`rows` (N, D) raw, never trained on; at most 2000, evenly chosen, are used."""
        stride = max(1, len(rows) // MAX_ROWS)
        self._raw = np.ascontiguousarray(rows[::stride][:MAX_ROWS], dtype=np.float32)
        self._normalizer = source.normalizer
        self._x_0 = torch.from_numpy(self._normalizer.normalize(self._raw))
        generator = torch.Generator().manual_seed(0)
        self._noise = torch.randn(self._x_0.shape, generator=generator)
        self._gaussian = self._gaussian_errors(source)
        self._offsets = _body_offsets() if part == 'body' else None

    def measure(self, network: nn.Module, average: 'Ema') -> dict[str, float]:
        """Errors of x0_hat at several t.

        `rms`: in standard deviations; `of_gaussian`: the same over that of the exact posterior of
        Gaussian data; `mm`: of body joints, where the open body is built.
        """
        averaged = copy.deepcopy(network)
        averaged.load_state_dict(average.shadow, strict=False)
        prior = DiffusionPrior(averaged.eval())
        device = next(averaged.parameters()).device
        x_0, noise = self._x_0.to(device), self._noise.to(device)
        errors = {}
        for t in TIMES:
            with torch.no_grad():
                x0_hat = prior.denoise(prior.sde.add_noise(x_0, t, noise), t).cpu().numpy()
            rms = _rms(x0_hat, self._x_0)
            errors[f'rms_{t}'] = rms
            errors[f'of_gaussian_{t}'] = rms / self._gaussian[t]
            if self._offsets is not None:
                back = self._normalizer.denormalize(x0_hat)
                errors[f'mm_{t}'] = joint_error_mm(back, self._raw, self._offsets)
        return errors

    def _gaussian_errors(self, source: 'Source') -> dict[float, float]:
        rows, present = source.batch(_GAUSSIAN_ROWS, torch.Generator().manual_seed(1))
        if present is not None:
            rows = rows[present.all(1)]
        data = rows.double().numpy()
        mean, covariance = data.mean(0), np.cov(data, rowvar=False)
        sde = DiffusionPrior(nn.Identity()).sde
        return {
            t: _rms(
                denoise_gaussian(
                    mean, covariance, sde.add_noise(self._x_0, t, self._noise).numpy(), t
                ),
                self._x_0,
            )
            for t in TIMES
        }


def heldout_rows(
    packed: Mapping[str, np.ndarray], part: str, composition: CompositionConfig
) -> np.ndarray:
    """Raw rows (N, D) of `part` that no run is trained on."""
    if f'test_{part}' in packed:
        return packed[f'test_{part}']
    if part == 'wholebody':
        composer = Composer(heldout_parts(packed), composition)
        return composer.samples(MAX_ROWS, torch.Generator().manual_seed(0)).numpy()
    if part == 'body':
        return heldout_parts(packed)['body']
    return packed[part][::HOLD_OUT_EVERY]


def without_heldout(packed: Mapping[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """The rows of `part` that may be trained on, under its name."""
    rows = packed[part]
    if f'test_{part}' in packed:
        return {part: rows}
    return {part: rows[np.arange(len(rows)) % HOLD_OUT_EVERY != 0]}


def _rms(estimate: np.ndarray, truth: Tensor) -> float:
    return float(np.sqrt(((estimate - truth.numpy()) ** 2).mean()))


def _body_offsets() -> np.ndarray | None:
    try:
        return open_body_offsets()
    except ModelFileError:
        return None
