"""The offline reference: the paper's optimisation, five stages of Adam, every frame on its own.

Source: DPoser-X Algorithm 1 with the whole-body settings of PROTOCOLS 3.3 and 3.11. The live
fitter is compared with it. Deviations, each for a reason given where it is made: pixels are
scaled to a person of 1000 px, several headings instead of one are tried, hip points count.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dposer_core import skeleton
from dposer_core.cold_start import initial_poses
from dposer_core.keypoints import (
    BODY_POINTS,
    FACE_POINTS,
    FEET_POINTS,
    LEFT_HAND_POINTS,
    POINT_INDEX,
    RIGHT_HAND_POINTS,
)
from dposer_core.kinematics import Kinematics
from dposer_core.observation import Observation
from dposer_core.prior.schedule import truncated_times
from dposer_core.prior.sde import SubVP
from dposer_core.rotations import mirror_rotvec, rotmat_to_rotvec, rotvec_to_rotmat

_TORSO = tuple(
    POINT_INDEX[f'{side}_{joint}'] for joint in ('shoulder', 'hip') for side in ('left', 'right')
)
_LIMBS = slice(BODY_POINTS.start, FEET_POINTS.stop)
_HANDS = (LEFT_HAND_POINTS, RIGHT_HAND_POINTS)
_BELOW_HIPS = slice(POINT_INDEX['left_knee'], FEET_POINTS.stop)

_STAGE_WEIGHTS = (50.0, 20.0, 10.0, 5.0, 2.0)  # squared in use: prior, betas, elbows and knees
_HAND_WEIGHTS = (0.0, 0.0, 0.0, 0.2, 0.5)
_FACE_WEIGHTS = (0.0, 0.0, 0.0, 0.0, 0.2)
# Hands seen from their wrist, the face from its first contour point.
_RELATIVE_WEIGHT_2D = 5.0
_RELATIVE_WEIGHT_3D = 0.2  # more of it slows the body down: 27, 32, 39 mm with 0.2, 1, 5
_ROBUST_PX = 100.0
_HEIGHT_WEIGHT = 10.0  # of a known height: as good as ten points
_CAMERA_STEPS = 100
_LEARNING_RATE = 1e-2
_DEPTH_ANCHOR = 100.0
_T_MAX, _T_MIN = 0.12, 0.08
# The weights above were chosen on pictures with people about this high; other input is scaled to
# it, so that a small picture does not get a strong prior. A metre of 3D input counts as much.
_PERSON_PX = 1000.0
_PX_PER_M = _PERSON_PX / 1.7
_UPPER_BODY_SHARE = 0.55  # of the height, when nothing below the hips is seen
_NUM_HEADINGS = 4
_MIN_DEPTH = 0.1  # metres; points behind the camera are projected as if they were here
# Elbows and knees as components of the 63 body angles, with the sign of the impossible direction.
_HINGES = ((52, 1.0), (55, -1.0), (9, -1.0), (12, -1.0))


class TorchBody(Protocol):
    """The part of `body_model.Body` that the fit needs."""

    tables: Any

    def torch_forward(
        self, pose_rotvec: Tensor, betas: Tensor, expression: Tensor, transl: Tensor
    ) -> tuple[Tensor, Tensor]: ...


class Prior(Protocol):
    """The part of `runtime.LivePrior` that the fit needs."""

    mean: np.ndarray
    std: np.ndarray

    def denoise(self, x: np.ndarray, t: float, noise: np.ndarray | None = None) -> np.ndarray: ...


@dataclass(frozen=True)
class OfflineResult:
    """What was fitted to N frames. Metres and radians in the frame of the observations."""

    pose_rotvec: np.ndarray  # (N, 55, 3)
    transl: np.ndarray  # (N, 3)
    betas: np.ndarray  # (N, 10)
    expression: np.ndarray  # (N, E)
    joints: np.ndarray  # (N, 55, 3)
    landmarks: np.ndarray  # (N, 133, 3)


@dataclass
class _Evidence:
    """The observations of N frames as tensors; 2D in scaled pixels, 3D in metres."""

    points: Tensor  # (N, 133, 2 or 3)
    confidence: Tensor  # (N, 133)
    focal: Tensor  # (N, 1, 2) scaled
    centre: Tensor  # (N, 1, 2) scaled

    @property
    def is_2d(self) -> bool:
        return self.points.shape[-1] == 2

    def residual(self, landmarks: Tensor) -> Tensor:
        """(N, 133, 2 or 3) difference of body landmarks (N, 133, 3) and evidence, in pixels."""
        if not self.is_2d:
            return (landmarks - self.points) * _PX_PER_M
        depth = landmarks[..., 2:].clamp(min=_MIN_DEPTH)
        return landmarks[..., :2] / depth * self.focal + self.centre - self.points

    def repeat(self, count: int) -> '_Evidence':
        """Every frame `count` times in a row."""
        return _Evidence(*(value.repeat_interleave(count, 0) for value in vars(self).values()))


@dataclass
class _Variables:
    """What is optimised, for N frames."""

    root: Tensor  # (N, 3)
    transl: Tensor  # (N, 3)
    joints: Tensor  # (N, 52, 3) axis-angle of PRIOR_JOINTS
    expression: Tensor  # (N, E)
    betas: Tensor  # (N, 10)

    def pose(self) -> Tensor:
        """(N, 55, 3); the eyes look ahead."""
        pose = self.root.new_zeros(len(self.root), skeleton.NUM_JOINTS, 3)
        pose[:, 0] = self.root
        pose[:, skeleton.PRIOR_JOINTS] = self.joints
        return pose


class OfflineFitter:
    """Fits whole bodies to independent frames in one batch.

    Args:
        body: the body model.
        prior: whole-body prior; None fits without one, from the zero pose.
        steps: Adam steps after the placement, a multiple of five.
        use_prior: False leaves the prior term out but starts from the prior's mean pose.
        person_height: known height in metres; 0: unknown.
        seed: of the diffusion noise.
        progress: called with (steps done, steps in all).
    """

    def __init__(
        self,
        body: TorchBody,
        prior: Prior | None,
        steps: int = 500,
        use_prior: bool = True,
        person_height: float = 0.0,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._body = body
        self._prior = prior
        self._kinematics = Kinematics(body.tables)
        self._steps_per_stage = max(steps // len(_STAGE_WEIGHTS), 1)
        self._use_prior = use_prior and prior is not None
        self._person_height = person_height
        self._seed = seed
        self._progress = progress or (lambda done, total: None)

    def fit(self, observations: Sequence[Observation]) -> OfflineResult:
        """Fit every observation by itself; all of them 2D or all of them 3D, in any order."""
        assert len({observation.dim for observation in observations}) == 1
        evidence = _evidence(observations)
        variables = self._place(observations, evidence)
        self._optimise(variables, evidence)
        with torch.no_grad():
            joints, landmarks = self._forward(variables)
        found = (
            variables.pose(), variables.transl, variables.betas, variables.expression,
            joints, landmarks,
        )  # fmt: skip
        return OfflineResult(*(value.detach().numpy().astype(np.float64) for value in found))

    def _forward(self, v: _Variables) -> tuple[Tensor, Tensor]:
        return self._body.torch_forward(v.pose(), v.betas, v.expression, v.transl)

    # --- placement: root and translation, several headings in one batch ---

    def _place(self, observations: Sequence[Observation], evidence: _Evidence) -> _Variables:
        guesses = [self._guesses(observation) for observation in observations]
        count = len(guesses[0])
        variables = self._start([guess for frame in guesses for guess in frame])
        trial = evidence.repeat(count)
        self._optimise_root(variables, trial)
        with torch.no_grad():
            error = trial.residual(self._forward(variables)[1])[:, _LIMBS]
            cost = (trial.confidence[:, _LIMBS] ** 2 * _robust(error)).sum(-1).reshape(-1, count)
            best = cost.argmin(-1) + torch.arange(len(observations)) * count
        return _Variables(*(value.detach()[best].clone() for value in vars(variables).values()))

    def _guesses(self, observation: Observation) -> list[tuple[np.ndarray, np.ndarray]]:
        """Root rotation vector and pelvis position of the starting points."""
        precision = np.zeros(len(observation.points))
        precision[_LIMBS] = observation.confidence[_LIMBS] ** 2
        torso = list(_TORSO)
        if observation.dim == 3 and np.count_nonzero(precision[torso]) >= 3:
            precision[[n for n in range(len(precision)) if n not in _TORSO]] = 0.0
        if not precision.any():
            precision = observation.confidence**2
        rotations = rotvec_to_rotmat(self._mean_joints().astype(np.float64))
        count = _NUM_HEADINGS if observation.dim == 2 else 1
        poses = initial_poses(self._kinematics, observation, precision, rotations, count)
        return [(rotmat_to_rotvec(pose.rotations[0]), pose.pelvis) for pose in poses]

    def _start(self, guesses: list[tuple[np.ndarray, np.ndarray]]) -> _Variables:
        tables = self._body.tables
        roots, pelvises = (np.stack(column) for column in zip(*guesses, strict=True))
        zeros = torch.zeros(len(guesses), tables.num_betas)
        expression = torch.zeros(len(guesses), tables.num_expression)
        if self._prior is not None:
            mean = self._prior.mean[3 * len(skeleton.PRIOR_JOINTS) :]
            expression += torch.from_numpy(mean.astype(np.float32))
        return _Variables(
            root=torch.from_numpy(roots).float(),
            transl=torch.from_numpy(pelvises - tables.joint_template[0]).float(),
            joints=torch.from_numpy(self._mean_joints()).repeat(len(guesses), 1, 1),
            expression=expression,
            betas=zeros,
        )

    def _mean_joints(self) -> np.ndarray:
        """(52, 3) float32 pose of PRIOR_JOINTS that the fit starts from."""
        num = len(skeleton.PRIOR_JOINTS)
        if self._prior is None:
            return np.zeros((num, 3), dtype=np.float32)
        joints = self._prior.mean[: 3 * num].reshape(num, 3) * _mirror_signs()
        return joints.astype(np.float32)

    def _optimise_root(self, v: _Variables, evidence: _Evidence) -> None:
        """Root and translation on the torso; the depth is held near its first guess."""
        weight = evidence.confidence[:, list(_TORSO)] ** 2
        with torch.no_grad():  # the body is rigid here: posed once, turned about its pelvis
            still = dataclasses.replace(v, root=v.root * 0, transl=v.transl * 0)
            joints, landmarks = self._forward(still)
            pelvis = joints[:, :1]
            arms = landmarks[:, list(_TORSO)] - pelvis
        torso = dataclasses.replace(evidence, points=evidence.points[:, list(_TORSO)])
        depth = v.transl[:, 2].clone()
        anchor = _DEPTH_ANCHOR**2 if evidence.is_2d else 0.0
        optimiser = _adam(v.root, v.transl)
        for _ in range(_CAMERA_STEPS):
            turned = arms @ rotvec_to_rotmat(v.root).transpose(1, 2) + pelvis + v.transl[:, None]
            error = torso.residual(turned)
            drift = v.transl[:, 2] - depth
            loss = (weight * (error**2).sum(-1)).sum() + anchor * (drift**2).sum()
            _step(optimiser, loss)

    # --- the optimisation of Algorithm 1 ---

    def _optimise(self, v: _Variables, evidence: _Evidence) -> None:
        # The translation stays free (the official code fixes it here): with unknown betas its
        # depth could otherwise never be corrected.
        optimiser = _adam(v.root, v.transl, v.joints, v.expression, v.betas)
        total = self._steps_per_stage * len(_STAGE_WEIGHTS)
        times = truncated_times(_T_MAX, _T_MIN, total)
        rng = np.random.default_rng(self._seed)
        for step, t in enumerate(times):
            stage = step // self._steps_per_stage
            loss = self._data_loss(v, evidence, stage)
            weight = _STAGE_WEIGHTS[stage] ** 2
            loss = loss + weight * (v.betas**2).sum() + weight * _hinge_loss(v)
            if self._use_prior:
                loss = loss + weight * self._prior_loss(v, float(t), rng)
            else:  # nothing else holds the expression
                loss = loss + weight * (v.expression**2).sum()
            _step(optimiser, loss)
            self._progress(step + 1, total)

    def _data_loss(self, v: _Variables, evidence: _Evidence, stage: int) -> Tensor:
        """Summed over frames; each frame's gradient is its own, and Adam is free of scale."""
        landmarks = self._forward(v)[1]
        error = evidence.residual(landmarks)
        confidence = evidence.confidence
        # Metres leave no doubt which point is where: nothing is robust then.
        cost, relative_weight = (
            (_robust, _RELATIVE_WEIGHT_2D) if evidence.is_2d else (_squared, _RELATIVE_WEIGHT_3D)
        )
        scale = torch.ones(error.shape[1])
        scale[FACE_POINTS] = _FACE_WEIGHTS[stage]
        for hand in _HANDS:
            scale[hand] = _HAND_WEIGHTS[stage]
        loss = ((scale * confidence) ** 2 * cost(error)).sum()
        for part in (*_HANDS, FACE_POINTS):
            relative = error[:, part] - error[:, part.start : part.start + 1]
            seen = confidence[:, part.start, None] > 0  # nothing is relative to an unseen point
            weight = confidence[:, part] ** 2 * seen
            loss = loss + relative_weight * (weight * cost(relative)).sum()
        if self._person_height > 0:
            height = (
                v.betas.new_tensor(self._body.tables.height_dirs[: v.betas.shape[1]]) @ v.betas.T
            )
            height = height + self._body.tables.height_template
            loss = (
                loss + ((height - self._person_height) * _PX_PER_M).square().sum() * _HEIGHT_WEIGHT
            )
        return loss

    def _prior_loss(self, v: _Variables, t: float, rng: np.random.Generator) -> Tensor:
        """Sum over frames of 1/2 sqrt(1 + SNR^2) |x - x0_hat|^2, x0_hat taken as a constant."""
        raw = torch.cat(
            [(v.joints * torch.from_numpy(_mirror_signs())).flatten(1), v.expression], -1
        )
        x = (raw - torch.from_numpy(self._prior.mean)) / torch.from_numpy(self._prior.std)
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        target = torch.from_numpy(self._prior.denoise(x.detach().numpy(), t, noise))
        weight = 0.5 * float(np.sqrt(1 + SubVP().snr(t) ** 2))
        return weight * (x - target).square().sum()


