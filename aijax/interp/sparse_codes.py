"""Codes with few nonzero entries, and their product with a dictionary at the cost of those entries.

A row of k chosen latents is kept as values and indices, `[n, k]`. What it stands for is

    x_i = sum_j values_ij D[indices_ij],    D [m, d]

2 n k d operations where the dense product has 2 n m d; so has its gradient by the values, and that by D adds n k rows.
The rows of D in use, n k d numbers, are gathered for a block of rows at a time (L. Gao et al., Scaling and evaluating
sparse autoencoders (2024), appendix D, does so in kernels).
"""

import jax
import jax.numpy as jnp

from aijax.typing import Array, Float, Int

GATHERED = 2**26
"""How many gathered numbers a block of rows may hold."""


def sparse_product(
    values: Float[Array, "... k"], indices: Int[Array, "... k"], dictionary: Float[Array, "m d"]
) -> Float[Array, "... d"]:
    """Returns the sums of the rows of `dictionary` at `indices`, each times its value.

    >>> sparse_product(jnp.array([[2.0, 1.0]]), jnp.array([[0, 2]]), jnp.eye(3)).tolist()
    [[2.0, 0.0, 1.0]]
    """
    lead, k = values.shape[:-1], values.shape[-1]
    values, indices = values.reshape(-1, k), indices.reshape(-1, k)
    rows = max(1, GATHERED // (k * dictionary.shape[1]))

    def product(values, indices):
        return jnp.einsum("...k,...kd->...d", values, dictionary[indices])

    if len(values) <= rows:
        sums = product(values, indices)
    else:
        sums = jax.lax.map(jax.checkpoint(lambda row: product(*row)), (values, indices), batch_size=rows)
    return sums.reshape(*lead, dictionary.shape[1])


def dense_codes(values: Float[Array, "... k"], indices: Int[Array, "... k"], width: int) -> Float[Array, "... m"]:
    """Returns the rows of length `width` whose entries at `indices`, all different in a row, are the values.

    >>> dense_codes(jnp.array([2.0, 1.0]), jnp.array([0, 2]), 4).tolist()
    [2.0, 0.0, 1.0, 0.0]
    """
    zeros = jnp.zeros((*values.shape[:-1], width), values.dtype)
    return jnp.put_along_axis(zeros, indices, values, axis=-1, inplace=False)
