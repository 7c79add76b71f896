"""Autoencoders of latent diffusion: images to latents of fewer pixels and back (Rombach et al. 2022).

`AutoencoderKL` gives the means and log-variances of Gaussian latents (Kingma and Welling 2014), `VQModel` the nearest
of K codes (van den Oord et al. 2017). Both are stages of residual blocks, each at half the resolution of the one
before, with attention in the middle. Fields, submodules and parameters have the published names; images are
channels-last.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.models.image_attention import AttentionBlock
from aijax.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D, conv, group_norm
from aijax.typing import Array, Float

EPS = 1e-6
DOWN_BLOCKS = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}
UP_BLOCKS = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}


class AutoencoderKL(nn.Module):
    """An autoencoder with Gaussian latents: `encode` and `decode`; a call decodes the mean.

    Attributes:
      in_channels, out_channels: of images.
      down_block_types, up_block_types: of each stage, "DownEncoderBlock2D" and "UpDecoderBlock2D", or with attention
        "AttnDownEncoderBlock2D" and "AttnUpDecoderBlock2D".
      block_out_channels: channels of each stage of the encoder.
      layers_per_block: residual blocks of a stage; the decoder's have one more.
      act_fn: of residual blocks, a name of `aijax.models.resnet.IMAGE_ACTIVATIONS`; before the last convolution of
        encoder and decoder it is always "silu".
      latent_channels: of latents.
      norm_num_groups: groups of channels that are normalised together.
      sample_size: pixels on a side of the images it was made for.
      scaling_factor, shift_factor: a diffusion model sees (latent - shift) scaling.
      latents_mean, latents_std: of each channel, where published: (latent - mean) scaling / std is then seen.
      use_quant_conv, use_post_quant_conv: whether latents pass a 1 x 1 convolution after and before.
      mid_block_add_attention: whether there is attention in the middle.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.

    Raises, when it is traced:
      ConfigError: images or latents of other channels, unknown blocks, groups that do not divide channels.

    >>> model = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((1, 8, 8, 3)))[0].shape
    (1, 8, 8, 3)
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int | tuple[int, ...] = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True
    dtype: Any = None
    param_dtype: Any = "float32"

    def setup(self):
        self.encoder = _encoder(self, 2 * self.latent_channels)
        self.decoder = _decoder(self)
        if self.use_quant_conv:
            self.quant_conv = conv(2 * self.latent_channels, 1, None, padding=0, **_dtypes(self))
        if self.use_post_quant_conv:
            self.post_quant_conv = conv(self.latent_channels, 1, None, padding=0, **_dtypes(self))

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b h w o"]:
        return self.decode(jnp.split(self.encode(x, train=train), 2, axis=-1)[0], train=train)

    def encode(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b k l 2*z"]:
        """Returns the moments of the latents, means and log-variances side by side on the last axis; see
        `aijax.diffusion.diagonal_gaussian.from_moments`."""
        _check_channels("images", "in_channels", x, self.in_channels)
        h = self.encoder(x, train=train)
        return self.quant_conv(h) if self.use_quant_conv else h

    def decode(self, z: Float[Array, "b k l z"], *, train: bool = False) -> Float[Array, "b h w o"]:
        """Returns the images of latents."""
        _check_channels("latents", "latent_channels", z, self.latent_channels)
        return self.decoder(self.post_quant_conv(z) if self.use_post_quant_conv else z, train=train)


class Quantised(NamedTuple):
    """Latents replaced by codes.

    Attributes:
      values: the codes, `[b, h, w, z]`; as a function of the latents their gradient is the identity.
      indices: of the codes, `[b, h, w]`.
      loss: mean |sg(z) - e|^2 + beta mean |z - sg(e)|^2 (van den Oord et al. 2017, equation 3).
    """

    values: Array
    indices: Array
    loss: Array


class VQModel(nn.Module):
    """An autoencoder with discrete latents: `encode`, `quantise`, `decode`; a call does all three.

    Attributes:
      num_vq_embeddings: number of codes.
      vq_embed_dim: width of a code; None for `latent_channels`.
      norm_type: "group".
      commitment: beta of the loss of `Quantised`.
      in_channels, out_channels, down_block_types, up_block_types, block_out_channels, layers_per_block, act_fn,
      latent_channels, norm_num_groups, sample_size, scaling_factor, mid_block_add_attention, dtype, param_dtype: see
        `AutoencoderKL`.

    Raises, when it is traced:
      ConfigError: as `AutoencoderKL`.
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 3
    sample_size: int | tuple[int, ...] = 32
    num_vq_embeddings: int = 256
    norm_num_groups: int = 32
    vq_embed_dim: int | None = None
    scaling_factor: float = 0.18215
    norm_type: str = "group"
    mid_block_add_attention: bool = True
    commitment: float = 0.25
    dtype: Any = None
    param_dtype: Any = "float32"

    def setup(self):
        choose({"group": True}, self.norm_type, "norm_type")
        self.encoder = _encoder(self, self.latent_channels)
        self.decoder = _decoder(self)
        self.quant_conv = conv(self.code_width, 1, None, padding=0, **_dtypes(self))
        self.post_quant_conv = conv(self.latent_channels, 1, None, padding=0, **_dtypes(self))
        self.quantize = Codebook(self.num_vq_embeddings, self.code_width, self.commitment, **_dtypes(self))

    @property
    def code_width(self) -> int:
        return self.latent_channels if self.vq_embed_dim is None else self.vq_embed_dim

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b h w o"]:
        return self.decode(self.encode(x, train=train), train=train)

    def encode(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b k l z"]:
        """Returns the latents before they are replaced by codes."""
        _check_channels("images", "in_channels", x, self.in_channels)
        return self.quant_conv(self.encoder(x, train=train))

    def quantise(self, z: Float[Array, "b k l z"]) -> Quantised:
        """Returns the nearest code of each latent."""
        return self.quantize(z)

    def decode(
        self, z: Float[Array, "b k l z"], *, quantised: bool = False, train: bool = False
    ) -> Float[Array, "b h w o"]:
        """Returns the images of latents, which are replaced by the nearest codes unless they are `quantised`."""
        _check_channels("latents", "vq_embed_dim", z, self.code_width)
        return self.decoder(self.post_quant_conv(z if quantised else self.quantize(z).values), train=train)


class Codebook(nn.Module):
    """K codes of one width: latents [..., width] -> `Quantised`."""

    num_codes: int
    width: int
    commitment: float = 0.25
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, z: Float[Array, "*b z"]) -> Quantised:
        bound = 1.0 / self.num_codes
        init = lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)  # noqa: E731
        embedding = nn.Embed(self.num_codes, self.width, self.dtype, self.param_dtype, init, name="embedding")
        codes = embedding.embedding.astype(z.dtype)
        indices = jnp.argmin(jnp.sum(codes**2, axis=-1) - 2 * z @ codes.T, axis=-1)
        chosen = codes[indices]
        still = jax.lax.stop_gradient
        loss = jnp.mean((still(z) - chosen) ** 2) + self.commitment * jnp.mean((z - still(chosen)) ** 2)
        return Quantised(z + still(chosen - z), indices, loss)


class Stages(nn.Module):
    """What encoders and decoders share; `block_out_channels` and `attention` are in the order of the stages."""

    out_channels: int
    attention: tuple[bool, ...]
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    act_fn: str
    groups: int
    mid_attention: bool
    dtype: Any = None
    param_dtype: Any = "float32"


class Encoder(Stages):
    """Images -> features at the resolution of the last stage."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b k l o"]:
        x = conv(self.block_out_channels[0], 3, "conv_in", **_dtypes(self))(x)
        last = len(self.block_out_channels) - 1
        for i, (width, attention) in enumerate(zip(self.block_out_channels, self.attention, strict=True)):
            resize = None if i == last else "down"
            x = _stage(self, f"down_blocks_{i}", width, self.layers_per_block, attention, resize)(x, train=train)
        x = _middle(self)(x, train=train)
        return _head(self, x)


