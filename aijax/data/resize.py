"""Images resampled to another size, one axis at a time, with the results of torch (floating point) and Pillow (uint8).

    new_i = sum_j w_ij old_j,   w_ij ~ kernel((c_i - j) / s),   sum_j w_ij = 1,   c_i = (i + 1/2) n / m - 1/2

from n pixels to m. Against aliasing the kernel is as wide as a new pixel, s = max(n / m, 1); without, s = 1 and the
border goes on outside. The kernels are the triangle (bilinear), Keys' cubic with a = -1/2 against aliasing and -3/4
without (bicubic), and sinc(x) sinc(x / 3) (lanczos). Bytes have weights of 22 bits and are rounded after each axis:
along the rows first, except where rows go, and more than twice as many as columns go, as in Pillow 13.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, choose
from aijax.models.positions import resize_matrix
from aijax.typing import Array, Float, Int, UInt8

FRACTION_BITS = 22


def resize(
    images: Float[Array, "*b h w c"],
    size: tuple[int, int],
    *,
    method: Literal["nearest", "bilinear", "bicubic"] = "bilinear",
    antialias: bool = True,
) -> Float[Array, "*b h2 w2 c"]:
    """Returns images of another size, as `torch.nn.functional.interpolate` does ("nearest" is its "nearest-exact").

    Args:
      images: floating point, channels last.
      size: height and width.
      method: default "bilinear".
      antialias: whether the kernel grows as images shrink; "nearest" has none.

    Raises:
      ConfigError: an unknown method, a size that is not above 0.

    >>> resize(jnp.arange(4.0).reshape(1, 4, 1), (1, 2), antialias=False).ravel().tolist()
    [0.5, 2.5]
    """
    check_size(size)
    name = choose({"nearest": None, "bilinear": "bilinear", "bicubic": "bicubic"}, method, "method")
    old = images.shape[-3:-1]
    if name is None:
        rows, columns = (np.floor((np.arange(m) + 0.5) * (n / m)).astype(int) for n, m in zip(old, size, strict=True))
        return images[..., rows, :, :][..., columns, :]
    kind = f"{name}_antialias" if antialias else name
    rows, columns = (jnp.asarray(resize_matrix(n, m, kind), images.dtype) for n, m in zip(old, size, strict=True))
    return jnp.einsum("ih,jw,...hwc->...ijc", rows, columns, images, precision=jax.lax.Precision.HIGHEST)


def resize_bytes(
    images: UInt8[Array, "*b h w c"],
    size: tuple[int, int],
    *,
    method: Literal["bilinear", "bicubic", "lanczos"] = "bilinear",
) -> UInt8[Array, "*b h2 w2 c"]:
    """Returns uint8 images of another size, against aliasing, to the bit as Pillow 13 does.

    Args:
      images: uint8, channels last.
      size: height and width.
      method: default "bilinear".

    Raises:
      ConfigError: an unknown method, a size that is not above 0, images that are not uint8.

    >>> resize_bytes(jnp.array([[[0], [10], [20], [30]]], jnp.uint8), (1, 2)).ravel().tolist()
    [7, 23]
    """
    check_size(size)
    if images.dtype != jnp.uint8:
        raise ConfigError(f"images: expected uint8, got {images.dtype}; `resize` takes floating point")
    old = images.shape[-3:-1]
    rows, columns = (whole_weights(n, m, method) for n, m in zip(old, size, strict=True))
    passes = [("jw,...hwc->...hjc", columns), ("ih,...hwc->...iwc", rows)]
    fewer_rows, fewer_columns = (n - m for n, m in zip(old, size, strict=True))
    if fewer_rows > max(0, 2 * fewer_columns):
        passes.reverse()
    for sums, weights in passes:
        images = rounded(jnp.einsum(sums, weights, images.astype(jnp.int32)))
    return images


def whole_weights(old: int, new: int, method: str) -> Int[Array, "new old"]:
    """Returns the weights of one axis in units of 2^-22."""
    matrices = {"bilinear": resize_matrix, "bicubic": resize_matrix, "lanczos": lanczos_matrix}
    weights = choose(matrices, method, "method")(old, new, f"{method}_antialias") * 2**FRACTION_BITS
    return jnp.asarray(np.trunc(weights + np.copysign(0.5, weights)).astype(np.int32))


def lanczos_matrix(old: int, new: int, _method: str = "lanczos_antialias") -> np.ndarray:
    """Returns the matrix `[new, old]` that resamples one axis by the kernel sinc(x) sinc(x / 3), |x| < 3."""
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    x = (centres[:, None] - np.arange(old)) / max(old / new, 1.0)
    weights = np.where(abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def rounded(values: Int[Array, "..."]) -> UInt8[Array, "..."]:
    """Returns numbers in units of 2^-22 as bytes, rounded and clipped to 0..255."""
    nearest = jnp.right_shift(values + 2 ** (FRACTION_BITS - 1), FRACTION_BITS)
    return jnp.clip(nearest, 0, 255).astype(jnp.uint8)


def check_size(size: tuple[int, int]) -> None:
    """Raises a `ConfigError` for a size that is not above 0."""
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"size: expected a height and a width above 0, got {size}")
