"""The one training loop. Body, hand, face or whole body is a value of the YAML configuration.

    dposer train training/configs/body.yaml

Denoising score matching of the sub-VP process (PROTOCOLS 2.2, 2.3): linear warm-up times cosine
decay, gradient clipping, moving average of the weights. Every draw of step n comes from a
generator seeded by (seed, n), and every process draws the rows of all and takes its own: a run
that was killed and resumed equals one that was not, and many processes equal one with their
batches put together.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dposer_core.errors import ConfigError
from dposer_core.prior.network import WholeBody
from dposer_core.prior.normalizer import Normalizer
from training.losses import Draw, LossContext, Objective
from training.networks import build_network
from training.run_folder import RunFolder, TrainingError
from training.sources import Source, draw_step, step_seed
from training.train_config import OPTIMIZERS, PRECISIONS, TrainConfig
from training.validation import Validation


class Ema:
    """Moving average of a network's trainable parameters."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: p.detach().clone() for name, p in _trainable(network)}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Fold in the parameters after `step` updates."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = [p for _, p in _trainable(network)]
        torch._foreach_lerp_(list(self.shadow.values()), parameters, 1.0 - decay)


class Trainer:
    """Network, optimiser and moving average; one `update` per step."""

    def __init__(
        self, config: TrainConfig, network: nn.Module, normalizer: Normalizer, fabric: Fabric
    ) -> None:
        self.config = config
        self.network = network
        self.fabric = fabric
        self.step = 0
        objective = Objective(network, LossContext(config.loss, config.part, normalizer))
        optimizer = OPTIMIZERS[config.optimizer](
            [p for _, p in _trainable(network)], lr=config.learning_rate
        )
        self.module, self.optimizer = fabric.setup(objective, optimizer)
        self.module.train()
        if isinstance(network, WholeBody) and not config.mixed.official_base_dropout:
            network.base_model.eval()
        self.ema = Ema(network, config.ema_decay)

    def update(self, draw: Draw) -> dict[str, Tensor]:
        """One step on `draw`; returns its losses and the norm of the gradient."""
        torch.manual_seed(step_seed(self.config.seed, self.step))  # dropout
        for group in self.optimizer.param_groups:
            group['lr'] = self.config.learning_rate * rate_factor(self.step, self.config)
        self.optimizer.zero_grad()
        losses = self.module(draw)
        self.fabric.backward(losses['loss'])
        norm = self.fabric.clip_gradients(
            self.module,
            self.optimizer,
            max_norm=self.config.clip_norm,
            error_if_nonfinite=False,  # of 16 bits: the scaler skips such a step
        )
        self.optimizer.step()
        self.step += 1
        self.ema.update(self.network, self.step)
        return {name: value.detach() for name, value in losses.items()} | {'gradient_norm': norm}

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            'step': self.step,
            'network': self.network.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'ema': self.ema.shadow,
            'precision': self.fabric.strategy.precision.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.step = state['step']
        self.network.load_state_dict(state['network'])
        self.optimizer.load_state_dict(state['optimizer'])
        for name, value in self.ema.shadow.items():
            value.copy_(state['ema'][name])
        self.fabric.strategy.precision.load_state_dict(state['precision'])

    def averaged(self) -> nn.Module:
        """The network with its averaged weights, in eval mode; ends the training of it."""
        self.network.load_state_dict(self.ema.shadow, strict=False)
        return self.network.eval()


def rate_factor(step: int, config: TrainConfig) -> float:
    """Share of the learning rate at `step`: warm-up times cosine; step 0 stands still."""
    decay = 0.5 * (1 + np.cos(np.pi * step / config.steps)) if config.schedule == 'cosine' else 1.0
    return float(decay * min(1.0, step / max(config.warmup, 1)))


def make_fabric(config: TrainConfig) -> Fabric:
    """Devices and number format of a run; several processes average their gradients."""
    if config.precision == 'tf32':
        torch.set_float32_matmul_precision('high')
    if config.accelerator == 'cuda' and not torch.cuda.is_available():
        raise ConfigError("accelerator = 'cuda', but torch finds no CUDA device; use 'cpu'")
    on_cpu = config.accelerator == 'cpu' or not torch.cuda.is_available()
    if config.precision == '16' and on_cpu:
        raise ConfigError("precision = '16' needs CUDA; use 'bf16', which the CPU has, too")
    several = config.devices * config.num_nodes > 1
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy='ddp' if several else 'auto',
        precision=PRECISIONS[config.precision],
    )
    fabric.launch()
    return fabric


