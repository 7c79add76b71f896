"""Small matrices, many at once: `[rows, columns, lanes]`, the lanes last.

A product of 2 x 2 matrices is a handful of multiplications; with 10^5 of them in the lanes it runs at the speed of
vectors, in any backend, where a batched product would be dispatched one by one.
"""

import jax.numpy as jnp

from aijax.typing import Array, Float


def multiply(a: Float[Array, "i k ..."], b: Float[Array, "k j ..."]) -> Float[Array, "i j ..."]:
    """Returns A B of each lane.

    >>> multiply(jnp.ones((2, 3, 5)), jnp.ones((3, 1, 5))).shape
    (2, 1, 5)
    """
    return sum(a[:, k, None] * b[None, k] for k in range(a.shape[1]))


def multiply_transposed(a: Float[Array, "i k ..."], b: Float[Array, "j k ..."]) -> Float[Array, "i j ..."]:
    """Returns A B^T of each lane."""
    return sum(a[:, None, k] * b[None, :, k] for k in range(a.shape[1]))


def transpose_multiply(a: Float[Array, "k i ..."], b: Float[Array, "k j ..."]) -> Float[Array, "i j ..."]:
    """Returns A^T B of each lane."""
    return sum(a[k, :, None] * b[None, k] for k in range(a.shape[0]))


def cholesky_semidefinite(a: Float[Array, "m m ..."]) -> Float[Array, "m m ..."]:
    """Returns lower triangular L with `L L^T = A` of each lane, for A symmetric positive semidefinite.

    A pivot that is 0 up to the rounding of its own diagonal entry is taken as 0, so that the rank may be anything.

    >>> cholesky_semidefinite(jnp.ones((2, 2))).tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    size = a.shape[0]
    floor = 4 * size * jnp.finfo(a.dtype).eps * jnp.stack([a[i, i] for i in range(size)])
    columns = []
    for k in range(size):
        positive = a[k, k] > floor[k]
        root = jnp.sqrt(jnp.where(positive, a[k, k], 1))
        below = (jnp.arange(size) >= k).reshape(-1, *(1,) * (a.ndim - 2))
        column = jnp.where(positive & below, a[:, k] / root, 0)
        a = a - column[:, None] * column[None]
        columns.append(column)
    return jnp.stack(columns, 1)
