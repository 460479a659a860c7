"""The live fit of one person: predict, linearise, solve, report. Damped Gauss-Newton in a window.

Objective (DESIGN section 5), everything a sum of squares:

    robust data term + w ||x - sg(x0_hat)||^2 per frame + constant-velocity and standstill links
    + betas that barely walk + (known height)
"""

import dataclasses
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np

from dposer_core import evidence, kinematics, skeleton
from dposer_core.cold_start import initial_poses
from dposer_core.config import Config
from dposer_core.elimination import SolveError, StiffError
from dposer_core.invented_hands import InventedHands
from dposer_core.kinematics import (
    BETAS,
    PELVIS,
    PRIOR_ROTATIONS,
    ROOT,
    ROTATIONS,
    Kinematics,
    Posed,
)
from dposer_core.observation import NUM_POINTS, Observation
from dposer_core.sides import Sides
from dposer_core.state import (
    BodyState,
    FitResult,
    FitStats,
    Quality,
    Source,
    Status,
    isotropic,
)
from dposer_core.uncertainty import Forgetting, forget_unseen, size_covariance
from dposer_core.window import Frame, Pose, Smoothness, Window

if TYPE_CHECKING:
    from dposer_core.body_model import BodyTables

_NUM_CANDIDATES = 4  # cold start: placements refined side by side
_CANDIDATE_ITERATIONS = 4
_MAX_ROTATION_STEP = 0.7  # rad per iteration: Gauss-Newton is trusted no further
_MAX_PELVIS_STEP = 0.5  # m
_SETTLING_FRAMES = 3
_WIDENING = 8.0  # of the robust scale at the first iteration of a frame, 1 at the last
_MAX_DISTANCE = 100.0  # m: farther away nobody has keypoints
_CONVERGED = 0.01  # rad and m, rms step of the newest frame
_HANDS = (
    (skeleton.LEFT_HAND_JOINTS, evidence.LEFT_HAND_POINTS),
    (skeleton.RIGHT_HAND_JOINTS, evidence.RIGHT_HAND_POINTS),
)
_RIDGE = (
    0.02  # precision of joint angles (rad^-2) where there is no prior: keeps equations regular
)
# Hidden joints relax to the mean pose: without evidence a one-step denoised pose is a fixed point
# almost anywhere, so a finger would keep for ever the pose it was last seen in.
_HIDDEN_KEEP = 0.8
_HEIGHT_SIGMA = 0.01  # m, of a known person height
_BETAS_PRECISION = 1.0
_BETAS_WALK = 0.05  # per sqrt(s): lets betas settle, but not forget
_FROZEN_PRECISION = 1e6  # of the betas at the time when they freeze, and of their links then on
_EXPRESSION_WALK = 5.0  # per sqrt(s)
_STANDSTILL_ROTATION = 12.0  # rad/s
_STANDSTILL_PELVIS = 4.0  # m/s
_VELOCITY_KEPT = 0.8  # share of the last velocity in the prediction of a new frame
_PREDICTION_TAU = 0.2  # s, decay of extrapolated motion in silence
_SIGMA_GROWTH = 0.5  # m/s, growth of position sigma in silence
_LOST_INLIERS = 0.35  # mean inlier weight below which the fit does not explain the picture
_LOST_FRAMES = 3
_RESTART_GAIN = 0.7  # a restart must cost this much less than the track it replaces
_GOOD_JOINT_ERROR = 0.1  # m, what `confidence` is about
_FIT_STAGES = ('linearise', 'denoise', 'solve')
# Keys of `FitStats.stage_seconds`; `predict` is all of the fit that is not one of its stages:
# evidence, prediction, moving the estimates, first guesses of a cold start.
STAGES = ('predict', *_FIT_STAGES, 'covariance', 'report')


class LivePrior(Protocol):
    """The denoiser as the fitter uses it; see dposer_core.prior.runtime."""

    dim: int
    mean: np.ndarray
    std: np.ndarray

    def denoise(self, x: np.ndarray, t: float) -> np.ndarray:
        """x0_hat (B, dim) of normalised poses x (B, dim) at diffusion time t."""
        ...


class DenoiseRequest(NamedTuple):
    """What a fit waits for; answered by a `Denoised`."""

    x: np.ndarray  # (B, D) float32, normalised
    t: float


class Denoised(NamedTuple):
    """Answer to a `DenoiseRequest`."""

    x_0: np.ndarray  # (B, D)
    seconds: float  # share of the call


_T = TypeVar('_T')
_Stage = Generator[DenoiseRequest, Denoised, _T]  # a piece of a fit that returns a _T
Fit = _Stage[FitResult | None]
"""The fit of one frame of one person, which stops wherever it needs the denoiser."""


