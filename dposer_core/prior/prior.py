"""The prior in torch: score, denoising, and L_DPoser with every weighting and reduction.

The reference for the offline half; the live node uses `runtime.LivePrior`. All vectors are
normalised. Times are floats or tensors (B,). Source: PROTOCOLS 3.0.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from dposer_core.prior.architecture import label_of
from dposer_core.prior.sde import SDE, SubVP

Reduction = Literal['mean', 'sum_per_row']


def _constant(snr: Tensor) -> Tensor:
    return torch.full_like(snr, 0.5)


def _sqrt_snr(snr: Tensor) -> Tensor:
    return 0.5 * torch.sqrt(1 + snr)


def _sqrt_snr_squared(snr: Tensor) -> Tensor:
    return 0.5 * torch.sqrt(1 + snr**2)


WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    'constant': _constant,  # hand inverse kinematics, noisy motion denoising
    'sqrt_snr': _sqrt_snr,  # completion, motion denoising from partial data
    'sqrt_snr_squared': _sqrt_snr_squared,  # all mesh recovery, face
}
"""w(t) of L_DPoser as a function of SNR = alpha / sigma, by name."""


class DiffusionPrior:
    """A noise predictor together with its diffusion process."""

    def __init__(self, network: nn.Module, sde: SDE | None = None) -> None:
        """`network(x, label[, mask])`, see network.py; used as it is (call `.eval()` before)."""
        self.network = network
        self.sde = SubVP() if sde is None else sde

    def predict_noise(self, x_t: Tensor, t: float | Tensor, mask: Tensor | None = None) -> Tensor:
        """The network's noise prediction (B, D) for x_t (B, D); `mask` (B, 4): visible parts."""
        label = label_of(self._times(x_t, t))
        return self.network(x_t, label) if mask is None else self.network(x_t, label, mask)

    def score(self, x_t: Tensor, t: float | Tensor, mask: Tensor | None = None) -> Tensor:
        """Gradient of the log density of x_t (B, D) at time t."""
        return self.sde.score(self.predict_noise(x_t, t, mask), self._times(x_t, t))

    def denoise(self, x_t: Tensor, t: float | Tensor, mask: Tensor | None = None) -> Tensor:
        """x0_hat (B, D): the clean vector expected behind x_t, in one step."""
        return self.sde.x0_hat(x_t, self.predict_noise(x_t, t, mask), self._times(x_t, t))

    def denoise_steps(
        self, x_t: Tensor, t: float | Tensor, t_end: float | Tensor, steps: int
    ) -> Tensor:
        """x0_hat (B, D) by `steps` deterministic DDIM steps from t down to t_end."""
        start, end = self._times(x_t, t), self._times(x_t, t_end)
        x, now = x_t, start
        for k in range(1, steps + 1):
            after = start + (end - start) * (k / steps)
            eps = self.predict_noise(x, now)
            x = self.sde.add_noise(self.sde.x0_hat(x, eps, now), after, eps)
            now = after
        return x

    def loss(
        self,
        x_0: Tensor,
        t: float | Tensor,
        noise: Tensor,
        weighting: str = 'sqrt_snr',
        reduction: Reduction = 'mean',
        steps: int = 1,
        t_end: float | Tensor = 1e-3,
        part_weights: Tensor | None = None,
    ) -> Tensor:
        """L_DPoser = reduce(w(t) (x_0 - stop_gradient(x0_hat))^2), a scalar.

        Args:
            x_0: (B, D) normalised; the gradient flows through it, never through the network.
            t: time of the noise, one for the batch or (B,).
            noise: (B, D) standard normal.
            weighting: a key of `WEIGHTINGS`.
            reduction: 'mean' over B D (completion, hand IK) or 'sum_per_row', the sum over B.
            steps: denoising steps; more than one needs `t_end`.
            t_end: time at which the multi-step denoiser ends.
            part_weights: (D,) extra weights; None: all 1.
        """
        with torch.no_grad():
            times = self._times(x_0, t)
            x_t = self.sde.add_noise(x_0, times, noise)
            target = (
                self.denoise(x_t, times)
                if steps == 1
                else self.denoise_steps(x_t, times, t_end, steps)
            )
            weight = WEIGHTINGS[weighting](self.sde.snr(times))[:, None]
            if part_weights is not None:
                weight = weight * part_weights
        weighted = weight * (x_0 - target) ** 2
        return weighted.mean() if reduction == 'mean' else weighted.sum() / len(x_0)

    @staticmethod
    def _times(x: Tensor, t: float | Tensor) -> Tensor:
        """`t` as a tensor (B,) like x."""
        return torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x))
