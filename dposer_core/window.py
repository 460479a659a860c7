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
from numba import njit
from scipy.linalg import lapack

from dposer_core import kinematics
from dposer_core.errors import DPoserError
from dposer_core.kinematics import PELVIS, ROTATIONS


class SolveError(DPoserError):
    """The normal equations cannot be solved, or their solution is of no use."""


class StiffError(SolveError):
    """The normal equations are not positive definite: not regular enough, or not finite."""


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
    factor: '_Factor | None' = None
    received: np.ndarray | float = 0.0  # (n,) gradient from frames that are forgotten

    @property
    def estimate(self) -> Pose:
        """`at` moved by `delta`."""
        return self.at.plus(self.delta)


@dataclass
class _Factor:
    """A frame's row of the block-pentadiagonal system once older frames are eliminated.

    The coupling to the second next frame stays diagonal: eliminating a frame only fills in
    between its two successors.
    """

    root: np.ndarray  # lower triangular, D_k^-1 = root^T root, (n, n)
    to_next: np.ndarray  # B_{k+1,k}, (n, n); empty for the newest frame
    to_second: np.ndarray  # diagonal of B_{k+2,k}, (n,)
    reach: '_Reach'
    value: np.ndarray = field(default_factory=lambda: np.zeros(0))  # h_k: gradient left over, (n,)
    u: np.ndarray = field(default_factory=lambda: np.zeros(0))  # D_k^-1 h_k, (n,)


@dataclass
class _Reach:
    """What eliminating a frame takes from the blocks of the two after it; (n, n) or None.

    Kept while those may be eliminated again.
    """

    carry: np.ndarray | None = None  # B D_k^-1 B^T, off the next frame's block
    gain: np.ndarray | None = None  # D_k^-1 B^T, for what ties the next two frames
    inverse: np.ndarray | None = None  # D_k^-1, off the second next frame's block


_LEAF = 48  # size up to which a triangle is inverted row by row


@njit(cache=True)
def _reduced_block(hessian, diagonal, carry, second, inverse, out):
    """Lower triangle of hessian + diag - carry - S inverse S; an empty matrix counts as zero."""
    for i in range(hessian.shape[0]):
        for j in range(i + 1):
            out[i, j] = hessian[i, j]
        if carry.shape[0]:
            for j in range(i + 1):
                out[i, j] -= carry[i, j]
        if inverse.shape[0]:
            for j in range(i + 1):
                out[i, j] -= second[i] * second[j] * inverse[i, j]
        out[i, i] += diagonal[i]


@njit(cache=True)
def _coupling(diagonal, second, gain, out):
    """diag - S gain; an empty gain counts as zero."""
    for i in range(out.shape[0]):
        for j in range(out.shape[0]):
            out[i, j] = -second[i] * gain[i, j] if gain.shape[0] else 0.0
        out[i, i] += diagonal[i]


@njit(cache=True, fastmath={'reassoc', 'contract'})
def _invert_leaf(lower, out):
    """Inverse of a small lower triangular matrix into the lower triangle of `out`, by rows."""
    for i in range(lower.shape[0]):
        scale = 1.0 / lower[i, i]
        for j in range(i):
            out[i, j] = 0.0
        for k in range(i):
            factor = -scale * lower[i, k]
            for j in range(k + 1):
                out[i, j] += factor * out[k, j]
        out[i, i] = scale


def _invert_lower(lower: np.ndarray, out: np.ndarray) -> None:
    """Inverse of a lower triangular matrix into `out`, whose upper triangle is zero already.

    By halves, so that most of the work is matrix products: twice as fast as LAPACK's trtri here.
    """
    n = len(lower)
    if n <= _LEAF:
        _invert_leaf(lower, out)
        return
    half = n // 2
    _invert_lower(lower[:half, :half], out[:half, :half])
    _invert_lower(lower[half:, half:], out[half:, half:])
    np.matmul(out[half:, half:] @ lower[half:, :half], out[:half, :half], out=out[half:, :half])
    np.negative(out[half:, :half], out=out[half:, :half])


