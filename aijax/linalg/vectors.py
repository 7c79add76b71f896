"""Trees of arrays as vectors of a Euclidean space, alone or as columns.

A vector is one array of any shape, or a tree of arrays. With `columns` the last axis of every leaf, the same in all,
counts vectors that stand side by side; inner products and coefficients then have that axis too. A basis is a tree whose
leaves have one more axis, the first.
"""

import itertools
import math

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.typing import Array, Callable, PRNGKey, PyTree


def check_vector(name: str, vector: PyTree, columns: bool = False) -> None:
    """Raises a `ConfigError` unless `vector` is a tree of floating arrays of one dtype, with columns if they are
    said."""
    leaves = jax.tree.leaves(vector)
    if not leaves:
        raise ConfigError(f"{name}: expected an array or a tree of arrays, got {vector!r}")
    dtypes = {jnp.result_type(leaf) for leaf in leaves}
    if len(dtypes) > 1 or not jnp.issubdtype(next(iter(dtypes)), jnp.floating):
        raise ConfigError(f"{name}: expected floating numbers of one dtype, got {', '.join(sorted(map(str, dtypes)))}")
    if columns and (min(jnp.ndim(leaf) for leaf in leaves) < 1 or len({jnp.shape(leaf)[-1] for leaf in leaves}) > 1):
        raise ConfigError(f"{name}: columns are the last axis of every leaf, got the shapes {shapes(vector)}")


def check_operator(matvec: Callable, vector: PyTree) -> None:
    """Raises a `ConfigError` unless `matvec` maps vectors like `vector` to vectors like it; nothing is computed."""
    if not callable(matvec):
        raise ConfigError(f"matvec: expected a function v -> A v, got {type(matvec).__name__}")
    image = jax.eval_shape(matvec, vector)
    if jax.tree.structure(image) != jax.tree.structure(vector) or shapes(image) != shapes(vector):
        raise ConfigError(f"matvec: expected A v like v, of shape {shapes(vector)}, got {shapes(image)}")


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raises a `ConfigError` unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}: expected a whole number of at least {least}, got {value!r}")


def shapes(tree: PyTree) -> list[tuple[int, ...]]:
    """Returns the shapes of the leaves."""
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]


def dimension(vector: PyTree, columns: bool = False) -> int:
    """Returns the dimension of the space: the number of entries of one vector."""
    return sum(math.prod(shape[:-1] if columns else shape) for shape in shapes(vector))


def dtype_of(vector: PyTree) -> jnp.dtype:
    """Returns the dtype of a vector."""
    return jnp.result_type(jax.tree.leaves(vector)[0])


def like(example: int | PyTree) -> PyTree:
    """Returns the shapes of the vectors of a space: of an example, or of arrays of `example` entries."""
    if isinstance(example, int) and not isinstance(example, bool):
        check_count("example", example)
        return jax.ShapeDtypeStruct((example,), jnp.result_type(float))
    shape = jax.eval_shape(lambda tree: tree, example)
    check_vector("example", shape)
    return shape


def inner(u: PyTree, v: PyTree, columns: bool = False) -> Array:
    """Returns `<u, v>`, a scalar, or one for each column."""

    def product(a, b):
        return jnp.sum(a * b, axis=tuple(range(a.ndim - 1)) if columns else None)

    return sum(jax.tree.leaves(jax.tree.map(product, u, v)))


def norm(v: PyTree, columns: bool = False) -> Array:
    """Returns the Euclidean norm, or that of each column."""
    return jnp.sqrt(inner(v, v, columns))


def add_scaled(v: PyTree, coefficient: Array, u: PyTree) -> PyTree:
    """Returns `v + coefficient u`; the coefficient is a scalar or one for each column."""
    return jax.tree.map(lambda a, b: a + _times(coefficient, b), v, u)


def scale(coefficient: Array, v: PyTree) -> PyTree:
    """Returns `coefficient v`."""
    return jax.tree.map(lambda a: _times(coefficient, a), v)


def components(basis: PyTree, v: PyTree, columns: bool = False) -> Array:
    """Returns `[m]` (or `[m, k]`): the inner products of a basis's vectors with v."""

    def product(q, a):
        if columns:
            return jnp.einsum("m...k,...k->mk", q, a, precision="highest")
        return jnp.tensordot(q, a, axes=a.ndim, precision="highest")

    return sum(jax.tree.leaves(jax.tree.map(product, basis, v)))


def combine(coefficients: Array, basis: PyTree, columns: bool = False) -> PyTree:
    """Returns `sum_i c_i q_i`, from `[..., m]` (or `[..., m, k]`); leading axes of the coefficients come first."""

    def product(q):
        if columns:
            flat = q.reshape(q.shape[0], -1, q.shape[-1])
            result = jnp.einsum("...mk,mnk->...nk", coefficients, flat, precision="highest")
            return result.reshape(*coefficients.shape[:-2], *q.shape[1:])
        return jnp.tensordot(coefficients, q, axes=1, precision="highest")

    return jax.tree.map(product, basis)


def orthogonalise(basis: PyTree, v: PyTree, columns: bool = False) -> tuple[PyTree, Array]:
    """Returns v without its components in a basis, and those components; twice, which is enough (Kahan and Parlett)."""
    first = components(basis, v, columns)
    v = jax.tree.map(jnp.subtract, v, combine(first, basis, columns))
    second = components(basis, v, columns)
    return jax.tree.map(jnp.subtract, v, combine(second, basis, columns)), first + second


def orthonormal_basis(vectors: PyTree) -> tuple[PyTree, Array]:
    """Returns an orthonormal basis of the span of k vectors (a first axis of k), and the upper triangular R `[k, k]` of
    `v_j = sum_i R_ij q_i`. A vector that depends on those before it has 0 for q_j and R_jj."""
    count = len(jax.tree.leaves(vectors)[0])
    tiny = 10 * jnp.finfo(dtype_of(vectors)).eps

    def step(basis, row):
        index, v = row
        rest, column = orthogonalise(basis, v)
        size = norm(rest)
        size = jnp.where(size > tiny * norm(v), size, 0)
        q = scale(jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0), rest)
        return jax.tree.map(lambda leaf, q: leaf.at[index].set(q), basis, q), column.at[index].set(size)

    basis, columns = jax.lax.scan(step, jax.tree.map(jnp.zeros_like, vectors), (jnp.arange(count), vectors))
    return basis, columns.T


def random_like(key: PRNGKey, shape: PyTree, sampler: Callable = jax.random.normal) -> PyTree:
    """Returns a vector of independent samples (standard normal, or `jax.random.rademacher`)."""
    leaves, structure = jax.tree.flatten(shape)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten([sampler(k, leaf.shape, dtype=leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)])


def random_vector(key: PRNGKey, shape: PyTree, sampler: Callable = jax.random.normal) -> PyTree:
    """Returns what `random_like` does by one draw for all leaves: far quicker to compile for a tree of many."""
    leaves, structure = jax.tree.flatten(shape)
    flat = sampler(key, (dimension(shape),), dtype=leaves[0].dtype)
    ends = [0, *itertools.accumulate(math.prod(leaf.shape) for leaf in leaves)]
    parts = [flat[start:end] for start, end in itertools.pairwise(ends)]
    return structure.unflatten([part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])


def _times(coefficient: Array, a: Array) -> Array:
    """Returns `coefficient a`, one coefficient for all or one for each entry of the last axis."""
    rank = jnp.ndim(coefficient)
    return (jnp.expand_dims(coefficient, tuple(range(a.ndim - rank))) if rank else coefficient) * a
