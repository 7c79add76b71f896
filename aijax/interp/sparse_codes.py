"""Codes with few nonzero entries, and their products with a dictionary at the cost of those entries.

A row of k chosen latents is kept as values v and indices s, `[n, k]`. With a dictionary D `[m, d]` there are three
products, each of 2 n k d operations where the dense one has 2 n m d, and each the gradient of the others:

    x_i = sum_j v_ij D[s_ij]          sparse_product(v, s, D)
    v_ij = x_i . D[s_ij]              products_at(x, s, D)
    D[s_ij] += v_ij x_i               accumulated(v, s, x, m)

They run through the k columns, and hold n d gathered numbers at a time (L. Gao et al., Scaling and evaluating sparse
autoencoders (2024), appendix D, has such kernels). Where rows have different numbers of entries, these stand in any
order in columns of any length, with the rows r `[e, k]` that they belong to: x[r_ij] in place of x_i.
"""

import functools

import jax
import jax.numpy as jnp

from aijax.typing import Array, Float, Int


def sparse_product(
    values: Float[Array, "e k"],
    indices: Int[Array, "e k"],
    dictionary: Float[Array, "m d"],
    rows: Int[Array, "e k"] | None = None,
    count: int | None = None,
) -> Float[Array, "n d"]:
    """Returns the sums of the rows of `dictionary` at `indices`, each times its value.

    Args:
      values, indices: entries of the codes.
      dictionary: D.
      rows: that entries belong to; default: an entry's first index.
      count: with rows, n.

    >>> sparse_product(jnp.array([[2.0, 1.0]]), jnp.array([[0, 2]]), jnp.eye(3)).tolist()
    [[2.0, 0.0, 1.0]]
    """
    arrays = jax.tree.map(jnp.asarray, (values, indices, dictionary, rows))
    return _sparse_product(*arrays, len(values) if count is None else count)


def products_at(
    x: Float[Array, "n d"],
    indices: Int[Array, "e k"],
    dictionary: Float[Array, "m d"],
    rows: Int[Array, "e k"] | None = None,
) -> Float[Array, "e k"]:
    """Returns the inner products of the rows of `x` with those of `dictionary` at `indices`.

    >>> products_at(jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[0, 2]]), jnp.eye(3)).tolist()
    [[1.0, 3.0]]
    """
    return _products_at(*jax.tree.map(jnp.asarray, (x, indices, dictionary, rows)))


def accumulated(
    values: Float[Array, "e k"],
    indices: Int[Array, "e k"],
    x: Float[Array, "n d"],
    width: int,
    rows: Int[Array, "e k"] | None = None,
) -> Float[Array, "m d"]:
    """Returns a dictionary of `width` rows in which each row of `x` is added, times its values, at its indices.

    >>> accumulated(jnp.array([[2.0], [1.0]]), jnp.array([[1], [1]]), jnp.eye(2), 3).tolist()
    [[0.0, 0.0], [2.0, 1.0], [0.0, 0.0]]
    """
    return _accumulated(*jax.tree.map(jnp.asarray, (values, indices, x, rows)), width)


def dense_codes(values: Float[Array, "... k"], indices: Int[Array, "... k"], width: int) -> Float[Array, "... m"]:
    """Returns the rows of length `width` whose entries at `indices`, all different in a row, are the values.

    >>> dense_codes(jnp.array([2.0, 1.0]), jnp.array([0, 2]), 4).tolist()
    [2.0, 0.0, 1.0, 0.0]
    """
    zeros = jnp.zeros((*values.shape[:-1], width), values.dtype)
    return jnp.put_along_axis(zeros, indices, values, axis=-1, inplace=False)


def _columns(start, add, indices):
    """Returns `start` after `add(result, j, s_j)` for each column s_j of the indices."""
    return jax.lax.fori_loop(0, indices.shape[1], lambda j, result: add(result, j, indices[:, j]), start)


def _sum_of_rows(values, indices, dictionary, rows, count):
    zeros = jnp.zeros((count, dictionary.shape[1]), values.dtype)

    def add(sums, j, at):
        terms = values[:, j, None] * dictionary[at]
        return sums + terms if rows is None else sums.at[rows[:, j]].add(terms)

    return _columns(zeros, add, indices)


def _inner_products(x, indices, dictionary, rows):
    zeros = jnp.zeros(indices.shape, x.dtype)

    def add(found, j, at):
        return found.at[:, j].set(jnp.sum((x if rows is None else x[rows[:, j]]) * dictionary[at], axis=1))

    return _columns(zeros, add, indices)


def _added_rows(values, indices, x, rows, width):
    zeros = jnp.zeros((width, x.shape[1]), x.dtype)

    def add(total, j, at):
        return total.at[at].add(values[:, j, None] * (x if rows is None else x[rows[:, j]]))

    return _columns(zeros, add, indices)


_sparse_product = jax.custom_vjp(_sum_of_rows, nondiff_argnums=(4,))
_products_at = jax.custom_vjp(_inner_products)
_accumulated = jax.custom_vjp(_added_rows, nondiff_argnums=(4,))


@functools.partial(_sparse_product.defvjp, lambda *args: (_sum_of_rows(*args), args[:4]))
def _sparse_product_backward(count, kept, slope):
    values, indices, dictionary, rows = kept
    by_dictionary = _added_rows(values, indices, slope, rows, len(dictionary))
    return _inner_products(slope, indices, dictionary, rows), None, by_dictionary, None


@functools.partial(_products_at.defvjp, lambda *args: (_inner_products(*args), args))
def _products_at_backward(kept, slope):
    x, indices, dictionary, rows = kept
    by_x = _sum_of_rows(slope, indices, dictionary, rows, len(x))
    return by_x, None, _added_rows(slope, indices, x, rows, len(dictionary)), None


@functools.partial(_accumulated.defvjp, lambda *args: (_added_rows(*args), args[:4]))
def _accumulated_backward(width, kept, slope):
    values, indices, x, rows = kept
    by_x = _sum_of_rows(values, indices, slope, rows, len(x))
    return _inner_products(x, indices, slope, rows), None, by_x, None
