"""Symmetric Toeplitz matrices, `T_ij = t_|i - j|`, from their first column t.

**Products** by a circulant matrix of twice the size, in `n log n` (Strang 1986; Golub and Van Loan 2013, section 4.8).

**Inverse and determinant.** The predictor a (`a_0 = 1`, `T a = v e_0`) and the variances `v_k` of predicting a
stationary series from k values before are found in `n^2` operations and O(n) memory (Levinson 1947; Durbin 1960):

    log det T = sum_k log v_k
    T^-1 = (L(a) L(a)^T - L(b) L(b)^T) / v,    b = (0, a_(n-1), ..., a_1)         (Gohberg and Semencul 1972)

L(c) the lower triangular Toeplitz matrix of first column c, so that `T^-1` costs four products. The sum of the k-th
diagonal of `T^-1` is `sum_s (n - k - 2 s) a_s a_(s + k) / v`, which gives derivatives of the log determinant by
correlations: nothing is differentiated through the recursion.
"""

import math

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.typing import Array, Float


@jax.jit
def toeplitz_matvec(column: Float[Array, " n"], v: Float[Array, "n *c"]) -> Float[Array, "n *c"]:
    """Returns `T v` for a vector or columns v, in `n log n`.

    >>> toeplitz_matvec(jnp.array([2.0, 1.0, 0.0]), jnp.ones(3)).round(4).tolist()
    [3.0, 4.0, 3.0]
    """
    n = len(column)
    if jnp.shape(v)[:1] != (n,):
        raise ConfigError(f"v: expected {n} rows for a column of {n}, got {jnp.shape(v)}")
    circulant = jnp.concatenate([column, jnp.zeros_like(column[:1]), column[:0:-1]])
    return _convolve(circulant, v, 2 * n)[:n]


@jax.jit
def durbin_levinson(column: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Returns the predictor a and the variances v_0, ..., v_(n-1) of a symmetric Toeplitz matrix.

    T is positive definite where all variances are positive.

    Source: Golub and Van Loan 2013, algorithm 4.7.1.

    >>> predictor, variances = durbin_levinson(jnp.array([1.0, 0.5, 0.25]))
    >>> predictor.round(4).tolist(), variances.round(4).tolist()
    ([1.0, -0.5, 0.0], [1.0, 0.75, 0.75])
    """
    shifted = jnp.concatenate([column[1:], jnp.zeros_like(column[:1])])
    first = jnp.zeros_like(column).at[0].set(1)

    def step(state, _):
        forward, backward, variance = state
        reflection = -jnp.vdot(backward, shifted, precision="highest") / variance
        backward = jnp.roll(backward, 1)
        following = variance * (1 - reflection**2)
        return (forward + reflection * backward, backward + reflection * forward, following), variance

    (forward, _, last), variances = jax.lax.scan(step, (first, first, column[0]), length=len(column) - 1)
    return forward, jnp.append(variances, last)


@jax.jit
def toeplitz_solve(
    column: Float[Array, " n"], predictor: Float[Array, " n"], variance: Float[Array, ""], b: Float[Array, "n *c"]
) -> Float[Array, "n *c"]:
    """Returns `T^-1 b` by the formula of Gohberg and Semencul, twice refined, in `n log n`.

    Args:
      column: t.
      predictor, variance: a and the last of the variances, of `durbin_levinson`.
      b: a vector or columns.
    """
    n = len(column)
    other = jnp.concatenate([jnp.zeros_like(predictor[:1]), predictor[:0:-1]])

    def inverse(v):
        def sandwich(c):
            inner = _convolve(c, v[::-1], 2 * n)[:n][::-1]
            return _convolve(c, inner, 2 * n)[:n]

        return (sandwich(predictor) - sandwich(other)) / variance

    solution = inverse(b)
    for _ in range(2):
        solution = solution + inverse(b - toeplitz_matvec(column, solution))
    return solution


@jax.custom_jvp
def toeplitz_log_density(column: Float[Array, " n"], residual: Float[Array, "n m"]) -> Float[Array, ""]:
    """Returns `log N(residual; 0, T)`, summed over columns, in `n^2`; NaN where T is not positive definite.

    >>> round(float(toeplitz_log_density(jnp.array([1.0, 0.0]), jnp.zeros((2, 1)))), 4)
    -1.8379
    """
    return _density(column, residual)[0]


@toeplitz_log_density.defjvp
def _toeplitz_log_density_jvp(primals, tangents):
    column, residual = primals
    d_column, d_residual = tangents
    value, solution, predictor, variance = _density(column, residual)
    n, m = residual.shape
    index = jnp.arange(n, dtype=column.dtype)
    products = jnp.sum(_correlate(solution, solution), 1)
    plain = _correlate(predictor, predictor)
    diagonals = ((n - index) * plain - 2 * _correlate(index * predictor, predictor)) / variance
    weights = (products - m * diagonals) * jnp.where(index > 0, 1, 0.5)
    return value, jnp.sum(weights * d_column) - jnp.sum(solution * d_residual)


@jax.jit
def _density(column, residual):
    """Returns the density, `T^-1 residual`, the predictor and its variance."""
    predictor, variances = durbin_levinson(column)
    solution = toeplitz_solve(column, predictor, variances[-1], residual)
    n, m = residual.shape
    positive = (variances > 0).all()
    logs = jnp.sum(jnp.log(jnp.where(variances > 0, variances, 1)))
    value = -(jnp.sum(residual * solution) + m * logs + n * m * math.log(2 * math.pi)) / 2
    return jnp.where(positive, value, jnp.nan), solution, predictor, variances[-1]


def _convolve(c, v, size):
    """Returns the cyclic convolution of c with each column of v, of a period of `size`."""
    spectrum = jnp.fft.rfft(c, size).reshape(-1, *(1,) * (v.ndim - 1))
    return jnp.fft.irfft(spectrum * jnp.fft.rfft(v, size, axis=0), size, axis=0)


def _correlate(a, b):
    """Returns `sum_s a_s b_(s + k)` for k = 0, ..., n - 1, of vectors or of columns."""
    n = len(a)
    spectrum = jnp.conj(jnp.fft.rfft(a, 2 * n, axis=0)) * jnp.fft.rfft(b, 2 * n, axis=0)
    return jnp.fft.irfft(spectrum, 2 * n, axis=0)[:n]