def _mirror_signs() -> np.ndarray:
    """(52, 3) float32: turns PRIOR_JOINTS angles into the prior's vector, and back."""
    signs = [
        mirror_rotvec(np.ones(3)) if part.mirrored else np.ones(3)
        for part in skeleton.PARTS
        for _ in part.joints
    ]
    return np.stack(signs).astype(np.float32)


def _evidence(observations: Sequence[Observation]) -> _Evidence:
    points = np.stack([observation.points for observation in observations])
    confidence = np.stack([observation.confidence for observation in observations])
    focal = centre = np.zeros((len(observations), 1, 2))
    if observations[0].dim == 2:
        cameras = [observation.camera for observation in observations]
        scale = np.array([_pixel_scale(observation) for observation in observations])[
            :, None, None
        ]
        focal = np.array([[[camera.fx, camera.fy]] for camera in cameras]) * scale
        centre = np.array([[[camera.cx, camera.cy]] for camera in cameras]) * scale
        points = points * scale
    return _Evidence(*(torch.from_numpy(a).float() for a in (points, confidence, focal, centre)))


def _pixel_scale(observation: Observation) -> float:
    """Factor that makes a person 1.7 m tall about 1000 px high, judged by the seen limbs."""
    seen = observation.confidence > 0
    points = observation.points[_LIMBS][seen[_LIMBS]]
    if len(points) < 2:
        return 1.0
    extent = float(np.linalg.norm(points.max(0) - points.min(0)))
    share = 1.0 if seen[_BELOW_HIPS].any() else _UPPER_BODY_SHARE
    return _PERSON_PX * share / max(extent, 1.0)


def _robust(error: Tensor) -> Tensor:
    """Geman-McClure of (..., C) pixel errors, summed over the last axis."""
    squared = error**2
    return (_ROBUST_PX**2 * squared / (_ROBUST_PX**2 + squared)).sum(-1)


def _squared(error: Tensor) -> Tensor:
    """Squares of (..., C) errors, summed over the last axis."""
    return (error**2).sum(-1)


def _hinge_loss(v: _Variables) -> Tensor:
    """Elbows and knees bent the wrong way: sum of exp(s angle)^2."""
    body = v.joints[:, : len(skeleton.PARTS[0].joints)].flatten(1)
    return sum(torch.exp(sign * body[:, index]).square().sum() for index, sign in _HINGES)


def _adam(*variables: Tensor) -> torch.optim.Adam:
    return torch.optim.Adam([value.requires_grad_() for value in variables], lr=_LEARNING_RATE)


def _step(optimiser: torch.optim.Adam, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
