"""Where inducing points begin: chosen greedily among the points, at random, or at the centres of clusters.

Greedy selection takes the point whose variance, given those already taken, is largest: tr(K - Q), on which the gap of
the collapsed bound depends, falls fast (Burt, Rasmussen and van der Wilk 2020, section 4.2). It is a pivoted Cholesky
factorisation (`aijax.linalg.pivoted_cholesky`).
"""

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.kernels.distances import squared_distances
from aijax.linalg import pivoted_cholesky
from aijax.linalg.vectors import check_count
from aijax.typing import Any, Array, Float, PRNGKey


def greedy_inducing(kernel: Any, x: Any, num_points: int) -> Any:
    """Returns the `num_points` points of x with the largest conditional variances, one after the other, `[m, d]`.

    Args:
      kernel: of `aijax.kernels`; white noise in it does not count.
      x: n points.
      num_points: m. Where fewer already determine f to rounding, the first points of x that were not taken fill up.

    Raises:
      ConfigError: more points than x has.

    Source: Burt, Rasmussen and van der Wilk 2020, algorithm 1.

    >>> from aijax import kernels
    >>> greedy_inducing(kernels.RBF(), jnp.array([0.0, 0.1, 2.0, 2.1]), 2).tolist()
    [0.0, 2.0999999046325684]
    """
    _check(x, num_points)
    one = jax.vmap(lambda point: kernel(*(jax.tree.map(lambda leaf: leaf[None], point),) * 2)[0, 0])
    found = pivoted_cholesky(lambda rows: kernel(x, _rows(x, rows)), one(x), num_points)
    n, order = len(found.diagonal), jnp.arange(num_points)
    taken = jnp.zeros(n, bool).at[found.pivots].max(order < found.count)
    rest = jnp.argsort(taken, stable=True)
    return _rows(x, jnp.where(order < found.count, found.pivots, rest[jnp.maximum(order - found.count, 0)]))


def random_inducing(key: PRNGKey, x: Any, num_points: int) -> Any:
    """Returns `num_points` different points of x, at random.

    Args:
      key: for the draw.
      x: n points.
      num_points: m, at most n.
    """
    _check(x, num_points)
    return _rows(x, jax.random.choice(key, _count(x), (num_points,), replace=False))


def cluster_inducing(
    key: PRNGKey, x: Float[Array, "n d"], num_points: int, *, num_steps: int = 20
) -> Float[Array, "m d"]:
    """Returns the centres of `num_points` clusters of x by Lloyd's algorithm, from points at random.

    Args:
      key: for the first centres.
      x: n points `[n, d]` or `[n]`, in units in which distances mean something.
      num_points: m, at most n.
      num_steps: of Lloyd's algorithm. A centre that loses all of its points stays where it was.

    Source: Lloyd 1982, IEEE Transactions on Information Theory 28.
    """
    x = jnp.asarray(x)
    points = x[:, None] if x.ndim == 1 else x

    def step(_, centres):
        nearest = jnp.argmin(squared_distances(points, centres), 1)
        totals = jax.ops.segment_sum(points, nearest, num_points)
        counts = jax.ops.segment_sum(jnp.ones(len(points), points.dtype), nearest, num_points)[:, None]
        return jnp.where(counts > 0, totals / jnp.maximum(counts, 1), centres)

    centres = jax.lax.fori_loop(0, num_steps, step, random_inducing(key, points, num_points))
    return centres[:, 0] if x.ndim == 1 else centres


def _check(x, num_points):
    check_count("num_points", num_points)
    if num_points > _count(x):
        raise ConfigError(f"num_points: expected at most the {_count(x)} points there are, got {num_points}")


def _count(x):
    return len(jax.tree.leaves(x)[0])


def _rows(x, rows):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], x)
