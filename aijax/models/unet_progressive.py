"""Levels of a UNet that carry an image beside their states, at its resolution: the "NCSN++".

On the way down the input, ever smaller, is added to the states; on the way up the output is a sum of images made at
every resolution, each enlarged by a smooth filter (Karras et al. 2020, section 4; Song et al. 2021, appendix H).
Images are halved and doubled smoothly too where a residual block does it.
"""

import flax.linen as nn
import jax.numpy as jnp

from aijax.models.resampling import smooth_down, smooth_up
from aijax.models.resnet import conv, group_norm
from aijax.models.unet_blocks import BlockOptions, Level, attend_to_pixels, num_groups, residual_block
from aijax.typing import Array, Float


class ProgressiveDownBlock(nn.Module):
    """A level on the way down: returns the states it passed through, the last the result, and the smaller image."""

    level: Level
    options: BlockOptions
    train: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], time: Float[Array, "b e"], image: Float[Array, "b h w i"]
    ) -> tuple[list[Array], Float[Array, "b k l i"]]:
        level, options, states = self.level, self.options, []
        for i in range(level.layers):
            x = residual_block(level, options, f"resnets_{i}", x.shape[-1])(x, time, train=self.train)
            x = attend_to_pixels(level, options, i, x, None)
            states.append(x)
        if level.resample == "none":
            return states, image
        down = residual_block(level, options, "resnet_down", level.width, resample="smooth_down", shortcut=True)
        x, image = down(x, time, train=self.train), smooth_down(image)
        x = x + conv(level.width, 1, "skip_conv", padding=0, **options.dtypes())(image)
        return [*states, x], image


class ProgressiveUpBlock(nn.Module):
    """A level on the way up: returns the result and the image of `image_channels` that was made so far.

    Attention, where there is some, comes once after the last block.
    """

    level: Level
    options: BlockOptions
    image_channels: int
    train: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        states: list[Array],
        time: Float[Array, "b e"],
        image: Float[Array, "b h/2 w/2 i"] | None,
    ) -> tuple[Float[Array, "b k l o"], Float[Array, "b h w i"]]:
        level, options = self.level, self.options
        for i in range(level.layers):
            groups = num_groups(level, x.shape[-1] + states[-1 - i].shape[-1])
            if level.attention == "self":  # published networks with attention divide only the state's channels by 4
                groups = min(x.shape[-1] + states[-1 - i].shape[-1] // 4, 32)
            x = jnp.concatenate([x, states[-1 - i]], -1)
            x = residual_block(level, options, f"resnets_{i}", x.shape[-1], groups=groups)(x, time, train=self.train)
        x = attend_to_pixels(level, options, 0, x, None)
        image = 0.0 if image is None else smooth_up(image)
        if level.resample == "none":
            return x, image
        groups = num_groups(level, level.width)
        y = group_norm(x, groups, options.eps, "skip_norm", activation=nn.silu, **options.dtypes())
        image = image + conv(self.image_channels, 3, "skip_conv", **options.dtypes())(y)
        up = residual_block(level, options, "resnet_up", level.width, resample="smooth_up", shortcut=True)
        return up(x, time, train=self.train), image