class _Matrices:
    """Square matrices that are used again, so that a frame allocates none."""

    def __init__(self, size: int, dtype: type) -> None:
        self._size, self._dtype = size, dtype
        self._free: list[np.ndarray] = []

    def take(self) -> np.ndarray:
        """A matrix (size, size) of arbitrary content."""
        return self._free.pop() if self._free else np.empty((self._size, self._size), self._dtype)

    def give(self, matrix: np.ndarray | None) -> None:
        """Take back a matrix that nobody reads any more."""
        if matrix is not None and matrix.size:
            self._free.append(matrix)


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
        self._lapack = (
            (lapack.spotrf, lapack.spotrs)
            if dtype == np.float32
            else (lapack.dpotrf, lapack.dpotrs)
        )
        self._nothing = np.zeros((0, 0), dtype)  # stands for a matrix that there is none of
        self._dtype = dtype
        self.smoothness = smoothness
        self._all: list[Frame] = []  # the window, and before it the two frames that left last
        self._num_current = 0  # leading frames of `_all` whose factors are up to date
        self._matrices = _Matrices(len(smoothness.walk), dtype)
        self._hessians = _Matrices(len(smoothness.walk), np.float64)
        self._cholesky = self._nothing  # of the newest frame's block
        self._covariance: np.ndarray | None = None

    @property
    def frames(self) -> list[Frame]:
        """The frames of the window, oldest first."""
        return self._all[-self.size :]

    def append(self, stamp_ns: int, at: Pose, payload: object) -> Frame:
        """Add the newest frame; the oldest leaves when the window is full."""
        if len(self._all) == self.size + 2:
            self._forget_oldest()
        # The links of a new frame change the blocks of the two before it.
        self._num_current = min(self._num_current, max(len(self._all) - 2, 0))
        n = len(self.smoothness.walk)
        frame = Frame(stamp_ns, at, np.zeros(n), self._hessians.take(), np.zeros(n), payload)
        frame.hessian[:] = 0.0
        self._all.append(frame)
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
            self._eliminate(k)
        self._num_current = len(self._all)
        self._forward(max(first - 2, 0))
        step = -self._all[-1].factor.u
        if not np.isfinite(step).all():
            raise SolveError('the step is not finite')
        self._all[-1].delta = step
        return cost

    def smooth(self, first: int = 0) -> None:
        """Update the steps of the frames from `first` on to what the newest one has taught."""
        first += len(self._all) - len(self.frames)
        deltas = {len(self._all) - 1: self._all[-1].delta}
        for k in range(len(self._all) - 2, first - 1, -1):
            factor = self._all[k].factor
            pulled = factor.value + self._times(factor.to_next.T, deltas[k + 1])
            if k + 2 in deltas:
                pulled += factor.to_second * deltas[k + 2]
            deltas[k] = -self._apply_inverse(factor, pulled)
            self._all[k].delta = deltas[k]

    def covariance(self) -> np.ndarray:
        """(num_dof, num_dof) marginal covariance of the newest frame."""
        if self._covariance is None:
            root, self._covariance = self._matrices.take(), self._matrices.take()
            root[:] = 0.0
            _invert_lower(self._cholesky, root)
            np.matmul(root.T, root, out=self._covariance)
            self._matrices.give(root)
        return self._covariance.astype(float)

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

    # --- elimination -------------------------------------------------------------------------

    def _diagonals(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What links add to the diagonals of D_k, B_{k+1,k} and B_{k+2,k}; (n,) each."""
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
        return own, next_, second

    def _eliminate(self, k: int) -> None:
        """Factorise frame k, and take what it says off the blocks of the frames after it."""
        frame, after = self._all[k], len(self._all) - 1 - k
        own, next_, second = self._diagonals(k)
        before = self._factor_of(k - 1)
        before_that = self._factor_of(k - 2)
        cholesky = self._matrices.take()
        _reduced_block(
            frame.hessian, own,
            before.reach.carry if before else self._nothing,
            before_that.to_second if before_that else second,
            before_that.reach.inverse if before_that else self._nothing, cholesky,
        )  # fmt: skip
        _, status = self._lapack[0](cholesky.T, lower=0, clean=0, overwrite_a=1)
        if status != 0 or not np.isfinite(cholesky[-1, -1]):
            raise StiffError(f'normal equations of frame {k} are not positive definite')
        self._recycle(frame)
        if after == 0:
            frame.factor = _Factor(self._nothing, self._nothing, second, _Reach())
            self._matrices.give(self._cholesky)
            self._matrices.give(self._covariance)
            self._cholesky, self._covariance = cholesky, None
            return
        to_next, root = self._matrices.take(), self._matrices.take()
        _coupling(
            next_, before.to_second if before else second,
            before.reach.gain if before else self._nothing, to_next,
        )  # fmt: skip
        root[:] = 0.0
        _invert_lower(cholesky, root)
        self._matrices.give(cholesky)
        frame.factor = _Factor(root, to_next, second, self._reach(root, to_next, after))
        if after == 2 and k >= 2:  # only a change of `relinearise` could ask for it again
            self._release(self._all[k - 2].factor.reach)

    def _reach(self, root: np.ndarray, to_next: np.ndarray, after: int) -> _Reach:
        """`after` frames follow; the last but one needs nothing beyond its carry."""
        half = len(root) // 2
        whitened = self._matrices.take()  # root B^T; the zeros of the triangle are skipped
        np.matmul(root[:half, :half], to_next.T[:half], out=whitened[:half])
        np.matmul(root[half:], to_next.T, out=whitened[half:])
        reach = _Reach(carry=self._matrices.take())
        np.matmul(whitened.T, whitened, out=reach.carry)
        if after >= 2:
            reach.inverse, reach.gain = self._matrices.take(), self._matrices.take()
            np.matmul(root.T, root, out=reach.inverse)
            np.matmul(root.T[:half], whitened, out=reach.gain[:half])
            np.matmul(root[half:, half:].T, whitened[half:], out=reach.gain[half:])
        self._matrices.give(whitened)
        return reach

    def _factor_of(self, k: int) -> _Factor | None:
        """The factor of an eliminated frame, complete; None where there is no such frame."""
        if k < 0:
            return None
        factor = self._all[k].factor
        if factor.reach.carry is None:
            factor.reach = self._reach(factor.root, factor.to_next, len(self._all) - 1 - k)
        return factor

    def _recycle(self, frame: Frame) -> None:
        if frame.factor is not None:
            self._matrices.give(frame.factor.root)
            self._matrices.give(frame.factor.to_next)
            self._release(frame.factor.reach)
            frame.factor = None

    def _release(self, reach: _Reach) -> None:
        for matrix in (reach.carry, reach.gain, reach.inverse):
            self._matrices.give(matrix)
        reach.carry = reach.gain = reach.inverse = None

    def _forget_oldest(self) -> None:
        frame = self._all.pop(0)
        self._all[0].received = self._all[0].received - self._times(
            frame.factor.to_next, frame.factor.u
        )
        self._all[1].received = self._all[1].received - frame.factor.to_second * frame.factor.u
        self._recycle(frame)
        self._hessians.give(frame.hessian)
        self._num_current -= 1

    # --- substitution ------------------------------------------------------------------------

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

    def _forward(self, first: int) -> None:
        """h_k and u_k = D_k^-1 h_k from frame `first` on; those before have not changed."""
        for k in range(first, len(self._all)):
            factor, value = self._all[k].factor, self._gradient(k) + self._all[k].received
            if k >= 1:
                value -= self._times(self._all[k - 1].factor.to_next, self._all[k - 1].factor.u)
            if k >= 2:
                value -= self._all[k - 2].factor.to_second * self._all[k - 2].factor.u
            factor.value = value
            if k + 1 < len(self._all):
                factor.u = self._apply_inverse(factor, value)
            else:
                factor.u = self._lapack[1](self._cholesky.T, value, lower=0)[0].astype(float)

    def _times(self, matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """float64 product; the vector is rounded, as casting the matrix would cost more."""
        return (matrix @ vector.astype(self._dtype)).astype(float)

    def _apply_inverse(self, factor: _Factor, vector: np.ndarray) -> np.ndarray:
        """D_k^-1 vector."""
        return self._times(factor.root.T, self._times(factor.root, vector))
