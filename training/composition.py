"""Synthetic whole bodies: recorded bodies composed with hands and faces drawn on their own.

No free recording holds body, fingers and face together. A composition draws the three apart, so
the real dependence between them is lost but for two habits that anyone sees: both hands often do
much the same, and the hand of an arm that hangs is relaxed. How strong they are is invented here
(`CompositionConfig`), so what a network learns of them, and every figure measured on such rows,
is about this generator and not about people.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dposer_core import rotations
from dposer_core.prior.architecture import WholeBodyLayout
from dposer_core.skeleton import BODY_JOINTS, JOINT_INDEX, MIRROR_SIGN, PARENTS
from training.augment import mirror_body
from training.pack import select_body

HOLD_OUT_EVERY = 50  # of the synthetic hands and faces, one in so many is kept for measuring
_ARMS = (('left', 1.0), ('right', -1.0))  # a straight arm points along +x or -x at rest
# Flexion of a hand at ease, degrees: base, middle and end joint of every finger.
_RELAXED_DEG = np.array([20.0, 30.0, 15.0])


@dataclass(frozen=True)
class CompositionConfig:
    """The invented dependence between the parts."""

    mirrored_share: float = 0.4  # of rows: the right hand does what the left does, more or less
    mirrored_blend: float = 0.6  # its way towards another hand, uniform from 0 to this
    relaxed_share: float = 0.7  # of hanging arms: the hand is a relaxed one
    relaxed_pool: float = 0.1  # share of all hands that count as relaxed, the nearest to one
    hanging_deg: float = 40.0  # upper and lower arm both within this of straight down


class Composer:
    """Draws raw whole-body rows."""

    def __init__(self, packed: Mapping[str, np.ndarray], config: CompositionConfig) -> None:
        """`packed`: `body` (N, 63), `body_weight` (N,), `hand` (M, 45) and `face` (K, 3 + E)."""
        self.config = config
        self._body = _tensor(packed['body'])
        weight = torch.as_tensor(packed.get('body_weight', np.ones(len(self._body))))
        self._cumulative = torch.cumsum(weight.double(), 0)
        self._hand = _tensor(packed['hand'])
        self._face = _tensor(packed['face'])
        distance = (self._hand - _relaxed_hand()).norm(dim=1)
        count = max(1, int(config.relaxed_pool * len(self._hand)))
        self._relaxed = self._hand[distance.argsort()[:count]]
        self.layout = WholeBodyLayout(self._face.shape[1] - 3)

    def samples(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, D) raw: body | left hand | right hand | face, the left hand as it is."""
        body = self._bodies(count, generator)
        left = _rows(self._hand, count, generator)
        other = _rows(self._hand, count, generator)
        similar = torch.rand(count, generator=generator) < self.config.mirrored_share
        blend = torch.rand(count, generator=generator) * self.config.mirrored_blend
        right = torch.lerp(left, other, torch.where(similar, blend, torch.ones(count))[:, None])
        hanging = hanging_arms(body, self.config.hanging_deg)
        hands = []
        for side, hand in enumerate((left, right)):
            relax = torch.rand(count, generator=generator) < self.config.relaxed_share
            relaxed = _rows(self._relaxed, count, generator)
            hands.append(torch.where((hanging[:, side] & relax)[:, None], relaxed, hand))
        face = _rows(self._face, count, generator)
        return torch.cat([body, mirror_hand(hands[0]), hands[1], face], 1)

    def _bodies(self, count: int, generator: torch.Generator) -> Tensor:
        place = torch.rand(count, generator=generator, dtype=torch.float64) * self._cumulative[-1]
        index = torch.searchsorted(self._cumulative, place).clamp(max=len(self._body) - 1)
        body = self._body[index]
        flip = torch.rand((count, 1), generator=generator) < 0.5
        return torch.where(flip, mirror_body(body), body)


def wholebody_samples(
    packed: Mapping[str, np.ndarray],
    count: int,
    generator: torch.Generator,
    config: CompositionConfig | None = None,
) -> Tensor:
    """(count, 63 + 45 + 45 + 3 + E) raw synthetic whole bodies of the parts in `packed`.

    Many draws from the same parts: keep a `Composer`. `training_parts` and `heldout_parts` choose
    the parts of a packed file.
    """
    return Composer(packed, config or CompositionConfig()).samples(count, generator)


def training_parts(packed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a whole body may be trained on: CMU bodies, and the hands and faces not held out."""
    body, weight = select_body(packed)
    kept = {name: _split(packed[name], held_out=False) for name in ('hand', 'face')}
    return {'body': body, 'body_weight': weight} | kept


def heldout_parts(packed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What whole bodies are measured on: the held-out subjects, every 50th hand and face."""
    body = packed['test_held_out']
    kept = {name: _split(packed[name], held_out=True) for name in ('hand', 'face')}
    return {'body': body, 'body_weight': np.ones(len(body), np.float32)} | kept


def hanging_arms(body: Tensor, within_deg: float) -> Tensor:
    """(N, 2) whether the left and the right arm of bodies (N, 63) hang along the trunk.

    Down is that of the pelvis: the vector does not say where the ground is.
    """
    local = rotations.rotvec_to_rotmat(body.reshape(len(body), -1, 3))
    hanging = []
    for side, sign in _ARMS:
        upper = _world_rotmat(local, JOINT_INDEX[f'{side}_shoulder'])
        lower = upper @ local[:, JOINT_INDEX[f'{side}_elbow'] - BODY_JOINTS.start]
        # y component of where the bone points
        down = torch.stack([-sign * bone[:, 1, 0] for bone in (upper, lower)])
        hanging.append((down > np.cos(np.radians(within_deg))).all(0))
    return torch.stack(hanging, 1)


def mirror_hand(hand: Tensor) -> Tensor:
    """(N, 45) of one hand as that of the other."""
    return hand * hand.new_tensor(MIRROR_SIGN).repeat(hand.shape[1] // 3)


def _world_rotmat(local: Tensor, joint: int) -> Tensor:
    """(N, 3, 3) rotation of `joint` seen from the pelvis; local (N, 21, 3, 3)."""
    rotation = local[:, joint - BODY_JOINTS.start]
    while (joint := int(PARENTS[joint])) > 0:
        rotation = local[:, joint - BODY_JOINTS.start] @ rotation
    return rotation


def _relaxed_hand() -> Tensor:
    """(45,) right hand at ease; the thumb as in the flat hand."""
    pose = np.zeros((5, 3, 3), np.float32)
    pose[:4, :, 2] = np.radians(_RELAXED_DEG)
    return torch.from_numpy(pose.reshape(-1))


def _split(rows: np.ndarray, held_out: bool) -> np.ndarray:
    chosen = np.arange(len(rows)) % HOLD_OUT_EVERY == 0
    return rows[chosen if held_out else ~chosen]


def _rows(pool: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return pool[torch.randint(len(pool), (count,), generator=generator)]


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