def in_lockstep(prior: LivePrior | None, fits: Sequence[Fit]) -> list[FitResult | None]:
    """Run fits side by side, those that wait for the same diffusion time with one call."""
    results: list[FitResult | None] = [None] * len(fits)
    waiting: dict[int, DenoiseRequest] = {}

    def advance(index: int, answer: Denoised | None) -> None:
        waiting.pop(index, None)
        try:
            waiting[index] = fits[index].send(answer)
        except StopIteration as done:
            results[index] = done.value

    for index in range(len(fits)):
        advance(index, None)
    while waiting:
        t = next(iter(waiting.values())).t
        group = [(i, request.x) for i, request in waiting.items() if request.t == t]
        start = time.perf_counter()
        x_0 = prior.denoise(np.concatenate([x for _, x in group]), t)
        seconds = (time.perf_counter() - start) / len(x_0)
        row = 0
        for index, x in group:
            advance(index, Denoised(x_0[row : row + len(x)], seconds * len(x)))
            row += len(x)
    return results


@dataclass
class _Evidence:
    """An observation as the solver needs it, kept with its frame."""

    observation: Observation
    whitening: tuple[np.ndarray | None, ...]  # of each of its parts
    present: np.ndarray  # (133,) bool, in any of them
    camera: np.ndarray  # (4,)
    keep: np.ndarray  # (D,) factor of the prior's target: 1, and less where nothing is seen
    loose: np.ndarray  # (L, 3) tangent axes of joints that no data term ties to others
    target: np.ndarray | None = None  # (D,) x0_hat, the prior's
    inlier: np.ndarray | None = None
    information: np.ndarray | None = None  # (n,) rad^-2, of the data alone, in PRIOR_ROTATIONS
    rms: float = float('nan')  # px (2D) or m, of the points of the first part
    cost_data: float = 0.0
    cost_prior: float = 0.0


