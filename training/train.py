"""The one training loop. The part (body, hand, face) is a value in the YAML configuration.

    python -m training.train training/configs/body.yaml

Denoising score matching of the sub-VP process (PROTOCOLS 2.2, 2.3): RAdam, linear warm-up and
cosine decay, gradient clipping, moving average of the weights. Every draw of step n comes from a
generator seeded by (seed, n), so a run that was killed and resumed equals one that was not.
"""

import argparse
import dataclasses
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from lightning_fabric import Fabric
from rich.progress import Progress
from torch import Tensor

from dposer_core.prior.architecture import TimeFCConfig, label_of
from dposer_core.prior.checkpoint import PriorCheckpoint, load_checkpoint, save_checkpoint
from dposer_core.prior.network import TimeFC
from dposer_core.prior.sde import SubVP
from training.augment import AugmentConfig, Augmenter
from training.pack import PACKED


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One run."""

    part: str  # 'body' | 'hand' | 'face': which array of the packed file
    hidden: int = 512
    embed: int = 256
    blocks: int = 2
    dropout: float = 0.1
    scale_by_sigma: bool = True  # published networks; without it few steps go much further
    steps: int = 10_000
    batch: int = 512
    learning_rate: float = 2e-4
    warmup: int = 500
    clip_norm: float = 1.0
    ema_decay: float = 0.999  # the paper's 0.9999 needs more steps than a CPU hour has
    low_t: float = 0.4  # the range of t that the fits use
    low_t_share: float = 0.75  # of samples drawn from (0, low_t), the rest from (0, 1)
    initial: str = ''  # checkpoint whose weights the run starts from, relative to the checkout
    seed: int = 42
    save_every: int = 100
    threads: int = 1
    licence: str = ''
    notes: dict = dataclasses.field(default_factory=dict)
    augment: AugmentConfig = AugmentConfig()

    @staticmethod
    def load(path: Path) -> 'TrainConfig':
        """Read a YAML file; an unknown key is an error."""
        values = yaml.safe_load(path.read_text())
        augment = AugmentConfig(**values.pop('augment', {}))
        return TrainConfig(augment=augment, **values)


EPS_T = 1e-5  # smallest diffusion time drawn


class Ema:
    """Moving average of a network's parameters."""

    def __init__(self, network: TimeFC, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: p.detach().clone() for name, p in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: TimeFC, step: int) -> None:
        """Fold in the parameters after `step` updates."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.shadow.values()), list(network.parameters()), 1.0 - decay)


def draw_times(count: int, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """(count,) diffusion times; denser below `low_t` than the paper's uniform ones."""
    t = torch.rand(count, generator=generator)
    low = torch.rand(count, generator=generator) < config.low_t_share
    return torch.where(low, t * config.low_t, t) * (1 - EPS_T) + EPS_T


