"""The levels of a UNet: residual blocks and attention at one resolution, on the way down, in the middle, on the way up.

A level on the way down gives every state that it passes through, and the level of the same resolution on the way up
takes them, the last first, beside its own channels (Ronneberger et al. 2015; Ho et al. 2020).
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from aijax.models.image_attention import AttentionBlock, ContextAttentionBlock, SpatialTransformer
from aijax.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from aijax.typing import Array, Float


@dataclasses.dataclass(frozen=True)
class Level:
    """What a UNet does at one resolution, in one direction.

    Attributes:
      width: channels.
      layers: residual blocks; in the middle those after the first.
      attention: after each block: "none", "self", "cross" (a transformer that also attends to the context) or "joint"
        (to pixels and context as one sequence).
      head_width: width of a head of "self" and "joint"; None for one head.
      num_heads: heads of "cross".
      depth: blocks of each transformer of "cross", one number or one of each layer.
      only_cross: whether these, or "joint", attend to the context alone.
      context_norm: of the context before "joint", see `aijax.models.image_attention.ContextAttentionBlock`.
      resample: how the image is halved or doubled after the level: "conv", "resnet" (in a residual block) or "none".
      progressive: whether the level carries an image too, see `aijax.models.unet_progressive`.
      groups: of group norms; None for a quarter of the channels, at most 32.
      attention_groups: of the norm before "self"; None for no norm.
      output_scale: by which sums of a branch and its input are divided.
      time_activation: whether blocks apply the activation to the time embedding.
    """

    width: int
    layers: int = 2
    attention: Literal["none", "self", "cross", "joint"] = "none"
    head_width: int | None = 8
    num_heads: int = 8
    depth: int | tuple[int, ...] = 1
    only_cross: bool = False
    context_norm: str | None = None
    resample: Literal["conv", "resnet", "none"] = "conv"
    progressive: bool = False
    groups: int | None = 32
    attention_groups: int | None = 32
    output_scale: float = 1.0
    time_activation: bool = True


@dataclasses.dataclass(frozen=True)
class BlockOptions:
    """What all levels of a UNet have in common.

    Attributes:
      eps: added to variances.
      activation: a name of `aijax.models.resnet.IMAGE_ACTIVATIONS`.
      time_embedding: how the time enters a residual block: "default" (added) or "scale_shift".
      downsample_padding: zeros around an image before a convolution of stride 2; 0 for zeros after its end.
      linear_projection: whether transformers begin and end with matrices, in place of 1 x 1 convolutions.
      dropout_rate: within residual blocks.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.
    """

    eps: float = 1e-5
    activation: str = "silu"
    time_embedding: Literal["default", "scale_shift"] = "default"
    downsample_padding: int = 1
    linear_projection: bool = False
    dropout_rate: float = 0.0
    dtype: Any = None
    param_dtype: Any = "float32"

    def dtypes(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


class DownBlock(nn.Module):
    """A level on the way down: returns the states that it passed through, of which the last is the result."""

    level: Level
    options: BlockOptions
    train: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], time: Float[Array, "b e"], context: Float[Array, "b s d"] | None
    ) -> list[Array]:
        level, options, states = self.level, self.options, []
        for i in range(level.layers):
            x = residual_block(level, options, f"resnets_{i}", x.shape[-1])(x, time, train=self.train)
            x = attend_to_pixels(level, options, i, x, context)
            states.append(x)
        if level.resample == "resnet":
            down = residual_block(level, options, "downsamplers_0", level.width, resample="down")
            states.append(down(x, time, train=self.train))
        elif level.resample == "conv":
            down = Downsample2D(level.width, options.downsample_padding, name="downsamplers_0", **options.dtypes())
            states.append(down(x))
        return states


class MidBlock(nn.Module):
    """The lowest level: a residual block, then attention and another, `layers` times."""

    level: Level
    options: BlockOptions
    train: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], time: Float[Array, "b e"], context: Float[Array, "b s d"] | None
    ) -> Float[Array, "b h w c"]:
        level, options = self.level, self.options
        x = residual_block(level, options, "resnets_0", level.width)(x, time, train=self.train)
        for i in range(level.layers):
            x = attend_to_pixels(level, options, i, x, context)
            x = residual_block(level, options, f"resnets_{i + 1}", level.width)(x, time, train=self.train)
        return x


class UpBlock(nn.Module):
    """A level on the way up, given the states of its resolution; `size` is the (height, width) of the result."""

    level: Level
    options: BlockOptions
    train: bool = False
    size: tuple[int, int] | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        states: list[Array],
        time: Float[Array, "b e"],
        context: Float[Array, "b s d"] | None,
    ) -> Float[Array, "b k l o"]:
        level, options = self.level, self.options
        for i in range(level.layers):
            x = jnp.concatenate([x, states[-1 - i]], -1)
            x = residual_block(level, options, f"resnets_{i}", x.shape[-1])(x, time, train=self.train)
            x = attend_to_pixels(level, options, i, x, context)
        if level.resample == "resnet":
            return residual_block(level, options, "upsamplers_0", level.width, resample="up")(x, time, train=self.train)
        if level.resample == "conv":
            return Upsample2D(level.width, name="upsamplers_0", **options.dtypes())(x, self.size)
        return x


def residual_block(level: Level, options: BlockOptions, name: str, channels: int, **fields: Any) -> ResnetBlock2D:
    """Returns a residual block of the level, for an input of `channels`; `fields` override."""
    given = {
        "groups": num_groups(level, channels),
        "groups_out": num_groups(level, level.width),
        "eps": options.eps,
        "activation": options.activation,
        "time_embedding": options.time_embedding,
        "time_activation": level.time_activation,
        "dropout_rate": options.dropout_rate,
        "output_scale": level.output_scale,
    }
    return ResnetBlock2D(level.width, name=name, **given | options.dtypes() | fields)


def attend_to_pixels(level: Level, options: BlockOptions, i: int, x: Array, context: Array | None) -> Array:
    """Returns `x` after the i-th attention of the level, where it has one."""
    name, dtypes = f"attentions_{i}", options.dtypes()
    if level.attention == "none":
        return x
    if level.attention == "self":
        fields = {"groups": level.attention_groups, "eps": options.eps, "output_scale": level.output_scale}
        return AttentionBlock(level.head_width, name=name, **fields, **dtypes)(x)
    if level.attention == "joint":
        groups, width = num_groups(level, level.width), level.head_width or level.width
        fields = {"only_cross": level.only_cross, "context_norm": level.context_norm}
        return ContextAttentionBlock(width, groups, name=name, **fields, **dtypes)(x, context)
    depth = level.depth if isinstance(level.depth, int) else level.depth[i]
    transformer = SpatialTransformer(
        level.num_heads, depth, context is not None, level.only_cross, options.linear_projection,
        num_groups(level, level.width), name=name, **dtypes,
    )  # fmt: skip
    return transformer(x, context)


def num_groups(level: Level, channels: int) -> int:
    """Returns the groups of a norm over `channels`."""
    return max(min(channels // 4, 32), 1) if level.groups is None else level.groups
