"""Mesh recovery: the body, hand or whole body whose points project onto keypoints of one image.

The camera (and root) first, then everything in stages whose prior fades. Body, hand and whole body
are three values of one protocol. Source: PROTOCOLS 3.3, 3.7 and 3.11 (SMPLify-X, Pavlakos et al.,
CVPR 2019, with the stages of DPoser-X and its released code, whose confidences enter squared).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dposer_core import rotations
from dposer_core.errors import ObservationError
from dposer_core.tasks.optimise import Stages, TimeSchedule, optimise
from dposer_core.tasks.prior_term import Denoising, PriorTerm

Variables = Mapping[str, Tensor]
Forward = Callable[[Variables], Tensor]
"""Variables -> points (B, P, 3) metres, axes of the camera, before the translation `camera`."""
Term = Callable[[Variables, int], Tensor]
"""Variables, step counted from 0 over all stages -> scalar; see `pose_term`."""

CAMERA, ORIENT, POSE, BETAS, EXPRESSION = 'camera', 'global_orient', 'pose', 'betas', 'expression'
_ROBUST_PX = 100.0
_DEPTH_WEIGHT = 100.0
_ELBOWS_KNEES = ((52, 1.0), (55, -1.0), (9, -1.0), (12, -1.0))
"""Entry of the 63 numbers of a body pose, and the sign of what does not bend that way."""
_RIGHT_SHOULDER, _LEFT_SHOULDER = 2, 5


@dataclass(frozen=True)
class Keypoints:
    """What a detector saw of one person in each of B images."""

    pixels: Tensor
    """(B, P, 2)."""
    confidence: Tensor
    """(B, P); zero: not seen."""
    focal: Tensor
    """(B,) pixels."""
    centre: Tensor
    """(B, 2) principal point, pixels."""

    def __post_init__(self) -> None:
        seen = self.confidence > 0
        if (
            not torch.isfinite(self.confidence).all()
            or not torch.isfinite(self.pixels[seen]).all()
        ):
            raise ObservationError('keypoints that are not finite; give them confidence 0')
        if not seen.any(dim=1).all():
            blind = torch.nonzero(~seen.any(dim=1)).flatten().tolist()
            raise ObservationError(f'images {blind} show no keypoint at all; leave them out')

    def of(self, rows: Tensor) -> 'Keypoints':
        """Those of some images."""
        return Keypoints(
            self.pixels[rows], self.confidence[rows], self.focal[rows], self.centre[rows]
        )

    def project(self, points: Tensor, camera: Tensor) -> Tensor:
        """(B, P, 3) metres moved by `camera` (B, 3) -> (B, P, 2) pixels."""
        placed = points + camera[:, None]
        return self.focal[:, None, None] * placed[..., :2] / placed[..., 2:] + self.centre[:, None]


@dataclass(frozen=True)
class CameraStep:
    """Where the person is, before any joint bends."""

    learning_rates: Mapping[str, float]
    steps: int
    is_depth_held: bool = True
    """Whether depth is drawn to where this fit began; the code of hands forgets it once."""


@dataclass(frozen=True)
class Round:
    """Stages under one optimiser."""

    stages: Stages
    learning_rates: Mapping[str, float]


@dataclass(frozen=True)
class RelativeTerm:
    """Points compared relative to one of them: where a hand is does not matter, its form does."""

    points: slice
    root: int
    weight: float


@dataclass(frozen=True)
class RecoveryProtocol:
    """Weights and steps of one kind of body; tuples have an entry per stage."""

    camera_points: tuple[int, ...]
    """Those that place the camera."""
    camera_steps: tuple[CameraStep, ...]
    rounds: tuple[Round, ...]
    prior: tuple[float, ...]
    """Enters squared, as the next two."""
    shape: tuple[float, ...]
    angle: tuple[float, ...] | None = None
    """Of elbows and knees bent the wrong way; None: no body."""
    absolute: float = 1.0
    """Weight of the points' places in the image."""
    relative: tuple[RelativeTerm, ...] = ()
    point_weights: tuple[tuple[slice, tuple[float, ...]], ...] = ()
    """Factor of the confidence of some points; others have 1."""
    ignored: tuple[int, ...] = ()
    """Points without weight after the camera is found."""
    doubled: tuple[int, ...] = ()
    """Points of doubled confidence, from the camera on."""
    schedule: TimeSchedule = TimeSchedule('truncated', 0.12, 0.08)
    denoising: Denoising = Denoising('sqrt_snr_squared', 'sum_per_row', t_end_share=1 / 10)

    @property
    def total(self) -> int:
        """Steps after the camera is found."""
        return sum(r.stages.total for r in self.rounds)

    def shortened(
        self, steps: int, camera_steps: Sequence[int] | None = None
    ) -> 'RecoveryProtocol':
        """The protocol with `steps` per stage, and `camera_steps` for the camera if given."""
        rounds = tuple(
            dataclasses.replace(r, stages=dataclasses.replace(r.stages, steps=steps))
            for r in self.rounds
        )
        counts = camera_steps or [c.steps for c in self.camera_steps]
        cameras = tuple(
            dataclasses.replace(c, steps=n) for c, n in zip(self.camera_steps, counts, strict=True)
        )
        return dataclasses.replace(self, rounds=rounds, camera_steps=cameras)


