"""The sliding window: a block-banded Gauss-Newton problem over the newest frames.

Each frame has its own terms (data, prior); links tie neighbours (constant velocity, standstill,
constant shape), so the normal equations are block-pentadiagonal with diagonal links. Frames are
eliminated oldest first. What follows from that is the whole design:

- A frame is factorised again only when it was relinearised or when a link of a newer frame
  changed its block, which reaches two frames back. So the cost of a step does not depend on the
  length of the window.
- A frame that leaves has already been eliminated, and its factor is all that later frames need
  of it: nothing is forgotten and nothing is computed for it.
- What is left of the newest frame's block after elimination is its marginal information, so the
  covariance costs one inverse.
- The newest frame's step needs no back-substitution; that of older ones is made on request
  (`Window.smooth`).

A frame's terms are linear around its linearisation point `at`; its estimate is `at` (+) `delta`.
"""

from dataclasses import dataclass, field

import numpy as np

from dposer_core import kinematics
from dposer_core.elimination import Loose, Matrices, SolveError, Terms, Tied
from dposer_core.kinematics import PELVIS, ROTATIONS


@dataclass(frozen=True)
class Pose:
    """A point of the state space of one frame."""

    pelvis: np.ndarray  # (3,) m, output frame
    rotations: np.ndarray  # (53, 3, 3) root, then PRIOR_JOINTS, parent-relative
    coefficients: np.ndarray  # (10 + E,) betas, expression

    def plus(self, delta: np.ndarray) -> 'Pose':
        """This pose moved by a tangent vector (num_dof,)."""
        return Pose(
            self.pelvis + delta[PELVIS],
            kinematics.perturb(self.rotations, delta[ROTATIONS].reshape(-1, 3)),
            self.coefficients + delta[ROTATIONS.stop :],
        )

    def minus(self, base: 'Pose') -> np.ndarray:
        """Tangent vector (num_dof,) that leads from `base` to this pose."""
        return np.concatenate(
            [
                self.pelvis - base.pelvis,
                kinematics.relative_log(base.rotations, self.rotations).ravel(),
                self.coefficients - base.coefficients,
            ]
        )


@dataclass(frozen=True)
class Smoothness:
    """Standard deviations (num_dof,) of the links between neighbours."""

    acceleration: np.ndarray  # change of velocity per second; inf where none is expected
    velocity: np.ndarray  # distance per second of a standstill; inf for none
    walk: np.ndarray  # random walk, distance per sqrt(second); inf for none


@dataclass
class _Link:
    """Whitened terms that tie a frame to the one (`v`) and two (`c`) before it; all (num_dof,)."""

    c0: np.ndarray
    c1: np.ndarray
    c2: np.ndarray
    v: np.ndarray
    # At the linearisation points: the way from the frame before, and the residuals.
    step: np.ndarray = field(default_factory=lambda: np.zeros(0))
    r_acceleration: np.ndarray = field(default_factory=lambda: np.zeros(0))
    r_velocity: np.ndarray = field(default_factory=lambda: np.zeros(0))


