"""Normalisation over groups of channels (Wu and He 2018), written for compilers that fuse loops.

    y = a x + d,    a = scale / sqrt(v + eps),    d = bias - a m

with m, v the mean and the variance over all pixels and the channels of a group. Sums run over pixels first, channel by
channel, so that no axis is split; then the group's are joined, and what is left for each pixel is one product and sum,
and the activation that follows. Of all that, derivatives keep x alone and compute the rest again (Chen et al. 2016):
to write an array that a few operations give, and to read it back, takes longer.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.typing import Array, Float


class GroupNorm(nn.Module):
    """Group norm with a scale and a bias for each channel, and an activation: [b, ..., c] -> [b, ..., c].

    A call may bring a scale and a shift of its own, (s, t) of [b, c]: the result is then act((1 + s) norm(x) + t).

    Attributes:
      groups: number of groups; it divides the channels.
      eps: added to the variance.
      activation: applied to the result; None for none.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`; statistics have at least 32 bits.
    """

    groups: int
    eps: float = 1e-6
    activation: Callable[[Array], Array] | None = None
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *n c"], modulation: tuple[Float[Array, "b c"], Float[Array, "b c"]] | None = None
    ) -> Float[Array, "b *n c"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        dtype = nn.dtypes.canonicalize_dtype(x, scale, bias, dtype=self.dtype)
        if modulation is not None:
            factor, shift = modulation
            scale, bias = scale * (1 + factor), bias * (1 + factor) + shift
        return normalize_groups(x, scale, bias, self.groups, self.eps, self.activation).astype(dtype)


def normalize_groups(
    x: Float[Array, "b *n c"],
    scale: Float[Array, "*b c"],
    bias: Float[Array, "*b c"],
    groups: int,
    eps: float,
    activation: Callable[[Array], Array] | None = None,
) -> Float[Array, "b *n c"]:
    """Returns x normalised over groups of its channels, scaled and shifted, for all images alike or each its own.

    Args:
      x: images, or what else has channels last.
      scale, bias: of each channel, [c] or [b, c].
      groups: number of groups.
      eps: added to the variance.
      activation: applied to the result, element by element; None for none.

    Raises:
      ConfigError: groups that do not divide the channels.

    >>> normalize_groups(jnp.array([[[1.0, 5.0], [3.0, 7.0]]]), jnp.ones(2), jnp.zeros(2), 2, 0.0).tolist()
    [[[-1.0, -1.0], [1.0, 1.0]]]
    """
    b, *_, c = x.shape
    if groups < 1 or c % groups:
        raise ConfigError(f"norm_num_groups: expected a divisor of {c} channels, got {groups}")
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    pixels = tuple(range(1, x.ndim - 1))

    def over_groups(y):
        """The mean over pixels and a group, for each of the group's channels: [b, c]."""
        means = y.mean(pixels).reshape(b, groups, c // groups).mean(-1, keepdims=True)
        return jnp.broadcast_to(means, (b, groups, c // groups)).reshape(b, c)

    def for_pixels(of_channels):
        return jnp.expand_dims(of_channels, pixels)

    @jax.checkpoint
    def moments(x):
        mean = over_groups(x)
        return mean, over_groups((x - for_pixels(mean)) ** 2)

    @jax.checkpoint
    def apply(x, factor, shift):
        y = x * for_pixels(factor) + for_pixels(shift)
        return y if activation is None else activation(y)

    mean, variance = moments(x)
    factor = scale * jax.lax.rsqrt(variance + eps)
    return apply(x, factor, bias - mean * factor)
