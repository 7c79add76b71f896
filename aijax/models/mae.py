"""The masked autoencoder: an image is reconstructed from a few of its patches (He et al. 2022, arXiv 2111.06377).

    z = encoder(patches that are kept),   y = decoder(z, a learned token in place of each that is not),
    loss = mean over the others of |y_i - x_i|^2 / p^2 c

where the pixels x_i of a patch may be normalised by their own mean and deviation (section 4.1).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.models.block_spec import BlockSpec
from aijax.models.patches import from_patches, pair, to_patches
from aijax.models.positions import sincos2d
from aijax.models.transformer import Remat, Transformer
from aijax.models.vit import SINCOS, ViT
from aijax.typing import Array, Bool, Float

EPSILON = 1e-6


class Reconstruction(NamedTuple):
    """What a masked autoencoder makes of images.

    Attributes:
      loss: mean squared error of the patches that were hidden.
      patches: the reconstruction of all patches, `[b, n, p p c]`, channels last.
      hidden: which patches were hidden, `[b, n]`.
    """

    loss: Array
    patches: Array
    hidden: Array


class MAE(nn.Module):
    """A masked autoencoder: images [b, h, w, c] -> `Reconstruction`.

    Attributes:
      encoder: a `ViT` that returns all tokens (`pool="none"`, no classes), with one class token.
      decoder_dim, decoder_depth, decoder_heads, decoder_mlp_ratio: sizes of the decoder, whose blocks are otherwise
        those of the encoder.
      mask_ratio: share of patches that are hidden.
      normalize_targets: the pixels of a patch are normalised.
      published_as: the published class that it was read as, and as which it is saved.

    Raises, when it is traced:
      ConfigError: an encoder that pools, or a mask that hides nothing or all.
    """

    encoder: ViT
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    decoder_mlp_ratio: float = 4.0
    mask_ratio: float = 0.75
    normalize_targets: bool = True
    published_as: str | None = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, noise: Float[Array, "b n"] | None = None, train: bool = False
    ) -> Reconstruction:
        """Returns the reconstruction.

        Args:
          images: their sides are multiples of the patch's.
          noise: patches with the least of it are kept; None draws it, which needs the "mask" rng.
          train: dropout and stochastic depth are on; they need the "dropout" rng.
        """
        encoder = self.encoder
        if encoder.pool != "none" or encoder.num_classes is not None or not encoder.has_class_token:
            raise ConfigError("encoder: expected a ViT with a class token, pool 'none' and num_classes None")
        patches = to_patches(images, pair(encoder.patch_size))
        batch, *grid, _ = patches.shape
        count = grid[0] * grid[1]
        kept = int(count * (1 - self.mask_ratio))
        if not 0 < kept < count:
            raise ConfigError(f"mask_ratio: {self.mask_ratio} of {count} patches leaves {kept} of them")
        noise = jax.random.uniform(self.make_rng("mask"), (batch, count)) if noise is None else noise
        order = jnp.argsort(noise, axis=1)
        place = jnp.argsort(order, axis=1)
        latent = encoder(images, keep=order[:, :kept], train=train)
        decoder = MAEDecoder(
            self.decoder_dim, self.decoder_depth, self._spec(), encoder.positions, encoder.remat, encoder.scan,
            name="decoder",
        )  # fmt: skip
        predicted = decoder(latent, place, tuple(grid), patches.shape[-1], train=train)
        hidden = place >= kept
        loss = masked_error(predicted, patches.reshape(batch, count, -1), hidden, normalize=self.normalize_targets)
        return Reconstruction(loss, predicted, hidden)

    def _spec(self):
        encoder = self.encoder
        return BlockSpec(
            self.decoder_heads, self.decoder_mlp_ratio, encoder.norm, encoder.norm_epsilon, encoder.activation,
            biases=encoder.biases, dtype=encoder.dtype, param_dtype=encoder.param_dtype,
        )  # fmt: skip


class MAEDecoder(nn.Module):
    """The decoder: tokens of the patches that were kept, and the place of each patch -> pixels of all patches."""

    width: int
    depth: int
    spec: BlockSpec
    positions: str
    remat: Remat = "none"
    scan: bool | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b k d"], place: Any, grid: tuple[int, int], pixels: int, *, train: bool = False
    ) -> Float[Array, "b n p"]:
        dtypes = {"dtype": self.spec.dtype, "param_dtype": self.spec.param_dtype}
        param_dtype, width, (batch, count) = jnp.dtype(self.spec.param_dtype), self.width, place.shape
        x = nn.Dense(width, name="embed", **dtypes)(x)
        mask = self.param("mask_token", nn.initializers.normal(0.02), (1, width), param_dtype).astype(x.dtype)
        hidden = jnp.broadcast_to(mask, (batch, count + 1 - x.shape[1], width))
        patches = jnp.concatenate([x[:, 1:], hidden], axis=1)
        patches = jnp.take_along_axis(patches, place[..., None], axis=1)
        first, rest = self._positions(grid, param_dtype)
        x = jnp.concatenate([x[:, :1] + first.astype(x.dtype), patches + rest.astype(x.dtype)], axis=1)
        layers = Transformer(self.depth, self.spec, remat=self.remat, scan=self.scan, name="layers")
        return nn.Dense(pixels, name="pred", **dtypes)(layers(x, train=train))[:, 1:]

    def _positions(self, grid, dtype):
        """Those of the class token, `[1, d]`, and of the patches, `[n, d]`; tables that are kept get no gradient."""
        table = sincos2d(grid, self.width, convention=SINCOS.get(self.positions, "mae"))
        first = jnp.zeros((1, self.width))
        if self.positions == "learned":
            first = jax.lax.stop_gradient(self.param("token_positions", lambda _: first.astype(dtype)))
            table = jax.lax.stop_gradient(self.param("positions", lambda _: table.astype(dtype)))
        return first, table.reshape(-1, self.width)


def masked_error(
    predicted: Float[Array, "b n p"], target: Float[Array, "b n p"], hidden: Bool[Array, "b n"], *, normalize: bool
) -> Float[Array, ""]:
    """Returns the mean squared error over the patches that are hidden, in float32 or wider.

    Args:
      predicted, target: pixels of patches.
      hidden: which patches count.
      normalize: each target has its mean taken off and is divided by its deviation, sqrt(variance + 1e-6), the
        variance with p - 1.

    >>> masked_error(jnp.ones((1, 2, 3)), jnp.zeros((1, 2, 3)), jnp.array([[True, False]]), normalize=False).tolist()
    1.0
    """
    predicted, target = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (predicted, target))
    if normalize:
        mean, deviation = _statistics(target)
        target = (target - mean) / deviation
    errors = jnp.mean((predicted - target) ** 2, axis=-1)
    return jnp.sum(errors * hidden) / jnp.sum(hidden)


def complete(
    images: Float[Array, "b h w c"],
    found: Reconstruction,
    patch_size: int | tuple[int, int],
    *,
    normalize: bool,
    fill: float = 0.0,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
    """Returns what the encoder saw of images, and the images with their hidden patches reconstructed.

    Args:
      images: as the autoencoder took them.
      found: what it made of them.
      patch_size: of its encoder.
      normalize: whether its targets are normalised; the reconstruction then takes the mean and the deviation of each
        hidden patch from the image.
      fill: value of hidden pixels in what was seen.
    """
    patches = to_patches(images, pair(patch_size))
    grid = patches.shape[1:3]
    patches = patches.reshape(*found.hidden.shape, -1)
    mean, deviation = _statistics(patches) if normalize else (0.0, 1.0)
    seen, completed = (
        jnp.where(found.hidden[..., None], other, patches) for other in (fill, found.patches * deviation + mean)
    )
    return from_patches(seen, grid, patch_size), from_patches(completed, grid, patch_size)


def _statistics(patches):
    """The mean and the deviation of the pixels of each patch."""
    variance = patches.var(axis=-1, keepdims=True, ddof=1)
    return patches.mean(axis=-1, keepdims=True), jnp.sqrt(variance + EPSILON)