@dataclass
class Frame:
    """One time in the window."""

    stamp_ns: int
    at: Pose
    delta: np.ndarray
    hessian: np.ndarray  # (num_dof, num_dof) lower triangle, own terms
    gradient: np.ndarray  # (num_dof,)
    payload: object = None  # what the caller needs to linearise again (the observation)
    link: _Link | None = None
    received: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(num_dof,) gradient from frames that are forgotten."""

    @property
    def estimate(self) -> Pose:
        """`at` moved by `delta`."""
        return self.at.plus(self.delta)


class Window:
    """Frames in time order and the solver over them.

    Args:
        size: most frames kept, at least 3.
        smoothness: links between neighbours.
        dtype: of the factorisation. float32 halves its time; terms, gradients and steps are
            float64 either way, so rounding only makes a step of Gauss-Newton a little inexact.
    """

    def __init__(self, size: int, smoothness: Smoothness, dtype: type = np.float32) -> None:
        self.size = size
        self._dtype = dtype
        self.smoothness = smoothness
        self._all: list[Frame] = []  # the window, and before it the two frames that left last
        self._num_current = 0  # leading frames of `_all` whose factors are up to date
        self._hessians = Matrices(len(smoothness.walk), np.float64)
        self._tied = Tied(np.zeros(0, dtype=np.int64), dtype)
        self._loose = Loose(np.zeros((0, 3), dtype=np.int64))

    @property
    def frames(self) -> list[Frame]:
        """The frames of the window, oldest first."""
        return self._all[-self.size :]

    def append(
        self, stamp_ns: int, at: Pose, payload: object, loose: np.ndarray | None = None
    ) -> Frame:
        """Add the newest frame; the oldest leaves when the window is full.

        Args:
            stamp_ns: later than that of the frame before.
            at: linearisation point.
            payload: what the caller needs to linearise again.
            loose: (L, 3) degrees of freedom of joints that no term of this frame ties to anything
                else. A joint stays loose until a frame ties it.
        """
        loose = np.zeros((0, 3), dtype=np.int64) if loose is None else loose
        if not self._all:
            others = np.delete(np.arange(len(self.smoothness.walk)), loose.ravel())
            self._tied, self._loose = Tied(others, self._dtype), Loose(loose)
        else:
            self._tie(~np.isin(self._loose.dofs[:, 0], loose[:, 0]))
        if len(self._all) == self.size + 2:
            self._forget_oldest()
        # The links of a new frame change the blocks of the two before it.
        self._num_current = min(self._num_current, max(len(self._all) - 2, 0))
        n = len(self.smoothness.walk)
        frame = Frame(
            stamp_ns, at, np.zeros(n), self._hessians.take(), np.zeros(n), payload,
            received=np.zeros(n),
        )  # fmt: skip
        frame.hessian[:] = 0.0
        self._all.append(frame)
        for system in self._systems:
            system.append()
        if len(self._all) > 1:
            frame.link = self._new_link()
        return frame

    def solve(self, first: int) -> float:
        """One Gauss-Newton step of the newest frame; those from `first` on were relinearised.

        Returns:
            The temporal cost at the linearisation point of the frames from `first` on.

        Raises:
            SolveError: the equations cannot be solved; the frames keep their deltas.
        """
        first += len(self._all) - len(self.frames)
        cost = sum(self._relink(k) for k in range(max(first, 1), len(self._all)))
        # A link's coefficients never change, so moving a frame leaves the blocks of older ones,
        # and their factors, as they are; only gradients change.
        for k in range(min(first, self._num_current), len(self._all)):
            terms = self._terms(k)
            for system in self._systems:
                system.eliminate(k, terms)
        self._num_current = len(self._all)
        for k in range(max(first - 2, 0), len(self._all)):
            gradient = self._gradient(k) + self._all[k].received
            for system in self._systems:
                system.forward(k, gradient)
        step = np.empty(len(self.smoothness.walk))
        for system in self._systems:
            step[system.dofs] = system.newest_step
        if not np.isfinite(step).all():
            raise SolveError('the step is not finite')
        self._all[-1].delta = step
        return cost

    def smooth(self, first: int = 0) -> None:
        """Update the steps of the frames from `first` on to what the newest one has taught."""
        first += len(self._all) - len(self.frames)
        for k in range(len(self._all) - 2, first - 1, -1):
            later = [frame.delta for frame in self._all[k + 1 : k + 3]]
            delta = np.empty_like(later[0])
            for system in self._systems:
                delta[system.dofs] = system.back(k, later)
            self._all[k].delta = delta

    def covariance(self) -> np.ndarray:
        """(num_dof, num_dof) marginal covariance of the newest frame."""
        covariance = np.zeros((len(self.smoothness.walk),) * 2)
        for system in self._systems:
            system.add_covariance(covariance)
        return covariance

    # --- systems -----------------------------------------------------------------------------

    @property
    def _systems(self) -> tuple[Tied | Loose, ...]:
        return (self._tied, self._loose) if len(self._loose.dofs) else (self._tied,)

    def _tie(self, joints: np.ndarray) -> None:
        """Loose joints (bool) that a new frame ties."""
        if joints.any():
            self._tied.absorb(self._loose, joints)
            self._loose = self._loose.without(joints)

    def _forget_oldest(self) -> None:
        frame = self._all.pop(0)
        for system in self._systems:
            system.forget_oldest(self._all[0].received, self._all[1].received)
        self._hessians.give(frame.hessian)
        self._num_current -= 1

    # --- links -------------------------------------------------------------------------------

    def _new_link(self) -> _Link:
        """Ties the newest frame to the one or two before it."""
        stamps = [frame.stamp_ns for frame in self._all[-3:]]
        dt = (stamps[-1] - stamps[-2]) * 1e-9
        v = 1.0 / np.minimum(self.smoothness.velocity * dt, self.smoothness.walk * np.sqrt(dt))
        if len(stamps) < 3:
            zero = np.zeros_like(v)
            return _Link(zero, zero, zero, v)
        dt_before = (stamps[-2] - stamps[-3]) * 1e-9
        scale = 1.0 / (self.smoothness.acceleration * 0.5 * (dt + dt_before))
        c0, c2 = scale / dt_before, scale / dt
        return _Link(c0, -(c0 + c2), c2, v)

    def _relink(self, k: int) -> float:
        """Residuals of the link of frame k at the linearisation points; returns its cost."""
        link = self._all[k].link
        link.step = self._all[k].at.minus(self._all[k - 1].at)
        link.r_velocity = link.v * link.step
        link.r_acceleration = link.c2 * link.step
        if k >= 2:
            link.r_acceleration -= link.c0 * self._all[k - 1].link.step
        return 0.5 * float(
            link.r_acceleration @ link.r_acceleration + link.r_velocity @ link.r_velocity
        )

    def _terms(self, k: int) -> Terms:
        """Of frame k, with what links add."""
        own, next_, second = (np.zeros(len(self.smoothness.walk)) for _ in range(3))
        links = [frame.link for frame in self._all[k : k + 3]]
        if links[0] is not None:
            own += links[0].c2 ** 2 + links[0].v ** 2
        if len(links) > 1:
            own += links[1].c1 ** 2 + links[1].v ** 2
            next_ += links[1].c2 * links[1].c1 - links[1].v ** 2
        if len(links) > 2:
            own += links[2].c0 ** 2
            next_ += links[2].c1 * links[2].c0
            second += links[2].c2 * links[2].c0
        return Terms(self._all[k].hessian, own, next_, second)

    def _gradient(self, k: int) -> np.ndarray:
        """(n,) of frame k, its own terms and its links'."""
        gradient = self._all[k].gradient.copy()
        links = [frame.link for frame in self._all[k : k + 3]]
        if links[0] is not None:
            gradient += links[0].c2 * links[0].r_acceleration + links[0].v * links[0].r_velocity
        if len(links) > 1:
            gradient += links[1].c1 * links[1].r_acceleration - links[1].v * links[1].r_velocity
        if len(links) > 2:
            gradient += links[2].c0 * links[2].r_acceleration
        return gradient
