"""Kronecker products of matrices, `K = K_1 (x) ... (x) K_d`, without forming them.

A vector of the product space is a table with one axis for each factor, row-major; K acts on each axis in turn
(Van Loan 2000). With `K_i = U_i diag(lambda_i) U_i^T` and noise s,

    (K + s I)^-1 = U diag(1 / (lambda + s)) U^T,    U = (x) U_i,   lambda = (x) lambda_i

so that the density of a Gaussian vector costs `sum n_i^3 + n sum n_i` (Saatci 2012, chapter 5). Its derivative is

    d log N = sum_i <G_i, dK_i> + g ds - <a, dr>,    a = (K + s I)^-1 r
    G_i = U_i (B_i - m diag(t_i)) U_i^T / 2,    g = (a.a - m sum 1 / (lambda + s)) / 2

B_i the products of the rows of `U^T a` along axis i with those of the same times the other factors' eigenvalues, and
t_i the sums over the other axes of those eigenvalues divided by `lambda + s`. No derivative of an eigenvector occurs,
which would not exist where eigenvalues repeat.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.typing import Array, Float


def kronecker_matvec(factors: Sequence[Float[Array, "a n"]], v: Float[Array, "n *c"]) -> Float[Array, "a *c"]:
    """Returns `(K_1 (x) ... (x) K_d) v` for a vector or columns v.

    Args:
      factors: matrices `[a_i, n_i]`.
      v: `[n]` or `[n, c]`, n the product of all n_i, the last axis of the grid running fastest.

    Raises:
      ConfigError: sizes that do not fit.

    >>> kronecker_matvec([jnp.eye(2), 2 * jnp.eye(3)], jnp.ones(6)).tolist()
    [2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    """
    sizes = [factor.shape[1] for factor in factors]
    if math.prod(sizes) != len(v):
        raise ConfigError(f"v: expected {math.prod(sizes)} rows for factors of {sizes} columns, got {v.shape}")
    table = v.reshape(*sizes, *v.shape[1:])
    for axis, factor in enumerate(factors):
        table = along_axis(factor, table, axis)
    return table.reshape(-1, *v.shape[1:])


def along_axis(matrix: Float[Array, "a n"], table: Array, axis: int) -> Array:
    """Returns the table with `matrix` applied to one axis."""
    return jnp.moveaxis(jnp.tensordot(matrix, table, axes=(1, axis), precision="highest"), 0, axis)


@jax.jit
def kronecker_eigen(
    factors: Sequence[Float[Array, "n n"]],
) -> tuple[Float[Array, "..."], tuple[Float[Array, " n"], ...], tuple[Float[Array, "n n"], ...]]:
    """Returns the eigenvalues of the product as a table, and those and the eigenvectors of each factor."""
    pairs = [jnp.linalg.eigh(factor) for factor in factors]
    values = tuple(value for value, _ in pairs)
    return _outer(values), values, tuple(vectors for _, vectors in pairs)


@jax.custom_jvp
def kronecker_log_density(
    factors: tuple[Float[Array, "n n"], ...], noise: Float[Array, ""], residual: Float[Array, "n m"]
) -> Float[Array, ""]:
    """Returns `log N(residual; 0, K_1 (x) ... (x) K_d + noise I)`, summed over columns; NaN where it is not positive.

    Args:
      factors: symmetric, `[n_i, n_i]`.
      noise: a number.
      residual: `[n, m]`, n the product of all n_i.

    Source: Saatci 2012, section 5.3.

    >>> round(float(kronecker_log_density((jnp.eye(2), jnp.eye(2)), jnp.array(1.0), jnp.zeros((4, 1)))), 4)
    -5.062
    """
    return _density(factors, noise, residual)[0]


@kronecker_log_density.defjvp
def _kronecker_log_density_jvp(primals, tangents):
    factors, noise, residual = primals
    d_factors, d_noise, d_residual = tangents
    value, rotated, weights, values, vectors = _density(factors, noise, residual)
    m = residual.shape[1]
    slope = (jnp.sum(rotated**2) - m * jnp.sum(weights)) / 2 * d_noise
    slope -= jnp.sum(kronecker_matvec(vectors, rotated.reshape(residual.shape)) * d_residual)
    for axis, (vector, change) in enumerate(zip(vectors, d_factors, strict=True)):
        others = [jnp.ones_like(value) if i == axis else value for i, value in enumerate(values)]
        scale = _outer(others)
        rows = _unfold(rotated, axis)
        products = jnp.matmul(rows, _unfold(rotated * scale[..., None], axis).T, precision="highest")
        traces = jnp.sum(_unfold(scale * weights, axis), 1)
        middle = (products - m * jnp.diag(traces)) / 2
        slope += jnp.sum(middle * functools.reduce(_times, (vector.T, change, vector)))
    return value, slope


@jax.jit
def _density(factors, noise, residual):
    """Returns the density, `U^T a` as a table with columns, `1 / (lambda + noise)`, and eigenvalues and vectors."""
    table, values, vectors = kronecker_eigen(factors)
    shifted = table + noise
    weights = 1 / shifted
    turned = kronecker_matvec([vector.T for vector in vectors], residual).reshape(*table.shape, -1)
    rotated = weights[..., None] * turned
    n, m = residual.shape
    value = -(jnp.sum(rotated * turned) + m * jnp.sum(jnp.log(shifted)) + n * m * math.log(2 * math.pi)) / 2
    return value, rotated, weights, values, vectors


def _outer(values):
    return functools.reduce(lambda table, value: table[..., None] * value, values)


def _unfold(table, axis):
    return jnp.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)


def _times(a, b):
    return jnp.matmul(a, b, precision="highest")
