"""The kernel of the inputs themselves: K(x, x')[p, p'] = <x[p], x'[p']> / channels, and a tangent kernel of zero.

It is a mean over channels, neither centred nor normalised (Lee et al. 2018, eq. 1).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.ntk.stax.kernel import Kernel
from aijax.typing import Array, ArrayLike


def input_kernel(
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    batch_axis: int = 0,
    channel_axis: int = -1,
    diagonal_batch: bool = True,
    diagonal_spatial: bool = False,
    mask_constant: float | None = None,
    with_ntk: bool = True,
) -> Kernel:
    """Returns the `Kernel` of two batches of inputs.

    Args:
      x1: inputs, of any rank from two; batch and channels at the axes named.
      x2: a second batch, equal in shape but for the number of examples; None for x1 with itself.
      batch_axis: axis of the examples.
      channel_axis: axis that is averaged over.
      diagonal_batch: hold `cov1` and `cov2` between each example and itself only.
      diagonal_spatial: hold covariances between each position and itself only.
      mask_constant: entries of the inputs equal to it (NaN included) are padding.
      with_ntk: False leaves the tangent kernel out, here and in all later layers.

    Raises:
      ConfigError: inputs of fewer than two axes, equal axes, or shapes that do not match.
    """
    same = x2 is None or x1 is x2
    x1 = _as_float(x1, "x1")
    x2 = None if x2 is None else _as_float(x2, "x2")
    batch_axis, channel_axis = _axes(x1.shape, batch_axis, channel_axis)
    if x2 is not None:
        _check_shapes(x1.shape, x2.shape, batch_axis)
    (x1, mask1), (x2, mask2) = (apart_from_mask(x, mask_constant) for x in (x1, x2))
    if not same:
        same = jnp.all(x1 == x2) if x1.shape == x2.shape else False
    z1, z2 = (None if x is None else jnp.moveaxis(x, (batch_axis, channel_axis), (0, -1)) for x in (x1, x2))
    nngp = mean_products(z1, z1 if z2 is None else z2, diagonal_spatial=diagonal_spatial)

    def own(z: Array) -> Array:
        if diagonal_batch:
            return jax.vmap(lambda one: mean_products(one[None], one[None], diagonal_spatial=diagonal_spatial)[0, 0])(z)
        return mean_products(z, z, diagonal_spatial=diagonal_spatial)

    return Kernel(
        nngp=nngp,
        ntk=jnp.zeros((), nngp.dtype) if with_ntk else None,
        cov1=own(z1),
        cov2=None if z2 is None else own(z2),
        x1_is_x2=same,
        is_gaussian=False,
        is_reversed=False,
        is_input=True,
        diagonal_batch=diagonal_batch,
        diagonal_spatial=diagonal_spatial,
        shape1=x1.shape,
        shape2=x1.shape if x2 is None else x2.shape,
        batch_axis=batch_axis,
        channel_axis=channel_axis,
        mask1=mask1,
        mask2=mask2,
    )


def mean_products(z1: Array, z2: Array, *, diagonal_spatial: bool) -> Array:
    """Returns `mean_c z1[i, p, c] z2[j, p', c]`, laid out as a kernel, of two batches `(n, *spatial, c)`."""
    spatial = tuple(range(1, z1.ndim - 1))
    channels = z1.ndim - 1
    batched = spatial if diagonal_spatial else ()
    highest = jax.lax.Precision.HIGHEST
    k = jax.lax.dot_general(z1, z2, (((channels,), (channels,)), (batched, batched)), precision=highest)
    count = len(spatial)
    if diagonal_spatial:
        order = (count, count + 1, *range(count))
    else:
        second = 1 + count
        order = (0, second, *(axis for i in range(count) for axis in (1 + i, second + 1 + i)))
    return jnp.transpose(k, order) / z1.shape[channels]


def apart_from_mask(x: Array | None, mask_constant: float | None) -> tuple[Array | None, Array | None]:
    """Returns `x` with zeros where it equals `mask_constant`, and where that was; `(x, None)` without a constant."""
    if x is None or mask_constant is None:
        return x, None
    known = not isinstance(mask_constant, jax.core.Tracer)
    mask = jnp.isnan(x) if known and math.isnan(float(mask_constant)) else x == jnp.asarray(mask_constant, x.dtype)
    return jnp.where(mask, 0, x), mask


def _as_float(x: ArrayLike, name: str) -> Array:
    if not isinstance(x, (jax.Array, np.ndarray)):
        raise ConfigError(f"{name}: expected an array, got {type(x).__name__}")
    if x.ndim < 2:
        raise ConfigError(f"{name}: expected a batch axis and a channel axis at least, got shape {x.shape}")
    if x.size == 0:
        raise ConfigError(f"{name}: expected inputs that are not empty, got shape {x.shape}")
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ConfigError(f"{name}: expected real numbers, got {x.dtype}")
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def _axes(shape: tuple[int, ...], batch_axis: int, channel_axis: int) -> tuple[int, int]:
    ndim = len(shape)
    for name, axis in (("batch_axis", batch_axis), ("channel_axis", channel_axis)):
        if not -ndim <= axis < ndim:
            raise ConfigError(f"{name}={axis}: there is no such axis in inputs of shape {shape}")
    if batch_axis % ndim == channel_axis % ndim:
        raise ConfigError(f"batch_axis={batch_axis} and channel_axis={channel_axis} are one axis of shape {shape}")
    return batch_axis % ndim, channel_axis % ndim


def _check_shapes(shape1: tuple[int, ...], shape2: tuple[int, ...], batch_axis: int) -> None:
    rest1, rest2 = (s[:batch_axis] + s[batch_axis + 1 :] for s in (shape1, shape2))
    if rest1 != rest2:
        raise ConfigError(f"x2: shape {shape2} does not match x1's {shape1} outside the batch axis {batch_axis}")
