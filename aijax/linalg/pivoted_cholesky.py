"""The partial pivoted Cholesky factor of a positive semidefinite matrix, from a few of its columns.

Each step takes the largest entry i of the diagonal of what is left, `R = A - C C^T`, and adds the column that makes row
and column i of R zero:

    c = R e_i / sqrt(R_ii),    diag(R) <- diag(R) - c^2

R stays positive semidefinite, so that its trace bounds its norm: the error is known (Harbrecht, Peters and Schneider
2012, Appl. Numer. Math. 62, algorithm 1). C C^T is the Nystrom approximation `A_:I A_II^-1 A_I:` of the pivots I.

One column at a time is bound by memory. With `block` > 1 the columns of several candidates, those of the largest
entries, are made together; of these the same steps keep, one after the other, each whose entry of R is still at least
half as large as the largest of all was. The others, near to what was kept, wait for their turn.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.linalg.vectors import check_count
from aijax.typing import Array, Callable, Float, Int

KEPT = 0.5
"""A candidate of a block is kept while its entry is at least this share of the largest."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PivotedCholesky:
    """`A ~ factor factor^T`, exact in the rows and columns of the pivots.

    Args:
      factor: C, `[n, rank]`; columns from `count` on are 0.
      pivots: `[rank]`, distinct up to `count`, then 0. `factor[pivots]` is lower triangular up to there.
      count: pivots found, at most `rank`.
      diagonal: of `A - C C^T`, `[n]`, at least 0; its sum bounds the norm of that matrix.
    """

    factor: Float[Array, "n r"]
    pivots: Int[Array, " r"]
    count: Int[Array, ""]
    diagonal: Float[Array, " n"]


def pivoted_cholesky(
    columns: Callable[[Int[Array, " b"]], Float[Array, "n b"]],
    diagonal: Float[Array, " n"],
    rank: int,
    *,
    block: int = 1,
    tolerance: float | None = None,
) -> PivotedCholesky:
    """Returns the factor of at most `rank` columns, and which rows were the pivots.

    Args:
      columns: `indices [b] -> A[:, indices]`, `[n, b]`; A symmetric and positive semidefinite.
      diagonal: of A, `[n]`.
      rank: columns of the factor, at most n.
      block: candidates that are looked at together; 1 is the greedy choice of every pivot.
      tolerance: the search ends when no entry of the diagonal is left above `tolerance max(diag A)`; default a hundred
        roundings of the dtype.

    Raises:
      ConfigError: a rank above n, a diagonal that is no floating vector.

    Source: Harbrecht, Peters and Schneider 2012, algorithm 1.

    >>> a = jnp.array([[4.0, 2.0], [2.0, 1.0]])
    >>> result = pivoted_cholesky(lambda indices: a[:, indices], jnp.diagonal(a), 2)
    >>> result.factor.tolist(), int(result.count)
    ([[2.0, 0.0], [1.0, 0.0]], 1)
    """
    diagonal = jnp.asarray(diagonal)
    if diagonal.ndim != 1 or not jnp.issubdtype(diagonal.dtype, jnp.floating):
        raise ConfigError(f"diagonal: expected floating numbers [n], got {diagonal.dtype} of shape {diagonal.shape}")
    check_count("rank", rank)
    check_count("block", block)
    n = len(diagonal)
    if rank > n:
        raise ConfigError(f"rank: expected at most the dimension {n}, got {rank}")
    block = min(block, rank)
    if tolerance is None:
        tolerance = 100 * float(jnp.finfo(diagonal.dtype).eps)
    least = tolerance * jnp.max(diagonal)

    def add(state):
        factor, pivots, count, left = state
        largest, candidates = jax.lax.top_k(left, block)
        images = columns(candidates)
        known = factor[candidates]
        inner = images[candidates] - jnp.matmul(known, known.T, precision="highest")
        order, triangle, kept = _within(inner, jnp.maximum(least, KEPT * largest[0]), block)
        found = jnp.arange(block) < kept
        rest = images[:, order] - jnp.matmul(factor, known[order].T, precision="highest")
        new = jax.lax.linalg.triangular_solve(triangle, rest, left_side=False, lower=True, transpose_a=True)
        new = jnp.where(found, new, 0)
        chosen = candidates[order]
        left = jnp.maximum(left - jnp.sum(new * new, 1), 0).at[jnp.where(found, chosen, n)].set(0, mode="drop")
        places = jnp.where(found, count + jnp.arange(block), rank)
        factor = factor.at[:, places].set(new, mode="drop")
        pivots = pivots.at[places].set(chosen.astype(jnp.int32), mode="drop")
        return factor, pivots, jnp.minimum(count + kept, rank), left

    start = (jnp.zeros((n, rank), diagonal.dtype), jnp.zeros(rank, jnp.int32), jnp.int32(0), diagonal)
    state = jax.lax.while_loop(lambda s: (s[2] < rank) & (jnp.max(s[3]) > least), add, start)
    return PivotedCholesky(*state)


def _within(matrix, least, size) -> tuple[Array, Array, Array]:
    """Returns `(order, L, kept)`: the first `kept` of `order [size]` are pivots of the small matrix, in turn, each with
    an entry above `least` when it was taken; L is their triangle, and the identity from there on."""

    def step(j, state):
        factor, left, order, kept = state
        i = jnp.argmax(left).astype(jnp.int32)
        good = (left[i] >= least) & (left[i] > 0)
        column = (matrix[:, i] - jnp.matmul(factor, factor[i], precision="highest")) / jnp.sqrt(left[i])
        column = jnp.where(good, column, 0)
        left = (left - column * column).at[i].set(jnp.where(good, -jnp.inf, left[i]))
        return factor.at[:, j].set(column), left, order.at[j].set(i), kept + good

    start = (jnp.zeros_like(matrix), jnp.diagonal(matrix), jnp.zeros(size, jnp.int32), jnp.int32(0))
    factor, _, order, kept = jax.lax.fori_loop(0, size, step, start)
    found = jnp.arange(size) < kept
    triangle = jnp.where(found & found[:, None], jnp.tril(factor[order]), jnp.eye(size, dtype=matrix.dtype))
    return order, triangle, kept
