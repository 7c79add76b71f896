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
      shape: size of each axis of the output, batch and channels included; -1 leaves an axis as it is.
      method: "nearest", "linear", or any other that `jax.image.resize` knows; all are linear maps.
      antialias: widen the filter when an axis shrinks; without effect for "nearest".
      precision: of the products with the interpolation weights.
      batch_axis: axis of the examples, which must stay.
      channel_axis: axis of the channels, which must stay.

    Raises:
      ConfigError: an unknown method; on a call, a shape of another rank or that changes batch or channels.
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
        full = tuple(n if size == -1 else size for size, n in zip(shape, input_shape, strict=True))
        for axis in (batch_axis, channel_axis):
            if full[axis] != input_shape[axis]:
                raise ConfigError(f"ImageResize: shape {shape} may not change axis {axis}, batch or channels; give -1")
        return full

    def resize(x):
        free = (batch_axis % x.ndim, channel_axis % x.ndim)
        sizes = enumerate(zip(shape, x.shape, strict=True))
        full = tuple(n if a in free or size == -1 else size for a, (size, n) in sizes)
        return jax.image.resize(x, full, method, antialias=antialias, precision=precision)

    def init_fn(key, input_shape):
        return target(input_shape), ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        target(inputs.shape)
        return resize(inputs)

    enough = Diagonal(Bool.YES, Bool.NO) if nearest else Diagonal(Bool.NO, Bool.NO)

    @requires(batch_axis=batch_axis, channel_axis=channel_axis, diagonal_spatial=enough)
    def kernel_fn(kernel, **kwargs):
        target(kernel.shape1)
        return map_positions(kernel, resize, resize)

    def mask_fn(mask, input_shape):
        free = (batch_axis % len(input_shape), channel_axis % len(input_shape))
        full = [m if a in free else n for a, (n, m) in enumerate(zip(input_shape, mask.shape, strict=True))]
        kept = ~jnp.broadcast_to(one_mask(mask, channel_axis, "ImageResize"), full)
        return jnp.abs(resize(kept.astype(jnp.float32))) < 1e-6

    return init_fn, apply_fn, kernel_fn, mask_fn
