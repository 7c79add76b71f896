"""The outer eigenvalues of a symmetric operator, from products alone: thick-restart Lanczos.

A space of m vectors is grown from one random vector (see `aijax.linalg.lanczos`). Its Ritz values and vectors are
worked out; the best of them are kept as the first vectors of the next space, which goes on from the residual vector (Wu
and Simon 2000, SIAM J. Matrix Anal. Appl. 22). What is kept stays in the basis and every new vector is made orthogonal
to all of it, so converged pairs are locked and do not come back.

A Krylov space of one vector holds one vector of each eigenspace, so a repeated eigenvalue may be missed. Therefore,
once k pairs have converged, the search goes on from a fresh random vector orthogonal to them, and ends only when such a
sweep brings nothing better. That finds repeated eigenvalues one copy a sweep. A copy whose vector a whole sweep does
not resolve (a cluster far narrower than its distance to the rest, in a small `subspace`) can still be missed.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, did_you_mean
from aijax.linalg.vectors import (
    check_count,
    check_operator,
    combine,
    dimension,
    dtype_of,
    inner,
    like,
    norm,
    orthogonalise,
    random_like,
    scale,
)
from aijax.typing import Array, Callable, PRNGKey, PyTree

_PREFERENCE = {"largest": lambda values: values, "smallest": lambda values: -values, "magnitude": jnp.abs}


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "vectors", "residuals", "converged", "restarts"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Eigenpairs:
    """`values [k]`, best first; `vectors` (a first axis of k); `residuals [k]`: `|A u - value u|`, so that an
    eigenvalue lies within that distance of each value; `converged [k]`; restarts made."""

    values: Array
    vectors: PyTree
    residuals: Array
    converged: Array
    restarts: Array


def eigsh(
    matvec: Callable[[PyTree], PyTree],
    key: PRNGKey,
    example: int | PyTree,
    k: int,
    *,
    which: str = "largest",
    tolerance: float = 1e-6,
    max_restarts: int = 100,
    subspace: int | None = None,
) -> Eigenpairs:
    """Returns k eigenvalues at an end of the spectrum, their vectors, and a bound on the error of each value.

    The derivative of a value is `u^T dA u`, right for a simple eigenvalue (and in sum for a cluster that is taken
    whole); vectors have no derivative.

    Args:
      matvec: `v -> A v`, symmetric.
      key: for the first vector and those that look for repeated eigenvalues.
      example: the dimension n, or an array or tree of arrays (or of shapes) like a vector.
      k: how many.
      which: "largest", "smallest" or "magnitude" (largest in absolute value).
      tolerance: residual to reach, relative to the largest eigenvalue in magnitude; not below twenty times the
        rounding of the dtype.
      max_restarts: sweeps at most.
      subspace: vectors held, and products in the first sweep; default `2 k + 20`.

    Raises:
      ConfigError: more values than the dimension, a subspace that leaves no room, an unknown `which`.

    Source: Wu and Simon 2000; the bound is Parlett, The Symmetric Eigenvalue Problem, theorem 4.5.1.

    >>> pairs = eigsh(lambda v: jnp.arange(5.0) * v, jax.random.key(0), 5, 2)
    >>> pairs.values.round(4).tolist()
    [4.0, 3.0]
    """
    shape = like(example)
    size = dimension(shape)
    check_operator(matvec, shape)
    check_count("k", k)
    check_count("max_restarts", max_restarts)
    if which not in _PREFERENCE:
        raise ConfigError(f"which: unknown value {which!r}{did_you_mean(str(which), _PREFERENCE)}")
    if k > size:
        raise ConfigError(f"k: expected at most the dimension {size}, got {k}")
    width = min(size, 2 * k + 20 if subspace is None else subspace)
    if width < min(size, k + 2):
        raise ConfigError(f"subspace: expected at least k + 2 = {k + 2} vectors, got {subspace}")
    tolerance = max(tolerance, 20 * float(jnp.finfo(dtype_of(shape)).eps))

    def frozen(v):
        return jax.lax.stop_gradient(matvec(v))

    vectors, restarts = _search(frozen, key, shape, k, width, size, _PREFERENCE[which], tolerance, max_restarts)
    vectors = jax.lax.stop_gradient(vectors)
    images = jax.lax.map(matvec, vectors)
    values = jax.vmap(inner)(vectors, images)
    errors = jax.vmap(lambda image, value, u: norm(jax.tree.map(lambda a, b: a - value * b, image, u)))
    residuals = jax.lax.stop_gradient(errors(images, values, vectors))
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(values)))
    # at the small end of a spectrum the norm of A is not among the values; the search has used it
    return Eigenpairs(
        values, vectors, residuals, residuals <= tolerance * jnp.maximum(largest, restarts[1]), restarts[0]
    )


def _search(matvec, key, shape, k, width, size, preference, tolerance, max_restarts):
    """Returns the k best Ritz vectors, and the pair (sweeps made, estimate of the norm of A)."""
    dtype = dtype_of(shape)
    first = random_like(key, shape)
    first = scale(1 / norm(first), first)
    basis = jax.tree.map(lambda q: jnp.zeros((width + 1, *q.shape), q.dtype).at[0].set(q), first)
    kept_after = min(k + max(1, (width - k) // 2), width - 1)

    def one_sweep(state):
        basis, projected, kept, fresh, sweeps, _, best, _ = state
        sweep_key = jax.random.fold_in(key, sweeps + 1)
        basis, projected, beta = _sweep(matvec, sweep_key, shape, basis, projected, kept, width, size)
        values, rotation = jnp.linalg.eigh(projected)
        order = jnp.argsort(-preference(values))
        values, rotation = values[order], rotation[:, order]
        largest = jnp.max(jnp.abs(values))
        settled = jnp.all(jnp.abs(beta * rotation[-1, :k]) <= tolerance / 2 * largest)
        nothing_new = fresh & jnp.all(jnp.abs(values[:k] - best) <= tolerance * largest)
        done = settled & (nothing_new | (width == size))
        kept = jnp.where(settled, k, kept_after)
        following = jax.tree.map(lambda q: q[width], basis)
        held = jnp.arange(width) < kept
        ritz = combine(rotation.T * held[:, None], jax.tree.map(lambda q: q[:width], basis))
        ritz = jax.tree.map(lambda q: jnp.concatenate([q, jnp.zeros_like(q[:1])]), ritz)
        unrelated = _orthogonal_unit(jax.random.fold_in(sweep_key, width), shape, ritz, kept < size)
        following = jax.tree.map(lambda a, b: jnp.where(settled, a, b), unrelated, following)
        # with every vector of the space kept there is no next one, and index `kept` would be the end of the basis
        basis = jax.tree.map(lambda q, v: q.at[kept].set(v), ritz, following)
        projected = jnp.diag(jnp.where(held, values, 0))
        return basis, projected, kept, settled, sweeps + 1, done, values[:k], largest

    def unfinished(state):
        return ~state[5] & (state[4] < max_restarts)

    zero = jnp.zeros((), dtype)
    start = (basis, jnp.zeros((width, width), dtype), jnp.zeros((), int), jnp.zeros((), bool), jnp.zeros((), int))
    state = jax.lax.while_loop(unfinished, one_sweep, (*start, jnp.zeros((), bool), jnp.zeros(k, dtype), zero))
    return jax.tree.map(lambda q: q[:k], state[0]), (state[4], state[7])


def _sweep(matvec, key, shape, basis, projected, kept, width, size):
    """Grows the basis from `kept` vectors and one more to `width` and one more; returns also Q^T A Q and the last norm.

    Where the space closes on itself the next vector is a random one orthogonal to it.
    """
    tiny = jnp.finfo(projected.dtype).eps

    def step(index, carry):
        basis, projected, _ = carry
        q = jax.tree.map(lambda leaf: leaf[index], basis)
        rest, column = orthogonalise(basis, matvec(q))
        beta = norm(rest)
        projected = projected.at[:, index].set(column[:width])
        ended = beta <= 10 * tiny * jnp.max(jnp.abs(projected))
        following = jax.lax.cond(
            ended,
            lambda: _orthogonal_unit(jax.random.fold_in(key, index), shape, basis, index + 1 < size),
            lambda: scale(1 / jnp.where(ended, 1, beta), rest),
        )
        basis = jax.tree.map(lambda leaf, q: leaf.at[index + 1].set(q), basis, following)
        return basis, projected, jnp.where(ended, 0, beta)

    basis, columns, beta = jax.lax.fori_loop(kept, width, step, (basis, projected, jnp.zeros((), projected.dtype)))
    upper = jnp.triu(columns)
    return basis, upper + jnp.triu(upper, 1).T, beta


def _orthogonal_unit(key, shape, basis, room):
    """Returns a random unit vector orthogonal to a basis, or 0 where there is no room for one."""
    v = random_like(key, shape)
    v, _ = orthogonalise(basis, scale(1 / norm(v), v))
    v, _ = orthogonalise(basis, scale(1 / norm(v), v))
    return scale(jnp.where(room, 1, 0) / norm(v), v)