class PoseFitter:
    """Tracks one person.

    Args:
        tables: body model.
        prior: whole-body denoiser; None fits without a prior.
        config: all parameters.
        body_id: identity given to the results.
    """

    def __init__(
        self,
        tables: 'BodyTables',
        prior: LivePrior | None,
        config: Config,
        body_id: str = 'p0001',
    ) -> None:
        self.kinematics = Kinematics(tables)
        self.config = config
        self.body_id = body_id
        self._given_prior = prior
        self._prior = prior if config.prior.weight > 0.0 else None
        self._set_prior_statistics()
        rotations = 3 * len(skeleton.PRIOR_JOINTS)
        self._forgetting = Forgetting(
            np.ones(rotations) if prior is None else prior.std[:rotations]
        )
        self._needs_double = False
        self._window = self._new_window()
        self._started_ns = 0
        self._bad_frames = 0
        self._frozen: tuple[int, np.ndarray] | None = None  # stamp of the anchor, betas
        self._given_betas: np.ndarray | None = None
        self._freeze_after: float | None = None  # s, instead of the configured time
        self._hand_seen_ns = [0, 0]
        self._sides = Sides()
        self._hands = InventedHands()
        self._stages: dict[str, float] = {}  # seconds of this frame
        self._others = 0.0  # seconds of this frame that other fits took meanwhile
        self._prior_evals = 0  # of this frame
        self._last: FitResult | None = None
        self._last_velocity = (np.zeros(3), np.zeros((1 + len(skeleton.PRIOR_JOINTS), 3)))

    # --- public ------------------------------------------------------------------------------

    def configure(self, config: Config) -> None:
        """Use other live parameters from the next frame on; the window keeps its size."""
        self.config = config
        self._prior = self._given_prior if config.prior.weight > 0.0 else None
        self._set_prior_statistics()
        smoothness = self._smoothness(config)
        if self._frozen is not None:
            smoothness.walk[BETAS] = self._window.smoothness.walk[BETAS]
        self._window.smoothness = smoothness

    def fix_shape(self, betas: np.ndarray) -> None:
        """Keep these betas (10,) from the next frame on, which starts a new window."""
        self._given_betas = np.array(betas, dtype=float)
        self._restart()

    def calibrate_shape(self, seconds: float) -> None:
        """Estimate the betas anew from the next frame on, and freeze them after `seconds`.

        The window starts anew: what it holds about the shape has the weight of certainty.
        """
        self._given_betas, self._freeze_after = None, seconds
        self._restart()

    @property
    def last(self) -> FitResult | None:
        """The newest result, None before the first."""
        return self._last

    def step(self, observation: Observation, budget_s: float | None = None) -> FitResult | None:
        """Fit one new frame; arguments and result as of `fit`."""
        fit = self.fit(observation, time.perf_counter(), budget_s)
        return in_lockstep(self._prior, [fit])[0]

    def fit(self, observation: Observation, clock: float, budget_s: float | None = None) -> Fit:
        """Fit one new frame, for `in_lockstep`.

        Args:
            observation: newer than the last one.
            clock: `time.perf_counter` when work on the frame began.
            budget_s: stop iterating so long after that; None runs the configured iterations,
                which makes the result a function of the input alone.

        Returns:
            None if there is too little to start on and nothing to predict from.
        """
        self._stages, self._others = dict.fromkeys(STAGES, 0.0), 0.0
        self._prior_evals = 0
        began = self._now()
        observation = self._believable(observation)
        seen = self._evidence(observation)
        if int(seen.present[evidence.BODY_POINTS].sum()) < self.config.track.min_points:
            return self.predict(observation.stamp_ns)
        warm = bool(self._window.frames)
        try:
            iterations, converged = yield from self._fit(
                observation.stamp_ns, seen, warm, clock, budget_s
            )
        except SolveError as error:
            # A prior of little weight is as good as none.
            self._needs_double = self._needs_double or isinstance(error, StiffError)
            self._restart()
            return self.predict(observation.stamp_ns, Quality.HOLD)
        self._freeze_betas(observation.stamp_ns)
        return self._report(seen, warm, iterations, converged, began)

    @property
    def refused_hands(self) -> tuple[bool, bool]:
        """Whether the left and right hand of the newest observation were taken for invented."""
        return self._hands.refused

    def joints_before(self, lag: int) -> np.ndarray:
        """(55, 3) metres: joints `lag` frames before the newest, by all that was seen since.

        The window must hold that frame; later frames are fitted as if nobody had asked.
        """
        place = len(self._window.frames) - 1 - lag
        assert place >= 0, f'{len(self._window.frames)} frames have no frame {lag} before'
        self._window.smooth(place)
        return self._pose(self._window.frames[place].estimate).joints

    def predict(self, stamp_ns: int, quality: Quality = Quality.FILTER_ONLY) -> FitResult | None:
        """The state at `stamp_ns` without evidence: motion dies out, uncertainty grows."""
        if self._last is None:
            return None
        last = self._last.state
        gap = max((stamp_ns - last.stamp_ns) * 1e-9, 0.0)
        moving = min(gap, self.config.occlusion.predict_timeout)
        pose = self._extrapolate(_PREDICTION_TAU * (1.0 - np.exp(-moving / _PREDICTION_TAU)))
        posed = self._pose(pose)
        growth = _SIGMA_GROWTH * gap
        source = last.source.copy()
        source[source != Source.DEFAULT] = Source.PREDICTED
        covariance = last.pelvis_covariance + np.eye(6) * growth**2
        state = self._state(
            stamp_ns, pose, posed, np.zeros_like(last.joint_velocities),
            np.hypot(last.rotation_sigma, 2.0 * growth),
            last.position_covariance + growth**2 * np.eye(3), covariance, source,
        )  # fmt: skip
        return FitResult(
            body_id=self.body_id,
            track_id=self._last.track_id,
            status=Status.PREDICTED,
            quality=quality,
            state=state,
            observed_fraction=0.0,
            confidence=_confidence(state.position_sigma),
            hand_occluded_s=self._hand_occlusion(stamp_ns),
            stats=FitStats(window_frames=len(self._window.frames), warm_started=True),
        )

    # --- one frame ---------------------------------------------------------------------------

    def _fit(
        self, stamp_ns: int, seen: _Evidence, warm: bool, clock: float, budget_s: float | None
    ) -> _Stage[tuple[int, bool]]:
        fit = self.config.fit

        def spent(share: float = 1.0) -> bool:
            return budget_s is not None and time.perf_counter() - clock > share * budget_s

        if warm:
            self._window.append(stamp_ns, self._predicted_pose(stamp_ns), seen, seen.loose)
            iterations = yield from self._iterate(
                fit.max_iterations, fit.relinearise, spent, is_tracking=True
            )
            if self._is_unexplained(seen):
                restarted = yield from self._try_restart(stamp_ns, seen, spent)
                iterations = restarted or iterations
        else:
            iterations = yield from self._cold_start(stamp_ns, seen, spent)
        newest = self._window.frames[-1]
        converged = _step_size(newest.delta) < _CONVERGED
        return iterations, converged

    def _iterate(
        self, count: int, relinearise: int, spent, is_tracking: bool = False
    ) -> _Stage[int]:
        """Up to `count` Gauss-Newton steps; at least one. Returns how many were made.

        A start moves far and asks the prior in every step. Tracking asks once a frame: measured on
        14 clips against asking every time, errors are 1 to 5 % smaller, as later answers come
        from smaller t, and a frame costs a tenth less.
        """
        prior = self.config.prior
        for s in range(count):
            # Older frames are worth one new linearisation a frame, the newest every one.
            first = max(0, len(self._window.frames) - (relinearise if s == 0 else 1))
            # Truncated schedule, PROTOCOLS fact 5: the last step is at t_min.
            t = prior.t_min + (count - s - 1) / count * (prior.t_max - prior.t_min)
            widening = _WIDENING ** ((count - s - 1) / max(count - 1, 1))
            yield from self._linearise(
                self._window.frames[first:], t if s == 0 or not is_tracking else None, widening
            )
            start = self._now()
            self._window.solve(first)
            self._count('solve', start)
            newest = self._window.frames[-1]
            newest.delta = _limited(newest.delta)
            distance = float(np.linalg.norm(newest.at.pelvis))
            if distance > _MAX_DISTANCE:
                raise SolveError(f'the pelvis ran away to {distance:.0f} m')
            if spent() or _step_size(newest.delta) < _CONVERGED:
                break
        # Steps of older frames: those that the next frame relinearises, and one for velocities.
        start = self._now()
        self._window.smooth(max(0, len(self._window.frames) - max(relinearise, 2)))
        self._count('solve', start)
        return s + 1

    def _linearise(
        self, frames: Sequence[Frame], t: float | None, widening: float
    ) -> _Stage[None]:
        """Move each frame to its estimate and build its own terms there.

        `t` is the diffusion time of the prior's target; None keeps the target of the last time.
        `widening` of the robust scale holds for the newest frame only: it starts from a prediction
        that a fast hand leaves far behind, and must not take the true points for outliers.
        """
        for frame in frames:
            frame.at = frame.estimate
            frame.delta = np.zeros_like(frame.delta)
        rotvecs = [kinematics.log_many(frame.at.rotations[1:]) for frame in frames]
        start = self._now()
        if t is not None:
            targets = yield from self._denoised(frames, rotvecs, t)
            for frame, target in zip(frames, targets, strict=True):
                frame.payload.target = frame.payload.keep * target
        start = self._count('denoise', start)
        for frame, rotvec in zip(frames, rotvecs, strict=True):
            frame.hessian[:], frame.gradient[:] = 0.0, 0.0
            self._add_data(frame, widening if frame is self._window.frames[-1] else 1.0)
            frame.payload.information = np.diagonal(frame.hessian)[PRIOR_ROTATIONS].copy()
            self._add_prior(frame, rotvec)
            self._add_shape(frame)
        self._count('linearise', start)

    def _count(self, stage: str, start: float) -> float:
        """Charge the time since `start` to a stage; returns the time now."""
        now = self._now()
        self._stages[stage] += now - start
        return now

    def _now(self) -> float:
        """Seconds on a clock that stands still while other fits run."""
        return time.perf_counter() - self._others

    def _denoised(self, frames, rotvecs, t) -> _Stage[np.ndarray]:
        """x0_hat (B, D), the stop-gradient target of the DPoser term.

        No noise is added to x_t: on five tuning clips with resting fingers fresh noise gave 42 mm
        (2D) where none gave 39 mm, and it let hidden joints wander.
        """
        x = np.stack(
            [
                np.concatenate(
                    [
                        self._sign * rotvec.ravel(),
                        frame.at.coefficients[BETAS.stop - BETAS.start :],
                    ]
                )
                for frame, rotvec in zip(frames, rotvecs, strict=True)
            ]
        )
        if self._prior is None:
            return np.zeros_like(x)
        x = ((x - self._mean) * self._inverse_std).astype(np.float32)
        start = time.perf_counter()
        self._prior_evals += 1
        answer = yield DenoiseRequest(x, t)
        self._others += time.perf_counter() - start - answer.seconds
        return answer.x_0.astype(float)

    def _add_data(self, frame: Frame, widening: float) -> None:
        seen: _Evidence = frame.payload
        posed = self._pose(frame.at)
        seen.cost_data, seen.inlier = 0.0, np.zeros(NUM_POINTS)
        for part, whitening in zip(seen.observation.parts, seen.whitening, strict=True):
            precision = evidence.precision(
                part, self.config.fit, self.config.input.confidence_threshold,
                self._height_px(seen, frame.at),
            )  # fmt: skip
            cost, inlier, _, error = self.kinematics.normal_equations(
                posed, part.points, precision, widening * self.config.fit.robust_scale,
                seen.camera, frame.hessian, frame.gradient, whitening,
            )  # fmt: skip
            seen.cost_data += cost
            np.maximum(seen.inlier, inlier, out=seen.inlier)
            if part is seen.observation:
                seen.rms = _rms(error[precision > 0.0])

    def _add_prior(self, frame: Frame, rotvecs: np.ndarray) -> None:
        joints = rotvecs.size
        seen: _Evidence = frame.payload
        target = seen.target
        seen.cost_prior = kinematics.prior_terms(
            rotvecs, self._mean[:joints], self._inverse_std[:joints], target[:joints],
            self._prior_weight[:joints], self._sign, frame.hessian, frame.gradient,
            PRIOR_ROTATIONS.start,
        )  # fmt: skip
        expression = slice(BETAS.stop, None)
        value = frame.at.coefficients[BETAS.stop - BETAS.start :]
        scale, weight = self._inverse_std[joints:], self._prior_weight[joints:]
        residual = (value - self._mean[joints:]) * scale - target[joints:]
        seen.cost_prior += 0.5 * float(weight @ residual**2)
        frame.gradient[expression] += weight * scale * residual
        np.fill_diagonal(
            frame.hessian[expression, expression],
            np.diagonal(frame.hessian[expression, expression]) + weight * scale**2,
        )

    def _add_shape(self, frame: Frame) -> None:
        """Betas are standard normal, and may have a known height.

        The normal term counts in every frame: what pulls betas away in real pictures is the
        difference between the detector's points and the body's, which no number of frames
        averages out.
        """
        betas = frame.at.coefficients[: skeleton.NUM_BETAS]
        block = frame.hessian[BETAS, BETAS]
        block += np.eye(skeleton.NUM_BETAS) * _BETAS_PRECISION
        frame.gradient[BETAS] += betas * _BETAS_PRECISION
        if self._frozen is not None and frame.stamp_ns == self._frozen[0]:
            block += np.eye(skeleton.NUM_BETAS) * _FROZEN_PRECISION
            frame.gradient[BETAS] += (betas - self._frozen[1]) * _FROZEN_PRECISION
        if self.config.model.person_height > 0.0:
            row = self.kinematics.tables.height_dirs[: skeleton.NUM_BETAS] / _HEIGHT_SIGMA
            residual = self._height(frame.at) - self.config.model.person_height
            block += np.outer(row, row)
            frame.gradient[BETAS] += row * (residual / _HEIGHT_SIGMA)

    # --- starting ----------------------------------------------------------------------------

    def _cold_start(self, stamp_ns: int, seen: _Evidence, spent) -> _Stage[int]:
        """Several placements side by side, the cheapest wins and is refined."""
        weight = np.where(
            seen.present,
            np.square(seen.observation.confidence / evidence.spread(seen.observation)),
            0.0,
        )
        guesses = initial_poses(
            self.kinematics, seen.observation, weight, self._mean_rotations, _NUM_CANDIDATES
        )
        best: tuple[float, Pose] | None = None
        failure: SolveError | None = None
        iterations = 0
        for guess in guesses:
            try:
                iterations += yield from self._start_window(
                    stamp_ns, guess, seen, _CANDIDATE_ITERATIONS, spent
                )
            except SolveError as error:
                failure = error
                continue
            cost = self._cost_of_newest(seen)
            if best is None or cost < best[0]:
                best = (cost, self._window.frames[-1].estimate)
            if spent(0.5):  # the rest is for the refinement
                break
        if best is None:
            assert failure is not None
            raise failure
        count = self.config.fit.cold_iterations
        return iterations + (yield from self._start_window(stamp_ns, best[1], seen, count, spent))

    def _start_window(self, stamp_ns, pose: Pose, seen: _Evidence, count, spent) -> _Stage[int]:
        self._restart()
        self._started_ns = stamp_ns
        if self._given_betas is not None:
            pose = self._with_betas(pose, self._given_betas)
            self._freeze_at(stamp_ns, self._given_betas)
        self._window.append(stamp_ns, pose, seen, seen.loose)
        return (yield from self._iterate(count, 1, spent))

    def _restart(self) -> None:
        self._window = self._new_window()
        self._frozen = None
        self._bad_frames = 0
        self._forgetting.reset()

    def _new_window(self) -> Window:
        """An empty window; the prior keeps its equations regular enough for float32."""
        is_regular = self._prior is not None and not self._needs_double
        dtype = np.float32 if is_regular else np.float64
        return Window(self.config.fit.window, self._smoothness(self.config), dtype)

    def _is_unexplained(self, seen: _Evidence) -> bool:
        weights = seen.inlier[seen.present]
        bad = bool(weights.size) and float(weights.mean()) < _LOST_INLIERS
        self._bad_frames = self._bad_frames + 1 if bad else 0
        return self._bad_frames >= _LOST_FRAMES

    def _try_restart(self, stamp_ns: int, seen: _Evidence, spent) -> _Stage[int]:
        """A cold start beside a track that no longer explains what is seen; the cheaper stays."""
        kept, cost = self._window, self._cost_of_newest(seen)
        started, frozen = self._started_ns, self._frozen
        fresh = dataclasses.replace(seen, target=None, inlier=None)
        iterations = yield from self._cold_start(stamp_ns, fresh, spent)
        if self._cost_of_newest(fresh) < _RESTART_GAIN * cost:
            return iterations
        self._window, self._started_ns, self._frozen = kept, started, frozen
        self._bad_frames = 0
        return 0

    def _cost_of_newest(self, seen: _Evidence) -> float:
        return seen.cost_data + seen.cost_prior

    def _believable(self, observation: Observation) -> Observation:
        """The observation, with left and right as the track knows them and no invented hands."""
        if not self._window.frames:
            return observation
        pose = self._predicted_pose(observation.stamp_ns)
        expected, height = self.kinematics.landmarks(self._pose(pose)), self._height(pose)
        if observation.dim == 2:
            height *= observation.camera.fy / max(pose.pelvis[2], 0.2)
            expected = observation.camera.project(expected)
        observation = self._sides.corrected(observation, expected, height)
        return self._hands.without(observation, expected, height)

    def _predicted_pose(self, stamp_ns: int) -> Pose:
        """Constant velocity, damped, from the two newest frames."""
        newest = self._window.frames[-1]
        dt = (stamp_ns - newest.stamp_ns) * 1e-9
        return self._extrapolate(_VELOCITY_KEPT * min(dt, _PREDICTION_TAU))

    def _extrapolate(self, seconds: float) -> Pose:
        pose = self._window.frames[-1].estimate if self._window.frames else self._last_pose
        pelvis_velocity, angular = self._last_velocity
        return Pose(
            pose.pelvis + seconds * pelvis_velocity,
            kinematics.perturb(pose.rotations, seconds * angular),
            pose.coefficients,
        )

    # --- reporting ---------------------------------------------------------------------------

    def _report(
        self, seen: _Evidence, warm: bool, iterations: int, converged: bool, began: float
    ) -> FitResult:
        newest = self._window.frames[-1]
        pose, stamp_ns = newest.estimate, newest.stamp_ns
        start = fitted = self._now()
        covariance = self._window.covariance()
        posed = self._pose(pose)
        if self._prior is not None:
            counted = evidence.counted(seen.present, seen.inlier)
            forget_unseen(covariance, counted, posed, self._forgetting, stamp_ns, seen.information)
        start = self._count('covariance', start)
        velocities = self._velocities(pose, posed)
        sources = evidence.joint_sources(seen.present, seen.inlier)
        of_joints = self.kinematics.joint_covariance(posed, covariance)
        confidence = _confidence(isotropic(of_joints))
        turn = np.eye(6)
        turn[3:, 3:] = posed.rotations[0]
        of_pelvis = turn @ covariance[:6, :6] @ turn.T
        if all(part.dim == 2 for part in seen.observation.parts):
            is_known = self.config.model.person_height > 0.0 or self._given_betas is not None
            of_size = size_covariance(posed.joints, is_known)
            of_joints += of_size
            of_pelvis[:3, :3] += of_size[0]
        state = self._state(
            stamp_ns, pose, posed, velocities, self._rotation_sigma(covariance), of_joints,
            of_pelvis, sources,
        )  # fmt: skip
        self._count('report', start)
        self._stages['predict'] = fitted - began - sum(self._stages[s] for s in _FIT_STAGES)
        for hand, visible in enumerate(evidence.hands_seen(seen.present)):
            if visible or self._hand_seen_ns[hand] == 0:
                self._hand_seen_ns[hand] = stamp_ns
        is_2d = seen.observation.dim == 2
        fraction = evidence.observed_fraction(sources)
        self._last_pose = pose
        self._last = FitResult(
            body_id=self.body_id,
            track_id=seen.observation.track_id,
            status=self._status(sources),
            quality=Quality.FULL
            if converged or iterations >= self.config.fit.max_iterations
            else Quality.REDUCED,
            state=state,
            observed_fraction=fraction,
            confidence=confidence,
            hand_occluded_s=self._hand_occlusion(stamp_ns),
            stats=FitStats(
                window_frames=len(self._window.frames),
                iterations=iterations,
                prior_evals=self._prior_evals,
                stage_seconds=self._stages,
                loss_data=seen.cost_data,
                loss_prior=seen.cost_prior,
                reprojection_rms_px=seen.rms if is_2d else float('nan'),
                residual_rms_m=float('nan') if is_2d else seen.rms,
                warm_started=warm,
                converged=converged,
                sides_exchanged=self._sides.is_exchanged,
            ),
        )
        return self._last

    def _status(self, sources: np.ndarray) -> Status:
        if len(self._window.frames) < _SETTLING_FRAMES:
            return Status.INITIALISING
        missing = (sources[skeleton.BODY_JOINTS] == Source.COMPLETED).any()
        return Status.PARTIAL if missing or self._bad_frames else Status.TRACKING

    def _state(
        self, stamp_ns, pose: Pose, posed: Posed, velocities, rotation_sigma, position_covariance,
        pelvis_covariance, source,
    ) -> BodyState:  # fmt: skip
        rotvec = np.zeros((skeleton.NUM_JOINTS, 3))
        rotvec[[0, *skeleton.PRIOR_JOINTS]] = kinematics.log_many(pose.rotations)
        return BodyState(
            stamp_ns=stamp_ns,
            pose_rotvec=rotvec,
            transl=pose.pelvis - posed.rest_pelvis,
            betas=pose.coefficients[: skeleton.NUM_BETAS].copy(),
            expression=pose.coefficients[skeleton.NUM_BETAS :].copy(),
            joints=posed.joints,
            landmarks=self.kinematics.landmarks(posed),
            joint_velocities=velocities,
            rotation_sigma=rotation_sigma,
            position_covariance=position_covariance,
            pelvis_covariance=pelvis_covariance,
            source=source,
            betas_frozen=self._frozen is not None,
        )

    def _velocities(self, pose: Pose, posed: Posed) -> np.ndarray:
        """(55, 3) m/s from the two newest frames; also remembered for prediction."""
        if len(self._window.frames) < 2:
            self._last_velocity = (np.zeros(3), np.zeros((len(pose.rotations), 3)))
            return np.zeros((skeleton.NUM_JOINTS, 3))
        before = self._window.frames[-2]
        dt = (self._window.frames[-1].stamp_ns - before.stamp_ns) * 1e-9
        earlier = before.estimate
        self._last_velocity = (
            (pose.pelvis - earlier.pelvis) / dt,
            kinematics.relative_log(earlier.rotations, pose.rotations) / dt,
        )
        return (posed.joints - self._pose(earlier).joints) / dt

    def _rotation_sigma(self, covariance: np.ndarray) -> np.ndarray:
        sigma = np.zeros(skeleton.NUM_JOINTS)
        variance = np.diagonal(covariance)[ROTATIONS].reshape(-1, 3).mean(axis=1)
        sigma[[0, *skeleton.PRIOR_JOINTS]] = np.sqrt(np.maximum(variance, 0.0))
        return sigma

    def _hand_occlusion(self, stamp_ns: int) -> tuple[float, float]:
        left, right = (max(stamp_ns - ns, 0) * 1e-9 for ns in self._hand_seen_ns)
        return left, right

    # --- pieces of the model ------------------------------------------------------------------

    def _evidence(self, observation: Observation) -> _Evidence:
        camera = np.zeros(4)
        if observation.dim == 2:
            c = observation.camera
            camera[:] = c.fx, c.fy, c.cx, c.cy
        parts, threshold = observation.parts, max(self.config.input.confidence_threshold, 1e-6)
        present = np.any([part.confidence >= threshold for part in parts], axis=0)
        sources = evidence.joint_sources(present, np.ones(len(present)))
        hidden = np.repeat(sources[skeleton.PRIOR_JOINTS] == Source.COMPLETED, 3)
        keep = np.ones(len(self._mean))
        keep[: len(hidden)][hidden] = _HIDDEN_KEEP
        whitening = tuple(evidence.whitening(part) for part in parts)
        return _Evidence(observation, whitening, present, camera, keep, self._loose(present))

    def _loose(self, present: np.ndarray) -> np.ndarray:
        """(L, 3) tangent axes of the fingers of hands of which nothing is seen."""
        axes = [
            self.kinematics.joint_dof[joints, None] + np.arange(3)
            for joints, points in _HANDS
            if not present[points].any()
        ]
        return np.concatenate([np.zeros((0, 3), dtype=np.int64), *axes])

    def _pose(self, pose: Pose) -> Posed:
        local = np.empty((skeleton.NUM_JOINTS, 3, 3))
        local[skeleton.EYE_JOINTS] = np.eye(3)
        local[0] = pose.rotations[0]
        local[skeleton.PRIOR_JOINTS] = pose.rotations[1:]
        return self.kinematics.pose(pose.pelvis, local, pose.coefficients)

    def _height(self, pose: Pose) -> float:
        tables = self.kinematics.tables
        return float(
            tables.height_template
            + tables.height_dirs[: skeleton.NUM_BETAS] @ pose.coefficients[: skeleton.NUM_BETAS]
        )

    def _height_px(self, seen: _Evidence, pose: Pose) -> float:
        """Height of the person in the image, if it stood upright there."""
        return float(seen.camera[1] * self._height(pose) / max(pose.pelvis[2], 0.2))

    def _freeze_betas(self, stamp_ns: int) -> None:
        """After enough evidence an anchor on the newest frame holds the betas for good."""
        configured = self.config.fit.freeze_betas_after
        after = configured if self._freeze_after is None else self._freeze_after
        if self._frozen is None and (stamp_ns - self._started_ns) * 1e-9 >= after:
            self._freeze_at(
                stamp_ns, self._window.frames[-1].estimate.coefficients[: skeleton.NUM_BETAS]
            )

    def _freeze_at(self, stamp_ns: int, betas: np.ndarray) -> None:
        self._frozen = (stamp_ns, betas.copy())
        self._window.smoothness.walk[BETAS] = _FROZEN_PRECISION**-0.5

    def _with_betas(self, pose: Pose, betas: np.ndarray) -> Pose:
        coefficients = pose.coefficients.copy()
        coefficients[: skeleton.NUM_BETAS] = betas
        return Pose(pose.pelvis, pose.rotations, coefficients)

    def _set_prior_statistics(self) -> None:
        joints, expression = 3 * len(skeleton.PRIOR_JOINTS), self.kinematics.tables.num_expression
        signs = [
            skeleton.MIRROR_SIGN if part.mirrored else np.ones(3)
            for part in skeleton.PARTS
            for _ in part.joints
        ]
        self._sign = np.concatenate(signs)
        size = joints + expression
        if self._prior is None:
            self._mean, self._inverse_std = np.zeros(size), np.ones(size)
            self._prior_weight = np.full(size, _RIDGE)
            self._prior_weight[joints:] = 1.0  # expression coefficients are unit normal
        else:
            assert self._prior.dim == size, f'prior has {self._prior.dim} dimensions, body {size}'
            self._mean = self._prior.mean.astype(float)
            self._inverse_std = 1.0 / self._prior.std.astype(float)
            self._prior_weight = np.full(size, self.config.prior.weight)
        mean_rotvec = (self._sign * self._mean[:joints]).reshape(-1, 3)
        self._mean_rotations = kinematics.exp_many(np.ascontiguousarray(mean_rotvec))

    def _smoothness(self, config: Config) -> Smoothness:
        n, fit = self.kinematics.num_dof, config.fit
        acceleration, velocity, walk = (np.full(n, np.inf) for _ in range(3))
        acceleration[PELVIS] = fit.acceleration_root
        acceleration[ROOT] = fit.acceleration_body
        acceleration[PRIOR_ROTATIONS] = fit.acceleration_body
        for index, joint in enumerate(skeleton.PRIOR_JOINTS):
            if joint >= skeleton.LEFT_HAND_JOINTS.start:
                start = PRIOR_ROTATIONS.start + 3 * index
                acceleration[start : start + 3] = fit.acceleration_hand
        velocity[PELVIS] = _STANDSTILL_PELVIS
        velocity[ROTATIONS] = _STANDSTILL_ROTATION
        walk[BETAS] = _BETAS_WALK
        walk[BETAS.stop :] = _EXPRESSION_WALK
        return Smoothness(acceleration, velocity, walk)


def _limited(delta: np.ndarray) -> np.ndarray:
    """`delta` with no joint turned, and the pelvis moved, further than Gauss-Newton is trusted."""
    delta = delta.copy()
    turns = delta[ROTATIONS].reshape(-1, 3)
    angles = np.linalg.norm(turns, axis=1, keepdims=True)
    turns *= np.minimum(1.0, _MAX_ROTATION_STEP / np.maximum(angles, 1e-12))
    distance = float(np.linalg.norm(delta[PELVIS]))
    delta[PELVIS] *= min(1.0, _MAX_PELVIS_STEP / max(distance, 1e-12))
    return delta


def _rms(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(errors**2))) if errors.size else float('nan')


def _step_size(delta: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(delta[: ROTATIONS.stop]))))


def _confidence(position_sigma: np.ndarray) -> float:
    """Probability that a body joint is within 100 mm, for an isotropic error of that sigma."""
    sigma = float(np.mean(position_sigma[: skeleton.JAW_JOINT]))
    return float(1.0 - np.exp(-0.5 * (_GOOD_JOINT_ERROR / max(sigma, 1e-6)) ** 2))
