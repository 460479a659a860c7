"""The settings of a training run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from dposer_core.errors import ConfigError
from dposer_core.prior.architecture import TimeFCConfig
from dposer_core.prior.checkpoint import PARTS
from training.augment import AugmentConfig
from training.data.archives import HELD_OUT, TRAINING_SOURCES
from training.losses import LossConfig
from training.mixed import MixedConfig
from training.mixture import TeacherConfig
from training.settings import from_values, nearest

WHOLE_BODY = 'wholebody'
PRECISIONS = {'32': '32-true', 'tf32': '32-true', 'bf16': 'bf16-mixed', '16': '16-mixed'}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    'radam': torch.optim.RAdam,  # the released code's part networks
    'adam': torch.optim.Adam,  # the paper's text; the released code's whole body
}


@dataclass(frozen=True)
class BaseConfig:
    """Part networks under a whole-body correction; files relative to the checkout."""

    body: str = 'dposer_core/weights/body.safetensors'
    hand: str = 'dposer_core/weights/hand.safetensors'
    face: str = 'dposer_core/weights/face.safetensors'


@dataclass(frozen=True)
class TrainConfig:
    """One run. The defaults are those of the paper's body and hand priors (released code)."""

    part: str  # 'body', 'hand', 'face', 'face_shape' (arrays of the packed file) or 'wholebody'
    network: dict[str, Any] = field(default_factory=dict)  # fields of TimeFCConfig
    loss: LossConfig = LossConfig()
    optimizer: str = 'radam'
    learning_rate: float = 2e-4
    schedule: str = 'cosine'  # after the warm-up; or 'constant'
    steps: int = 200_000
    warmup: int = 5_000
    batch: int = 1280  # rows of each process
    clip_norm: float = 1.0
    ema_decay: float = 0.9999
    low_t: float = 1.0  # end of the range of t that the fits use
    low_t_share: float = 0.0  # of rows that are drawn from (0, low_t), the rest from (0, 1)
    precision: str = '32'  # of PRECISIONS
    accelerator: str = 'auto'  # 'cpu', 'cuda'
    devices: int = 1  # processes of each machine
    num_nodes: int = 1  # machines
    threads: int = 0  # of torch on the CPU; 0: torch's own choice
    seed: int = 42
    save_every: int = 500
    log_every: int = 50
    validate_every: int = 2_000
    initial: str = ''  # checkpoint whose weights the run starts from, relative to the checkout
    sources: tuple[str, ...] = TRAINING_SOURCES  # of body poses
    unseen: tuple[str, ...] = (HELD_OUT,)  # test sets whose clips must not be trained on
    augment: AugmentConfig = AugmentConfig()
    teacher: TeacherConfig = TeacherConfig()  # of a part
    base: BaseConfig = BaseConfig()  # of a whole body
    mixed: MixedConfig = MixedConfig()  # of a whole body
    licence: str = ''
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, known in (
            ('part', (*PARTS, WHOLE_BODY)),
            ('optimizer', OPTIMIZERS),
            ('schedule', ('cosine', 'constant')),
            ('precision', PRECISIONS),
            ('accelerator', ('auto', 'cpu', 'cuda')),
        ):
            value = getattr(self, key)
            if value not in known:
                raise ConfigError(f"{key} = '{value}' is unknown{nearest(value, known)}")
        for key in ('steps', 'batch', 'devices', 'num_nodes', 'save_every', 'log_every'):
            if getattr(self, key) < 1:
                raise ConfigError(f'{key} = {getattr(self, key)}: must be at least 1')
        self.network_config(dim=1)

    def network_config(self, dim: int) -> TimeFCConfig:
        """The network for vectors of size `dim`."""
        return from_values(TimeFCConfig, {'dim': dim, **self.network}, 'network')
