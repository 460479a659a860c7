"""The sliding window: a block-banded Gauss-Newton problem over the newest frames.

Each frame has its own terms (data, prior); links tie neighbours (constant velocity, standstill,
constant shape), so the normal equations are block-pentadiagonal with diagonal links. Frames are
eliminated oldest first. Three consequences, which are the whole design:

- Cost is linear in the window, and only frames from the first relinearised one on are factorised
  again; the factors of older ones are kept.
- A frame that leaves has already been eliminated: its Schur complement *is* the prior on the two
  frames after it, nothing is forgotten and nothing is computed for it.
- What is left of the newest frame's block after elimination is its marginal information, so the
  covariance costs one inverse.

A frame's terms are linear around its linearisation point `at`; its estimate is `at` (+) `delta`.
"""

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from scipy.linalg import lapack

from dposer_core import kinematics
from dposer_core.errors import DPoserError
from dposer_core.kinematics import PELVIS, ROTATIONS


class SolveError(DPoserError):
    """The normal equations are not positive definite or not finite."""


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
    # Residuals at the linearisation points.
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
    factor: '_Factor | None' = None

    @property
    def estimate(self) -> Pose:
        """`at` moved by `delta`."""
        return self.at.plus(self.delta)


@dataclass
class _Factor:
    """A frame's row of the block-pentadiagonal system once older frames are eliminated.

    The coupling to the second next frame stays diagonal: eliminating a frame only fills in
    between its two successors. So inverting the block and two products do the whole step.
    """

    inverse: np.ndarray  # P = D_k^-1, (n, n)
    to_next: np.ndarray  # B_{k+1,k}, (n, n)
    to_second: np.ndarray  # diagonal of B_{k+2,k}, (n,)
    gain: np.ndarray  # P B_{k+1,k}^T


@dataclass
class _Marginal:
    """Information on the two oldest frames from all that have left."""

    h00: np.ndarray
    h10: np.ndarray
    h11: np.ndarray
    g0: np.ndarray
    g1: np.ndarray
    anchors: tuple[Pose, Pose] = field(repr=False)


def _add_diagonal(matrix: np.ndarray, values: np.ndarray) -> None:
    np.einsum('ii->i', matrix)[...] += values


@njit(cache=True)
def _mirror_lower(matrix: np.ndarray) -> None:
    """Copy the lower triangle of `matrix` (n, n) onto the upper, in place."""
    for i in range(matrix.shape[0]):
        for j in range(i):
            matrix[j, i] = matrix[i, j]