class _Log:
    """Means over processes and over the steps since the last row; part of the state."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.names: tuple[str, ...] = ()
        self.total = torch.zeros(0)
        self.count = 0
        self.began = 0.0

    def add(self, values: Mapping[str, Tensor]) -> None:
        now = torch.stack([value.float() for value in values.values()])
        self.names = tuple(values)
        self.total = self.total.to(now.device) + now if self.count else now
        self.count += 1

    def row(self, config: TrainConfig, step: int, seconds: float) -> dict[str, float]:
        means = self._fabric.all_reduce(self.total / self.count, reduce_op='mean').tolist()
        rate = config.learning_rate * rate_factor(step - 1, config)
        samples = self.count * config.batch * self._fabric.world_size
        speed = samples / max(seconds - self.began, 1e-9)
        self.count, self.began = 0, seconds
        shared = {'learning_rate': rate, 'samples_per_s': speed, 'seconds': seconds}
        return dict(zip(self.names, means, strict=True)) | shared

    def state(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != '_fabric'}

    def load(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)


OnStep = Callable[[int, dict[str, float]], None]


def train(
    config: TrainConfig,
    source: Source,
    folder: RunFolder,
    fabric: Fabric | None = None,
    validation: Validation | None = None,
    on_step: OnStep = lambda step, row: None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train to `config.steps`, or go on from the state in `folder`.

    Args:
        config: the run.
        source: where batches come from; owns the normalisation.
        folder: where the state and the metrics go.
        fabric: devices; None: made from `config`.
        validation: measures every `validate_every` steps; None: nothing is measured.
        on_step: called after each step with its number and the last row of metrics.

    Returns:
        The network with averaged weights, in eval mode, and figures of the run.

    Raises:
        TrainingError: out of memory, disk full, or a loss that is not a number.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    fabric = make_fabric(config) if fabric is None else fabric
    trainer = Trainer(config, build_network(config, source), source.normalizer, fabric)
    log = _Log(fabric)
    state = fabric.broadcast(folder.load_state() if fabric.is_global_zero else None)
    seconds = 0.0
    if state is not None:
        _check_data(state, source)
        trainer.load(state)
        log.load(state['log'])
        seconds = state['seconds']
    if fabric.is_global_zero:
        folder.trim(trainer.step)
        folder.open_board(trainer.step)
    row: dict[str, float] = {}
    began = time.monotonic() - seconds
    while trainer.step < config.steps:
        losses = _guarded(trainer, source, folder)
        log.add(losses)
        step, seconds = trainer.step, time.monotonic() - began
        logs, measures, saves = (
            step % every == 0 or step == config.steps
            for every in (config.log_every, config.validate_every, config.save_every)
        )
        if logs or saves:
            _check_finite(losses['loss'], step, folder)
        if logs:
            row = log.row(config, step, seconds)
        if fabric.is_global_zero:
            if logs:
                folder.log('metrics', step, row)
            if measures and validation is not None:
                folder.log('validation', step, validation.measure(trainer.network, trainer.ema))
            if saves:
                more = {'log': log.state(), 'seconds': seconds, 'statistics': _statistics(source)}
                folder.save_state(trainer.state() | more)
        on_step(step, row)
    folder.close()
    figures = {**row, 'steps': trainer.step, 'seconds': round(seconds)}
    return trainer.averaged(), figures


def _guarded(trainer: Trainer, source: Source, folder: RunFolder) -> dict[str, Tensor]:
    """One step; a device that is out of memory is an error that says what helps."""
    config, fabric = trainer.config, trainer.fabric
    draw = draw_step(source, config, trainer.step, fabric.global_rank, fabric.world_size)
    try:
        return trainer.update(Draw(*(None if v is None else fabric.to_device(v) for v in draw)))
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f'{fabric.device}: out of memory with batch: {config.batch} (precision '
            f'{config.precision}); the state of step {folder.saved_step} is kept. Set batch: '
            f'{max(1, config.batch // 2)} in {folder.settings_file} (learning_rate may have to '
            f'fall with it) or precision: bf16, then: dposer train --resume {folder.path}'
        ) from error


def _check_finite(loss: Tensor, step: int, folder: RunFolder) -> None:
    if not torch.isfinite(loss):
        raise TrainingError(
            f'the loss is {float(loss)} at step {step}; the state of step {folder.saved_step} is '
            'kept. Lower learning_rate, or use precision: bf16 or 32'
        )


def _statistics(source: Source) -> Tensor:
    """(2, D) of the data, by which a resumed run knows that it is the same."""
    return torch.from_numpy(np.stack([source.normalizer.offset, source.normalizer.scale]))


def _check_data(state: Mapping[str, Any], source: Source) -> None:
    now = _statistics(source)
    then = state['statistics']
    if then.shape != now.shape or not torch.equal(then, now):
        raise ConfigError(
            'the packed data is not what the run began with (other statistics); give the same '
            'file with --data, or begin anew'
        )


def _trainable(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in network.named_parameters() if p.requires_grad]
