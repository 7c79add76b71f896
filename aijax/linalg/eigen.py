"""The outer eigenvalues of a symmetric operator, from products alone: thick-restart Lanczos.

A space of m vectors is grown from one random vector (see `aijax.linalg.lanczos`). Its Ritz values and vectors are
worked out; the best of them are kept as the first vectors of the next space, which goes on from the residual vector (Wu
and Simon 2000, SIAM J. Matrix Anal. Appl. 22). What is kept stays in the basis and every new vector is made orthogonal
to all of it, so converged pairs are locked and do not come back. What the three-term recurrence says of a vector is
taken off first, by itself; one pass over the whole basis then takes off what rounding has left.

A Krylov space of one vector holds one vector of each eigenspace, so a repeated eigenvalue may be missed. Therefore,
once k pairs have converged, the search goes on from a fresh random vector orthogonal to them, and ends only when such a
sweep brings nothing better. That finds repeated eigenvalues one copy a sweep. A copy whose vector a whole sweep does
not resolve (a cluster far narrower than its distance to the rest, in a small `subspace`) can still be missed.

No product is spent on checking: with Q the basis, `A Q = Q T + r e_m^T` tells the residual of a Ritz vector `Q s` as
`|r| |s_m|`. Where a fresh vector takes the place of r, what r would have told is kept as a bound, and added.
"""