_FADING = (50.0, 20.0, 10.0, 5.0, 2.0)
_BODY_RATES = {POSE: 1e-2, BETAS: 1e-2, ORIENT: 1e-2}
BODY = RecoveryProtocol(
    camera_points=(2, 5, 9, 12),
    camera_steps=(CameraStep({ORIENT: 1e-2, CAMERA: 1e-2}, 100),),
    rounds=(Round(Stages(5, 100), _BODY_RATES),),
    prior=_FADING,
    shape=_FADING,
    angle=(150.0, 50.0, 30.0, 15.0, 5.0),
    ignored=(1, 9, 12),
)
"""25 body points of OpenPose; the code also ignores 27 and 28 where a longer list has them."""

_HAND_RATES = {POSE: 5e-2, BETAS: 5e-2, ORIENT: 5e-2}
HAND = RecoveryProtocol(
    camera_points=(0, 1, 5, 9, 13, 17),
    camera_steps=(
        CameraStep({CAMERA: 0.1}, 50),
        CameraStep({ORIENT: 5e-2, CAMERA: 1e-2}, 100, is_depth_held=False),
    ),
    rounds=(
        Round(Stages(4, 100), _HAND_RATES),
        Round(Stages(1, 100), _HAND_RATES | {ORIENT: 1e-2, CAMERA: 1e-2}),
    ),
    prior=(30.0, 10.0, 10.0, 5.0, 5.0),
    shape=(50.0, 20.0, 10.0, 5.0, 5.0),
    absolute=0.8,
    relative=(RelativeTerm(slice(0, 21), 0, 0.2),),
    doubled=(0,),
)
"""21 points, wrist first."""

_BODY_POINTS, _FACE_POINTS = 25, slice(67, 135)
_LEFT_HAND_POINTS, _RIGHT_HAND_POINTS = slice(25, 46), slice(46, 67)
_MOUTH, _FIRST_OF_OUTLINE = 115, 67
_LATE = (0.0, 0.0, 0.0, 0.2, 0.5)


def _wholebody(face_root: int) -> RecoveryProtocol:
    return RecoveryProtocol(
        camera_points=(2, 5, 9, 12),
        camera_steps=(
            CameraStep({CAMERA: 0.1}, 50),
            CameraStep({ORIENT: 1e-2, CAMERA: 1e-2}, 100),
        ),
        rounds=(Round(Stages(5, 100), _BODY_RATES | {EXPRESSION: 1e-2}),),
        prior=_FADING,
        shape=_FADING,
        angle=_FADING,
        relative=(
            RelativeTerm(_LEFT_HAND_POINTS, _LEFT_HAND_POINTS.start, 5.0),
            RelativeTerm(_RIGHT_HAND_POINTS, _RIGHT_HAND_POINTS.start, 5.0),
            RelativeTerm(_FACE_POINTS, face_root, 5.0),
        ),
        point_weights=(
            (slice(_LEFT_HAND_POINTS.start, _RIGHT_HAND_POINTS.stop), _LATE),
            (_FACE_POINTS, (0.0, 0.0, 0.0, 0.0, 0.2)),
        ),
        ignored=(1, 9, 12),
    )


WHOLE_BODY = _wholebody(_FIRST_OF_OUTLINE)
"""135 points: 25 body, 21 left hand, 21 right hand, 68 face; by the released code."""
WHOLE_BODY_PAPER = _wholebody(_MOUTH)
"""The paper's text has the mouth as root of the face; here a corner of it stands for it."""


@dataclass(frozen=True)
class Recovered:
    """Result of a fit."""

    variables: dict[str, Tensor]
    """As given, optimised."""
    reprojection: Tensor
    """(B,) robust error of the points' places, by the weights of the last stage, px^2."""