class Decoder(Stages):
    """Latents -> images."""

    @nn.compact
    def __call__(self, z: Float[Array, "b k l z"], *, train: bool = False) -> Float[Array, "b h w o"]:
        x = conv(self.block_out_channels[0], 3, "conv_in", **_dtypes(self))(z)
        x = _middle(self)(x, train=train)
        last = len(self.block_out_channels) - 1
        for i, (width, attention) in enumerate(zip(self.block_out_channels, self.attention, strict=True)):
            resize = None if i == last else "up"
            x = _stage(self, f"up_blocks_{i}", width, self.layers_per_block + 1, attention, resize)(x, train=train)
        return _head(self, x)


class Stage(nn.Module):
    """Residual blocks at one resolution, with attention after each where there is, then a change of the resolution."""

    width: int
    layers: int
    act_fn: str
    groups: int
    attention: bool
    resize: str | None
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b k l o"]:
        for i in range(self.layers):
            x = _resnet(self, f"resnets_{i}", self.width)(x, train=train)
            if self.attention:
                x = AttentionBlock(None, self.groups, EPS, name=f"attentions_{i}", **_dtypes(self))(x)
        if self.resize == "down":
            x = Downsample2D(self.width, padding=0, name="downsamplers_0", **_dtypes(self))(x)
        if self.resize == "up":
            x = Upsample2D(self.width, name="upsamplers_0", **_dtypes(self))(x)
        return x


