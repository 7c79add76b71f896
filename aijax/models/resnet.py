"""Residual blocks of image networks, named as the published diffusion networks name them.

    h = conv1(act(norm1(x)));    h = h + W act(e)   or   h = (1 + s) norm2(h) + b with (s, b) = W act(e);
    y = (shortcut(x) + conv2(act(norm2(h)))) / scale

with e the embedding of the time (Ho et al. 2020, appendix B; the second form is Dhariwal and Nichol 2021, section 3).
Images are channels-last. Submodules and parameters have the names of the published files, so that
`aijax.models.layout` maps one to the other without a table.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import choose
from aijax.models.block_spec import ACTIVATIONS
from aijax.models.convolution import Conv
from aijax.models.group_norm import GroupNorm
from aijax.models.resampling import smooth_down, smooth_up
from aijax.typing import Array, Float

IMAGE_ACTIVATIONS = {"silu": ACTIVATIONS["silu"], "swish": ACTIVATIONS["silu"], "mish": jax.nn.mish} | {
    name: ACTIVATIONS[name] for name in ("gelu", "relu")
}
"""Activations by the names that published configs give them."""


class ResnetBlock2D(nn.Module):
    """A residual block: images [b, h, w, c] and an embedding [b, e] or None -> [b, h', w', out_channels].

    Attributes:
      out_channels: channels of the result.
      groups: of the first normalisation.
      groups_out: of the second; None for `groups`.
      eps: added to the variance in both.
      activation: a name of `IMAGE_ACTIVATIONS`.
      time_embedding: how the embedding enters: "default" (added), "scale_shift" or "none" (it is not used).
      time_activation: whether the activation is applied to the embedding.
      resample: what is done to both branches before the first convolution: a name of `RESAMPLERS`, or "none".
      shortcut: whether the input passes a 1 x 1 convolution; None where the channels change.
      dropout_rate: before the second convolution.
      output_scale: by which the sum is divided.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.
    """

    out_channels: int
    groups: int = 32
    groups_out: int | None = None
    eps: float = 1e-6
    activation: str = "silu"
    time_embedding: Literal["default", "scale_shift", "none"] = "default"
    time_activation: bool = True
    resample: str = "none"
    shortcut: bool | None = None
    dropout_rate: float = 0.0
    output_scale: float = 1.0
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], embedding: Float[Array, "b e"] | None = None, *, train: bool = False
    ) -> Float[Array, "b k l o"]:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        act = choose(IMAGE_ACTIVATIONS, self.activation, "act_fn")
        choose(dict.fromkeys(("default", "scale_shift", "none")), self.time_embedding, "resnet_time_scale_shift")
        h = group_norm(x, self.groups, self.eps, "norm1", activation=act, **dtypes)
        if self.resample != "none":
            resample = choose(RESAMPLERS, self.resample, "resample")
            x, h = resample(x), resample(h)
        h = conv(self.out_channels, 3, "conv1", **dtypes)(h)
        modulation = None
        if embedding is not None and self.time_embedding != "none":
            width = self.out_channels * (2 if self.time_embedding == "scale_shift" else 1)
            embedding = act(embedding) if self.time_activation else embedding
            told = nn.Dense(width, name="time_emb_proj", **dtypes)(embedding)
            if self.time_embedding == "default":
                h = h + told[:, None, None, :]
            else:
                modulation = tuple(jnp.split(told, 2, axis=-1))
        norm = GroupNorm(self.groups_out or self.groups, self.eps, act, name="norm2", **dtypes)
        h = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(norm(h, modulation))
        h = conv(self.out_channels, 3, "conv2", **dtypes)(h)
        if x.shape[-1] != self.out_channels if self.shortcut is None else self.shortcut:
            x = conv(self.out_channels, 1, "conv_shortcut", padding=0, **dtypes)(x)
        return (x + h) / self.output_scale


class Downsample2D(nn.Module):
    """A convolution of stride 2 that halves the image.

    Attributes:
      out_channels: channels of the result.
      padding: zeros around the image, 1; or 0 for one row and one column after its end.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.
    """

    out_channels: int
    padding: int = 1
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 o"]:
        padding = self.padding if self.padding else ((0, 1), (0, 1))
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return conv(self.out_channels, 3, "conv", stride=2, padding=padding, **dtypes)(x)


class Upsample2D(nn.Module):
    """An image enlarged by repeating its pixels, then a 3 x 3 convolution.

    Attributes:
      out_channels: channels of the result.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.
    """

    out_channels: int
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], size: tuple[int, int] | None = None) -> Float[Array, "b k l o"]:
        x = repeat_pixels(x, size)
        return conv(self.out_channels, 3, "conv", dtype=self.dtype, param_dtype=self.param_dtype)(x)


def conv(
    features: int,
    size: int,
    name: str | None,
    *,
    stride: int = 1,
    padding: Any = 1,
    dtype: Any = None,
    param_dtype: Any,
) -> nn.Module:
    """Returns a `size` x `size` convolution with `padding` zeros on every side."""
    return Conv(features, (size, size), stride, padding, dtype=dtype, param_dtype=param_dtype, name=name)


def group_norm(
    x: Array,
    groups: int,
    eps: float,
    name: str,
    *,
    activation: Callable[[Array], Array] | None = None,
    dtype: Any = None,
    param_dtype: Any,
) -> Array:
    """Returns x normalised over groups of its channels and activated, by a layer of the module that calls it."""
    return GroupNorm(groups, eps, activation, dtype=dtype, param_dtype=param_dtype, name=name)(x)


def repeat_pixels(x: Float[Array, "b h w c"], size: tuple[int, int] | None = None) -> Float[Array, "b k l c"]:
    """Returns the image twice as large, or of `size`, each pixel from the nearest at or before its place.

    >>> repeat_pixels(jnp.array([[[[1.0], [2.0]]]]))[0, :, :, 0].tolist()
    [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]
    """
    h, w = x.shape[1:3]
    if size is None or size == (2 * h, 2 * w):
        return x.repeat(2, axis=1).repeat(2, axis=2)
    rows, columns = (jnp.arange(new) * old // new for new, old in zip(size, (h, w), strict=True))
    return x[:, rows][:, :, columns]


def mean_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """Returns the mean of each 2 x 2 pixels; an odd last row or column is left out."""
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


RESAMPLERS = {"up": repeat_pixels, "down": mean_pool, "smooth_up": smooth_up, "smooth_down": smooth_down}
"""What a `ResnetBlock2D` may do to the image's size, by name."""
