"""Norms of the channels of each token, with names for what they divide by and what comes of it.

    layer    y = scale (x - mean x) / divisor + bias,    divisor^2 = mean x^2 - (mean x)^2 + epsilon    (Ba et al. 2016)
    rms      y = scale x / divisor,                      divisor^2 = mean x^2 + epsilon     (Zhang and Sennrich 2019)

Statistics are of 32 bits at least.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.taps import asked, tap_in
from aijax.typing import Array


class LayerNorm(nn.Module):
    """The layer norm: [..., d] -> [..., d], with the parameters "scale" and "bias".

    What is tapped for who asks: "divisor", `[..., 1]`, and "normalized", what the scale is to be multiplied with.
    """

    epsilon: float = 1e-6
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return _normalize(self, x, centred=True)


class RMSNorm(nn.Module):
    """The norm by the root of the mean square: [..., d] -> [..., d], with the parameter "scale".

    What is tapped is what `LayerNorm` taps.
    """

    epsilon: float = 1e-6
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return _normalize(self, x, centred=False)


class NoNorm(nn.Module):
    """The identity in the place of a norm layer, for the small transformers whose mechanisms are read off."""

    epsilon: float = 0.0
    dtype: Any = None
    param_dtype: Any = "float32"

    def __call__(self, x: Array) -> Array:
        return x


def shares(layer: nn.Module, x: Array, parts: Array) -> Array:
    """Returns what parts `[..., h, d]` of x `[..., d]` are of `layer(x)`, its divisor being that of x.

    What is in x beside the parts is shared out equally; so they sum to the layer's output but for its bias.
    """
    parts = parts + (x - parts.sum(-2))[..., None, :] / parts.shape[-2]
    if isinstance(layer, NoNorm):
        return parts
    if isinstance(layer, LayerNorm):
        x, parts = (value - jnp.mean(value, axis=-1, keepdims=True) for value in (x, parts))
    divisor = jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + layer.epsilon)
    return parts * (layer.get_variable("params", "scale") / divisor)[..., None, :].astype(parts.dtype)


def _normalize(module: nn.Module, x: Array, *, centred: bool) -> Array:
    width, param_dtype = x.shape[-1:], jnp.dtype(module.param_dtype)
    scale = module.param("scale", nn.initializers.ones, width, param_dtype)
    bias = module.param("bias", nn.initializers.zeros, width, param_dtype) if centred else None
    kind = module.dtype or jnp.result_type(x, scale)
    wide = x.astype(jnp.promote_types(module.dtype or x.dtype, jnp.float32))
    square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    if centred:
        mean = jnp.mean(wide, axis=-1, keepdims=True)
        square = jnp.maximum(square - jnp.square(mean), 0)
        x = x - mean
    if asked(module, "divisor") or asked(module, "normalized"):
        x = tap_in(module, "normalized", x / tap_in(module, "divisor", jnp.sqrt(square + module.epsilon)))
        y = x * scale
    else:
        y = x * (jax.lax.rsqrt(square + module.epsilon) * scale)
    return (y if bias is None else y + bias).astype(kind)
