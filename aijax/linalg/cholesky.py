"""The Cholesky factor of a matrix that is positive definite up to rounding.

A kernel matrix of near-equal points has eigenvalues that rounding makes negative. The factor is first sought of A
itself; only where that fails is `jitter * I` added, from a few roundings of the mean diagonal upwards, tenfold each
time, and the amount is returned so that nothing is hidden.
"""

import functools
import math

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.linalg import blocked
from aijax.typing import Array, Float


@functools.partial(jax.jit, static_argnames="max_tries")
def cholesky_with_jitter(
    a: Float[Array, "*b n n"], diagonal: Float[Array, "*b n"] | None = None, *, max_tries: int | None = None
) -> tuple[Float[Array, "*b n n"], Float[Array, "*b"]]:
    """Returns `(L, jitter)`, `L L^T = A + jitter I`, `A = a + diag(diagonal)`; jitter is 0 where A needs none.

    The derivative is that of the factor of `A + jitter I` with the jitter held. Each matrix of a batch gets its own.

    Args:
      a: symmetric matrices, `[..., n, n]`, whole.
      diagonal: what is added to their diagonals, `[..., n]`, without a copy of a; default nothing.
      max_tries: amounts tried, from `10 eps mean(diag A)` upwards; default those below `10 sqrt(eps) mean(diag A)`:
        8 in float64, 4 in float32. Where even the last one fails, as it does for a matrix that has eigenvalues below
        minus that, L has NaN from some entry of its diagonal on.

    Raises:
      ConfigError: a is not a floating array of square matrices.

    >>> factor, jitter = cholesky_with_jitter(jnp.ones((2, 2)))
    >>> bool(jnp.isfinite(factor).all()), bool(0 < jitter < 1e-4)
    (True, True)
    """
    a = jnp.asarray(a)
    if a.ndim < 2 or a.shape[-1] != a.shape[-2] or not jnp.issubdtype(a.dtype, jnp.floating):
        raise ConfigError(f"a: expected floating square matrices [..., n, n], got {a.dtype} of shape {a.shape}")
    if max_tries is None:
        max_tries = math.ceil(-math.log10(jnp.finfo(a.dtype).eps) / 2)
    diagonal = jnp.zeros(a.shape[:-1], a.dtype) if diagonal is None else jnp.broadcast_to(diagonal, a.shape[:-1])
    return _factor(a, diagonal, max_tries)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _factor(a, diagonal, max_tries):
    first = 10 * jnp.finfo(a.dtype).eps * jnp.mean(jnp.abs(diagonal_of(a) + diagonal), -1)

    def failed(factor):
        return ~jnp.isfinite(diagonal_of(factor)).all(-1)

    def shifted(factor, jitter):
        again = failed(factor)[..., None, None]
        return jnp.where(again, blocked.native_cholesky(a, diagonal + jitter[..., None]), factor)

    def retry(state):
        factor, jitter, tries = state
        jitter = jnp.where(failed(factor), jnp.where(jitter > 0, 10 * jitter, first), jitter)
        # always so; inside a condition XLA lifts none of the work out of a loop that is seldom entered
        factor = jax.lax.cond(tries < max_tries, shifted, lambda factor, _: factor, factor, jitter)
        return factor, jitter, tries + 1

    start = (blocked.cholesky(a, diagonal), jnp.zeros_like(first), 0)
    factor, jitter, _ = jax.lax.while_loop(lambda s: failed(s[0]).any() & (s[2] < max_tries), retry, start)
    return factor, jitter


@_factor.defjvp
def _factor_jvp(max_tries, primals, tangents):
    da, d_diagonal = tangents
    factor, jitter = _factor(*primals, max_tries)
    # L^-1 dA L^-T = S + S^T with S = L^-1 dL lower triangular
    lower = jnp.tril(da) + _diagonal_matrix(d_diagonal)
    symmetric = lower + jnp.swapaxes(jnp.tril(da, -1), -1, -2)
    half = blocked.solve_lower(factor, symmetric)
    middle = jnp.swapaxes(blocked.solve_lower(factor, jnp.swapaxes(half, -1, -2)), -1, -2)
    slope = jnp.tril(middle, -1) + _diagonal_matrix(diagonal_of(middle) / 2)
    return (factor, jitter), (jnp.matmul(factor, slope, precision="highest"), jnp.zeros_like(jitter))


def diagonal_of(a: Float[Array, "*b n n"]) -> Float[Array, "*b n"]:
    """Returns the diagonals of a batch of matrices."""
    return jnp.diagonal(a, axis1=-2, axis2=-1)


def _diagonal_matrix(diagonal):
    return diagonal[..., None] * jnp.eye(diagonal.shape[-1], dtype=diagonal.dtype)
