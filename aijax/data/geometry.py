"""Random crops, flips and erasing of batches of images, on the device. Each image draws its own.

Images are `[b, h, w, c]` of any dtype; shapes out are static. The draws depend on the key and the place in the batch
only, so the result does not depend on how the batch is sharded.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from aijax.typing import Array, Float, PRNGKey, Shaped

Images = Shaped[Array, "b h w c"]


def random_flip(key: PRNGKey, images: Images, probability: float = 0.5) -> Images:
    """Returns images, each mirrored left to right with `probability`."""
    chosen = jax.random.bernoulli(key, probability, (images.shape[0], 1, 1, 1))
    return jnp.where(chosen, images[:, :, ::-1], images)


def random_crop(
    key: PRNGKey,
    images: Images,
    padding: int,
    size: tuple[int, int] | None = None,
    mode: Literal["constant", "reflect", "edge"] = "constant",
) -> Images:
    """Returns windows of the images padded by `padding` pixels on each side, each at its own uniform place.

    Args:
      key: of the places.
      images: `[b, h, w, c]`.
      padding: pixels; "constant" pads with zeros.
      size: height and width of the window; None keeps those of the images.
      mode: of the padding, as `jnp.pad`.

    Raises:
      ValueError: a window larger than the padded image.
    """
    b, h, w, c = images.shape
    height, width = size or (h, w)
    room = (h + 2 * padding - height, w + 2 * padding - width)
    if min(room) < 0:
        raise ValueError(f"a window of {height} x {width} does not fit images of {h} x {w} padded by {padding}")
    places = jax.random.randint(key, (b, 2), 0, jnp.array(room) + 1)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode=mode)

    def window(image, place):
        return jax.lax.dynamic_slice(image, (place[0], place[1], 0), (height, width, c))

    return jax.vmap(window)(padded, places)


def random_translate(key: PRNGKey, images: Images, pixels: int) -> Images:
    """Returns images, each moved by up to `pixels` pixels in x and in y; what comes in is zero."""
    return random_crop(key, images, pixels)


def random_affine(
    key: PRNGKey, images: Float[Array, "b h w c"], *, degrees: float = 0.0, shear: float = 0.0, scale: float = 0.0
) -> Float[Array, "b h w c"]:
    """Returns images, each turned, sheared and scaled about its centre (bilinear, zeros outside), floating point.

    Each pixel p is taken from `c + A (p - c)` with A the product of a rotation, a shear of x by y and a scaling.

    Args:
      key: of the draws, which are uniform.
      images: floating point.
      degrees: largest rotation, each way.
      shear: largest shear, each way.
      scale: a side is `exp(u)` times as long, |u| at most this, each side its own.
    """
    b, h, w, _ = images.shape
    turn, slant, sides = (jax.random.uniform(k, (b, 2), minval=-1, maxval=1) for k in jax.random.split(key, 3))
    angle, slant, sides = jnp.deg2rad(degrees) * turn[:, 0], shear * slant[:, 0], jnp.exp(scale * sides)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    y, x = jnp.arange(h)[:, None] - (h - 1) / 2, jnp.arange(w) - (w - 1) / 2

    def sample(image, cos, sin, slant, sides):
        rows = sides[0] * (cos * y - sin * x) + (h - 1) / 2
        columns = sides[1] * (sin * y + cos * x + slant * y) + (w - 1) / 2
        plane = functools.partial(map_coordinates, coordinates=(rows, columns), order=1)
        return jax.vmap(plane, in_axes=-1, out_axes=-1)(image)

    return jax.vmap(sample)(images, cos, sin, slant, sides)


def random_resized_crop(
    key: PRNGKey,
    images: Images,
    size: tuple[int, int] | None = None,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Images:
    """Returns a box of each image, scaled to one size (bilinear, antialiased), float32.

    The box's share of the image's area is uniform in `area`, the logarithm of its width over height uniform in that of
    `ratio`; a side longer than the image's is cut to it. `size` is height and width, None those of the images.

    Source: C. Szegedy et al., Going deeper with convolutions (2015), section 6.
    """
    b, h, w, c = images.shape
    height, width = size or (h, w)
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    share = jax.random.uniform(area_key, (b,), minval=area[0], maxval=area[1]) * h * w
    shape = jnp.exp(jax.random.uniform(ratio_key, (b,), minval=jnp.log(ratio[0]), maxval=jnp.log(ratio[1])))
    box = jnp.stack([jnp.minimum(jnp.sqrt(share / shape), h), jnp.minimum(jnp.sqrt(share * shape), w)], axis=-1)
    corner = jax.random.uniform(place_key, (b, 2)) * (jnp.array([h, w]) - box)
    scale = jnp.array([height, width]) / box

    def cut(image, scale, corner):
        return jax.image.scale_and_translate(image, (height, width, c), (0, 1), scale, -corner * scale, "linear")

    return jax.vmap(cut)(images.astype(jnp.float32), scale, corner)


def random_erase(
    key: PRNGKey, images: Images, probability: float = 0.25, area: tuple[float, float] = (0.02, 1 / 3)
) -> Images:
    """Returns images, each with `probability` with a box of zeros, whose share of the area is uniform in `area`.

    Source: Z. Zhong et al., Random erasing data augmentation (2020).
    """
    b, h, w, _ = images.shape
    chosen_key, area_key, ratio_key, place_key = jax.random.split(key, 4)
    share = jax.random.uniform(area_key, (b,), minval=area[0], maxval=area[1])
    ratio = jnp.exp(jax.random.uniform(ratio_key, (b,), minval=jnp.log(0.3), maxval=-jnp.log(0.3)))
    height = jnp.clip(jnp.round(jnp.sqrt(share * h * w / ratio)), 1, h)
    width = jnp.clip(jnp.round(jnp.sqrt(share * h * w * ratio)), 1, w)
    free = jnp.stack([h - height, w - width], axis=-1)
    corner = jnp.floor(jax.random.uniform(place_key, (b, 2)) * (free + 1))
    boxes = jnp.stack([corner[:, 0], corner[:, 0] + height, corner[:, 1], corner[:, 1] + width], axis=-1)
    chosen = jax.random.bernoulli(chosen_key, probability, (b, 1, 1, 1))
    return jnp.where(chosen & box_mask(boxes, h, w), jnp.zeros((), images.dtype), images)


def box_mask(boxes: Shaped[Array, "b 4"], height: int, width: int) -> Shaped[Array, "b h w 1"]:
    """Returns which pixels are in each box `(y0, y1, x0, x1)`, ends excluded."""
    y0, y1, x0, x1 = (boxes[:, i, None, None] for i in range(4))
    y, x = jnp.arange(height)[:, None], jnp.arange(width)
    return ((y >= y0) & (y < y1) & (x >= x0) & (x < x1))[..., None]