def robust(error: Tensor, scale: float = _ROBUST_PX) -> Tensor:
    """Geman-McClure: squared for small errors, `scale`^2 for large ones."""
    squared = error**2
    return scale**2 * squared / (scale**2 + squared)


def recover(
    seen: Keypoints,
    start: Variables,
    forward: Forward,
    term: Term,
    protocol: RecoveryProtocol,
) -> Recovered:
    """The variables of `start` that explain the keypoints.

    Args:
        seen: keypoints, in the order of the protocol.
        start: 'camera' (B, 3) translation in metres, 'global_orient' (B, 3) rad, 'pose' (B, D)
            raw, 'betas' (B, 10), and 'expression' where the protocol moves it.
        forward: the body.
        term: the prior's, without its weight.
        protocol: weights and steps.
    """
    found = dict(start)
    counted = _scale(seen, protocol.doubled, 2.0)
    held = start[CAMERA][:, 2].detach()
    for step in protocol.camera_steps:
        found |= _place_camera(counted, found, forward, protocol.camera_points, step, held)
    return _fit(_scale(counted, protocol.ignored, 0.0), found, forward, term, protocol)


def recover_body(
    seen: Keypoints,
    start: Variables,
    forward: Forward,
    term: Term,
    protocol: RecoveryProtocol = BODY,
    side_view_px: float = 25.0,
    is_official: bool = False,
) -> Recovered:
    """`recover`, and a second try from behind for people seen from the side.

    From the side front and back look alike, so a fit may end in the wrong one.

    Args:
        seen: as in `recover`.
        start: as in `recover`.
        forward: as in `recover`.
        term: as in `recover`.
        protocol: of a body.
        side_view_px: shoulders nearer than this in the image mean a side view.
        is_official: as the released code: the distance is that of the whole batch, the second
            try goes on from the result of the first, and its betas replace the first's.
    """
    apart = torch.linalg.norm(
        seen.pixels[:, _RIGHT_SHOULDER] - seen.pixels[:, _LEFT_SHOULDER], dim=-1
    )
    first = recover(seen, start, forward, term, protocol)
    late = _scale(_scale(seen, protocol.doubled, 2.0), protocol.ignored, 0.0)
    if is_official:
        is_side = (apart.square().sum().sqrt() < side_view_px).expand(len(apart))
    else:
        is_side = apart < side_view_px
    rows = torch.nonzero(is_side).flatten()
    if not len(rows):
        return first
    again = dict(first.variables if is_official else start)
    again |= {
        CAMERA: first.variables[CAMERA],
        ORIENT: _turned_round(first.variables[ORIENT]),
    }
    again = {name: value[rows] for name, value in again.items()}
    second = _fit(late.of(rows), again, forward, term, protocol)
    is_better = second.reprojection < first.reprojection[rows]
    better = rows[is_better]
    chosen = {name: value.clone() for name, value in first.variables.items()}
    for name, value in chosen.items():
        value[better] = second.variables[name][is_better]
    if is_official:
        chosen[BETAS] = second.variables[BETAS]
    error = first.reprojection.clone()
    error[better] = second.reprojection[is_better]
    return Recovered(chosen, error)


def wholebody_term(term: PriorTerm) -> Term:
    """`term` of 'pose' and 'expression' in one vector, for `recover`."""

    def value(variables: Variables, step: int) -> Tensor:
        return term(torch.cat([variables[POSE], variables[EXPRESSION]], dim=-1), step)

    return value


def place_by_size(
    seen: Keypoints, points: Tensor, edges: Sequence[tuple[int, int]], confidence: float = 0.2
) -> Tensor:
    """(B, 3) translation with the depth at which edges are as long in the image as in the body.

    Args:
        seen: keypoints.
        points: (B, P, 3) metres of the start.
        edges: pairs of points.
        confidence: edges whose ends have less in the mean over their ends do not count.
    """
    a, b = (list(side) for side in zip(*edges, strict=True))
    counts = (seen.confidence[:, a] + seen.confidence[:, b]) / 2 >= confidence
    if not counts.any(dim=1).all():
        raise ObservationError('no edge between seen keypoints; a depth must be given')
    real = torch.linalg.norm(points[:, a] - points[:, b], dim=-1)
    drawn = torch.linalg.norm(seen.pixels[:, a] - seen.pixels[:, b], dim=-1)
    depth = seen.focal * (real * counts).sum(1) / (drawn * counts).sum(1)
    return torch.stack([torch.zeros_like(depth), torch.zeros_like(depth), depth], dim=-1)


