"""The log density of a Gaussian vector, and its derivatives of every order from one identity.

With A = matrix + diag(diagonal), a = A^-1 r and r of m independent columns,

    log N(r; 0, A) = -1/2 sum(r a) - m/2 log det A - m n/2 log 2 pi
    d log N        = <(a a^T - m A^-1) / 2, dA> - <a, dr>
    d a            = A^-1 (dr - dA a),      d A^-1 = -A^-1 dA A^-1

(Rasmussen and Williams 2006, equations 2.30 and 5.9). Differentiating the identity and not the factorisation costs one
inverse in place of the derivative of a Cholesky factor, a fourth of the time; since the rules are closed, higher
derivatives follow from them.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from aijax.linalg.cholesky import cholesky_with_jitter
from aijax.typing import Array, Float


def gaussian_log_density(
    matrix: Float[Array, "n n"], diagonal: Float[Array, " n"], residual: Float[Array, "n m"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns `(log N(residual; 0, matrix + diag(diagonal + jitter)), jitter)`, summed over the columns.

    The value is NaN where no jitter of `cholesky_with_jitter` makes the matrix positive definite. The jitter is held
    in derivatives.

    Args:
      matrix: symmetric, `[n, n]`.
      diagonal: what is added to its diagonal, `[n]`.
      residual: m independent vectors of that covariance, `[n, m]`.

    >>> value, jitter = gaussian_log_density(jnp.eye(2), jnp.zeros(2), jnp.zeros((2, 1)))
    >>> round(float(value), 4), float(jitter)
    (-1.8379, 0.0)
    """
    return _density(matrix, diagonal, residual)


@jax.custom_jvp
def _density(matrix, diagonal, residual):
    factor, jitter = cholesky_with_jitter(matrix + jnp.diag(diagonal))
    return _value(factor, _forward(factor, residual)), jitter


@functools.partial(_density.defjvp, symbolic_zeros=True)
def _density_jvp(primals, tangents):
    d_matrix, d_diagonal, d_residual = tangents
    value, jitter, inverse, solution = _solved(*primals)
    weights = (solution @ solution.T - primals[2].shape[1] * inverse) / 2
    slope = jnp.zeros_like(value)
    if not isinstance(d_matrix, SymbolicZero):
        slope += jnp.sum(weights * d_matrix)
    if not isinstance(d_diagonal, SymbolicZero):
        slope += jnp.sum(jnp.diagonal(weights) * d_diagonal)
    if not isinstance(d_residual, SymbolicZero):
        slope -= jnp.sum(solution * d_residual)
    return (value, jitter), (slope, jnp.zeros_like(jitter))


@jax.custom_jvp
def _solved(matrix, diagonal, residual):
    """Returns the density, the jitter, A^-1 and A^-1 r."""
    factor, jitter = cholesky_with_jitter(matrix + jnp.diag(diagonal))
    half = _forward(factor, residual)
    solution = jax.lax.linalg.triangular_solve(factor, half, left_side=True, lower=True, transpose_a=True)
    root = _forward(factor, jnp.eye(len(factor), dtype=factor.dtype))
    return _value(factor, half), jitter, root.T @ root, solution


@_solved.defjvp
def _solved_jvp(primals, tangents):
    d_matrix, d_diagonal, d_residual = tangents
    _, jitter, inverse, solution = out = _solved(*primals)
    d_matrix = d_matrix + jnp.diag(d_diagonal)
    weights = (solution @ solution.T - primals[2].shape[1] * inverse) / 2
    slope = jnp.sum(weights * d_matrix) - jnp.sum(solution * d_residual)
    d_solution = inverse @ (d_residual - d_matrix @ solution)
    return out, (slope, jnp.zeros_like(jitter), -inverse @ d_matrix @ inverse, d_solution)


def _forward(factor, residual):
    return jax.lax.linalg.triangular_solve(factor, residual, left_side=True, lower=True)


def _value(factor, half):
    n, m = half.shape
    return -jnp.sum(half**2) / 2 - m * (jnp.sum(jnp.log(jnp.diagonal(factor))) + n / 2 * math.log(2 * math.pi))
