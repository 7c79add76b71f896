"""Resizing of images: `jax.image.resize` of the activations is a linear map of positions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax.layer import Layer, layer
from aijax.ntk.stax.linear_map import map_positions
from aijax.ntk.stax.masking import one_mask, supports_masking
from aijax.ntk.stax.requirements import Bool, Diagonal, requires


@layer
@supports_masking(remask_kernel=True)
def ImageResize(
    shape: Sequence[int],
    method: str | jax.image.ResizeMethod,
    antialias: bool = True,
    precision: jax.lax.Precision = jax.lax.Precision.HIGHEST,
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Returns the layer that resizes its input as `jax.image.resize` does.

    Args:
      shape: size of each axis of the output, batch and channels included; -1 leaves an axis as it is, and what is
        given for the batch resizes it, which needs the covariances between examples.
      method: "nearest", "linear", or any other that `jax.image.resize` knows; all are linear maps.
      antialias: widen the filter when an axis shrinks; without effect for "nearest".
      precision: of the products with the interpolation weights.
      batch_axis: axis of the examples.
      channel_axis: axis of the channels, whose entry must be -1 for a kernel.

    Raises:
      ConfigError: an unknown method; on a call, a shape of another rank or, for a kernel, with a size of channels.
    """
    shape = tuple(shape)
    try:
        method = jax.image.ResizeMethod.from_string(method) if isinstance(method, str) else method
    except ValueError as error:
        raise ConfigError(f"ImageResize: unknown method {method!r}; expected one that jax.image.resize has") from error
    nearest = method == jax.image.ResizeMethod.NEAREST

    def target(input_shape):
        if len(shape) != len(input_shape):
            raise ConfigError(f"ImageResize: shape {shape} is not of the rank of the inputs {tuple(input_shape)}")
        return tuple(n if size == -1 else size for size, n in zip(shape, input_shape, strict=True))

    def resize(x, free):
        """Of all axes but some, which hold other numbers of examples or of channels."""
        kept = [axis % x.ndim for axis in free]
        sizes = enumerate(zip(shape, x.shape, strict=True))
        return resized(x, [n if a in kept or size == -1 else size for a, (size, n) in sizes])

    def resized(x, sizes):
        return jax.image.resize(x, tuple(sizes), method, antialias=antialias, precision=precision)

    def positions(x):
        return resize(x, (batch_axis, channel_axis))

    def init_fn(key, input_shape):
        return target(input_shape), ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        return resized(inputs, target(inputs.shape))

    examples = shape[batch_axis] if -len(shape) <= batch_axis < len(shape) else -1
    free = {axis % len(shape) for axis in (batch_axis, channel_axis)} if shape else set()
    in_place = nearest or all(size == -1 for axis, size in enumerate(shape) if axis not in free)

    @requires(
        batch_axis=batch_axis,
        channel_axis=channel_axis,
        diagonal_batch=examples == -1,
        diagonal_spatial=Diagonal(Bool.YES if in_place else Bool.NO, Bool.NO),
    )
    def kernel_fn(kernel, **kwargs):
        target(kernel.shape1)
        if shape[channel_axis] != -1:
            raise ConfigError(f"ImageResize: shape {shape} gives the infinite channels, axis {channel_axis}, a size")
        if examples != -1:
            kernel = kernel.map(lambda cov, _: resized(cov, (examples, examples, *cov.shape[2:])))
        return map_positions(kernel, positions, positions)

    def mask_fn(mask, input_shape):
        full = list(input_shape)
        full[channel_axis] = 1
        kept = ~jnp.broadcast_to(one_mask(mask, channel_axis, "ImageResize"), full)
        return jnp.abs(resize(kept.astype(jnp.float32), (channel_axis,))) < 1e-6

    return init_fn, apply_fn, kernel_fn, mask_fn
