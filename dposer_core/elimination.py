"""Eliminating the frames of a window: unknowns tied to each other, and those that are not.

Both hold the factors of all frames of the window, oldest first, and speak of their own degrees of
freedom (`dofs`) only:

    D_k   a frame's block once older frames are eliminated
    B_k   what ties it to the next frame, and S_k to the second next, which stays diagonal
    h_k   gradient left over; u_k = D_k^-1 h_k
"""

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from scipy.linalg import block_diag, lapack

from dposer_core.errors import DPoserError


class SolveError(DPoserError):
    """The normal equations cannot be solved, or their solution is of no use."""


class StiffError(SolveError):
    """The normal equations are not positive definite: not regular enough, or not finite."""


@dataclass
class Terms:
    """Own terms of a frame and what links add to them; of all degrees of freedom."""

    hessian: np.ndarray  # (num_dof, num_dof) lower triangle
    own: np.ndarray  # (num_dof,) diagonal that links add to D_k
    next: np.ndarray  # (num_dof,) to B_k
    second: np.ndarray  # (num_dof,) S_k


# --- tied: dense blocks --------------------------------------------------------------------------


@dataclass
class _Factor:
    """A frame's row of the block-pentadiagonal system."""

    root: np.ndarray  # lower triangular, D_k^-1 = root^T root, (n, n)
    to_next: np.ndarray  # B_k, (n, n); empty for the newest frame
    to_second: np.ndarray  # S_k, (n,)
    reach: '_Reach'
    value: np.ndarray = field(default_factory=lambda: np.zeros(0))  # h_k, (n,)
    u: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (n,)


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
def _reduced_block(hessian, dofs, diagonal, carry, second, inverse, out):
    """Lower triangle of hessian + diag - carry - S inverse S; an empty matrix counts as zero."""
    for i in range(out.shape[0]):
        for j in range(i + 1):
            out[i, j] = hessian[max(dofs[i], dofs[j]), min(dofs[i], dofs[j])]
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


class Matrices:
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


