"""The log density of a Gaussian vector, and its derivatives of every order from one identity.

With A = matrix + diag(diagonal), a = A^-1 r and r of m independent columns,

    log N(r; 0, A) = -1/2 sum(r a) - m/2 log det A - m n/2 log 2 pi
    d log N        = <(a a^T - m A^-1) / 2, dA> - <a, dr>
    d a            = A^-1 (dr - dA a),      d A^-1 = -A^-1 dA A^-1

(Rasmussen and Williams 2006, equations 2.30 and 5.9). Differentiating the identity and not the factorisation costs one
inverse in place of the derivative of a Cholesky factor, a fourth of the time; since the rules are closed, higher
derivatives follow from them. dA being symmetric, any F with `(F + F^T) / 2 = A^-1` serves in the place of A^-1, and one
with a triangle of zeros takes half the work.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from aijax.linalg import blocked
from aijax.linalg.cholesky import cholesky_with_jitter, diagonal_of
from aijax.typing import Array, Float


@jax.jit
def gaussian_log_density(
    matrix: Float[Array, "n n"], diagonal: Float[Array, " n"], residual: Float[Array, "n m"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns `(log N(residual; 0, matrix + diag(diagonal + jitter)), jitter)`, summed over the columns.

    The value is NaN where no jitter of `cholesky_with_jitter` makes the matrix positive definite. In derivatives the
    jitter is held and the matrix stays symmetric: a cotangent of it may have all of its weight in one triangle.

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
    factor, jitter = cholesky_with_jitter(matrix, diagonal)
    return _value(factor, blocked.solve_lower(factor, residual)), jitter


@functools.partial(_density.defjvp, symbolic_zeros=True)
def _density_jvp(primals, tangents):
    d_matrix, d_diagonal, d_residual = tangents
    value, jitter, folded, solution = _solved(*primals)
    slope = jnp.zeros_like(value)
    if not isinstance(d_matrix, SymbolicZero):
        slope += jnp.sum(_weights(folded, solution) * d_matrix)
    if not isinstance(d_diagonal, SymbolicZero):
        slope += jnp.sum(_diagonal_weights(folded, solution) * d_diagonal)
    if not isinstance(d_residual, SymbolicZero):
        slope -= jnp.sum(solution * d_residual)
    return (value, jitter), (slope, jnp.zeros_like(jitter))


@jax.custom_jvp
def _solved(matrix, diagonal, residual):
    """Returns the density, the jitter, F and a."""
    factor, jitter = cholesky_with_jitter(matrix, diagonal)
    white = blocked.solve_lower(factor, residual)
    solution = blocked.solve_lower(factor, white, transpose=True)
    return _value(factor, white), jitter, blocked.folded_inverse(factor), solution


@_solved.defjvp
def _solved_jvp(primals, tangents):
    d_matrix, d_diagonal, d_residual = tangents
    _, jitter, folded, solution = out = _solved(*primals)
    slope = jnp.sum(_weights(folded, solution) * d_matrix) - jnp.sum(solution * d_residual)
    slope += jnp.sum(_diagonal_weights(folded, solution) * d_diagonal)
    inverse = (folded + folded.T) / 2
    d_matrix = d_matrix + jnp.diag(d_diagonal)
    d_solution = _matmul(inverse, d_residual - _matmul(d_matrix, solution))
    return out, (slope, jnp.zeros_like(jitter), -_matmul(_matmul(inverse, d_matrix), inverse), d_solution)


def _weights(folded, solution):
    return (_matmul(solution, solution.T) - solution.shape[1] * folded) / 2


def _diagonal_weights(folded, solution):
    return (jnp.sum(solution**2, 1) - solution.shape[1] * diagonal_of(folded)) / 2


def _value(factor, white):
    n, m = white.shape
    return -jnp.sum(white**2) / 2 - m * (jnp.sum(jnp.log(diagonal_of(factor))) + n / 2 * math.log(2 * math.pi))


def _matmul(a, b):
    return jnp.matmul(a, b, precision="highest")
