"""The diffusion transformer: patches as tokens, told time and class by adaptive norms (Peebles and Xie 2023).

    (b1, s1, g1, b2, s2, g2) = W act(e),        e = embedding of time + embedding of class
    x <- x + g1 Attention((1 + s1) norm(x) + b1),        x <- x + g2 MLP((1 + s2) norm(x) + b2)        (section 3.2)

with W zero at first, so that each block begins as the identity. Fields, submodules and parameters have the published
names; images are channels-last.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.indices import check_indices
from aijax.models.block_spec import ACTIVATIONS
from aijax.models.embeddings import grid_embedding, sinusoidal_embedding
from aijax.models.image_attention import Attention
from aijax.models.patches import PatchEmbedding, from_patches
from aijax.models.unet_conditions import TimestepEmbedding
from aijax.typing import Array, Float, Int

EPS = 1e-6
TIME_WIDTH = 256
"""Sines and cosines by which the time is told."""
MLP_ACTIVATIONS = {
    "gelu": ACTIVATIONS["gelu"],
    "gelu-approximate": ACTIVATIONS["gelu_tanh"],
    "geglu-approximate": ACTIVATIONS["gelu_quick"],
    "linear-silu": ACTIVATIONS["silu"],
}
"""Activations by published name; "geglu-approximate" has no gate, whatever it is called."""
GATES = {"geglu": ACTIVATIONS["gelu"], "swiglu": ACTIVATIONS["silu"]}
"""Those of gated MLPs, u * act(g) of a layer's halves (u, g) (Shazeer 2020)."""


class DiT(nn.Module):
    """A diffusion transformer: latents [b, h, w, c], times and class labels -> [b, h, w, out_channels].

    Attributes:
      num_attention_heads, attention_head_dim: heads, and the width of each; the width of a token is their product.
      in_channels: of latents.
      out_channels: None for `in_channels`; twice that where variances are learned, which are the second half.
      num_layers: blocks.
      dropout: of what attention and the MLP give.
      norm_num_groups: published, not used.
      attention_bias: whether queries, keys and values have one.
      sample_size: pixels on a side of the latents it was made for; positions of others are scaled to it.
      patch_size: pixels on a side of a patch.
      activation_fn: of the MLP, a name of `MLP_ACTIVATIONS` or of `GATES`.
      num_embeds_ada_norm: classes; one more label is no class.
      norm_type: "ada_norm_zero".
      norm_elementwise_affine: whether the norm before the MLP has parameters of its own.
      norm_eps: added to the variance there.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.

    Raises, when it is traced:
      ConfigError: latents of other channels, or that patches do not divide; labels out of range where they are known.

    >>> model = DiT(2, 8, in_channels=4, num_layers=1, sample_size=8, num_embeds_ada_norm=10)
    >>> inputs = jnp.ones((1, 8, 8, 4)), jnp.ones(1), jnp.zeros(1, int)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), *inputs)[0].shape
    (1, 8, 8, 4)
    """

    num_attention_heads: int = 16
    attention_head_dim: int = 72
    in_channels: int = 4
    out_channels: int | None = None
    num_layers: int = 28
    dropout: float = 0.0
    norm_num_groups: int = 32
    attention_bias: bool = True
    sample_size: int = 32
    patch_size: int = 2
    activation_fn: str = "gelu-approximate"
    num_embeds_ada_norm: int | None = 1000
    norm_type: str = "ada_norm_zero"
    norm_elementwise_affine: bool = False
    norm_eps: float = 1e-5
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Float[Array, " b"] | Float[Array, ""],
        labels: Int[Array, " b"],
        *,
        train: bool = False,
    ) -> Float[Array, "b h w o"]:
        """Returns the prediction at noise levels `t` (one for all, or one each) for classes `labels`."""
        choose({"ada_norm_zero": True}, self.norm_type, "norm_type")
        if self.num_embeds_ada_norm is None:
            raise ConfigError("num_embeds_ada_norm: expected the number of classes, got None")
        check_latents(x, self.in_channels)
        check_indices("labels", labels, self.num_embeds_ada_norm + 1)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = self.num_attention_heads * self.attention_head_dim
        grid = (x.shape[1] // self.patch_size, x.shape[2] // self.patch_size)
        t = jnp.broadcast_to(t, x.shape[:1])
        x = Patches(self.patch_size, width, name="pos_embed", **dtypes)(x)
        base = float(self.sample_size // self.patch_size)
        x = x + grid_embedding(grid, width, base_size=base).reshape(1, -1, width).astype(x.dtype)
        told = []
        for i in range(self.num_layers):
            block = DiTBlock(
                self.num_attention_heads, self.attention_head_dim, self.num_embeds_ada_norm + 1, self.attention_bias,
                self.activation_fn, self.norm_elementwise_affine, self.norm_eps, self.dropout,
                name=f"transformer_blocks_{i}", **dtypes,
            )  # fmt: skip
            x, embedding = block(x, t, labels, train=train)
            told.append(embedding)
        shift, scale = jnp.split(nn.Dense(2 * width, name="proj_out_1", **dtypes)(jax.nn.silu(told[0])), 2, axis=-1)
        x = modulate(plain_norm(x, EPS), shift, scale)
        out_channels = self.out_channels or self.in_channels
        x = nn.Dense(self.patch_size**2 * out_channels, name="proj_out_2", **dtypes)(x)
        return from_patches(x, grid, self.patch_size)


class DiTBlock(nn.Module):
    """A block: tokens [b, n, d] -> tokens, and its embedding of time and class [b, d]; fields as of `DiT`."""

    num_heads: int
    head_width: int
    num_labels: int
    bias: bool
    activation: str
    affine: bool
    norm_eps: float
    dropout_rate: float
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, t: Array, labels: Array, *, train: bool) -> tuple[Array, Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        told, parts = ClassAdaptiveNorm(self.num_labels, x.shape[-1], name="norm1", **dtypes)(t, labels)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        attention = Attention(self.num_heads, self.head_width, self.bias, name="attn1", **dtypes)
        y = modulate(plain_norm(x, EPS), shift1, scale1)
        x = x + gate1[:, None] * self._drop(attention(y, y), train)
        if self.affine:
            y = nn.LayerNorm(epsilon=self.norm_eps, use_fast_variance=False, name="norm3", **dtypes)(x)
        else:
            y = plain_norm(x, self.norm_eps)
        y = FeedForward(self.activation, name="ff", **dtypes)(modulate(y, shift2, scale2))
        return x + gate2[:, None] * self._drop(y, train), told

    def _drop(self, x, train):
        return nn.Dropout(self.dropout_rate, deterministic=not train)(x)


class ClassAdaptiveNorm(nn.Module):
    """Times and classes -> their embedding [b, d], and the six shifts, scales and gates [b, d] of a block."""

    num_labels: int
    width: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, t: Array, labels: Array) -> tuple[Array, list[Array]]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        told = TimeClassEmbedding(self.num_labels, self.width, name="emb", **dtypes)(t, labels)
        linear = nn.Dense(6 * self.width, kernel_init=nn.initializers.zeros, name="linear", **dtypes)
        return told, jnp.split(linear(jax.nn.silu(told)), 6, axis=-1)


class TimeClassEmbedding(nn.Module):
    """The sum of the embeddings of times and of classes, [b, d]."""

    num_labels: int
    width: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, t: Array, labels: Array) -> Float[Array, "b d"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        waves = sinusoidal_embedding(t, TIME_WIDTH, cosine_first=True, shift=1.0)
        time = TimestepEmbedding(self.width, name="timestep_embedder", **dtypes)(waves)
        return time + LabelTable(self.num_labels, self.width, name="class_embedder", **dtypes)(labels)


class LabelTable(nn.Module):
    """A vector for each label."""

    num_labels: int
    width: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, labels: Int[Array, " b"]) -> Float[Array, "b d"]:
        init = nn.initializers.normal(0.02)
        return nn.Embed(self.num_labels, self.width, self.dtype, self.param_dtype, init, name="embedding_table")(labels)


