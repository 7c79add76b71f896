"""The tangent kernel column by column: J(x1) (J(x2)^T v) for each unit vector v of the second batch's outputs.

One reverse pass at an example of x2 gives a tangent of the parameters; pushed forward at every example of x1 it gives a
column (Novak, Sohl-Dickstein, Schoenholz 2022, section 3.2). The Jacobians are never contracted.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from aijax.ntk.derivatives import jvp, vjp
from aijax.trees import count_bytes
from aijax.typing import Array, Params


def vector_products(first: Any, second: Any, params: Params, inputs1: Any, inputs2: Any, memory_limit: int) -> Array:
    """Returns the kernel [g, i, f, j, F] (or [g, i, f, F] where each example meets its like alone).

    Args:
      first: a `tangent.Tangent` for the first batch.
      second: the same for the second.
      params: the parameters.
      inputs1: a batch.
      inputs2: another.
      memory_limit: bytes that the tangents of parameters under way may take; fewer are made at once to keep it.
    """
    tree = jax.tree.structure(inputs1)
    dtype = first.plan.program.out_avals[0].dtype
    basis1, basis2 = first.outputs.basis(dtype), second.outputs.basis(dtype)

    def push(tangent, leaves):
        """The first function's outputs [f g h] of a tangent of the parameters, at one example."""
        _, out = jvp(lambda p: first.function(p, jax.tree.unflatten(tree, leaves)), params, tangent)
        return jnp.tensordot(basis1, out, axes=out.ndim)

    def pull(leaves, unit):
        return vjp(lambda p: second.function(p, jax.tree.unflatten(tree, leaves)), params)[1](unit)

    leaves1, leaves2 = jax.tree.leaves(inputs1), jax.tree.leaves(inputs2)
    at_once = max(1, memory_limit // (4 * max(count_bytes(params), 1)))
    if first.mapped is None:
        columns = jax.lax.map(lambda unit: push(pull(leaves2, unit), leaves1), basis2, batch_size=at_once)
        columns = columns[None, :, None]  # [j, F g h, i, f g h]
    else:
        axes = first.mapped.in_axes
        n2 = next(x.shape[axis] for x, axis in zip(leaves2, axes, strict=True) if axis is not None)

        def column(which):
            j, unit = which
            example = [x if a is None else jnp.take(x, j, a) for x, a in zip(leaves2, axes, strict=True)]
            tangent = pull(example, unit)
            if not first.paired:
                like = [x if a is None else jnp.take(x, j, a) for x, a in zip(leaves1, axes, strict=True)]
                return push(tangent, like)[None]
            return jax.vmap(push, in_axes=(None, axes))(tangent, leaves1)

        every = jnp.repeat(jnp.arange(n2), len(basis2)), jnp.tile(basis2, (n2,) + (1,) * (basis2.ndim - 1))
        columns = jax.lax.map(column, every, batch_size=at_once)
        columns = columns.reshape(n2, len(basis2), *columns.shape[1:])
    f, g, h = first.outputs.groups
    big = math.prod(second.outputs.groups) // (g * h)
    columns = columns.reshape(columns.shape[0], big, g, h, columns.shape[2], f, g, h)
    if first.paired:
        return jnp.einsum("jFghifgh->gifjF", columns)
    return jnp.einsum("iFghfgh->gifF", columns[:, :, :, :, 0])