class MiddleBlock(nn.Module):
    """A residual block, attention where there is, and a residual block."""

    act_fn: str
    groups: int
    attention: bool
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b h w c"]:
        x = _resnet(self, "resnets_0", x.shape[-1])(x, train=train)
        if self.attention:
            x = AttentionBlock(None, self.groups, EPS, name="attentions_0", **_dtypes(self))(x)
        return _resnet(self, "resnets_1", x.shape[-1])(x, train=train)


def _dtypes(module):
    return {"dtype": module.dtype, "param_dtype": module.param_dtype}


def _encoder(model, out_channels):
    attention = _attention(model, "down_block_types", DOWN_BLOCKS)
    return Encoder(out_channels, attention, model.block_out_channels, *_common(model), **_dtypes(model))


def _decoder(model):
    attention = _attention(model, "up_block_types", UP_BLOCKS)
    widths = tuple(reversed(model.block_out_channels))
    return Decoder(model.out_channels, attention, widths, *_common(model), **_dtypes(model))


def _common(model):
    return model.layers_per_block, model.act_fn, model.norm_num_groups, model.mid_block_add_attention


def _attention(model, field, blocks):
    """Whether each stage has attention."""
    types, count = getattr(model, field), len(model.block_out_channels)
    if len(types) != count:
        raise ConfigError(f"{field}: expected a block for each of {count} block_out_channels, got {len(types)}")
    return tuple(choose(blocks, name, field) for name in types)


def _stage(model, name, width, layers, attention, resize):
    return Stage(width, layers, model.act_fn, model.groups, attention, resize, name=name, **_dtypes(model))


def _middle(model):
    return MiddleBlock(model.act_fn, model.groups, model.mid_attention, name="mid_block", **_dtypes(model))


def _resnet(model, name, width):
    return ResnetBlock2D(
        width, model.groups, eps=EPS, activation=model.act_fn, time_embedding="none", name=name, **_dtypes(model)
    )


def _head(model, x):
    x = group_norm(x, model.groups, EPS, "conv_norm_out", activation=nn.silu, **_dtypes(model))
    return conv(model.out_channels, 3, "conv_out", **_dtypes(model))(x)


def _check_channels(what, field, x, channels):
    if x.ndim != 4 or x.shape[-1] != channels:
        raise ConfigError(f"{field}: expected {what} [b, h, w, {channels}], got shape {x.shape}")
