"""Norms of the channels of each token, with names for what they divide by and what comes of it.

    layer    y = scale (x - mean x) / divisor + bias,    divisor^2 = mean x^2 - (mean x)^2 + epsilon    (Ba et al. 2016)
    rms      y = scale x / divisor,                      divisor^2 = mean x^2 + epsilon     (Zhang and Sennrich 2019)

Statistics are of 32 bits at least.
"""

import functools
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
    if asked(module, "divisor") or asked(module, "normalized"):
        moved, square = _moments(wide, centred)
        divisor = tap_in(module, "divisor", jnp.sqrt(square + module.epsilon))
        y = tap_in(module, "normalized", moved / divisor) * scale
    else:
        y = _normalized(wide, scale, centred, module.epsilon)
    return (y if bias is None else y + bias).astype(kind)


def _moments(x: Array, centred: bool) -> tuple[Array, Array]:
    """x, less its mean where it is to be centred, and the mean of its square."""
    square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    if not centred:
        return x, square
    mean = jnp.mean(x, axis=-1, keepdims=True)
    return x - mean, jnp.maximum(square - jnp.square(mean), 0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _normalized(x: Array, scale: Array, centred: bool, epsilon: float) -> Array:
    """scale z with z = x / divisor, where dz = (dx - mean dx - z mean(z dx)) / divisor.

    Automatic differentiation would keep more arrays than z, and pass over more of them.
    """
    moved, square = _moments(x, centred)
    return moved * (jax.lax.rsqrt(square + epsilon) * scale)


@_normalized.defjvp
def _normalized_jvp(centred, epsilon, primals, tangents):
    (x, scale), (dx, dscale) = primals, tangents
    moved, square = _moments(x, centred)
    factor = jax.lax.rsqrt(square + epsilon)
    z, dx = moved * factor, jax.lax.optimization_barrier(dx)  # or XLA makes the gradient of a residual stream, a sum
    straight = dx - jnp.mean(dx, axis=-1, keepdims=True) if centred else dx  # over all blocks, anew in each of them
    dz = factor * (straight - z * jnp.mean(z * dx, axis=-1, keepdims=True))
    return moved * (factor * scale), scale * dz + z * dscale