def _place_camera(
    seen: Keypoints,
    found: Variables,
    forward: Forward,
    points: tuple[int, ...],
    step: CameraStep,
    held: Tensor,
) -> dict[str, Tensor]:
    chosen = list(points)
    moving = {name: found[name] for name in step.learning_rates}

    def loss(variables: Variables, _stage: int, _step: int) -> Tensor:
        now = {**found, **variables}
        error = (seen.project(forward(now), now[CAMERA]) - seen.pixels)[:, chosen]
        total = (seen.confidence[:, chosen, None] ** 2 * error**2).sum()
        if step.is_depth_held:
            total = total + _DEPTH_WEIGHT**2 * (now[CAMERA][:, 2] - held).square().sum()
        return total

    return optimise(moving, step.learning_rates, Stages(1, step.steps), loss)


def _fit(
    seen: Keypoints, start: Variables, forward: Forward, term: Term, protocol: RecoveryProtocol
) -> Recovered:
    found, stages_done, steps_done = dict(start), 0, 0
    for current in protocol.rounds:
        total = _Loss(seen, found, forward, term, protocol, stages_done, steps_done)
        moving = {name: found[name] for name in current.learning_rates}
        found = found | optimise(moving, current.learning_rates, current.stages, total)
        stages_done += current.stages.stages
        steps_done += current.stages.total
    with torch.no_grad():
        error = _places(seen, found, forward, protocol, len(protocol.prior) - 1)
    return Recovered(found, error)


@dataclass(frozen=True)
class _Loss:
    """All terms, of the variables that move in a round."""

    seen: Keypoints
    resting: Variables
    forward: Forward
    term: Term
    protocol: RecoveryProtocol
    stages_done: int
    steps_done: int

    def __call__(self, variables: Variables, stage: int, step: int) -> Tensor:
        protocol, stage = self.protocol, stage + self.stages_done
        now = {**self.resting, **variables}
        total = _places(self.seen, now, self.forward, protocol, stage, with_relative=True)
        total = total + protocol.shape[stage] ** 2 * now[BETAS].square().sum(-1)
        if protocol.angle:
            total = total + protocol.angle[stage] ** 2 * _bend(now[POSE])
        prior = protocol.prior[stage] ** 2 * self.term(now, step + self.steps_done)
        return total.mean() + prior


def _places(
    seen: Keypoints,
    now: Variables,
    forward: Forward,
    protocol: RecoveryProtocol,
    stage: int,
    with_relative: bool = False,
) -> Tensor:
    """(B,) robust error of the points' places in the image, by the weights of a stage."""
    drawn = seen.project(forward(now), now[CAMERA])
    weight = seen.confidence.clone()
    for points, factors in protocol.point_weights:
        weight[:, points] *= factors[stage]
    total = _weighted(robust(drawn - seen.pixels), weight)
    if not with_relative:
        return total
    total = protocol.absolute * total
    for part in protocol.relative:
        apart, wanted = (x[:, part.points] - x[:, part.root, None] for x in (drawn, seen.pixels))
        error = _weighted(robust(apart - wanted), seen.confidence[:, part.points])
        total = total + part.weight * error
    return total


def _weighted(error: Tensor, confidence: Tensor) -> Tensor:
    """(B,) sum of (B, P, 2) by squared confidence (B, P)."""
    return (confidence[..., None] ** 2 * error).sum((1, 2))


def _bend(pose: Tensor) -> Tensor:
    """(B,) of poses (B, >= 63): large where an elbow or a knee bends the wrong way."""
    entries, signs = zip(*_ELBOWS_KNEES, strict=True)
    return torch.exp(pose[:, list(entries)] * pose.new_tensor(signs)).square().sum(-1)


def _scale(seen: Keypoints, points: tuple[int, ...], factor: float) -> Keypoints:
    confidence = seen.confidence.clone()
    confidence[:, list(points)] *= factor
    return dataclasses.replace(seen, confidence=confidence)


def _turned_round(orient: Tensor) -> Tensor:
    """(B, 3) rad turned by 180 degrees about the body's own upright axis."""
    half = orient.new_tensor([0.0, torch.pi, 0.0]).expand_as(orient)
    matrix = rotations.rotvec_to_rotmat(orient) @ rotations.rotvec_to_rotmat(half)
    return rotations.rotmat_to_rotvec(matrix)
