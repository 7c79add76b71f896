"""Mixup and cutmix: each example is mixed with its partner, and so are their labels.

The partner of example i of b is example `b - 1 - i`. Labels become soft: `lam y_i + (1 - lam) y_j`, float32 `[b, k]`,
with `lam ~ Beta(alpha, alpha)` drawn for each example; cutmix replaces a box of area `1 - lam` and corrects `lam` to
the box's true area, since a box may reach over the border.

Sources: H. Zhang et al., mixup: beyond empirical risk minimization (2018); S. Yun et al., CutMix (2019).
"""

import jax
import jax.numpy as jnp

from aijax.data.geometry import box_mask
from aijax.typing import Array, ArrayLike, Float, PRNGKey, Shaped


def mixup(
    key: PRNGKey, images: Float[Array, "b h w c"], labels: Float[Array, "b k"], alpha: float
) -> tuple[Float[Array, "b h w c"], Float[Array, "b k"]]:
    """Returns images and labels mixed with `lam ~ Beta(alpha, alpha)`."""
    return mix(images, labels, symmetric_beta(key, alpha, (images.shape[0],)))


def cutmix(
    key: PRNGKey, images: Shaped[Array, "b h w c"], labels: Float[Array, "b k"], alpha: float
) -> tuple[Shaped[Array, "b h w c"], Float[Array, "b k"]]:
    """Returns images with a box from their partner, and labels mixed by the box's area; `lam ~ Beta(alpha, alpha)`."""
    b, h, w, _ = images.shape
    lam_key, place_key = jax.random.split(key)
    side = jnp.sqrt(1 - symmetric_beta(lam_key, alpha, (b, 1)))
    sizes = jnp.array([h, w])
    centre = jnp.floor(jax.random.uniform(place_key, (b, 2)) * sizes)
    half = jnp.floor(side * sizes) // 2
    low, high = jnp.clip(centre - half, 0, sizes), jnp.clip(centre + half, 0, sizes)
    return paste(images, labels, jnp.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=-1))


def symmetric_beta(key: PRNGKey, alpha: float, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Returns draws of Beta(alpha, alpha), `(1 + sign(c) / sqrt(1 + 1 / ((u^(-1/alpha) - 1) c^2))) / 2` with u uniform
    and `c = cos(2 pi v)`: in closed form, so that it compiles in no time (rejection takes XLA seconds).

    Source: L. Devroye, Random variate generation in one line of code (1996), section 3.
    """
    u_key, v_key = jax.random.split(key)
    u = jax.random.uniform(u_key, shape, minval=jnp.finfo(jnp.float32).tiny)
    c = jnp.cos(2 * jnp.pi * jax.random.uniform(v_key, shape))
    spread = jnp.expm1(-jnp.log(u) / alpha) * c**2
    return (1 + jnp.sign(c) / jnp.sqrt(1 + 1 / spread)) / 2


def mix(
    images: Float[Array, "b h w c"], labels: Float[Array, "b k"], lam: Float[ArrayLike, "..."]
) -> tuple[Float[Array, "b h w c"], Float[Array, "b k"]]:
    """Returns `lam x_i + (1 - lam) x_j` for images and for labels; `lam` is a scalar or `[b]`."""
    lam = jnp.asarray(lam)
    pixel, label = lam.reshape(-1, 1, 1, 1), lam.reshape(-1, 1)
    return pixel * images + (1 - pixel) * images[::-1], label * labels + (1 - label) * labels[::-1]


def paste(
    images: Shaped[Array, "b h w c"], labels: Float[Array, "b k"], boxes: Shaped[Array, "b 4"]
) -> tuple[Shaped[Array, "b h w c"], Float[Array, "b k"]]:
    """Returns images with each box `(y0, y1, x0, x1)` from the partner, and labels mixed by the boxes' areas."""
    _, h, w, _ = images.shape
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    lam = (1 - area / (h * w))[:, None].astype(labels.dtype)
    mixed = jnp.where(box_mask(boxes, h, w), images[::-1], images)
    return mixed, lam * labels + (1 - lam) * labels[::-1]
