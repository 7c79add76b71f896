"""Operations on batches of uint8 images, with the results of Pillow, in JAX on the device.

All are of three kinds, and a kind serves every operation of it with parameters that may differ from image to image:

- *tables* (`apply_table`): a new value for each old one in a channel: invert, posterize, solarize, autocontrast,
  equalize, brightness, contrast;
- *blends* (`blend`): a line through a degenerate image and the image, `d + factor (x - d)`: color, sharpness;
- *affine maps* (`affine`): nearest-neighbour sampling at `A (x, y) + t`: rotate, shear, translate.

Images are `[b, h, w, c]`; parameters are scalars or `[b]`. Tables are those of Pillow to the bit; blends may differ by
1 of 255, by rounding.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import vmap

from aijax.typing import Array, ArrayLike, Float, Int, UInt8

Images = UInt8[Array, "b h w c"]
Table = UInt8[Array, "b c 256"]
Counts = Int[Array, "b c 256"]


def apply_table(images: Images, table: Table) -> Images:
    """Returns `table[i, k, images[i, y, x, k]]`, UInt8 `[b, h, w, c]`."""
    b, _, _, c = images.shape
    flat = images.astype(jnp.int32) + 256 * (jnp.arange(b)[:, None, None, None] * c + jnp.arange(c))
    return jnp.broadcast_to(table, (b, c, 256)).reshape(-1).at[flat].get(mode="promise_in_bounds")


def identity_table() -> Table:
    """Returns the table that changes nothing, `[1, 1, 256]`."""
    return jnp.arange(256, dtype=jnp.uint8)[None, None]


def invert_table() -> Table:
    """Returns the table of `255 - x`."""
    return 255 - identity_table()


def posterize_table(bits: Int[ArrayLike, "..."]) -> Table:
    """Returns the table that keeps the `bits` highest bits (1..8), `[b, 1, 256]`."""
    bits = jnp.asarray(bits, jnp.int32).reshape(-1, 1, 1)
    return jnp.bitwise_and(jnp.arange(256), -jnp.left_shift(1, 8 - bits)).astype(jnp.uint8)


def solarize_table(threshold: ArrayLike) -> Table:
    """Returns the table that inverts values from `threshold` (0..256) on, `[b, 1, 256]`."""
    threshold = jnp.asarray(threshold).reshape(-1, 1, 1)
    return jnp.where(jnp.arange(256) < threshold, identity_table(), invert_table())


def brightness_table(factor: Float[ArrayLike, "..."]) -> Table:
    """Returns the table of a blend with black, `[b, 1, 256]`."""
    return _blend_values(jnp.float32(0), jnp.arange(256), jnp.asarray(factor, jnp.float32).reshape(-1, 1, 1))


def contrast_table(images: Images, factor: Float[ArrayLike, "..."]) -> Table:
    """Returns the table of a blend with the mean grey of each image, `[b, 1, 256]`."""
    total = grey(images).astype(jnp.int32).sum(axis=(1, 2, 3))
    size = images.shape[1] * images.shape[2]
    mean = (2 * total + size) // (2 * size)
    factor = jnp.asarray(factor, jnp.float32).reshape(-1, 1, 1)
    return _blend_values(mean[:, None, None], jnp.arange(256), factor)


def autocontrast_table(counts: Counts) -> Table:
    """Returns the table that stretches each channel to 0..255, `[b, c, 256]`, from the `histogram` of images."""
    low = jnp.argmax(counts > 0, axis=-1)[..., None]
    high = _highest(counts)
    values = jnp.arange(256)
    stretched = jnp.clip(255 * (values - low) // jnp.maximum(high - low, 1), 0, 255)
    rows, packed = _autocontrast_shortfalls()
    short = jnp.unpackbits(jnp.asarray(packed)[jnp.asarray(rows)[low[..., 0], high[..., 0]]], axis=-1)
    return jnp.where(high > low, stretched - short, values).astype(jnp.uint8)


def equalize_table(counts: Counts) -> Table:
    """Returns the table that makes each channel's distribution even, `[b, c, 256]`, from the `histogram` of images."""
    before = jnp.cumsum(counts, axis=-1) - counts
    last = jnp.take_along_axis(counts, _highest(counts), axis=-1)
    step = (before[..., -1:] + counts[..., -1:] - last) // 255
    even = jnp.clip((step // 2 + before) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, even, jnp.arange(256)).astype(jnp.uint8)


def histogram(images: Images) -> Counts:
    """Returns how often each value occurs in each channel."""
    b, _, _, c = images.shape
    rows = jnp.arange(b)[:, None, None, None] * c + jnp.arange(c)
    counts = (
        jnp.zeros(b * c * 256, jnp.int32).at[images.astype(jnp.int32) + 256 * rows].add(1, mode="promise_in_bounds")
    )
    return counts.reshape(b, c, 256)


def grey(images: Images) -> UInt8[Array, "b h w 1"]:
    """Returns the luma `0.299 R + 0.587 G + 0.114 B` of each pixel (ITU-R 601, in integers as Pillow); grey is kept."""
    if images.shape[-1] == 1:
        return images
    weights = jnp.array([19595, 38470, 7471], jnp.int32)
    luma = jnp.right_shift((images.astype(jnp.int32) * weights).sum(axis=-1, keepdims=True) + 0x8000, 16)
    return luma.astype(jnp.uint8)


def smooth(images: Images) -> Images:
    """Returns images under the kernel `[[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13`; the outermost pixels are kept."""
    _, h, w, _ = images.shape
    x = images.astype(jnp.int32)
    rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * x[:, 1:-1, 1:-1]
    inner = jnp.pad((2 * total + 13) // 26, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(jnp.uint8)
    edge = (jnp.arange(h) % (h - 1) == 0)[:, None, None] | (jnp.arange(w) % (w - 1) == 0)[:, None]
    return jnp.where(edge, images, inner)


def blend(degenerate: Images, images: Images, factor: Float[ArrayLike, "..."]) -> Images:
    """Returns `degenerate + factor (images - degenerate)`, clipped to 0..255 and truncated."""
    return _blend_values(degenerate, images, jnp.asarray(factor, jnp.float32).reshape(-1, 1, 1, 1))


def color(images: Images, factor: Float[ArrayLike, "..."]) -> Images:
    """Returns images with their saturation times `factor`."""
    return blend(grey(images), images, factor)


def sharpness(images: Images, factor: Float[ArrayLike, "..."]) -> Images:
    """Returns images sharpened (factor above 1) or smoothed (below 1)."""
    return blend(smooth(images), images, factor)


def affine(images: Images, matrix: Float[Array, "b 2 3"], fill: int = 128) -> Images:
    """Returns images sampled at `matrix @ (x, y, 1)`, the nearest pixel, in coordinates where pixel centres are at
    halves; points outside are `fill`."""
    _, h, w, _ = images.shape
    x, y = jnp.arange(w) + 0.5, jnp.arange(h)[:, None] + 0.5
    m = matrix.astype(jnp.float32)[:, :, :, None, None]
    rounding = 2.0**-14  # a sum that is a whole number may come out just below it
    column = jnp.floor(m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2] + rounding).astype(jnp.int32)
    row = jnp.floor(m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2] + rounding).astype(jnp.int32)
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    places = jnp.clip(row, 0, h - 1) * w + jnp.clip(column, 0, w - 1)
    pixels = images.reshape(images.shape[0], h * w, -1)
    taken = vmap(lambda image, place: image[place])(pixels, places)
    return jnp.where(inside[..., None], taken, jnp.uint8(fill))


def rotation(degrees: Float[ArrayLike, "..."], height: int, width: int) -> Float[Array, "b 2 3"]:
    """Returns the matrices that turn images counter-clockwise about their centre."""
    angle = -jnp.deg2rad(jnp.atleast_1d(jnp.asarray(degrees, jnp.float32)))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = width / 2, height / 2
    first = jnp.stack([cos, sin, x - cos * x - sin * y], axis=-1)
    second = jnp.stack([-sin, cos, y + sin * x - cos * y], axis=-1)
    return jnp.stack([first, second], axis=-2)


def shear_translation(
    shear_x: ArrayLike = 0.0, shear_y: ArrayLike = 0.0, shift_x: ArrayLike = 0.0, shift_y: ArrayLike = 0.0
) -> Float[Array, "b 2 3"]:
    """Returns the matrices that sample at `(x + shear_x y + shift_x, y + shear_y x + shift_y)`."""
    values = jnp.broadcast_arrays(
        *(jnp.atleast_1d(jnp.asarray(v, jnp.float32)) for v in (shear_x, shear_y, shift_x, shift_y))
    )
    shear_x, shear_y, shift_x, shift_y = values
    one = jnp.ones_like(shear_x)
    first, second = jnp.stack([one, shear_x, shift_x], axis=-1), jnp.stack([shear_y, one, shift_y], axis=-1)
    return jnp.stack([first, second], axis=-2)


def _blend_values(degenerate, values, factor):
    """Returns the line through two grey levels at `factor` as uint8; inside 0..1 it needs no clipping."""
    degenerate, values = degenerate.astype(jnp.float32), values.astype(jnp.float32)
    return jnp.clip(degenerate + factor * (values - degenerate), 0, 255).astype(jnp.uint8)


def _highest(counts: Counts) -> Int[Array, "b c 1"]:
    """Returns the highest value that occurs in each channel."""
    return 255 - jnp.argmax(counts[..., ::-1] > 0, axis=-1)[..., None]


@functools.cache
def _autocontrast_shortfalls() -> tuple[np.ndarray, np.ndarray]:
    """Returns where Pillow's autocontrast, in double precision, falls just short of a whole number and so is 1 below
    the exact quotient: `packed[rows[low, high]]` has one bit for each value, most significant first."""
    rows, packed = np.zeros((256, 256), np.int32), [np.zeros(32, np.uint8)]
    values = np.arange(256)
    for low in range(255):
        width = np.arange(1, 256 - low)[:, None]
        scale = 255.0 / width
        double = np.clip((values * scale + -low * scale).astype(int), 0, 255)
        short = double < np.clip(255 * (values - low) // width, 0, 255)
        some = np.flatnonzero(short.any(axis=1))
        rows[low, low + 1 + some] = len(packed) + np.arange(len(some))
        packed.extend(np.packbits(short[some], axis=1))
    return rows, np.stack(packed)