class Window:
    """Frames in time order and the solver over them.

    Args:
        size: most frames kept, at least 3.
        smoothness: links between neighbours.
    """

    def __init__(self, size: int, smoothness: Smoothness) -> None:
        self.size = size
        self.smoothness = smoothness
        self.frames: list[Frame] = []
        self._marginal: _Marginal | None = None
        self._num_current = 0  # leading frames whose factors are up to date

    def append(self, stamp_ns: int, at: Pose, payload: object) -> Frame:
        """Add the newest frame; the oldest leaves when the window is full."""
        if len(self.frames) == self.size:
            self._drop_oldest()
        # The links of a new frame change the blocks of the two before it.
        self._num_current = min(self._num_current, max(len(self.frames) - 2, 0))
        n = len(self.smoothness.walk)
        frame = Frame(stamp_ns, at, np.zeros(n), np.zeros((n, n)), np.zeros(n), payload)
        self.frames.append(frame)
        if len(self.frames) > 1:
            frame.link = self._new_link()
        return frame

    def solve(self, first: int) -> float:
        """One Gauss-Newton step of all frames; those from `first` on were relinearised.

        Returns:
            The temporal cost at the linearisation point of the frames from `first` on.

        Raises:
            SolveError: the equations cannot be solved; the frames keep their deltas.
        """
        cost = sum(self._relink(k) for k in range(max(first, 1), len(self.frames)))
        # A link's coefficients never change, so moving a frame leaves the blocks of older ones,
        # and their factors, as they are; only gradients change.
        for k in range(min(first, self._num_current), len(self.frames)):
            self._eliminate(k)
        self._num_current = len(self.frames)
        gradients = self._gradients()
        solution = self._substitute(gradients)
        for frame, delta in zip(self.frames, solution, strict=True):
            frame.delta = delta
        return cost

    def covariance(self) -> np.ndarray:
        """(num_dof, num_dof) marginal covariance of the newest frame."""
        return self.frames[-1].factor.inverse

    # --- links -------------------------------------------------------------------------------

    def _new_link(self) -> _Link:
        """Ties the newest frame to the one or two before it."""
        stamps = [frame.stamp_ns for frame in self.frames[-3:]]
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
        link = self.frames[k].link
        if link is None:  # its information is in the marginal
            return 0.0
        step = self.frames[k].at.minus(self.frames[k - 1].at)
        link.r_velocity = link.v * step
        link.r_acceleration = np.zeros_like(step)
        if k >= 2:
            before = self.frames[k - 1].at.minus(self.frames[k - 2].at)
            link.r_acceleration = link.c2 * step - link.c0 * before
        return 0.5 * float(
            link.r_acceleration @ link.r_acceleration + link.r_velocity @ link.r_velocity
        )

    # --- elimination -------------------------------------------------------------------------

    def _blocks(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """D_k, B_{k+1,k} and the diagonal of B_{k+2,k} before elimination of older frames."""
        count = len(self.frames)
        own = self.frames[k].hessian.copy()
        _mirror_lower(own)
        next_, second = np.zeros_like(own), np.zeros(len(own))
        marginal = self._marginal
        if marginal is not None and k == 0:
            own += marginal.h00
            next_ += marginal.h10
        if marginal is not None and k == 1:
            own += marginal.h11
        if (link := self.frames[k].link) is not None:
            _add_diagonal(own, link.c2**2 + link.v**2)
        if k + 1 < count and (link := self.frames[k + 1].link) is not None:
            _add_diagonal(own, link.c1**2 + link.v**2)
            _add_diagonal(next_, link.c2 * link.c1 - link.v**2)
        if k + 2 < count and (link := self.frames[k + 2].link) is not None:
            _add_diagonal(own, link.c0**2)
            _add_diagonal(next_, link.c1 * link.c0)
            second += link.c2 * link.c0
        return own, next_, second

    def _eliminate(self, k: int) -> None:
        own, next_, second = self._blocks(k)
        if k >= 1:
            older = self.frames[k - 1].factor
            own -= older.to_next @ older.gain
            next_ -= older.to_second[:, None] * older.gain
        if k >= 2:
            older = self.frames[k - 2].factor
            own -= (older.to_second[:, None] * older.to_second) * older.inverse
        cholesky, status = lapack.dpotrf(own.T, lower=0, clean=0, overwrite_a=1)
        if status != 0 or not np.isfinite(cholesky[-1, -1]):
            raise SolveError(f'normal equations of frame {k} are not positive definite')
        inverse = lapack.dpotri(cholesky, lower=0, overwrite_c=1)[0].T
        _mirror_lower(inverse)
        gain = inverse @ next_.T if k + 1 < len(self.frames) else next_
        self.frames[k].factor = _Factor(inverse, next_, second, gain)

    def _gradients(self) -> list[np.ndarray]:
        gradients = [frame.gradient.copy() for frame in self.frames]
        for k, frame in enumerate(self.frames):
            if (link := frame.link) is None:
                continue
            gradients[k] += link.c2 * link.r_acceleration + link.v * link.r_velocity
            gradients[k - 1] += link.c1 * link.r_acceleration - link.v * link.r_velocity
            if k >= 2:
                gradients[k - 2] += link.c0 * link.r_acceleration
        if (marginal := self._marginal) is not None:
            moved = [f.at.minus(a) for f, a in zip(self.frames, marginal.anchors, strict=False)]
            gradients[0] += marginal.g0 + marginal.h00 @ moved[0] + marginal.h10.T @ moved[1]
            gradients[1] += marginal.g1 + marginal.h10 @ moved[0] + marginal.h11 @ moved[1]
        return gradients

    def _forward(self, gradients: list[np.ndarray]) -> list[np.ndarray]:
        """u_k = P_k h_k, h_k the gradient of frame k with older frames eliminated."""
        us: list[np.ndarray] = []
        for k, frame in enumerate(self.frames):
            value = gradients[k]
            if k >= 1:
                value = value - self.frames[k - 1].factor.to_next @ us[k - 1]
            if k >= 2:
                value = value - self.frames[k - 2].factor.to_second * us[k - 2]
            us.append(frame.factor.inverse @ value)
        return us

    def _substitute(self, gradients: list[np.ndarray]) -> list[np.ndarray]:
        deltas = [-u for u in self._forward(gradients)]
        count = len(self.frames)
        for k in range(count - 2, -1, -1):
            factor = self.frames[k].factor
            deltas[k] -= factor.gain @ deltas[k + 1]
            if k + 2 < count:
                deltas[k] -= factor.inverse @ (factor.to_second * deltas[k + 2])
        if not all(np.isfinite(d).all() for d in deltas):
            raise SolveError('the step is not finite')
        return deltas

    # --- marginalisation ---------------------------------------------------------------------

    def _drop_oldest(self) -> None:
        """The oldest frame leaves; its Schur complement becomes the prior on the next two."""
        factor = self.frames[0].factor
        u = self._forward(self._gradients())[0]
        first, second = self.frames[1], self.frames[2]
        n = len(u)
        h00, h10, h11 = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
        g0, g1 = np.zeros(n), np.zeros(n)
        if (marginal := self._marginal) is not None:
            moved = [f.at.minus(a) for f, a in zip(self.frames, marginal.anchors, strict=False)]
            h00 += marginal.h11
            g0 += marginal.g1 + marginal.h10 @ moved[0] + marginal.h11 @ moved[1]
        if (link := first.link) is not None:
            _add_diagonal(h00, link.c2**2 + link.v**2)
            g0 += link.c2 * link.r_acceleration + link.v * link.r_velocity
        link = second.link
        _add_diagonal(h00, link.c1**2 + link.v**2)
        _add_diagonal(h10, link.c2 * link.c1 - link.v**2)
        _add_diagonal(h11, link.c2**2 + link.v**2)
        g0 += link.c1 * link.r_acceleration - link.v * link.r_velocity
        g1 += link.c2 * link.r_acceleration + link.v * link.r_velocity
        h00 -= factor.to_next @ factor.gain
        h10 -= factor.to_second[:, None] * factor.gain
        h11 -= (factor.to_second[:, None] * factor.to_second) * factor.inverse
        g0 -= factor.to_next @ u
        g1 -= factor.to_second * u
        first.link = second.link = None
        self._marginal = _Marginal(h00, h10, h11, g0, g1, (first.at, second.at))
        self.frames.pop(0)
        self._num_current -= 1
