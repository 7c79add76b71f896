"""The outer eigenvalues of a symmetric operator, from products alone: thick-restart Lanczos.

A space of m vectors is grown from one random vector (see `aijax.linalg.lanczos`). Its Ritz values and vectors are
worked out; the best of them are kept as the first vectors of the next space, which goes on from the residual vector (Wu
and Simon 2000, SIAM J. Matrix Anal. Appl. 22). What is kept stays in the basis and every new vector is made orthogonal
to all of it, so converged pairs are locked and do not come back.

A Krylov space of one vector holds one vector of each eigenspace, so a repeated eigenvalue may be missed. Therefore,
once k pairs have converged, the search goes on from a fresh random vector orthogonal to them, and ends only when such a
sweep brings nothing better. That finds repeated eigenvalues one copy a sweep. A copy whose vector a whole sweep does
not resolve (a cluster far narrower than its distance to the rest, in a small `subspace`) can still be missed.

No product is spent on checking: with Q the basis, `A Q = Q T + r e_m^T` tells the residual of a Ritz vector `Q s` as
`|r| |s_m|`. Where a fresh vector takes the place of r, what r would have told is kept as a bound, and added.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.linalg.coupled_eigen import coupled_eigh
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
    orthogonalise,
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
      ConfigError: more values than the dimension, a subspace that leaves no room, an unknown `which` or `loop`.

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
    search = choose({"compiled": _search_compiled, "host": _search_on_host}, loop, "loop")
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

    def frozen(v):
        return jax.lax.stop_gradient(matvec(v))

    found = search(frozen, space, _begin(key, shape, width))
    vectors = jax.tree.map(lambda q: q[:k], found.basis)
    product, constants = jax.closure_convert(lambda v: matvec(v), jax.tree.map(lambda q: q[0], vectors))
    values = _with_derivative(product, found.values[:k], vectors, *constants)
    residuals = found.missed[:k] + 10 * eps * found.largest
    return Eigenpairs(values, vectors, residuals, residuals <= tolerance * found.largest, found.sweeps)


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
    """A search: the basis and one more, `Q^T A Q`, how many vectors are kept, bounds of what residuals these have
    outside of the basis; whether a fresh vector follows them; what was found."""

    key: PRNGKey
    basis: PyTree
    projected: Array
    beta: Array
    kept: Array
    missed: Array
    fresh: Array
    sweeps: Array
    done: Array
    values: Array
    largest: Array


def _begin(key, shape, width):
    first = _random_unit(key, shape)
    basis = jax.tree.map(lambda q: jnp.zeros((width + 1, *q.shape), q.dtype).at[0].set(q), first)
    row = jnp.zeros(width, dtype_of(shape))
    zero, no = row[0], jnp.zeros((), bool)
    none = jnp.zeros((), int)
    return _State(key, basis, jnp.diag(row), zero, none, row, no, none, no, row, zero)


def _search_compiled(matvec, space, state):
    def one_sweep(state):
        def step(index, grown):
            basis, projected, _ = grown
            image = matvec(jax.tree.map(lambda leaf: leaf[index], basis))
            return _grow(space, state.key, state.sweeps, index, basis, projected, image)

        grown = state.basis, state.projected, state.beta
        basis, projected, beta = jax.lax.fori_loop(state.kept, space.width, step, grown)
        return _restart(space, state._replace(basis=basis, projected=projected, beta=beta))

    return jax.lax.while_loop(lambda s: ~s.done & (s.sweeps < space.max_restarts), one_sweep, state)


def _search_on_host(matvec, space, state):
    while not state.done and state.sweeps < space.max_restarts:
        basis, projected, beta = state.basis, state.projected, state.beta
        for index in range(int(state.kept), space.width):
            image = matvec(_row(basis, index))
            basis, projected, beta = _grow_on_host(space, state.key, state.sweeps, index, basis, projected, image)
        state = _restart_on_host(space, state._replace(basis=basis, projected=projected, beta=beta))
    return state


def _grow(space, key, sweeps, index, basis, projected, image):
    """Returns the basis with the vector that follows number `index`, `Q^T A Q` with that one's column (above the
    diagonal), and the norm of what follows.

    Where the space closes on itself the next vector is a random one orthogonal to it.
    """
    rest, column = orthogonalise(basis, image)
    beta = norm(rest)
    projected = projected.at[:, index].set(column[: space.width])
    ended = beta <= 10 * jnp.finfo(beta.dtype).eps * jnp.max(jnp.abs(projected))
    key = jax.random.fold_in(jax.random.fold_in(key, sweeps + 1), index)
    following = jax.lax.cond(
        ended,
        lambda: _orthogonal_unit(key, basis, index + 1 < space.size),
        lambda: scale(1 / jnp.where(ended, 1, beta), rest),
    )
    basis = jax.tree.map(lambda leaf, q: leaf.at[index + 1].set(q), basis, following)
    return basis, projected, jnp.where(ended, 0, beta)


def _restart(space, state):
    """Returns the search after a sweep: Ritz vectors, the best first, of which some are kept, and the next vector."""
    k, width = space.k, space.width
    upper = jnp.triu(state.projected)
    values, rotation, _ = coupled_eigh(upper + jnp.triu(upper, 1).T)
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
    kept = jnp.where(found, space.kept_when_found, space.kept)
    held = jnp.arange(width) < kept
    following = jax.tree.map(lambda q: q[width], state.basis)
    ritz = combine(rotation.T * held[:, None], jax.tree.map(lambda q: q[:width], state.basis))
    ritz = jax.tree.map(lambda q: jnp.concatenate([q, jnp.zeros_like(q[:1])]), ritz)
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.sweeps + 1), width)
    unrelated = _orthogonal_unit(key, ritz, kept < space.size)
    following = jax.tree.map(lambda a, b: jnp.where(found, a, b), unrelated, following)
    # with every vector of the space kept there is no next one, and index `kept` would be the end of the basis
    basis = jax.tree.map(lambda q, v: q.at[kept].set(v), ritz, following)
    return _State(
        state.key, basis, jnp.diag(jnp.where(held, values, 0)), jnp.zeros_like(state.beta), kept,
        jnp.where(held, missed, 0), found, state.sweeps + 1, done, values, largest,
    )  # fmt: skip


_grow_on_host = jax.jit(_grow, static_argnums=0, donate_argnums=(4, 5))
_restart_on_host = jax.jit(_restart, static_argnums=0)
_row = jax.jit(lambda basis, index: jax.tree.map(lambda leaf: leaf[index], basis))


def _orthogonal_unit(key, basis, room):
    """Returns a random unit vector orthogonal to a basis, or 0 where there is no room for one."""
    v = _random_unit(key, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), basis))

    def reduced(_, v):
        v = jax.tree.map(jnp.subtract, v, combine(components(basis, v), basis))
        length = norm(v)
        return scale(jnp.where(length > 0, 1 / length, 0), v)

    # four times: a random vector may lie in the basis but for its last digits
    return scale(jnp.where(room, 1, 0), jax.lax.fori_loop(0, 4, reduced, v))


def _random_unit(key, shape):
    v = random_vector(key, shape)
    return scale(1 / norm(v), v)
