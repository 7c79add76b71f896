"""Pooling by mean or sum, over windows or over all positions: linear maps of positions, K <- A K A^T.

The map is a product over spatial axes, and for each it acts on both copies of the axis on its own. Masked entries count
as zeros in a window's mean, whose divisor stays; a mean over all positions is over those that are not masked.
"""

import functools
import math
from collections.abc import Sequence

import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax.kernel import Kernel
from aijax.ntk.stax.layer import Layer, layer
from aijax.ntk.stax.masking import one_mask, supports_masking
from aijax.ntk.stax.requirements import Bool, Diagonal, requires
from aijax.ntk.stax.windows import centre_entries, check_window, window, windowed_sum
from aijax.typing import Array


@layer
def AvgPool(
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    normalize_edges: bool = False,
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Returns the layer of means over windows.

    Args:
      window_shape: size of the window along each spatial axis.
      strides: steps along them; None for ones.
      padding: "VALID", "SAME" (zeros) or "CIRCULAR" (the other end).
      normalize_edges: with SAME, divide by the number of entries within the input rather than by the window's size.
      batch_axis: axis of the examples.
      channel_axis: axis of the channels.

    Raises:
      ConfigError: sizes or strides that are not positive, an unknown padding; on a call, inputs of another rank.
    """
    return _pool("AvgPool", window_shape, strides, padding, normalize_edges, batch_axis, channel_axis)


@layer
def SumPool(
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str = "VALID",
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Returns the layer of sums over windows; arguments are those of `AvgPool`.

    Raises:
      ConfigError: as of `AvgPool`.
    """
    return _pool("SumPool", window_shape, strides, padding, False, batch_axis, channel_axis)


@layer
def GlobalAvgPool(batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Returns the layer of means over all positions; batch and channels keep their order, spatial axes go.

    >>> from aijax.ntk import stax
    >>> stax.GlobalAvgPool()[2](jnp.ones((2, 4, 4, 3)), get="nngp").shape
    (2, 2)
    """
    return _global_pool("GlobalAvgPool", batch_axis, channel_axis)


@layer
def GlobalSumPool(batch_axis: int = 0, channel_axis: int = -1) -> Layer:
    """Returns the layer of sums over all positions."""
    return _global_pool("GlobalSumPool", batch_axis, channel_axis)


@supports_masking(remask_kernel=True)
def _pool(name, window_shape, strides, padding, normalize_edges, batch_axis, channel_axis) -> Layer:
    size, strides, padding = check_window(name, window_shape, strides, padding)
    mean = name == "AvgPool"

    def windows(shape):
        axes = _spatial_axes(shape, batch_axis, channel_axis)
        if len(axes) != len(size):
            raise ConfigError(f"{name}: a window of {len(size)} axes over inputs of shape {tuple(shape)}")
        return {a: window(shape[a], w, step, padding) for a, w, step in zip(axes, size, strides, strict=True)}

    def sums(x: Array) -> Array:
        for axis, win in windows(x.shape).items():
            x = windowed_sum(x, (axis,), win)
        return x

    def counts(shape) -> Array | float:
        """How many entries a mean is over, in the shape of the outputs with one example and one channel."""
        if not normalize_edges:
            return math.prod(size) if mean else 1
        taken = (batch_axis % len(shape), channel_axis % len(shape))
        return sums(jnp.ones([1 if a in taken else n for a, n in enumerate(shape)]))

    def init_fn(key, input_shape):
        wins = windows(input_shape)
        return tuple(wins[a].out_size(n) if a in wins else n for a, n in enumerate(input_shape)), ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        return sums(inputs) / jnp.asarray(counts(inputs.shape), inputs.dtype)

    @requires(batch_axis=batch_axis, channel_axis=channel_axis, diagonal_spatial=Diagonal(Bool.MAYBE, Bool.NO))
    def kernel_fn(kernel, **kwargs):
        wins = list(windows(kernel.shape1).values())
        copies = 1 if kernel.diagonal_spatial else 2

        def pool(cov: Array, first: int) -> Array:
            for i in range(copies * len(wins)):
                cov = windowed_sum(cov, (first + i,), wins[i // copies])
            return cov

        return _divided(kernel.map(pool), *[counts(kernel.shape1)] * 2)

    def mask_fn(mask, input_shape):
        mask = one_mask(mask, channel_axis, name)
        for axis, win in windows(input_shape).items():
            mask = centre_entries(mask, axis, input_shape[axis], win, padding)
        return mask

    return init_fn, apply_fn, kernel_fn, mask_fn


@supports_masking(remask_kernel=True)
def _global_pool(name, batch_axis, channel_axis) -> Layer:
    mean = name == "GlobalAvgPool"

    def counts(mask: Array | None, shape) -> Array | float:
        if not mean:
            return 1.0
        axes = _spatial_axes(shape, batch_axis, channel_axis)
        if mask is None:
            return math.prod(shape[a] for a in axes)
        mask = one_mask(mask, channel_axis, name)
        full = [n if a in axes else m for a, (n, m) in enumerate(zip(shape, mask.shape, strict=True))]
        return jnp.maximum(jnp.sum(jnp.broadcast_to(~mask, full), axes, dtype=jnp.result_type(float)), 1)

    def init_fn(key, input_shape):
        axes = _spatial_axes(input_shape, batch_axis, channel_axis)
        return tuple(n for a, n in enumerate(input_shape) if a not in axes), ()

    def apply_fn(params, inputs, *, mask=None, **kwargs):
        axes = _spatial_axes(inputs.shape, batch_axis, channel_axis)
        return jnp.sum(inputs, axes) / jnp.asarray(counts(mask, inputs.shape), inputs.dtype)

    @requires(batch_axis=batch_axis, channel_axis=channel_axis, diagonal_spatial=Diagonal(Bool.MAYBE, Bool.YES))
    def kernel_fn(kernel, **kwargs):
        count1, count2 = counts(kernel.mask1, kernel.shape1), counts(kernel.mask2, kernel.shape2)
        batch, channel = (0, 1) if kernel.batch_axis < kernel.channel_axis else (1, 0)
        pooled = kernel.map(lambda cov, first: jnp.sum(cov, tuple(range(first, cov.ndim))))
        pooled = pooled.replace(
            shape1=tuple(kernel.shape1[a] for a in sorted((kernel.batch_axis, kernel.channel_axis))),
            shape2=tuple(kernel.shape2[a] for a in sorted((kernel.batch_axis, kernel.channel_axis))),
            diagonal_spatial=False,
            batch_axis=batch,
            channel_axis=channel,
        )
        return _divided(pooled, count1, count2)

    def mask_fn(mask, input_shape):
        return jnp.all(one_mask(mask, channel_axis, name), _spatial_axes(input_shape, batch_axis, channel_axis))

    return init_fn, apply_fn, kernel_fn, mask_fn


def _divided(kernel: Kernel, count1, count2) -> Kernel:
    """The kernel of activations that are divided by counts, which are numbers or arrays with one channel."""
    count2 = count1 if kernel.cov2 is None else count2
    if not isinstance(count1, Array) and not isinstance(count2, Array):
        return kernel.map(lambda cov, first: cov / (count1 * count2))
    count1, count2 = (_over_positions(c, kernel) for c in (count1, count2))
    sides = {"nngp": (count1, count2), "ntk": (count1, count2), "cov1": (count1, count1), "cov2": (count2, count2)}
    for name, (first, second) in sides.items():
        outer = functools.partial(kernel.outer, name=name)
        first, second = outer(first, second)
        kernel = kernel.map(lambda cov, _, first=first, second=second: cov / (first * second), names=(name,))
    return kernel


def _over_positions(count, kernel: Kernel) -> Array:
    count = jnp.asarray(count, kernel.nngp.dtype)
    if count.ndim == 0:
        return jnp.broadcast_to(count, (1,) * (1 + len(kernel.spatial_axes)))
    return jnp.moveaxis(count, (kernel.batch_axis, kernel.channel_axis), (0, -1))[..., 0]


def _spatial_axes(shape, batch_axis: int, channel_axis: int) -> tuple[int, ...]:
    taken = (batch_axis % len(shape), channel_axis % len(shape))
    return tuple(a for a in range(len(shape)) if a not in taken)
