"""MLP-Mixer: patches mixed by MLPs, over places and over channels in turn (Tolstikhin et al. 2021, arXiv 2105.01601).

x <- x + MLP_places(Norm(x)^T)^T,        x <- x + MLP_channels(Norm(x)),        then a norm and the mean over places
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from aijax.errors import choose
from aijax.models.block_spec import Activation, BlockSpec, norm
from aijax.models.patches import PatchEmbedding
from aijax.models.transformer import Mlp
from aijax.typing import Array, Float


class Mixer(nn.Module):
    """An MLP-Mixer: images [b, h, w, c] -> logits [b, num_classes].

    Attributes:
      patch_size: pixels on a side of a patch, or on both; it divides the image's height and width.
      embed_dim: width of a token.
      depth: number of blocks.
      num_classes: None gives the pooled features.
      token_mlp_width, channel_mlp_width: of the hidden layers; None for half of and four times `embed_dim`.
      pool: "gap" or "none" (all tokens).
      activation, norm_epsilon, dropout_rate, dtype, param_dtype: see `aijax.models.block_spec.BlockSpec`.
      img_size: of the images it is for; the size of the first image where it is None.
      in_channels: of the images; None for those of the first image.

    >>> import jax
    >>> model = Mixer(patch_size=4, embed_dim=8, depth=1, num_classes=3)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 3)))[0].shape
    (2, 3)
    """

    patch_size: int | tuple[int, int]
    embed_dim: int
    depth: int
    num_classes: int | None = None
    token_mlp_width: int | None = None
    channel_mlp_width: int | None = None
    pool: Literal["gap", "none"] = "gap"
    activation: Activation = "gelu"
    norm_epsilon: float = 1e-6
    dropout_rate: float = 0.0
    img_size: int | tuple[int, int] | None = None
    in_channels: int | None = None
    published_as: str | None = None
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b k"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = PatchEmbedding(self.patch_size, self.embed_dim, name="embedding", **dtypes)(x)
        x = x.reshape(len(x), -1, self.embed_dim)
        tokens, channels = (
            BlockSpec(
                1,
                activation=self.activation,
                norm_epsilon=self.norm_epsilon,
                mlp_width=width,
                dropout_rate=self.dropout_rate,
                **dtypes,
            )
            for width in (
                self.embed_dim // 2 if self.token_mlp_width is None else self.token_mlp_width,
                4 * self.embed_dim if self.channel_mlp_width is None else self.channel_mlp_width,
            )
        )
        for i in range(self.depth):
            x = MixerBlock(tokens, channels, deterministic=not train, name=f"block_{i}")(x)
        x = norm(channels, "norm")(x)
        x = x.mean(axis=1) if choose({"gap": True, "none": False}, self.pool, "pool") else x
        return x if self.num_classes is None else nn.Dense(self.num_classes, name="head", **dtypes)(x)


class MixerBlock(nn.Module):
    """One block; the specs are those of the MLPs over places and over channels."""

    tokens: BlockSpec
    channels: BlockSpec
    deterministic: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        def drop(y):
            return nn.Dropout(self.tokens.dropout_rate, deterministic=self.deterministic)(y)

        y = norm(self.channels, "norm_tokens")(x)
        x = x + drop(jnp.swapaxes(Mlp(self.tokens, name="mlp_tokens")(jnp.swapaxes(y, 1, 2)), 1, 2))
        y = norm(self.channels, "norm_channels")(x)
        return x + drop(Mlp(self.channels, name="mlp_channels")(y))