def loss_of(network: TimeFC, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted noise."""
    x_t = SubVP().add_noise(x_0, t, noise)
    return (network(x_t, label_of(t)) - noise).square().mean()


def rate_factor(step: int, config: TrainConfig) -> float:
    """Share of the learning rate at `step`: warm-up times cosine; step 0 stands still."""
    cosine = 0.5 * (1 + np.cos(np.pi * step / config.steps))
    return float(cosine * min(1.0, step / max(config.warmup, 1)))


def train(
    config: TrainConfig,
    data: Augmenter,
    resume_file: Path,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[TimeFC, dict]:
    """Train to `config.steps`, or go on from `resume_file`.

    Args:
        config: the run.
        data: where batches come from; owns the normalisation.
        resume_file: state of the run, rewritten every `save_every` steps.
        on_step: called after each step with its number and loss.

    Returns:
        The network with averaged weights, in eval mode, and figures of the run.
    """
    torch.set_num_threads(config.threads)
    fabric = Fabric(accelerator='cpu', devices=1)
    torch.manual_seed(config.seed)
    network = TimeFC(
        TimeFCConfig(
            dim=data.dim,
            hidden=config.hidden,
            embed=config.embed,
            blocks=config.blocks,
            dropout=config.dropout,
            scale_by_sigma=config.scale_by_sigma,
        )
    )
    if config.initial:
        start = load_checkpoint(Path(__file__).parents[1] / config.initial, config.part, data.dim)
        tensors = {name: torch.from_numpy(value) for name, value in start.weights.items()}
        network.load_state_dict(tensors, strict=False)  # all but the constant `sigmas`
    ema = Ema(network, config.ema_decay)
    optimizer = torch.optim.RAdam(network.parameters(), lr=config.learning_rate)
    model, optimizer = fabric.setup(network, optimizer)
    progress = {'step': 0, 'seconds': 0.0, 'losses': []}
    if resume_file.is_file():
        state = fabric.load(resume_file)
        network.load_state_dict(state['network'])
        optimizer.load_state_dict(state['optimizer'])
        ema.shadow, progress = state['ema'], state['progress']

    model.train()
    began = time.monotonic() - progress['seconds']
    while progress['step'] < config.steps:
        step = progress['step']
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout
        for group in optimizer.param_groups:
            group['lr'] = config.learning_rate * rate_factor(step, config)
        x_0 = data.batch(config.batch, generator)
        t = draw_times(config.batch, config, generator)
        loss = loss_of(model, x_0, t, torch.randn(x_0.shape, generator=generator))
        optimizer.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=config.clip_norm)
        optimizer.step()
        ema.update(network, step + 1)

        progress['step'] = step + 1
        progress['seconds'] = time.monotonic() - began
        if (step + 1) % 100 == 0:
            progress['losses'].append(round(float(loss.detach()), 4))
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            state = {
                'network': network.state_dict(),
                'optimizer': optimizer.state_dict(),
                'ema': ema.shadow,
                'progress': progress,
            }
            partial = resume_file.with_suffix('.partial')
            fabric.save(partial, state)
            partial.replace(resume_file)
        on_step(step + 1, float(loss.detach()))
    network.load_state_dict(ema.shadow, strict=False)
    return network.eval(), progress


def checkpoint_of(
    config: TrainConfig, network: TimeFC, data: Augmenter, progress: dict
) -> PriorCheckpoint:
    """What is shipped: averaged weights, statistics and where they come from."""
    commit = subprocess.run(
        ['git', 'rev-parse', '--short=12', 'HEAD'],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    run = dataclasses.asdict(config)
    return PriorCheckpoint(
        part=config.part,
        config=network.config,
        weights={name: p.detach().numpy() for name, p in network.named_parameters()},
        mean=data.mean.numpy(),
        std=data.std.numpy(),
        licence=run.pop('licence'),
        source_commit=commit,
        notes=run.pop('notes')
        | {'run': run, 'steps': progress['step'], 'seconds': round(progress['seconds'])},
    )


def main() -> None:
    """Command line: train, or resume, the run of one YAML file and write its checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', type=Path, help='training/configs/*.yaml')
    parser.add_argument('--data', type=Path, default=PACKED, help='file of training.pack')
    parser.add_argument('--out', type=Path, help='default: data/runs/<name>.safetensors')
    parser.add_argument('--steps', type=int, help='override the number of steps')
    arguments = parser.parse_args()
    config = TrainConfig.load(arguments.config)
    if arguments.steps:
        config = dataclasses.replace(config, steps=arguments.steps)
    out = arguments.out or arguments.data.parent / 'runs' / f'{arguments.config.stem}.safetensors'
    out.parent.mkdir(parents=True, exist_ok=True)
    with np.load(arguments.data) as packed:
        data = Augmenter.from_packed(packed, config.part, config.augment)
    with Progress() as bar:
        task = bar.add_task(f'train {config.part}', total=config.steps)
        network, progress = train(
            config,
            data,
            out.with_suffix('.state'),
            lambda step, loss: bar.update(
                task, completed=step, description=f'train {config.part} loss {loss:.3f}'
            ),
        )
    sha256 = save_checkpoint(out, checkpoint_of(config, network, data, progress))
    print(json.dumps({'file': str(out), 'sha256': sha256, **progress}))


if __name__ == '__main__':
    main()
