"""UNets of diffusion models: an image, a time and conditions to an image of the same size.

    e = what is told (`aijax.models.unet_conditions`);    h_0 = conv(x);    h_i = down_i(h_{i-1}, e, context);
    h = mid(h_n, e, context);    h = up_j(h beside the states of down_{n-j}, e, context);    y = conv(act(norm(h)))

(Ronneberger et al. 2015; Ho et al. 2020, appendix B.) `UNet` is the network; its levels say what it does at each
resolution, and with them it is any of the published ones: DDPM, ADM (Dhariwal and Nichol 2021), NCSN++ (Song et al.
2021), Stable Diffusion (Rombach et al. 2022) and SDXL (Podell et al. 2023). `unet` makes one from a few numbers, and
`aijax.models.unet_config.unet_from_config` from a published config. Submodules have the published names, so that
`aijax.models.layout` reads and writes published weights.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.models.resnet import conv, group_norm
from aijax.models.unet_blocks import BlockOptions, DownBlock, Level, MidBlock, UpBlock
from aijax.models.unet_conditions import Conditions, activate, embed_conditions
from aijax.models.unet_progressive import ProgressiveDownBlock, ProgressiveUpBlock
from aijax.parallel import keep_batch_split
from aijax.typing import Array, Float, Int


class UNet(nn.Module):
    """A UNet: images [b, h, w, c] and times [b] or [] -> [b, h, w, out_channels].

    Attributes:
      down: the levels on the way down, the highest resolution first.
      mid: the lowest level, or None.
      up: the levels on the way up, the lowest resolution first; each takes as many states as it has blocks.
      conditions: how time, class, texts and sizes are embedded.
      options: what all blocks have in common.
      out_channels: channels of the result.
      in_channels: of the images; None for any.
      context_width: of a context; None for any.
      in_size, out_size: sizes of the first and the last convolution.
      out_groups, out_activation: of the norm and the activation before the last convolution.
      center_input: whether 2 x - 1 is read in place of x.
      divide_by_time: whether the result is divided by t, as networks do that are told sigma and predict the score.
      remat: whether the backward pass computes each level again, which needs less memory and more time.

    Raises, when it is traced:
      ConfigError: images, times or conditions of another shape, or levels that do not fit together.
    """

    down: tuple[Level, ...]
    mid: Level | None
    up: tuple[Level, ...]
    conditions: Conditions
    options: BlockOptions = BlockOptions()
    out_channels: int = 3
    in_channels: int | None = None
    context_width: int | None = None
    in_size: int = 3
    out_size: int = 3
    out_groups: int = 32
    out_activation: str = "silu"
    center_input: bool = False
    divide_by_time: bool = False
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Float[Array, " b"] | float,
        class_labels: Int[Array, " b"] | None = None,
        context: Float[Array, "b s d"] | None = None,
        *,
        text_embeds: Float[Array, "b e"] | None = None,
        time_ids: Float[Array, "b k"] | None = None,
        time_condition: Float[Array, "b g"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b h w o"]:
        """Returns what the network predicts.

        Args:
          x: noisy images.
          t: their times, one for each or one for all, in the units the network was trained with.
          class_labels: a class of each image, for a network with classes.
          context: vectors that the pixels attend to, such as the tokens of a text.
          text_embeds, time_ids: a pooled text and sizes, for a network that is told them.
          time_condition: a vector added to the time's, such as an embedded guidance scale.
          train: whether dropout is applied; it needs the "dropout" rng.
        """
        t = self._check(x, jnp.asarray(t), context)
        options, dtypes = self.options, self.options.dtypes()
        dtype = x.dtype if options.dtype is None else options.dtype
        x = 2 * x - 1 if self.center_input else x
        e = embed_conditions(self.conditions, t, dtype, class_labels, text_embeds, time_ids, time_condition, context)
        if context is not None and self.conditions.context_projection is not None:
            context = nn.Dense(self.conditions.context_projection, name="encoder_hid_proj", **dtypes)(context)

        image = x
        x = conv(self.down[0].width, self.in_size, "conv_in", padding=(self.in_size - 1) // 2, **dtypes)(x)
        states = [x]
        for i, level in enumerate(self.down):
            if level.progressive:
                block = self._kind(ProgressiveDownBlock)(level, options, train, name=f"down_blocks_{i}")
                passed, image = block(x, e, image)
            else:
                passed = self._kind(DownBlock)(level, options, train, name=f"down_blocks_{i}")(x, e, context)
            x = keep_batch_split(passed[-1])
            states += passed
        if self.mid is not None:
            x = self._kind(MidBlock)(self.mid, options, train, name="mid_block")(x, e, context)
        image = None
        for i, level in enumerate(self.up):
            states, taken = states[: -level.layers], states[-level.layers :]
            if level.progressive:
                block = self._kind(ProgressiveUpBlock)(level, options, self.out_channels, train, name=f"up_blocks_{i}")
                x, image = block(x, taken, e, image)
            else:
                size = states[-1].shape[1:3] if states else None
                x = self._kind(UpBlock)(level, options, train, size, name=f"up_blocks_{i}")(x, taken, e, context)
            x = keep_batch_split(x)
        act = partial(activate, self.out_activation)
        x = group_norm(x, self.out_groups, options.eps, "conv_norm_out", activation=act, **dtypes)
        x = conv(self.out_channels, self.out_size, "conv_out", padding=(self.out_size - 1) // 2, **dtypes)(x)
        x = x if image is None else x + image
        return x / t[:, None, None, None].astype(x.dtype) if self.divide_by_time else x

    def _kind(self, block):
        return nn.remat(block) if self.remat else block

    def _check(self, x: Array, t: Array, context: Array | None) -> Array:
        """Returns one time for each image, in floating point of at least 32 bits."""
        if x.ndim != 4:
            raise ConfigError(f"x: expected images of shape [b, h, w, c], got {list(x.shape)}")
        if self.in_channels not in (None, x.shape[-1]):
            raise ConfigError(f"x: expected images of {self.in_channels} channels, got shape {list(x.shape)}")
        if t.shape not in ((), (x.shape[0],)):
            raise ConfigError(f"t: expected one time or {x.shape[0]} of them, got shape {list(t.shape)}")
        crosses = any(level.attention in ("cross", "joint") for level in (*self.down, *self.up))
        crosses = crosses or self.conditions.pool_heads is not None
        if crosses and context is None and self.context_width is not None:
            raise ConfigError(f"context: expected vectors of width {self.context_width} to attend to, got none")
        if context is not None and self.context_width not in (None, context.shape[-1]):
            raise ConfigError(
                f"context: expected vectors of width {self.context_width}, got shape {list(context.shape)}"
            )
        passed = [1] + [level.layers + (level.resample != "none") for level in self.down]
        if sum(passed) != sum(level.layers for level in self.up):
            raise ConfigError(
                f"up: expected {sum(passed)} blocks in all, one for each state of the way down, "
                f"got {sum(level.layers for level in self.up)}"
            )
        t = t.astype(jnp.promote_types(t.dtype, jnp.float32))
        return jnp.broadcast_to(t, x.shape[:1])


def unet(
    widths: tuple[int, ...] = (64, 128),
    *,
    out_channels: int = 3,
    layers: int = 2,
    attention_levels: tuple[int, ...] = (1,),
    context_levels: tuple[int, ...] = (),
    head_width: int = 32,
    num_classes: int | None = None,
    scale_shift: bool = True,
    time_scale: float = 1.0,
    dropout_rate: float = 0.0,
    remat: bool = False,
    dtype: Any = None,
    param_dtype: Any = "float32",
) -> UNet:
    """Returns a UNet for images whose sides halve `len(widths) - 1` times.

    Args:
      widths: channels at each resolution, the highest first.
      out_channels: channels of the result; twice those of the images where a variance is learned too.
      layers: residual blocks at each resolution.
      attention_levels: resolutions (0 the highest) where pixels attend to each other; in the middle they always do.
      context_levels: those where they attend to a context too.
      head_width: channels of an attention head, or all of a level that has fewer.
      num_classes: of class labels, counting the one that stands for none where there is guidance.
      scale_shift: whether the time scales and shifts after each norm (True) or is added before it.
      time_scale: by which t is multiplied before it is embedded: 1 for t to 1000, 1000 for t to 1.
      dropout_rate: within residual blocks.
      remat: see `UNet`.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.

    Raises:
      ConfigError: no widths, or levels that there are not.

    >>> import jax
    >>> model = unet((16, 32), out_channels=1, num_classes=11)
    >>> x, labels = jnp.ones((5, 8, 8, 1)), jnp.arange(5)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), x, jnp.ones(5), labels)[0].shape
    (5, 8, 8, 1)
    """
    if not widths:
        raise ConfigError("widths: expected the channels of at least one level, got none")
    for name, levels in (("attention_levels", attention_levels), ("context_levels", context_levels)):
        if not set(levels) <= set(range(len(widths))):
            raise ConfigError(f"{name}: expected levels from 0 to {len(widths) - 1}, got {levels!r}")

    def level(i, layers, attention, resample="none"):
        heads = {"head_width": min(head_width, widths[i]), "num_heads": max(widths[i] // head_width, 1)}
        return Level(
            widths[i], layers, attention, resample=resample, groups=None, attention_groups=quarter(widths[i]), **heads
        )

    def quarter(width):
        return max(min(width // 4, 32), 1)

    def attention(i):
        return "cross" if i in context_levels else "self" if i in attention_levels else "none"

    last = len(widths) - 1
    dtypes = {"dtype": dtype, "param_dtype": param_dtype}
    return UNet(
        down=tuple(level(i, layers, attention(i), "none" if i == last else "conv") for i in range(last + 1)),
        mid=level(last, 1, "cross" if context_levels else "self"),
        up=tuple(level(i, layers + 1, attention(i), "conv" if i else "none") for i in reversed(range(last + 1))),
        conditions=Conditions(
            4 * widths[0],
            time_features=max(widths[0], 16),
            time_scale=time_scale,
            class_labels="none" if num_classes is None else "label",
            num_classes=num_classes,
            **dtypes,
        ),
        options=BlockOptions(
            time_embedding="scale_shift" if scale_shift else "default", dropout_rate=dropout_rate, **dtypes
        ),
        out_channels=out_channels,
        out_groups=quarter(widths[0]),
        remat=remat,
    )
