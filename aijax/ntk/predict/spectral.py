"""Gradient flow under a symmetric matrix, at finite and infinite times, with derivatives that degenerate spectra allow.

For `dr/ds = -K r` the two maps that predictions need are

    decay:     E(s) = exp(-s K)
    integral:  F(s) = int_0^s exp(-u K) du = (I - exp(-s K)) / K,    and s where an eigenvalue is 0.

Both are functions of K's eigenvalues. Their derivative in K is that of Daleckii and Krein 1965 (Higham, Functions of
Matrices, theorem 3.11): in the eigenbasis, the entries of dK times the divided differences of the function,

    dE = V (D o V^T dK V) V^T,     D_ij = (e(l_i) - e(l_j)) / (l_i - l_j),   e'(l_i) where they are equal,

which are worked out without cancellation here, so that repeated eigenvalues do no harm (the derivative of eigenvectors,
which does not exist there, is never used). At s = infinity the null space stays as it is: E is the projector on it and
F the pseudo-inverse. Eigenvalues up to `4 sqrt(p) eps` of the largest count as zero there, and only there.
"""

import math

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.linalg.coupled_eigen import coupled_eigh
from aijax.typing import Array

_SERIES_TERMS = 20


Eigen = tuple[Array, Array, Array | None]
"""Eigenvalues [p], eigenvectors [p, p], and in float32 what is left between them, see `aijax.linalg.coupled_eigen`."""


def spectrum(matrix: Array) -> Eigen:
    """Returns eigenvalues, those that rounding made negative as 0, eigenvectors and their coupling."""
    values, vectors, coupling = coupled_eigh(matrix)
    return jnp.maximum(values, 0), vectors, coupling


def null_tolerance(size: int, largest: Array) -> Array:
    """Returns the eigenvalue up to which a matrix of this size is numerically singular."""
    return 4 * math.sqrt(size) * jnp.finfo(largest.dtype).eps * largest


def decay(values: Array, times: Array) -> Array:
    """Returns `exp(-s l)`, `[T, p]` from eigenvalues `[p]` and times `[T]`; at infinity 1 on the null space, else 0."""
    ended, finite, null = _cases(values, times)
    return jnp.where(ended, null.astype(values.dtype), jnp.exp(-finite * values[None]))


def integral(values: Array, times: Array) -> Array:
    """Returns `(1 - exp(-s l)) / l`, `[T, p]`; at infinity the pseudo-inverse."""
    ended, finite, null = _cases(values, times)
    inverse = jnp.where(null, 0, 1 / jnp.where(null, 1, values[None]))
    return jnp.where(ended, inverse, finite * _mean_decay(finite * values[None]))


@jax.custom_jvp
def flow(matrix: Array, eigen: Eigen, columns: Array, times: Array) -> tuple[Array, Array]:
    """Returns `(E(s) R, F(s) R)`, each `[T, p, c]`, for columns R `[p, c]` and times s `[T]`, infinite ones included.

    `eigen` is `spectrum(matrix)`; the derivative belongs to `matrix`, once. A second derivative in the matrix is
    refused.
    """
    values, vectors, coupling = eigen
    projected = _matmul(vectors.T, columns)
    factors = jnp.stack([decay(values, times), integral(values, times)])
    spread = factors[..., None] * projected[None, None]
    if coupling is not None:
        spread += _moved(values, coupling, projected, times)
    both = _matmul(vectors, spread)
    return both[0], both[1]


def _flow_jvp(primals, tangents):
    matrix, eigen, columns, times = primals
    dmatrix, _, dcolumns, dtimes = tangents
    decayed, integrated = flow(matrix, eigen, columns, times)
    ddecayed, dintegrated = jnp.zeros_like(decayed), jnp.zeros_like(integrated)
    if not _is_zero(dcolumns):
        ddecayed, dintegrated = flow(matrix, eigen, dcolumns, times)
    if not _is_zero(dtimes):
        ddecayed -= dtimes[:, None, None] * _matmul(matrix, decayed)
        dintegrated += dtimes[:, None, None] * decayed
    if not _is_zero(dmatrix):
        values, vectors, _ = _once(matrix, eigen)
        symmetric = (dmatrix + dmatrix.T) / 2
        middle = _matmul(vectors.T, _matmul(symmetric, vectors))
        projected = _matmul(vectors.T, columns)
        first, second = _divided_differences(values, times)
        ddecayed += _matmul(vectors, _matmul(first * middle[None], projected))
        dintegrated += _matmul(vectors, _matmul(second * middle[None], projected))
    return (decayed, integrated), (ddecayed, dintegrated)


flow.defjvp(_flow_jvp, symbolic_zeros=True)


@jax.custom_jvp
def _once(matrix, eigen):
    """Returns `eigen`, and refuses to be differentiated in the matrix that it belongs to."""
    return eigen


def _once_jvp(primals, tangents):
    _, eigen = primals
    if not _is_zero(tangents[0]):
        raise ConfigError(
            "gradient_descent_mse: second derivatives with respect to the kernel are not offered at given times; "
            "with t=None (infinite time) they are"
        )
    return eigen, jax.tree.map(jnp.zeros_like, eigen)


