"""Where a patch is in an image: fixed tables of sines and cosines, tables resized to other grids, and angles.

A table of positions [h, w, d] that was learned for one grid serves another by resampling, one axis at a time:

    new_i = sum_j w_ij old_j,    w_ij ~ kernel((c_i - j) / s),    sum_j w_ij = 1,    c_i = (i + 1/2) h / h' - 1/2

with s = 1, or s = max(h / h', 1) against aliasing. Published models differ in the kernel: piecewise linear, or Keys'
cubic (1981) with a = -3/4 (torch, without antialiasing) or a = -1/2 (with it); and in the corners, which the "zoom" of
scipy aligns, c_i = i (h - 1) / (h' - 1). The method is part of a model: another gives other logits.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, choose
from aijax.typing import Any, Array, Float, Int

Resize = Literal["none", "bicubic", "bicubic_antialias", "bilinear", "bilinear_antialias", "zoom"]
Convention = Literal["mocov3", "mae", "timm"]


def _linear(x):
    return (1 - abs(x)).clip(0)


def _cubic(a):
    def kernel(x):
        x = abs(x)
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
        return np.where(x < 1, near, np.where(x < 2, far, 0.0))

    return kernel


METHODS = {
    "bicubic": (_cubic(-0.75), False),
    "bicubic_antialias": (_cubic(-0.5), True),
    "bilinear": (_linear, False),
    "bilinear_antialias": (_linear, True),
    "zoom": (_linear, False),
}


def sincos2d(
    grid: tuple[int, int],
    width: int,
    *,
    base: float = 10_000.0,
    convention: Convention = "mocov3",
    interleaved: bool = False,
) -> Float[Array, "h w d"]:
    """Returns fixed positions: sines and cosines of x w_i and of y w_i, with w_i = base^(-i / n), i = 0 .. d/4 - 1.

    Three conventions are in use: "mocov3" (Chen, Xie and He 2021, arXiv 2104.02057; Beyer et al. 2022), with n =
    d/4 - 1, and "mae" (He et al. 2022), with n = d/4, have sin x, cos x, sin y, cos y in this order; "timm", with n =
    d/4, has sin y, sin x, cos y, cos x.

    Args:
      grid: height and width in patches.
      width: d, a multiple of 4.
      base: default 10000.
      convention: default "mocov3".
      interleaved: for "timm": sin y, cos y, sin x, cos x in place of its order.

    Raises:
      ConfigError: a width that is no multiple of 4, or that is 4 for "mocov3".

    >>> sincos2d((2, 3), 8).shape
    (2, 3, 8)
    """
    mocov3 = choose({"mocov3": True, "mae": False, "timm": False}, convention, "convention")
    least = 8 if mocov3 else 4
    if width % 4 or width < least:
        raise ConfigError(f"width: sincos2d positions need a multiple of 4, at least {least}, got {width}")
    y, x = np.mgrid[: grid[0], : grid[1]]
    frequencies = base ** -(np.arange(width // 4) / (width // 4 - mocov3))
    x, y = x[..., None] * frequencies, y[..., None] * frequencies
    parts = np.sin(x), np.cos(x), np.sin(y), np.cos(y)
    if convention == "timm":
        sin_x, cos_x, sin_y, cos_y = parts
        parts = (sin_y, cos_y, sin_x, cos_x) if interleaved else (sin_y, sin_x, cos_y, cos_x)
    return jnp.asarray(np.concatenate(parts, axis=-1))


def resize_table(table: Float[Array, "h w d"], grid: tuple[int, int], method: Resize) -> Float[Array, "h2 w2 d"]:
    """Returns a table of positions for another grid; see the module.

    Args:
      table: positions.
      grid: height and width in patches.
      method: "bicubic" (a = -3/4) and "bilinear" as torch has them without antialiasing, "bicubic_antialias" (a =
        -1/2) and "bilinear_antialias" with it, or "zoom", which aligns corners.

    >>> resize_table(jnp.arange(2.0).reshape(2, 1, 1), (3, 1), "zoom").ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    rows, columns = (resize_matrix(old, new, method) for old, new in zip(table.shape, grid, strict=False))
    rows, columns = (jnp.asarray(matrix, table.dtype) for matrix in (rows, columns))
    return jnp.einsum("ih,jw,hwd->ijd", rows, columns, table)


def resize_matrix(old: int, new: int, method: Resize) -> np.ndarray:
    """Returns the matrix `[new, old]` that resamples one axis."""
    kernel, antialias = choose(METHODS, method, "position_resize")
    if method == "zoom":
        centres = np.arange(new) * ((old - 1) / max(new - 1, 1))
    else:
        centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    if antialias:
        return _normalised(kernel, centres, old, max(old / new, 1.0))
    taps = np.arange(-2, old + 2)
    weights = kernel(centres[:, None] - taps)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (slice(None), taps.clip(0, old - 1)), weights)  # beyond the border, its value
    return matrix


def positions_of_patches(table: Float[Array, "h w d"], shapes: Int[Array, "b 2"], length: int) -> Float[Array, "b n d"]:
    """Returns the positions of the patches of images of several shapes, `length` for each image, from one table.

    Image i has shapes[i] = (h_i, w_i) patches, row by row; the table is resized to its grid by "bilinear_antialias".
    Places beyond h_i w_i have the position of the first patch. (NaFlex: Tschannen et al. 2025, arXiv 2502.14786.)
    """
    shapes = jnp.asarray(shapes)[..., None]
    heights, widths = shapes[:, 0], shapes[:, 1]
    place = jnp.arange(length)
    place = jnp.where(place < heights * widths, place, 0)
    rows, columns = (
        _normalised(_linear, (index + 0.5) * (old / size) - 0.5, old, jnp.maximum(old / size, 1.0)[..., None])
        for index, size, old in ((place // widths, heights, table.shape[0]), (place % widths, widths, table.shape[1]))
    )
    return jnp.einsum("bnh,bnw,hwd->bnd", rows.astype(table.dtype), columns.astype(table.dtype), table)


def rotary2d_angles(grid: tuple[int, int], head_width: int, base: float = 100.0) -> Float[Array, "t r"]:
    """Returns the angles of axial rotary positions `[h w, head_width / 2]`: of the row, then of the column.

    a_i = 2 pi c base^(-4i / head_width) for i < head_width / 4, where c goes from -1 to 1 over the centres of the
    patches of an axis (Simeoni et al. 2025, DINOv3, arXiv 2508.10104). 2 pi c and the powers
    of the base are 32-bit numbers, as published.

    Raises:
      ConfigError: a head width that is no multiple of 4.
    """
    if head_width % 4:
        raise ConfigError(f"num_heads: rotary positions in the plane need heads of a width of 4 k, got {head_width}")
    exponents = np.arange(0, 1, 4 / head_width, dtype=np.float32)
    frequencies = np.float32(1) / np.float32(base) ** exponents
    rows, columns = (np.float32(2) * (np.arange(0.5, size, dtype=np.float32) / np.float32(size)) - 1 for size in grid)
    centres = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    turns = np.float32(2 * np.pi) * centres
    return jnp.asarray((turns[..., None] * np.float64(frequencies)).reshape(len(centres), -1))


def _normalised(kernel: Any, centres: Any, old: int, scale: Any) -> Any:
    weights = kernel((centres[..., None] - np.arange(old)) / scale)
    return weights / weights.sum(-1, keepdims=True)
