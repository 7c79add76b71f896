"""An image cut into patches, each a token (Dosovitskiy et al. 2021), and kernels resized to other patches.

    token_ij = sum_uvc x[i p + u, j p + v, c] K[u, v, c] + b

A kernel K made for patches of one size serves another (Beyer et al. 2023, FlexiViT, section 3.4): where B resamples
images of the old patch size to the new, K' = (B^T)^+ K is the least change of the tokens, and none at all where patches
grow.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.models.positions import Resize, resize_matrix
from aijax.typing import Array, Float


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its size, as one product of matrices: [b, h, w, c] -> [b, h/p, w/p, d].

    Patches that are cut already, `[b, n, p p c]` with channels last, give `[b, n, d]`.

    Attributes:
      patch_size: pixels on a side of a patch, or on both.
      width: d.
      use_bias: whether b is added.
      kernel_size: patches for which the kernel is kept, to be resized to `patch_size`; None for `patch_size`.
      drop_rest: whether pixels that fill no patch are left out, at the bottom and the right.
      dtype, param_dtype: see `aijax.models.block_spec.BlockSpec`.

    Raises, when it is traced:
      ConfigError: an image that patches do not divide.
    """

    patch_size: int | tuple[int, int]
    width: int
    use_bias: bool = True
    kernel_size: int | tuple[int, int] | None = None
    drop_rest: bool = False
    dtype: Any = None
    param_dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        (p, q), param_dtype = pair(self.patch_size), jnp.dtype(self.param_dtype)
        channels = x.shape[-1] if x.ndim == 4 else x.shape[-1] // (p * q)
        kept = pair(self.kernel_size or self.patch_size)
        shape = (*kept, channels, self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=(0, 1, 2)), shape, param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), param_dtype) if self.use_bias else None
        if kept != (p, q):
            kernel = resize_kernel(kernel, (p, q))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = self._cut(x) @ kernel.reshape(-1, self.width)
        return y if bias is None else y + bias

    def _cut(self, x):
        p, q = pair(self.patch_size)
        if x.ndim == 3:
            return x
        if self.drop_rest:
            x = x[:, : x.shape[1] // p * p, : x.shape[2] // q * q]
        h, w = x.shape[1:3]
        if h % p or w % q or not (h and w):
            raise ConfigError(f"patch_size: patches of {p} x {q} pixels do not divide an image of {h} x {w}")
        return to_patches(x, (p, q))


def resize_kernel(
    kernel: Float[Array, "p q c d"], size: tuple[int, int], method: Resize = "bicubic_antialias"
) -> Float[Array, "p2 q2 c d"]:
    """Returns the kernel of patches of another size, by the pseudo-inverse of the resampling of images (FlexiViT).

    Args:
      kernel: for patches of p x q pixels.
      size: of the new patches.
      method: how images are resampled, see `aijax.models.positions.resize_table`.

    >>> resize_kernel(jnp.ones((4, 4, 3, 8)), (2, 2)).shape
    (2, 2, 3, 8)
    """
    old = kernel.shape[:2]
    # the pseudo-inverse of a Kronecker product is that of its factors
    rows, columns = (
        jnp.asarray(np.linalg.pinv(resize_matrix(o, n, method).T), kernel.dtype) for o, n in zip(old, size, strict=True)
    )
    return jnp.einsum("pi,qj,ijcd->pqcd", rows, columns, kernel)


def to_patches(images: Float[Array, "b h w c"], patch_size: tuple[int, int]) -> Float[Array, "b gh gw f"]:
    """Returns the patches of images; each holds its pixels row by row, channels last.

    >>> to_patches(jnp.zeros((2, 4, 6, 3)), (2, 2)).shape
    (2, 2, 3, 12)
    """
    b, h, w, c = images.shape
    p, q = patch_size
    x = images.reshape(b, h // p, p, w // q, q, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // p, w // q, p * q * c)


def from_patches(
    x: Float[Array, "b n f"], grid: tuple[int, int], patch_size: int | tuple[int, int]
) -> Float[Array, "b h w c"]:
    """Returns the images of which `to_patches` gives these patches, row by row.

    >>> from_patches(jnp.zeros((2, 6, 12)), (2, 3), 2).shape
    (2, 4, 6, 3)
    """
    (h, w), (p, q) = grid, pair(patch_size)
    x = x.reshape(x.shape[0], h, w, p, q, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(x.shape[0], h * p, w * q, -1)


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns the height and width that a size stands for.

    >>> pair(16), pair((8, 4))
    ((16, 16), (8, 4))
    """
    return (size, size) if isinstance(size, int) else tuple(size)