_once.defjvp(_once_jvp, symbolic_zeros=True)


def factorise(matrix: Array) -> tuple[Array, Array]:
    """Returns the Cholesky factor, and whether it shows the matrix to be positive definite beyond rounding."""
    factor = jax.lax.linalg.cholesky(matrix)
    pivots = jnp.diagonal(factor) ** 2
    regular = jnp.isfinite(factor).all() & (pivots.min() > null_tolerance(len(matrix), jnp.diagonal(matrix).max()))
    return jnp.where(regular, factor, jnp.eye(len(matrix), dtype=matrix.dtype)), regular


@jax.custom_jvp
def limit(matrix: Array, factors: tuple[Array, Array], columns: Array) -> tuple[Array, Array]:
    """Returns `(E R, F R)` at infinite time, each `[p, c]`: `(0, K^-1 R)` by Cholesky where K is regular, else the
    projection on the null space and the pseudo-inverse.

    `factors` is `factorise(matrix)`. Derivatives are those of matrices of constant rank.
    """
    factor, regular = factors

    def solve():
        return jnp.zeros_like(columns), jax.scipy.linalg.cho_solve((factor, True), columns)

    def project():
        left, solved = flow(matrix, spectrum(matrix), columns, jnp.full(1, jnp.inf, matrix.dtype))
        return left[0], solved[0]

    return jax.lax.cond(regular, solve, project)


@limit.defjvp
def _limit_jvp(primals, tangents):
    matrix, factors, columns = primals
    dmatrix, _, dcolumns = tangents
    left, solved = limit(matrix, factors, columns)
    symmetric = (dmatrix + dmatrix.T) / 2
    # d K^+ R = K^+ (dR - dK K^+ R) + K^+ K^+ dK P R,  d P R = P (dR - dK K^+ R) - K^+ dK P R,  P = I - K K^+
    _, turned = limit(matrix, factors, _matmul(symmetric, left))
    kept, moved = limit(matrix, factors, dcolumns - _matmul(symmetric, solved))
    _, again = limit(matrix, factors, turned)
    return (left, solved), (kept - turned, moved + again)


def _cases(values, times):
    times, null = times[:, None], values <= null_tolerance(len(values), values.max())
    ended = jnp.isinf(times)
    return ended, jnp.where(ended, 1, times), null[None]


def _moved(values, coupling, projected, times):
    """Returns what the coupling adds to decay and integral of columns in the eigenbasis, `[2, T, p, c]`, to first
    order: the products with the coupling times the divided differences, one time after the other."""

    def at(time):
        first, second = _divided_differences(values, time[None])
        return jnp.stack([_matmul(first[0] * coupling, projected), _matmul(second[0] * coupling, projected)])

    return jnp.moveaxis(jax.lax.map(at, times), 0, 1)


def _mean_decay(x):
    """Returns `(1 - exp(-x)) / x`, 1 at 0: the mean of exp over [-x, 0]."""
    safe = jnp.where(x > 0, x, 1)
    return jnp.where(x > 0, -jnp.expm1(-safe) / safe, 1)


def _divided_differences(values, times):
    """Returns the divided differences of decay and integral, each `[T, p, p]`."""
    low, high = jnp.minimum(values[:, None], values[None]), jnp.maximum(values[:, None], values[None])
    null = values <= null_tolerance(len(values), values.max())
    one_null, both_null = null[:, None] ^ null[None], null[:, None] & null[None]
    ended = jnp.isinf(times)[:, None, None]
    s = jnp.where(ended, 1, times[:, None, None])
    low, high, one_null, both_null = low[None], high[None], one_null[None], both_null[None]
    first = -s * jnp.exp(-s * low) * _mean_decay(s * (high - low))
    second = -(s**2) * _second_difference(s * low, s * high)
    safe_low, safe_high = (jnp.where(one_null | both_null, 1, x) for x in (low, high))
    top = jnp.where(both_null, 1, high)
    first_end = jnp.where(one_null, -1 / top, 0)
    second_end = jnp.where(both_null, 0, jnp.where(one_null, 1 / top**2, -1 / (safe_low * safe_high)))
    return jnp.where(ended, first_end, first), jnp.where(ended, second_end, second)


def _second_difference(low, high):
    """Returns exp[0, -low, -high], the divided difference of exp at three points, for 0 <= low <= high.

    Where high >= 1 by the recurrence across the widest pair; below by the series sum_k (-1)^k h_k / (k + 2)!, with h_k
    the complete homogeneous polynomial of degree k.
    """
    small = high < 1
    wide = jnp.where(small, 1, high)
    far = (_mean_decay(low) - jnp.exp(-low) * _mean_decay(high - low)) / wide
    x, y = jnp.where(small, low, 0), jnp.where(small, high, 0)
    total, power, homogeneous = jnp.zeros_like(high), jnp.ones_like(high), jnp.ones_like(high)
    for k in range(_SERIES_TERMS):
        total += (-1) ** k / math.factorial(k + 2) * homogeneous
        power = power * y
        homogeneous = x * homogeneous + power
    return jnp.where(small, total, far)


def _matmul(a, b):
    return jnp.matmul(a, b, precision="highest")


def _is_zero(tangent):
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)