class Tied:
    """Degrees of freedom that any may be tied to any other.

    Args:
        dofs: (n,) of the state.
        dtype: of the factorisation. float32 halves its time; terms, gradients and steps are
            float64 either way, so rounding only makes a step of Gauss-Newton a little inexact.
    """

    def __init__(self, dofs: np.ndarray, dtype: type) -> None:
        self.dofs = dofs
        self._dtype = dtype
        self._lapack = (
            (lapack.spotrf, lapack.spotrs)
            if dtype == np.float32
            else (lapack.dpotrf, lapack.dpotrs)
        )
        self._nothing = np.zeros((0, 0), dtype)  # stands for a matrix that there is none of
        self._factors: list[_Factor | None] = []
        self._matrices = Matrices(len(dofs), dtype)
        self._cholesky = self._nothing  # of the newest frame's block
        self._covariance: np.ndarray | None = None

    def append(self) -> None:
        """A new frame."""
        self._factors.append(None)

    def eliminate(self, k: int, terms: Terms) -> None:
        """Factorise frame k, and take what it says off the blocks of the frames after it."""
        after = len(self._factors) - 1 - k
        own, next_, second = (v[self.dofs] for v in (terms.own, terms.next, terms.second))
        before = self._factor_of(k - 1)
        before_that = self._factor_of(k - 2)
        cholesky = self._matrices.take()
        _reduced_block(
            terms.hessian, self.dofs, own,
            before.reach.carry if before else self._nothing,
            before_that.to_second if before_that else second,
            before_that.reach.inverse if before_that else self._nothing, cholesky,
        )  # fmt: skip
        _, status = self._lapack[0](cholesky.T, lower=0, clean=0, overwrite_a=1)
        if status != 0 or not np.isfinite(cholesky[-1, -1]):
            raise StiffError(f'normal equations of frame {k} are not positive definite')
        self._recycle(k)
        if after == 0:
            self._factors[k] = _Factor(self._nothing, self._nothing, second, _Reach())
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
        self._factors[k] = _Factor(root, to_next, second, self._reach(root, to_next, after))
        if after == 2 and k >= 2:  # only a change of `relinearise` could ask for it again
            self._release(self._factors[k - 2].reach)

    def forward(self, k: int, gradient: np.ndarray) -> None:
        """h_k and u_k from the gradient (num_dof,) of frame k; those before have not changed."""
        factor, value = self._factors[k], gradient[self.dofs]
        if k >= 1:
            value -= self._times(self._factors[k - 1].to_next, self._factors[k - 1].u)
        if k >= 2:
            value -= self._factors[k - 2].to_second * self._factors[k - 2].u
        factor.value = value
        if k + 1 < len(self._factors):
            factor.u = self._apply_inverse(factor, value)
        else:
            factor.u = self._lapack[1](self._cholesky.T, value, lower=0)[0].astype(float)

    @property
    def newest_step(self) -> np.ndarray:
        """(n,) of the newest frame."""
        return -self._factors[-1].u

    def back(self, k: int, deltas: list[np.ndarray]) -> np.ndarray:
        """(n,) step of frame k, from those (num_dof,) of the one or two frames after it."""
        factor = self._factors[k]
        pulled = factor.value + self._times(factor.to_next.T, deltas[0][self.dofs])
        if len(deltas) > 1:
            pulled += factor.to_second * deltas[1][self.dofs]
        return -self._apply_inverse(factor, pulled)

    def add_covariance(self, out: np.ndarray) -> None:
        """Marginal covariance of the newest frame, into its places of (num_dof, num_dof)."""
        if self._covariance is None:
            root, self._covariance = self._matrices.take(), self._matrices.take()
            root[:] = 0.0
            _invert_lower(self._cholesky, root)
            np.matmul(root.T, root, out=self._covariance)
            self._matrices.give(root)
        out[np.ix_(self.dofs, self.dofs)] = self._covariance

    def forget_oldest(self, next_: np.ndarray, second: np.ndarray) -> None:
        """The oldest frame leaves; what it says goes off the gradients of the two after it."""
        factor = self._factors[0]
        next_[self.dofs] -= self._times(factor.to_next, factor.u)
        second[self.dofs] -= factor.to_second * factor.u
        self._recycle(0)
        self._factors.pop(0)

    def absorb(self, other: 'Loose', joints: np.ndarray) -> None:
        """Take over joints (bool, of `other`) of a window that is solved.

        So far nothing tied them to what is here, so their factors stand beside those here.
        """
        self.dofs = np.concatenate([self.dofs, other.dofs[joints].ravel()])
        self._matrices, self._covariance = Matrices(len(self.dofs), self._dtype), None
        for k, (factor, more) in enumerate(zip(self._factors, other.factors, strict=True)):
            blocks = np.linalg.cholesky(np.linalg.inv(more.inverse[joints]))
            if k + 1 == len(self._factors):
                self._cholesky = self._beside(self._cholesky, blocks)
            else:
                factor.root = self._beside(factor.root, np.linalg.inv(blocks))
                factor.to_next = self._beside(factor.to_next, more.to_next[joints])
            for name in ('to_second', 'value', 'u'):
                both = getattr(factor, name), getattr(more, name)[joints].ravel()
                setattr(factor, name, np.concatenate(both))
            factor.reach = _Reach()

    def _beside(self, matrix: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        return block_diag(matrix, *blocks).astype(self._dtype)

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
        factor = self._factors[k]
        if factor.reach.carry is None:
            factor.reach = self._reach(factor.root, factor.to_next, len(self._factors) - 1 - k)
        return factor

    def _recycle(self, k: int) -> None:
        factor = self._factors[k]
        if factor is not None:
            self._matrices.give(factor.root)
            self._matrices.give(factor.to_next)
            self._release(factor.reach)
            self._factors[k] = None

    def _release(self, reach: _Reach) -> None:
        for matrix in (reach.carry, reach.gain, reach.inverse):
            self._matrices.give(matrix)
        reach.carry = reach.gain = reach.inverse = None

    def _times(self, matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """float64 product; the vector is rounded, as casting the matrix would cost more."""
        return (matrix @ vector.astype(self._dtype)).astype(float)

    def _apply_inverse(self, factor: _Factor, vector: np.ndarray) -> np.ndarray:
        """D_k^-1 vector."""
        return self._times(factor.root.T, self._times(factor.root, vector))


# --- loose: joints by themselves -----------------------------------------------------------------


@dataclass
class _LooseFactor:
    """Rows of L systems, one of each joint."""

    inverse: np.ndarray  # D_k^-1, (L, 3, 3)
    to_next: np.ndarray  # B_k, (L, 3, 3)
    to_second: np.ndarray  # S_k, (L, 3)
    carry: np.ndarray  # B D^-1 B^T, (L, 3, 3)
    gain: np.ndarray  # D^-1 B^T, (L, 3, 3)
    value: np.ndarray = field(default_factory=lambda: np.zeros(0))  # h_k, (L, 3)
    u: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (L, 3)


@njit(cache=True)
def _eliminate_joints(
    hessian, dofs, own, next_, before, before_that, second_before, second_before_that, out
):
    """Fills `out` = (inverse, to_next, carry, gain); False if a block is not positive definite.

    `before` = (carry, gain) of the frame before, `before_that` = inverse of the one before that;
    empty where there is none.
    """
    carry, gain = before
    inverse, to_next, carry_out, gain_out = out
    D = np.empty((3, 3))
    for joint in range(dofs.shape[0]):
        for i in range(3):
            a = dofs[joint, i]
            for j in range(i + 1):
                D[i, j] = hessian[max(a, dofs[joint, j]), min(a, dofs[joint, j])]
                if carry.shape[0]:
                    D[i, j] -= carry[joint, i, j]
                if before_that.shape[0]:
                    D[i, j] -= (
                        second_before_that[joint, i]
                        * second_before_that[joint, j]
                        * before_that[joint, i, j]
                    )
            D[i, i] += own[a]
        c00 = D[1, 1] * D[2, 2] - D[2, 1] * D[2, 1]
        c10 = D[2, 1] * D[2, 0] - D[1, 0] * D[2, 2]
        c20 = D[1, 0] * D[2, 1] - D[1, 1] * D[2, 0]
        determinant = D[0, 0] * c00 + D[1, 0] * c10 + D[2, 0] * c20
        c11 = D[0, 0] * D[2, 2] - D[2, 0] * D[2, 0]
        c22 = D[0, 0] * D[1, 1] - D[1, 0] * D[1, 0]
        if not (D[0, 0] > 0.0 and c22 > 0.0 and determinant > 0.0):
            return False
        c21 = D[1, 0] * D[2, 0] - D[0, 0] * D[2, 1]
        scale = 1.0 / determinant
        inverse[joint, 0, 0] = c00 * scale
        inverse[joint, 1, 1] = c11 * scale
        inverse[joint, 2, 2] = c22 * scale
        inverse[joint, 0, 1] = inverse[joint, 1, 0] = c10 * scale
        inverse[joint, 0, 2] = inverse[joint, 2, 0] = c20 * scale
        inverse[joint, 1, 2] = inverse[joint, 2, 1] = c21 * scale
        for i in range(3):
            for j in range(3):
                to_next[joint, i, j] = 0.0
                if gain.shape[0]:
                    to_next[joint, i, j] = -second_before[joint, i] * gain[joint, i, j]
            to_next[joint, i, i] += next_[dofs[joint, i]]
        gain_out[joint] = inverse[joint] @ to_next[joint].T
        carry_out[joint] = to_next[joint] @ gain_out[joint]
    return True


class Loose:
    """Joints that nothing ties to anything but their own past.

    So it is with fingers that a detector never sees: 90 of 182 unknowns, whose part of the
    solution costs next to nothing when they stay out of the dense blocks.

    Args:
        dofs: (L, 3) of the state, a joint each.
    """

    def __init__(self, dofs: np.ndarray) -> None:
        self.dofs = dofs
        self.factors: list[_LooseFactor | None] = []

    def append(self) -> None:
        """A new frame."""
        self.factors.append(None)

    def eliminate(self, k: int, terms: Terms) -> None:
        """As of `Tied`."""
        empty = np.zeros((0, 3, 3))
        new = tuple(np.empty((len(self.dofs), 3, 3)) for _ in range(4))
        before = self.factors[k - 1] if k >= 1 else None
        before_that = self.factors[k - 2] if k >= 2 else None
        second = terms.second[self.dofs]
        is_definite = _eliminate_joints(
            terms.hessian, self.dofs, terms.own, terms.next,
            (before.carry, before.gain) if before else (empty, empty),
            before_that.inverse if before_that else empty,
            before.to_second if before else second,
            before_that.to_second if before_that else second, new,
        )  # fmt: skip
        if not is_definite:
            raise StiffError(f'normal equations of frame {k} are not positive definite')
        inverse, to_next, carry, gain = new
        self.factors[k] = _LooseFactor(inverse, to_next, second, carry, gain)

    def forward(self, k: int, gradient: np.ndarray) -> None:
        """As of `Tied`."""
        factor, value = self.factors[k], gradient[self.dofs]
        if k >= 1:
            value -= _times(self.factors[k - 1].to_next, self.factors[k - 1].u)
        if k >= 2:
            value -= self.factors[k - 2].to_second * self.factors[k - 2].u
        factor.value, factor.u = value, _times(factor.inverse, value)

    @property
    def newest_step(self) -> np.ndarray:
        """(L, 3) of the newest frame."""
        return -self.factors[-1].u

    def back(self, k: int, deltas: list[np.ndarray]) -> np.ndarray:
        """(L, 3), as of `Tied`."""
        factor = self.factors[k]
        pulled = factor.value + _times(factor.to_next.transpose(0, 2, 1), deltas[0][self.dofs])
        if len(deltas) > 1:
            pulled += factor.to_second * deltas[1][self.dofs]
        return -_times(factor.inverse, pulled)

    def add_covariance(self, out: np.ndarray) -> None:
        """As of `Tied`."""
        out[self.dofs[:, :, None], self.dofs[:, None, :]] = self.factors[-1].inverse

    def forget_oldest(self, next_: np.ndarray, second: np.ndarray) -> None:
        """As of `Tied`."""
        factor = self.factors.pop(0)
        next_[self.dofs] -= _times(factor.to_next, factor.u)
        second[self.dofs] -= factor.to_second * factor.u

    def without(self, joints: np.ndarray) -> 'Loose':
        """The others than these joints (bool)."""
        rest = Loose(self.dofs[~joints])
        rest.factors = [
            _LooseFactor(**{name: array[~joints] for name, array in vars(factor).items()})
            for factor in self.factors
        ]
        return rest


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(L, 3, 3) times (L, 3)."""
    return np.einsum('lij,lj->li', matrices, vectors)
