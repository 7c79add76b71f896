"""Terms of the losses of sparse autoencoders, with gradients that are finite and cost no more than they need."""

import jax
import jax.numpy as jnp

from aijax.typing import Array, Float


def squared_error(reconstruction: Float[Array, "n d"], target: Float[Array, "n d"]) -> Float[Array, ""]:
    """Returns the squared error, summed over the width, mean over the rows."""
    return jnp.mean(jnp.sum((reconstruction - target) ** 2, axis=-1))


def row_norms(matrix: Float[Array, "m d"]) -> Float[Array, " m"]:
    """Returns the norms of the rows; the gradient of a row of zeros is zero."""
    squares = jnp.sum(matrix**2, axis=-1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def zero_with_gradient(x: Array) -> Array:
    """Returns zeros whose gradient is that of `x`."""
    return x - jax.lax.stop_gradient(x)


def affine(
    x: Float[Array, "... d"], centre: Float[Array, " d"], matrix: Float[Array, "m d"], bias: Float[Array, " m"]
) -> Float[Array, "... m"]:
    """Returns `(x - centre) @ matrix.T + bias`; its gradient by `centre` costs no product of matrices."""
    return (x - jax.lax.stop_gradient(centre)) @ matrix.T + (bias - matrix @ zero_with_gradient(centre))


def positive_norm(x: Float[Array, "... m"], power: float) -> Float[Array, "..."]:
    """Returns the norm over the last axis of what is not negative, with gradient zero where an entry is zero."""
    if power == 1:
        return jnp.sum(x, axis=-1)
    some = x > 0
    total = jnp.sum(jnp.where(some, jnp.where(some, x, 1) ** power, 0), axis=-1)
    return jnp.where(total > 0, jnp.where(total > 0, total, 1) ** (1 / power), 0)
