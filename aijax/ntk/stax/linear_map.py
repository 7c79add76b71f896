"""Fixed linear maps of positions: for z -> A z, the same for all channels, each covariance K becomes A K A'^T.

The map is given as a function of activations. It works on a covariance by taking the second copy of batch and positions
for the channels, of which it knows nothing, and then the first.
"""

import math

import jax.numpy as jnp

from aijax.ntk.stax.kernel import COVARIANCES, Kernel
from aijax.typing import Array, Callable


def map_positions(
    kernel: Kernel,
    first: Callable[[Array], Array],
    second: Callable[[Array], Array],
    *,
    batch_axis: int | None = None,
    channel_axis: int | None = None,
) -> Kernel:
    """Returns the kernel after a linear map of activations that acts alike on all channels.

    Args:
      kernel: with all pairs of positions, or with the diagonal alone if the map takes each position from one other,
        times a number.
      first: the map of the first batch, on arrays with the axes of the activations and any number of channels.
      second: that of the second batch.
      batch_axis: axis of the examples after the map; by default where it was.
      channel_axis: axis of the channels after the map; by default where it was.
    """
    batch_out = kernel.batch_axis if batch_axis is None else batch_axis
    channel_out = kernel.channel_axis if channel_axis is None else channel_axis
    second = first if kernel.cov2 is None else second

    def apply(function: Callable, x: Array) -> Array:
        """Of x (n, *positions, *rest), with the rest for channels."""
        positions = len(kernel.spatial_axes)
        rest = x.shape[1 + positions :]
        flat = x.reshape(*x.shape[: 1 + positions], math.prod(rest))
        y = function(jnp.moveaxis(flat, (0, -1), (kernel.batch_axis, kernel.channel_axis)))
        y = jnp.moveaxis(y, (batch_out, channel_out), (0, -1))
        return y.reshape(*y.shape[:-1], *rest)

    def both(cov: Array, left: Callable, right: Callable, batches: int) -> Array:
        positions = len(kernel.spatial_axes)
        if kernel.diagonal_spatial:
            factor = apply(right, jnp.ones((*cov.shape[batches - 1 :], 1), cov.dtype))[..., 0]
            if batches == 1:
                return apply(left, cov) * factor
            return jnp.moveaxis(apply(left, jnp.moveaxis(cov, 1, -1)), -1, 1) * factor[None]
        copies = [[batches + 2 * i + side for i in range(positions)] for side in range(2)]
        if batches == 1:
            x = apply(left, jnp.transpose(cov, (0, *copies[0], *copies[1])))
            outputs = x.ndim - 1 - positions
            x = apply(right, jnp.moveaxis(x, range(1, 1 + outputs), range(-outputs, 0)))
            order = [0] + [1 + outputs * (1 - side) + i for i in range(outputs) for side in range(2)]
            return jnp.transpose(x, order)
        x = apply(left, jnp.transpose(cov, (0, *copies[0], 1, *copies[1])))
        outputs = x.ndim - 2 - positions
        x = apply(right, jnp.moveaxis(x, range(1 + outputs), range(-1 - outputs, 0)))
        order = [1 + outputs, 0]
        order += [1 + i + (1 + outputs) * (1 - side) for i in range(outputs) for side in range(2)]
        return jnp.transpose(x, order)

    sides = {"nngp": (first, second), "ntk": (first, second), "cov1": (first, first), "cov2": (second, second)}
    changes = {}
    for name in COVARIANCES:
        value = getattr(kernel, name)
        if value is not None and jnp.ndim(value):
            changes[name] = both(value, *sides[name], 1 if kernel.is_diagonal_batch(name) else 2)
    return kernel.replace(**changes, batch_axis=batch_out, channel_axis=channel_out)


def with_zeros(kernel: Kernel) -> Kernel:
    """Returns the kernel with zeros for the covariances between different positions, which it does not hold."""

    def spread(cov: Array, first: int) -> Array:
        for axis in range(first, 2 * cov.ndim - first, 2):
            if axis >= cov.ndim:
                break
            eye = jnp.eye(cov.shape[axis], dtype=bool)
            rest = tuple(a for a in range(cov.ndim + 1) if a not in (axis, axis + 1))
            cov = jnp.where(jnp.expand_dims(eye, rest), jnp.expand_dims(cov, axis), 0)
        return cov

    return kernel.map(spread).replace(diagonal_spatial=False)