class FeedForward(nn.Module):
    """Two layers with an activation or a gate between, the hidden one four times as wide."""

    activation: str
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        act = choose(MLP_ACTIVATIONS | GATES, self.activation, "activation_fn")
        gated = self.activation in GATES
        y = Projection((8 if gated else 4) * x.shape[-1], name="net_0", **dtypes)(x)
        if gated:
            value, gate = jnp.split(y, 2, axis=-1)
            y = value * act(gate)
        else:
            y = act(y)
        return nn.Dense(x.shape[-1], name="net_2", **dtypes)(y)


class Projection(nn.Module):
    """A layer that is published one name deeper than it need be."""

    features: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(self.features, dtype=self.dtype, param_dtype=self.param_dtype, name="proj")(x)


class Patches(nn.Module):
    """Latents [b, h, w, c] -> a token for each patch, [b, n, d], row by row."""

    patch_size: int
    width: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        layer = PatchEmbedding(self.patch_size, self.width, name="proj", **dtypes)
        return layer(x).reshape(x.shape[0], -1, self.width)


def plain_norm(x: Array, eps: float) -> Array:
    """Returns x with mean 0 and variance 1 on its last axis."""
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + eps)


def modulate(x: Float[Array, "b n d"], shift: Float[Array, "b d"], scale: Float[Array, "b d"]) -> Array:
    """Returns (1 + scale) x + shift, the same for all tokens of an example."""
    return x * (1 + scale[:, None]) + shift[:, None]


def check_latents(x: Array, channels: int) -> None:
    """Raises `ConfigError` for latents that are not [b, h, w, channels]."""
    if x.ndim != 4 or x.shape[-1] != channels:
        raise ConfigError(f"in_channels: expected latents [b, h, w, {channels}], got shape {x.shape}")
