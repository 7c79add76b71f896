"""The Lanczos process with full reorthogonalisation, and functions of an operator applied to a vector.

From a start vector, m products with a symmetric A give an orthonormal basis Q of the Krylov space and a tridiagonal T:

    A Q = Q T + beta_m q_(m+1) e_m^T,      T = Q^T A Q                                   (Lanczos 1950)

and `f(A) b ~ |b| Q f(T) e_1`, which is exact for polynomials of degree below m (Saad 1992, SIAM J. Numer. Anal. 29).
Every new vector is made orthogonal to all before it, twice; without that, rounding brings back converged directions.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.linalg.vectors import (
    check_count,
    check_operator,
    check_vector,
    combine,
    dimension,
    dtype_of,
    inner,
    norm,
    orthogonalise,
    scale,
)
from aijax.typing import Array, Callable, PyTree


@functools.partial(jax.tree_util.register_dataclass, data_fields=["alpha", "beta", "basis", "norm"], meta_fields=[])
@dataclass(frozen=True)
class Lanczos:
    """T's diagonal `alpha [m]`, the couplings `beta [m]` (the last one leads out of the space), the basis (like the
    start vector, with a first axis of m), and the start vector's norm; each with a last axis for columns, if any."""

    alpha: Array
    beta: Array
    basis: PyTree
    norm: Array

    def tridiagonal(self) -> Array:
        """Returns T, `[m, m]`, or `[k, m, m]` for columns."""

        def matrix(alpha, beta):
            return jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)

        return matrix(self.alpha, self.beta) if self.alpha.ndim == 1 else jax.vmap(matrix, -1)(self.alpha, self.beta)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["value", "error"], meta_fields=[])
@dataclass(frozen=True)
class FunctionResult:
    """`f(A) b`, and an estimate of the Euclidean norm of its error (for each column)."""

    value: PyTree
    error: Array


def lanczos(matvec: Callable[[PyTree], PyTree], start: PyTree, steps: int, *, columns: bool = False) -> Lanczos:
    """Returns the tridiagonal matrix and the basis that `steps` products with A give from `start`.

    Where the Krylov space ends before (an invariant space), the rest of T and of the basis is 0, which changes nothing
    in `f(T) e_1`. Memory: `steps` vectors.

    Args:
      matvec: `v -> A v`, symmetric.
      start: an array or a tree of arrays, not 0.
      steps: how many; no more than the dimension.
      columns: the last axis of `start` counts vectors, each of which gets its own process; products are taken together.

    Raises:
      ConfigError: `start` is not made of floating numbers, `matvec` changes the shape, too many steps.

    Source: Lanczos 1950; Parlett, The Symmetric Eigenvalue Problem, chapter 13.

    >>> lanczos(lambda v: jnp.array([1.0, 3.0]) * v, jnp.ones(2), 2).alpha.round(3).tolist()
    [2.0, 2.0]
    """
    start = jax.tree.map(jnp.asarray, start)
    check_vector("start", start, columns)
    check_operator(matvec, start)
    check_count("steps", steps)
    if steps > dimension(start, columns):
        raise ConfigError(f"steps: expected at most the dimension {dimension(start, columns)}, got {steps}")
    size = norm(start, columns)
    tiny = jnp.finfo(dtype_of(start)).eps
    first = scale(1 / jnp.where(size > 0, size, 1), start)
    basis = jax.tree.map(lambda q: jnp.zeros((steps, *q.shape), q.dtype).at[0].set(q), first)

    def step(carry, index):
        basis, largest = carry
        q = jax.tree.map(lambda leaf: leaf[index], basis)
        image = matvec(q)
        alpha = inner(q, image, columns)
        rest, _ = orthogonalise(basis, image, columns)
        beta = norm(rest, columns)
        largest = jnp.maximum(largest, jnp.abs(alpha) + beta)
        ended = beta <= 10 * tiny * largest
        beta = jnp.where(ended, 0, beta)
        following = scale(jnp.where(ended, 0, 1 / jnp.where(ended, 1, beta)), rest)
        basis = jax.tree.map(lambda leaf, q: leaf.at[index + 1].set(q, mode="drop"), basis, following)
        return (basis, largest), (alpha, beta)

    (basis, _), (alpha, beta) = jax.lax.scan(step, (basis, jnp.zeros_like(size)), jnp.arange(steps))
    return Lanczos(alpha, beta, basis, size)


def apply_function(
    function: Callable[[Array], Array],
    matvec: Callable[[PyTree], PyTree],
    b: PyTree,
    *,
    steps: int,
    columns: bool = False,
) -> FunctionResult:
    """Returns `f(A) b` for a symmetric A, and an estimate of its error.

    The estimate is the distance to the result of three quarters of the steps, which is the error of that one and so, as
    long as the process converges, above the error of the value given. It is no bound.

    Args:
      function: f on eigenvalues, `[m] -> [..., m]`; leading axes (times, say) become leading axes of the result.
      matvec, columns: as in `lanczos`.
      b: an array or a tree of arrays.
      steps: products with A; memory is this many vectors like b.

    Raises:
      ConfigError: as `lanczos`.

    Source: Saad 1992, SIAM J. Numer. Anal. 29, equation (5).

    >>> result = apply_function(jnp.exp, lambda v: 2.0 * v, jnp.ones(3), steps=1)
    >>> bool(jnp.allclose(result.value, jnp.exp(2.0)))
    True
    """
    process = lanczos(matvec, b, steps, columns=columns)
    matrix = process.tridiagonal()

    def coefficients(matrix, size):
        values, vectors = jnp.linalg.eigh(matrix)
        weights = jnp.einsum("ij,...j,j->...i", vectors, function(values), vectors[0], precision="highest")
        return size * jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, steps - matrix.shape[-1])])

    if columns:
        coefficients = jax.vmap(coefficients, out_axes=-1)
    full = coefficients(matrix, process.norm)
    fewer = max(1, 3 * steps // 4)
    part = coefficients(matrix[..., :fewer, :fewer], process.norm)
    difference = jnp.linalg.norm(full - part, axis=-2 if columns else -1)
    exact = (process.beta == 0).any(0) if steps < dimension(b, columns) else True
    return FunctionResult(combine(full, process.basis, columns), jnp.where(exact, 0, difference))
