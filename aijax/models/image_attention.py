"""Attention between the pixels of an image, and from its pixels to a context, as diffusion networks have it.

    y = x + W_o softmax(q k^T / sqrt(d)) v,    q = W_q n,  k = W_k s,  v = W_v s,    n = norm(x)

with s = n for self-attention and the context for cross-attention. `AttentionBlock` is one such branch over the pixels
(Dhariwal and Nichol 2021, section 3); `ContextAttentionBlock` has keys and values of the context beside those of the
pixels (Nichol et al. 2021); `SpatialTransformer` is a stack of blocks of self-attention, cross-attention and a gated
MLP (Rombach et al. 2022, section 3.3). Submodules have the published names, see `aijax.models.layout`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.models.attend import attend_to_many
from aijax.models.resnet import conv, group_norm
from aijax.typing import Array, Float


class AttentionBlock(nn.Module):
    """Self-attention of an image's pixels on a residual branch: [b, h, w, c] -> [b, h, w, c].

    Attributes:
      head_width: width of each head; None for one head of all channels.
      groups: of the group norm before it; None for no norm.
      eps: added to the variance.
      output_scale: by which the sum is divided.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.
    """

    head_width: int | None = None
    groups: int | None = 32
    eps: float = 1e-6
    output_scale: float = 1.0
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        b, h, w, c = x.shape
        head_width = c if self.head_width is None else self.head_width
        if not 0 < head_width <= c:
            raise ConfigError(f"attention_head_dim: expected heads of 1 to {c} channels, got {head_width}")
        y = x if self.groups is None else group_norm(x, self.groups, self.eps, "group_norm", **dtypes)
        y = y.reshape(b, h * w, c)
        y = multi_head_attention(y, y, c // head_width, head_width, **dtypes)
        return (x + y.reshape(b, h, w, c)) / self.output_scale


class ContextAttentionBlock(nn.Module):
    """Attention of an image's pixels to a context and to themselves as one sequence, on a residual branch.

    [b, h, w, c] -> [b, h, w, c].

    Attributes:
      head_width: width of each head.
      groups: of the group norm before it.
      only_cross: whether the pixels are no part of that sequence.
      context_norm: of the context, "layer_norm", "group_norm" (of 32 groups) or None.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.
    """

    head_width: int
    groups: int = 32
    only_cross: bool = False
    context_norm: str | None = None
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], context: Float[Array, "b s e"]) -> Float[Array, "b h w c"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        b, h, w, c = x.shape
        if c % self.head_width:
            raise ConfigError(f"attention_head_dim: expected a divisor of {c} channels, got {self.head_width}")
        norms = {
            "None": lambda y: y,
            "layer_norm": lambda y: nn.LayerNorm(1e-5, use_fast_variance=False, name="norm_cross", **dtypes)(y),
            "group_norm": lambda y: group_norm(y, 32, 1e-5, "norm_cross", **dtypes),
        }
        context = choose(norms, str(self.context_norm), "cross_attention_norm")(context)
        pixels = group_norm(x, self.groups, 1e-5, "group_norm", **dtypes).reshape(b, h * w, c)

        def project(name, y):
            y = by_tokens(nn.Dense(c, name=name, **dtypes), y)
            return y.reshape(*y.shape[:-1], c // self.head_width, self.head_width)

        keys, values = [project("add_k_proj", context)], [project("add_v_proj", context)]
        if not self.only_cross:
            keys, values = [*keys, project("to_k", pixels)], [*values, project("to_v", pixels)]
        y = attend_to_many(project("to_q", pixels), jnp.concatenate(keys, 1), jnp.concatenate(values, 1))
        return x + by_tokens(nn.Dense(c, name="to_out_0", **dtypes), y.reshape(b, h * w, c)).reshape(x.shape)


class SpatialTransformer(nn.Module):
    """A transformer over an image's pixels that may attend to a context: [b, h, w, c] -> [b, h, w, c].

    Attributes:
      num_heads: attention heads; they share the channels equally.
      depth: number of blocks.
      cross: whether blocks attend to the context after the pixels.
      only_cross: whether the first attention of a block is to the context too.
      linear: whether the projections in and out are matrices, in place of 1 x 1 convolutions.
      groups: of the group norm before it.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.
    """

    num_heads: int
    depth: int = 1
    cross: bool = True
    only_cross: bool = False
    linear: bool = False
    groups: int = 32
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], context: Float[Array, "b s e"] | None = None) -> Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        b, h, w, c = x.shape
        if c % self.num_heads:
            raise ConfigError(f"attention_head_dim: expected a number of heads that divides {c}, got {self.num_heads}")

        def project(y, name):
            if self.linear:
                return by_tokens(nn.Dense(c, name=name, **dtypes), y)
            return conv(c, 1, name, padding=0, **dtypes)(y)

        y = project(group_norm(x, self.groups, 1e-6, "norm", **dtypes), "proj_in").reshape(b, h * w, c)
        for i in range(self.depth):
            name = f"transformer_blocks_{i}"
            y = TransformerBlock(self.num_heads, self.cross, self.only_cross, name=name, **dtypes)(y, context)
        return x + project(y.reshape(b, h, w, c), "proj_out")


class TransformerBlock(nn.Module):
    """Self-attention, attention to a context and a gated MLP, each normalised before and on a residual branch.

    Attributes: see `SpatialTransformer`.
    """

    num_heads: int
    cross: bool = True
    only_cross: bool = False
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], context: Float[Array, "b s e"] | None = None) -> Float[Array, "b t d"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        head_width = x.shape[-1] // self.num_heads

        def norm(name):
            return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name, **dtypes)

        y = norm("norm1")(x)
        attn1 = Attention(self.num_heads, head_width, bias=False, name="attn1", **dtypes)
        x = x + attn1(y, context if self.only_cross else y)
        if self.cross:
            attn2 = Attention(self.num_heads, head_width, bias=False, name="attn2", **dtypes)
            x = x + attn2(norm("norm2")(x), context)
        return x + GatedMlp(name="ff", **dtypes)(norm("norm3")(x))


class Attention(nn.Module):
    """Multi-head attention of queries [b, t, d] to a source [b, s, e] -> [b, t, d].

    Attributes:
      num_heads: attention heads.
      head_width: width of each.
      bias: whether queries, keys and values have one; the output always has.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.
    """

    num_heads: int
    head_width: int
    bias: bool = True
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], source: Float[Array, "b s e"]) -> Float[Array, "b t d"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return multi_head_attention(x, source, self.num_heads, self.head_width, bias=self.bias, **dtypes)


class GatedMlp(nn.Module):
    """u * gelu(g) of one layer's halves (u, g), four times as wide as the input, and a layer back (Shazeer 2020)."""

    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        value, gate = jnp.split(GatedProjection(8 * x.shape[-1], name="net_0", **dtypes)(x), 2, axis=-1)
        return by_tokens(nn.Dense(x.shape[-1], name="net_2", **dtypes), value * jax.nn.gelu(gate, approximate=False))


