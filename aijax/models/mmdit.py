"""The multimodal diffusion transformer: patches and text attend to one another as one sequence (Esser et al. 2024).

Each of the two streams has its own norms, projections and MLP, modulated by the time and the pooled text as in
`aijax.models.dit`; queries, keys and values of both are joined for attention (section 4, figure 2). The last block
reads the text and does not change it. Fields, submodules and parameters have the published names; images are
channels-last.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.models.attention import attend
from aijax.models.dit import (
    EPS,
    TIME_WIDTH,
    FeedForward,
    check_latents,
    modulate,
    plain_norm,
)
from aijax.models.embeddings import grid_embedding, sinusoidal_embedding
from aijax.models.patches import PatchEmbedding, from_patches
from aijax.models.unet_conditions import TimestepEmbedding
from aijax.typing import Array, Float


class MMDiT(nn.Module):
    """A multimodal diffusion transformer: latents [b, h, w, c], times, text and pooled text -> [b, h, w, out_channels].

    Attributes:
      sample_size: pixels on a side of the latents it was made for.
      patch_size: pixels on a side of a patch.
      in_channels, out_channels: of latents and of the prediction; None for those of latents.
      num_layers: blocks.
      attention_head_dim, num_attention_heads: width of a head, and heads; the width of a token is their product.
      joint_attention_dim: width of the text's tokens.
      caption_projection_dim: width that they are brought to: that of a token.
      pooled_projection_dim: width of the pooled text.
      pos_embed_max_size: patches on a side of the table of positions, of which the middle is used.
      dual_attention_layers: blocks where patches also attend to themselves alone.
      qk_norm: None, or "rms_norm" of queries and keys.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.

    Raises, when it is traced:
      ConfigError: latents of other channels, that patches do not divide, or that are larger than the table; text of
        another width.

    >>> model = MMDiT(8, 2, 4, 1, 8, 2, 12, 16, 10, 4, 8)
    >>> inputs = jnp.ones((1, 8, 8, 4)), jnp.ones(1), jnp.ones((1, 5, 12)), jnp.ones((1, 10))
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), *inputs)[0].shape
    (1, 8, 8, 4)
    """

    sample_size: int = 128
    patch_size: int = 2
    in_channels: int = 16
    num_layers: int = 18
    attention_head_dim: int = 64
    num_attention_heads: int = 18
    joint_attention_dim: int = 4096
    caption_projection_dim: int = 1152
    pooled_projection_dim: int = 2048
    out_channels: int | None = 16
    pos_embed_max_size: int = 96
    dual_attention_layers: tuple[int, ...] = ()
    qk_norm: str | None = None
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Float[Array, " b"] | Float[Array, ""],
        text: Float[Array, "b s e"],
        pooled: Float[Array, "b f"],
    ) -> Float[Array, "b h w o"]:
        """Returns the prediction at times `t` (one for all, or one each; published models want 0 to 1000)."""
        width = self.num_attention_heads * self.attention_head_dim
        self._check(x, text, pooled, width)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        grid = (x.shape[1] // self.patch_size, x.shape[2] // self.patch_size)
        t = jnp.broadcast_to(t, x.shape[:1])
        base = float(self.sample_size // self.patch_size)
        x = PositionedPatches(self.patch_size, width, self.pos_embed_max_size, base, name="pos_embed", **dtypes)(x)
        told = TimeTextEmbedding(width, name="time_text_embed", **dtypes)(t, pooled)
        text = nn.Dense(self.caption_projection_dim, name="context_embedder", **dtypes)(text)
        for i in range(self.num_layers):
            last, dual = i == self.num_layers - 1, i in self.dual_attention_layers
            heads = self.num_attention_heads, self.attention_head_dim, self.qk_norm is not None
            x, text = JointBlock(*heads, last, dual, name=f"transformer_blocks_{i}", **dtypes)(x, text, told)
        scale, shift = Modulation(2, name="norm_out", **dtypes)(told)
        x = modulate(plain_norm(x, EPS), shift, scale)
        out_channels = self.out_channels or self.in_channels
        x = nn.Dense(self.patch_size**2 * out_channels, name="proj_out", **dtypes)(x)
        return from_patches(x, grid, self.patch_size)

    def _check(self, x, text, pooled, width):
        check_latents(x, self.in_channels)
        if self.caption_projection_dim != width:
            raise ConfigError(
                f"caption_projection_dim: expected the width of a token, {width}, got {self.caption_projection_dim}"
            )
        for name, field, array in (
            ("text", "joint_attention_dim", text),
            ("pooled text", "pooled_projection_dim", pooled),
        ):
            if array.shape[-1] != getattr(self, field):
                raise ConfigError(f"{field}: expected {name} of width {getattr(self, field)}, got {array.shape[-1]}")
        choose({"None": False, "rms_norm": True}, str(self.qk_norm), "qk_norm")


class PositionedPatches(nn.Module):
    """Latents -> a token for each patch with the middle of the table of positions added, [b, n, d].

    The table is kept with the parameters, as published; no gradient reaches it.
    """

    patch_size: int
    width: int
    side: int
    base_size: float
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        side, dtypes = self.side, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        patches = PatchEmbedding(self.patch_size, self.width, name="proj", **dtypes)(x)
        h, w = patches.shape[1:3]
        if h > side or w > side:
            raise ConfigError(f"pos_embed_max_size: expected at most {side} x {side} patches, got {h} x {w}")

        def init(key, shape):
            positions = grid_embedding((side, side), self.width, base_size=self.base_size)
            return positions.reshape(shape).astype(self.param_dtype)

        table = jax.lax.stop_gradient(self.param("pos_embed", init, (1, side * side, self.width)))
        top, left = (side - h) // 2, (side - w) // 2
        middle = table.reshape(1, side, side, self.width)[:, top : top + h, left : left + w]
        return (patches + middle.astype(patches.dtype)).reshape(x.shape[0], h * w, self.width)


class TimeTextEmbedding(nn.Module):
    """The sum of the embeddings of times and of pooled text, [b, d]."""

    width: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, t: Float[Array, " b"], pooled: Float[Array, "b f"]) -> Float[Array, "b d"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        waves = sinusoidal_embedding(t, TIME_WIDTH, cosine_first=True, shift=0.0)
        time = TimestepEmbedding(self.width, name="timestep_embedder", **dtypes)(waves)
        return time + TimestepEmbedding(self.width, name="text_embedder", **dtypes)(pooled)


class Modulation(nn.Module):
    """An embedding [b, d] -> `count` vectors [b, d], all zero at first."""

    count: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, told: Float[Array, "b d"]) -> list[Array]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = self.count * told.shape[-1]
        linear = nn.Dense(width, kernel_init=nn.initializers.zeros, name="linear", **dtypes)
        return jnp.split(linear(jax.nn.silu(told)), self.count, axis=-1)


class JointBlock(nn.Module):
    """A block: patches and text [b, n, d], [b, s, d] -> both; of the last block the text is None.

    Attributes:
      num_heads, head_width: heads, and the width of each.
      qk_norm: whether queries and keys are normalised.
      last: whether the text is only read.
      dual: whether patches attend to themselves alone as well (SD 3.5 medium).
    """

    num_heads: int
    head_width: int
    qk_norm: bool
    last: bool
    dual: bool
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, text: Array, told: Array) -> tuple[Array, Array | None]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        heads = self.num_heads, self.head_width, self.qk_norm
        shift, scale, gate, *mlp = Modulation(9 if self.dual else 6, name="norm1", **dtypes)(told)
        y = plain_norm(x, EPS)
        if self.last:
            text_scale, text_shift = Modulation(2, name="norm1_context", **dtypes)(told)
        else:
            text_shift, text_scale, text_gate, *text_mlp = Modulation(6, name="norm1_context", **dtypes)(told)
        z = modulate(plain_norm(text, EPS), text_shift, text_scale)
        seen, read = JointAttention(*heads, self.last, name="attn", **dtypes)(modulate(y, shift, scale), z)
        x = x + gate[:, None] * seen
        if self.dual:
            shift, scale, gate = mlp[3:]
            alone = JointAttention(*heads, True, name="attn2", **dtypes)
            x = x + gate[:, None] * alone(modulate(y, shift, scale), None)[0]
        x = self._mlp("ff", x, mlp[:3])
        if self.last:
            return x, None
        return x, self._mlp("ff_context", text + text_gate[:, None] * read, text_mlp)

    def _mlp(self, name, x, modulation):
        shift, scale, gate = modulation
        mlp = FeedForward("gelu-approximate", self.dtype, self.param_dtype, name=name)
        return x + gate[:, None] * mlp(modulate(plain_norm(x, EPS), shift, scale))


class JointAttention(nn.Module):
    """Attention of patches and text as one sequence, patches first -> what each reads; of text only where it is not
    `only_read`. Without text, self-attention of the patches."""

    num_heads: int
    head_width: int
    qk_norm: bool
    only_read: bool
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], text: Float[Array, "b s d"] | None) -> tuple[Array, Array | None]:
        joined = [self._projections(x, "to_{}", "norm_{}")]
        if text is not None:
            joined.append(self._projections(text, "add_{}_proj", "norm_added_{}"))
        query, key, value = (jnp.concatenate(parts, axis=1) for parts in zip(*joined, strict=True))
        y = attend(query, key, value, causal=False)
        y = y.reshape(*y.shape[:2], -1)
        seen = self._dense(x.shape[-1], "to_out_0")(y[:, : x.shape[1]])
        return seen, None if self.only_read else self._dense(text.shape[-1], "to_add_out")(y[:, x.shape[1] :])

    def _projections(self, x, layer, norm):
        heads = (*x.shape[:2], self.num_heads, self.head_width)
        query, key, value = (self._dense(heads[2] * heads[3], layer.format(part))(x).reshape(heads) for part in "qkv")
        if self.qk_norm:
            query, key = (
                nn.RMSNorm(EPS, self.dtype, self.param_dtype, name=norm.format(part))(y)
                for part, y in (("q", query), ("k", key))
            )
        return query, key, value

    def _dense(self, features, name):
        return nn.Dense(features, dtype=self.dtype, param_dtype=self.param_dtype, name=name)
