"""Views of an image for learning without labels: crops of two sizes, some mirrored, in other colours.

(Caron et al. 2020, section 3.3, multi-crop; Grill et al. 2020, appendix B, colours.)
"""

import jax
import jax.numpy as jnp

from aijax.data import geometry
from aijax.errors import ConfigError
from aijax.typing import Array, Float, PRNGKey

LUMA = (0.299, 0.587, 0.114)


def multi_crop(
    key: PRNGKey,
    images: Float[Array, "b h w c"],
    *,
    global_crops: int = 2,
    local_crops: int = 6,
    local_size: int | None = None,
    global_area: tuple[float, float] = (0.4, 1.0),
    local_area: tuple[float, float] = (0.05, 0.4),
    flip: bool = True,
    jitter: float = 0.4,
    jitter_probability: float = 0.8,
    grey_probability: float = 0.2,
    solarize_probability: float = 0.2,
) -> tuple[Float[Array, "b g h w c"], Float[Array, "b l s s c"]]:
    """Returns the global views of each image, of its own size, and the local ones.

    Args:
      key: of all draws.
      images: in 0..1.
      global_crops, local_crops: views of each kind, at least one global one.
      local_size: pixels on a side of a local view; None for half of the image's shorter side.
      global_area, local_area: least and largest share of the image that a view shows.
      flip: whether half of the views are mirrored.
      jitter: largest change of brightness and contrast, as a share; that of saturation is half of it.
      jitter_probability, grey_probability: of a change of colours, and of having none.
      solarize_probability: that values above 0.5 are inverted, in the second global view.

    Raises:
      ConfigError: no global view, a share or a probability out of range.
    """
    _check(global_crops, local_crops, global_area, local_area)
    size = min(images.shape[1:3]) // 2 if local_size is None else local_size
    keys = jax.random.split(key, global_crops + local_crops)

    def view(i):
        crop_key, flip_key, color_key, solar_key = jax.random.split(keys[i], 4)
        area, shape = (global_area, None) if i < global_crops else (local_area, (size, size))
        x = geometry.random_resized_crop(crop_key, images, shape, area)
        x = geometry.random_flip(flip_key, x) if flip else x
        x = random_colors(color_key, x, jitter, jitter_probability, grey_probability)
        if i == 1 < global_crops and solarize_probability:
            chosen = jax.random.bernoulli(solar_key, solarize_probability, (len(x), 1, 1, 1))
            x = jnp.where(chosen & (x > 0.5), 1 - x, x)
        return x

    views = [view(i) for i in range(global_crops + local_crops)]
    empty = jnp.zeros((len(images), 0, size, size, images.shape[-1]), images.dtype)
    return jnp.stack(views[:global_crops], 1), jnp.stack(views[global_crops:], 1) if local_crops else empty


def random_colors(
    key: PRNGKey, images: Float[Array, "b h w c"], jitter: float, probability: float, grey_probability: float
) -> Float[Array, "b h w c"]:
    """Returns images in 0..1 of another brightness, contrast and saturation, or without colours.

    Each changes by a factor uniform in 1 - s..1 + s, with s the jitter, and half of it for the saturation.
    """
    chosen_key, grey_key, *factor_keys = jax.random.split(key, 5)

    def factor(key, size):
        return jax.random.uniform(key, (len(images), 1, 1, 1), minval=1 - size, maxval=1 + size)

    x = images * factor(factor_keys[0], jitter)
    mean = _grey(x).mean((1, 2, 3), keepdims=True)
    x = mean + (x - mean) * factor(factor_keys[1], jitter)
    x = _grey(x) + (x - _grey(x)) * factor(factor_keys[2], jitter / 2)
    shape = (len(images), 1, 1, 1)
    x = jnp.where(jax.random.bernoulli(chosen_key, probability, shape), jnp.clip(x, 0, 1), images)
    return jnp.where(jax.random.bernoulli(grey_key, grey_probability, shape), _grey(x), x)


def _grey(x):
    return x if x.shape[-1] != 3 else jnp.sum(x * jnp.asarray(LUMA, x.dtype), -1, keepdims=True)


def _check(global_crops, local_crops, global_area, local_area):
    for name, count, least in (("global_crops", global_crops, 1), ("local_crops", local_crops, 0)):
        if count < least:
            raise ConfigError(f"{name}: expected at least {least}, got {count}")
    for name, area in (("global_area", global_area), ("local_area", local_area)):
        if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
            raise ConfigError(f"{name}: expected shares 0 < least <= largest <= 1, got {tuple(area)}")