class GatedProjection(nn.Module):
    """The layer of a `GatedMlp` that makes value and gate."""

    features: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t k"]:
        layer = nn.Dense(self.features, dtype=self.dtype, param_dtype=self.param_dtype, name="proj")
        return by_tokens(layer, x)


def multi_head_attention(
    x: Float[Array, "b t d"],
    source: Float[Array, "b s e"],
    num_heads: int,
    head_width: int,
    *,
    bias: bool = True,
    dtype: Any = None,
    param_dtype: Any = "float32",
) -> Float[Array, "b t d"]:
    """Returns what the tokens of `x` read from `source`, with the layers of the module that calls it.

    They are to_q, to_k, to_v and to_out_0.
    """
    dtypes = {"dtype": dtype, "param_dtype": param_dtype}
    width = num_heads * head_width

    def project(name, y):
        y = by_tokens(nn.Dense(width, use_bias=bias, name=name, **dtypes), y)
        return y.reshape(*y.shape[:-1], num_heads, head_width)

    y = attend_to_many(project("to_q", x), project("to_k", source), project("to_v", source))
    return by_tokens(nn.Dense(x.shape[-1], name="to_out_0", **dtypes), y.reshape(*x.shape[:-1], width))


def by_tokens(layer: nn.Module, x: Float[Array, "*n c"]) -> Float[Array, "*n o"]:
    """Returns the layer of x with all tokens as the rows of one matrix.

    The derivative by the layer's kernel is then a product of two matrices as they are; of more axes, XLA:CPU copies the
    transposes of both first, and computes whatever led to them again for it.
    """
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], layer.features)
