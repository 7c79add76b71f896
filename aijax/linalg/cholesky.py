"""The Cholesky factor of a matrix that is positive definite up to rounding.

A kernel matrix of near-equal points has eigenvalues that rounding makes negative. The factor is first sought of A
itself; only where that fails is `jitter * I` added, from a few roundings of the mean diagonal upwards, tenfold each
time, and the amount is returned so that nothing is hidden.
"""

import functools

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.typing import Array, Float


def cholesky_with_jitter(
    a: Float[Array, "*b n n"], *, max_tries: int = 8
) -> tuple[Float[Array, "*b n n"], Float[Array, "*b"]]:
    """Returns `(L, jitter)` with `L L^T = A + jitter I`, L lower triangular; jitter is 0 where A needs none.

    The derivative is that of the factor of `A + jitter I` with the jitter held. Each matrix of a batch gets its own.

    Args:
      a: symmetric matrices, `[..., n, n]`; the lower triangle is read.
      max_tries: amounts tried, from `10 eps mean(diag A)` upwards; L is NaN where even the last one fails, as it does
        for a matrix that has eigenvalues below minus that.

    Raises:
      ConfigError: a is not a floating array of square matrices.

    >>> factor, jitter = cholesky_with_jitter(jnp.ones((2, 2)))
    >>> bool(jnp.isfinite(factor).all()), bool(0 < jitter < 1e-4)
    (True, True)
    """
    a = jnp.asarray(a)
    if a.ndim < 2 or a.shape[-1] != a.shape[-2] or not jnp.issubdtype(a.dtype, jnp.floating):
        raise ConfigError(f"a: expected floating square matrices [..., n, n], got {a.dtype} of shape {a.shape}")
    return _factor(a, max_tries)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _factor(a, max_tries):
    diagonal = jnp.diagonal(a, axis1=-2, axis2=-1)
    first = 10 * jnp.finfo(a.dtype).eps * jnp.mean(jnp.abs(diagonal), -1)

    def failed(factor):
        return ~jnp.isfinite(factor).all((-2, -1))

    def retry(state):
        factor, jitter, tries = state
        again = failed(factor)
        jitter = jnp.where(again, jnp.where(jitter > 0, 10 * jitter, first), jitter)
        shifted = a + jitter[..., None, None] * jnp.eye(a.shape[-1], dtype=a.dtype)
        return jnp.where(again[..., None, None], _cholesky(shifted), factor), jitter, tries + 1

    start = (_cholesky(a), jnp.zeros_like(first), 0)
    factor, jitter, _ = jax.lax.while_loop(lambda s: failed(s[0]).any() & (s[2] < max_tries), retry, start)
    return factor, jitter


@_factor.defjvp
def _factor_jvp(max_tries, primals, tangents):
    (a,), (da,) = primals, tangents
    factor, jitter = _factor(a, max_tries)
    # L^-1 dA L^-T = S + S^T with S = L^-1 dL lower triangular
    lower = jnp.tril(da)
    symmetric = lower + jnp.swapaxes(jnp.tril(da, -1), -1, -2)
    half = jax.lax.linalg.triangular_solve(factor, symmetric, left_side=True, lower=True)
    middle = jax.lax.linalg.triangular_solve(factor, half, left_side=False, lower=True, transpose_a=True)
    strict = jnp.tril(middle, -1)
    diagonal = jnp.diagonal(middle, axis1=-2, axis2=-1) / 2
    slope = strict + diagonal[..., None] * jnp.eye(a.shape[-1], dtype=a.dtype)
    return (factor, jitter), (jnp.matmul(factor, slope, precision="highest"), jnp.zeros_like(jitter))


def _cholesky(a):
    return jnp.tril(jax.lax.linalg.cholesky(a, symmetrize_input=False))
