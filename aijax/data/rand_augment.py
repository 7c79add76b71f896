"""RandAugment on the device: each image goes through a few operations drawn at random, of one magnitude.

A layer draws one of `OPERATIONS` for each image. To run as a batch it composes, for all images, an affine map, a table
and two blends, of which at most one is not the identity: the cost does not depend on what is drawn.

Source: E. D. Cubuk et al., RandAugment: practical automated data augmentation with a reduced search space (2020).
"""

import functools

import jax
import jax.numpy as jnp

from aijax.data import image_ops as ops
from aijax.typing import Array, PRNGKey, UInt8

OPERATIONS = (
    "identity", "autocontrast", "equalize", "invert", "posterize", "solarize", "brightness", "contrast", "color",
    "sharpness", "rotate", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip
CODE = {name: code for code, name in enumerate(OPERATIONS)}


def rand_augment(
    key: PRNGKey, images: UInt8[Array, "b h w c"], layers: int = 2, magnitude: float = 9.0
) -> UInt8[Array, "b h w c"]:
    """Returns images after `layers` random operations each.

    Args:
      key: of the draws.
      images: uint8, 1 or 3 channels.
      layers: operations an image goes through.
      magnitude: 0 (none) to 10: rotation by 30 degrees, shear by 0.3, translation by 0.45 of the side, factor 1 +- 0.9,
        4 bits posterized away, solarized from 0 on; signs are drawn.
    """

    def layer(images, key):
        return rand_augment_layer(key, images, magnitude), None

    return jax.lax.scan(layer, images, jax.random.split(key, layers))[0]


def rand_augment_layer(key: PRNGKey, images: UInt8[Array, "b h w c"], magnitude: float) -> UInt8[Array, "b h w c"]:
    """Returns images after one random operation each."""
    code_key, sign_key = jax.random.split(key)
    codes = jax.random.randint(code_key, images.shape[:1], 0, len(OPERATIONS))
    signs = jax.random.rademacher(sign_key, images.shape[:1], jnp.float32)
    return apply_operations(images, codes, signs, magnitude)


@functools.partial(jax.jit, static_argnames="magnitude")
def apply_operations(
    images: UInt8[Array, "b h w c"], codes: Array, signs: Array, magnitude: float
) -> UInt8[Array, "b h w c"]:
    """Returns image i after operation `OPERATIONS[codes[i]]` at `magnitude` with the sign `signs[i]`."""
    level, true = magnitude / 10, codes[0] >= 0
    factor = 1 + 0.9 * level * signs
    images = _materialise(ops.affine(images, _matrices(codes, signs * level, *images.shape[1:3])), true)
    tables = _materialise(_tables(images, codes, level, factor), true)
    images = _materialise(ops.apply_table(images, tables), true)
    for name, degenerate in (("color", ops.grey), ("sharpness", ops.smooth)):
        chosen = (codes == CODE[name])[:, None, None, None]
        images = jnp.where(chosen, ops.blend(degenerate(images), images, factor), images)
    return images


def _materialise(array: Array, true: Array) -> Array:
    """Returns `array` behind a conditional that XLA cannot see through. Without it, XLA on CPU computes a stage again
    for each of its readers (nine for `smooth`), four times the cost of a layer."""
    return jax.lax.cond(true, lambda x: x, jnp.zeros_like, array)


def _matrices(codes: Array, level: Array, height: int, width: int) -> Array:
    def where(name: str, value: Array) -> Array:
        return jnp.where(codes == CODE[name], value, 0.0)

    turn = ops.rotation(where("rotate", 30 * level), height, width)
    move = ops.shear_translation(
        where("shear_x", 0.3 * level),
        where("shear_y", 0.3 * level),
        where("translate_x", jnp.round(0.45 * width * level)),
        where("translate_y", jnp.round(0.45 * height * level)),
    )
    return jnp.where((codes == CODE["rotate"])[:, None, None], turn, move)


def _tables(images: Array, codes: Array, level: float, factor: Array) -> Array:
    tables = jnp.broadcast_to(ops.identity_table(), (*images.shape[::3], 256))
    counts = ops.histogram(images)
    choices = {
        "autocontrast": ops.autocontrast_table(counts),
        "equalize": ops.equalize_table(counts),
        "invert": ops.invert_table(),
        "posterize": ops.posterize_table(8 - round(4 * level)),
        "solarize": ops.solarize_table(256 - round(256 * level)),
        "brightness": ops.brightness_table(factor),
        "contrast": ops.contrast_table(images, factor),
    }
    for name, table in choices.items():
        tables = jnp.where((codes == CODE[name])[:, None, None], table, tables)
    return tables