import functools
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, choose
from aijax.linalg.vectors import (
    check_count,
    check_operator,
    combine,
    components,
    dimension,
    dtype_of,
    inner,
    like,
    norm,
    random_vector,
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
    """`values [k]`, best first; `vectors` (a first axis of k); `residuals [k]`: bounds of `|A u - value u|` with what
    rounding adds, so that an eigenvalue lies within that distance of each value; `converged [k]`; restarts made."""

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
    fresh_products: int | None = None,
    loop: str = "compiled",
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
      fresh_products: of a sweep that looks for repeated eigenvalues; default `subspace - k`. Fewer find copies that
        stand out from what is left when the k pairs and the best of the space are taken off.
      loop: "compiled", or "host": steps are called from Python, where `matvec` is to be compiled by the caller and
        nothing is traced; for products that are slow within compiled loops, as convolutions are on CPUs.

    Raises:
      ConfigError: more values than the dimension, a subspace that leaves no room, an unknown `which` or `loop`; a loop
        from the host within a transformation.

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
    choose(_PREFERENCE, which, "which")
    choose({"compiled": None, "host": None}, loop, "loop")
    if k > size:
        raise ConfigError(f"k: expected at most the dimension {size}, got {k}")
    width = min(size, 2 * k + 20 if subspace is None else subspace)
    if width < min(size, k + 2):
        raise ConfigError(f"subspace: expected at least k + 2 = {k + 2} vectors, got {subspace}")
    if fresh_products is not None:
        check_count("fresh_products", fresh_products)
    eps = float(jnp.finfo(dtype_of(shape)).eps)
    tolerance = max(tolerance, 20 * eps)
    space = _Space(width, size, k, which, tolerance, max(k, width - (fresh_products or width)), max_restarts)

    if loop == "host":
        return _answer(space, _search_from_host(matvec, space, key, shape))
    found = _answer(space, _search_compiled(lambda v: jax.lax.stop_gradient(matvec(v)), space, key, shape))
    product, constants = jax.closure_convert(lambda v: matvec(v), _row(found.vectors, 0))
    return replace(found, values=_with_derivative(product, found.values, found.vectors, *constants))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _with_derivative(product, values, vectors, *constants):
    """Returns the values; by the constants of the operator they change as `u^T dA u`."""
    return values


@_with_derivative.defjvp
def _derivative(product, primals, tangents):
    values, vectors, *constants = primals
    _, _, *moves = tangents

    def slope(u):
        return inner(u, jax.jvp(lambda *constants: product(u, *constants), constants, moves)[1])

    return values, jax.lax.map(slope, vectors)


@dataclass(frozen=True)
class _Space:
    """What does not change in a search: vectors held, the dimension, how many are sought and which, how exact, what is
    kept of a space in which they are found, sweeps at most."""

    width: int
    size: int
    k: int
    which: str
    tolerance: float
    kept_when_found: int
    max_restarts: int

    @property
    def kept(self):
        return min(self.k + max(1, (self.width - self.k) // 2), self.width - 1)


class _State(NamedTuple):
    """A search: the basis and one more, `Q^T A Q`, how many vectors the sweep began with and the number of the one that
    is to be multiplied; the coupling to the one before; whether a random vector is to take its place, as none follows
    from the others; bounds of what residuals the kept ones have outside of the basis; whether the sweep looks for
    copies; what was found."""

    basis: PyTree
    projected: Array
    kept: Array
    index: Array
    beta: Array
    closed: Array
    missed: Array
    fresh: Array
    sweeps: Array
    done: Array
    values: Array
    largest: Array


def _begin(space, shape):
    basis = jax.tree.map(lambda leaf: jnp.zeros((space.width + 1, *leaf.shape), leaf.dtype), shape)
    matrix = np.zeros((space.width, space.width), dtype_of(shape))
    none, no, row, zero = np.int32(0), np.bool_(False), matrix[0], matrix[0, 0]
    return _State(basis, matrix, none, none, zero, ~no, row, no, none, no, row, zero)


def _search_compiled(matvec, space, key, shape):
    def step(state):
        image = jax.lax.cond(
            state.closed, lambda: _random(space, state, key), lambda: matvec(_row(state.basis, state.index))
        )
        return _grow(space, state, image)

    def sweep(state):
        return _restart(space, jax.lax.while_loop(lambda state: state.index < space.width, step, state))

    return jax.lax.while_loop(lambda s: ~s.done & (s.sweeps < space.max_restarts), sweep, _begin(space, shape))


def _search_from_host(matvec, space, key, shape):
    state = _begin(space, shape)
    while not state.done and state.sweeps < space.max_restarts:
        while state.index < space.width:
            if state.closed:
                image = _random_from_host(space, state, key)
            else:
                image = matvec(_row_from_host(state.basis, state.index))
            if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(image)):
                raise ConfigError(
                    "loop: 'host' needs values that are known; within jit, vmap or grad expected 'compiled'"
                )
            state = _grow_from_host(space, state, image)
        state = _restart_from_host(space, state)
    return state


def _random(space, state, key):
    shape = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state.basis)
    return random_vector(jax.random.fold_in(key, state.sweeps * space.width + state.index), shape)


def _grow(space, state, image):
    """Returns the search with one more vector: the direction of an image, or of a random vector where none follows,
    orthogonal to all. An image's components are a column of `Q^T A Q` (above the diagonal).

    But for the first vector of a sweep, an image has components on two vectors of the basis, and beyond them only what
    rounding makes: with these two taken off by themselves, once is enough for all. A random vector may lie in the basis
    but for its last digits.
    """
    basis, index, closed, first = state.basis, state.index, state.closed, state.index == state.kept
    before = jnp.maximum(index - 1, 0)
    q, previous = _row(basis, index), _row(basis, before)
    coupling = jnp.where(first, 0, state.beta)
    alpha = inner(q, image)
    image = jax.tree.map(lambda a, b, c: a - alpha * b - coupling * c, image, q, previous)
    places = jnp.arange(space.width + 1)
    column = jnp.where(places == before, coupling, 0) + jnp.where(places == index, alpha, 0)

    def reduced(_, carry):
        v, column = carry
        more = components(basis, v)
        return jax.tree.map(jnp.subtract, v, combine(more, basis)), column + more

    times = jnp.where(closed, 4, jnp.where(first, 2, 1))
    rest, column = jax.lax.fori_loop(0, times, reduced, (image, column))
    beta = norm(rest)
    column = jnp.where(closed, 0, column[: space.width])
    projected = jax.lax.dynamic_update_index_in_dim(state.projected, column, index, 1)
    negligible = jnp.where(closed, 0, 10 * jnp.finfo(beta.dtype).eps * jnp.max(jnp.abs(projected)))
    grown = index + jnp.where(closed, 0, 1)
    ends = beta <= negligible
    following = scale(jnp.where(ends, 0, 1 / jnp.where(ends, 1, beta)), rest)
    return state._replace(
        basis=_with_row(basis, grown, following),
        projected=projected,
        index=grown,
        beta=jnp.where(ends | closed, 0, beta),
        closed=ends & ~closed,
    )


def _restart(space, state):
    """Returns the search after a sweep: Ritz vectors, the best first, of which some are kept, and the next vector."""
    k, width = space.k, space.width
    values, rotation = _eigh(jnp.triu(state.projected))
    order = jnp.argsort(-_PREFERENCE[space.which](values))
    values, rotation = values[order], rotation[:, order]
    largest = jnp.maximum(state.largest, jnp.max(jnp.abs(values)))
    inside = jnp.abs(state.beta * rotation[-1])
    missed = state.missed @ jnp.abs(rotation)
    found = jnp.all(inside[:k] <= space.tolerance / 2 * largest)
    nothing_new = state.fresh & jnp.all(jnp.abs(values[:k] - state.values[:k]) <= space.tolerance * largest)
    done = found & (nothing_new | (width == space.size))
    # the last sweep that may be made is the answer; its residuals count whole
    ends = done | (state.sweeps + 1 == space.max_restarts)
    missed = jnp.where(found | ends, missed + inside, missed)
    kept = jnp.where(found, space.kept_when_found, space.kept).astype(jnp.int32)
    held = jnp.arange(width) < kept
    closed = found | state.closed
    following = scale(jnp.where(closed, 0, 1), _row(state.basis, width))
    ritz = combine(rotation.T * held[:, None], jax.tree.map(lambda q: q[:width], state.basis))
    ritz = jax.tree.map(lambda q: jnp.concatenate([q, jnp.zeros_like(q[:1])]), ritz)
    # with every vector of the space kept there is no next one, and index `kept` would be the end of the basis
    return _State(
        _with_row(ritz, kept, following), jnp.diag(jnp.where(held, values, 0)), kept, kept,
        jnp.zeros_like(state.beta), closed, jnp.where(held, missed, 0), found, state.sweeps + 1, done, values, largest,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def _answer(space, state):
    residuals = state.missed[: space.k] + 10 * jnp.finfo(state.largest.dtype).eps * state.largest
    vectors = jax.tree.map(lambda q: q[: space.k], state.basis)
    converged = residuals <= space.tolerance * state.largest
    return Eigenpairs(state.values[: space.k], vectors, residuals, converged, state.sweeps)


def _from_host(step):
    """Returns a step as a program of its own, which writes into the basis that it is given."""

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def run(space, basis, rest, *more):
        return step(space, rest._replace(basis=basis), *more)

    return lambda space, state, *more: run(space, state.basis, state._replace(basis=None), *more)


_random_from_host = jax.jit(_random, static_argnums=0)
_grow_from_host, _restart_from_host = map(_from_host, (_grow, _restart))


def _eigh(upper):
    """Returns eigenvalues and vectors of a symmetric matrix: of unit length and the quotients of Rayleigh to the last
    digit, which those of LAPACK are not in float32."""
    matrix = upper + jnp.triu(upper, 1).T
    _, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    vectors = vectors / jnp.linalg.norm(vectors, axis=0)
    return jnp.sum(vectors * jnp.matmul(matrix, vectors, precision="highest"), axis=0), vectors


def _row(basis, index):
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), basis)


_row_from_host = jax.jit(_row)


def _with_row(basis, index, v):
    return jax.tree.map(lambda leaf, q: jax.lax.dynamic_update_index_in_dim(leaf, q, index, 0), basis, v)
