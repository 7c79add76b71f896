"""The convolutional tangent kernel (CNTK) of Arora et al. 2019, in closed form.

The network has L convolutions of 3 x 3 filters, stride 1, zeros beyond the edges and no biases, each followed by a relu
scaled by c_sigma = 2, and then a dense layer, on all positions (vanilla) or on their mean (GAP). With q = 3, D_(p,p')
the 3 x 3 neighbourhoods of the pixels p of x and p' of x', and (u, v) Gaussian with the covariance that Sigma^(h-1)
gives at p and p' ("On exact computation with an infinitely wide neural net", arXiv:1904.11955, section 4):

    Sigma^(0) = sum_D sum_c x_c x'_c                         K^(h)  = c_sigma / q^2 E[relu(u) relu(v)]
    Sigma^(h) = sum_D K^(h)                                  dK^(h) = c_sigma / q^2 E[relu'(u) relu'(v)]
    Theta^(0) = Sigma^(0),   Theta^(h) = sum_D (dK^(h) Theta^(h-1) + K^(h))  for h < L
    Theta^(L) = dK^(L) Theta^(L-1) + K^(L)

The kernel is the sum of Theta^(L) over equal positions, or with GAP its mean over all pairs of positions. A relu is
homogeneous, so that scales move out of the recursion: in the parametrisation of `aijax.ntk.stax`, where every layer
takes means over channels, taps and positions, the same kernel comes out smaller by a constant, the number C of input
channels with GAP, and C times the number of pixels without. Predictions of kernel regression do not depend on it.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.ntk import stax
from aijax.ntk.blocks import kernel_blocks
from aijax.typing import Array, Callable, Float, PyTree

POOLING = {"gap": True, "none": False}


def compute_cntk(
    x1: Float[Array, "n1 height width channels"],
    x2: Float[Array, "n2 height width channels"] | None = None,
    *,
    depth: int = 5,
    pooling: str = "gap",
    get: str | Sequence[str] = "ntk",
    paper_scale: bool = False,
    block_size: int | str | None = None,
) -> PyTree:
    """Returns the CNTK [n1, n2] of images.

    Args:
      x1: images, channels last.
      x2: others; default x1, of which half is computed where there are blocks.
      depth: convolutions L.
      pooling: "gap" for global average pooling before the dense layer, "none" for the vanilla network.
      get: "ntk", "nngp" (only the last layer is trained), or several, which give a named tuple.
      paper_scale: multiplies by the constant that the paper's scale has (see above); default is the kernel of the
        network in which every layer takes means.
      block_size: None computes all at once, under `jax.jit` and `jax.grad` too; a number of images, or "auto", works
        block by block in bounded memory over all devices (`kernel_blocks`) and gives NumPy arrays. With GAP a pair of
        32 x 32 images takes megabytes for each layer.

    Raises:
      ConfigError: inputs that are not images, a depth below one, an unknown pooling.

    Source: Arora, Du, Hu, Li, Salakhutdinov and Wang 2019, arXiv:1904.11955, section 4.

    >>> compute_cntk(jnp.ones((2, 4, 4, 3)), depth=1).shape
    (2, 2)
    """
    for name, x in (("x1", x1), ("x2", x1 if x2 is None else x2)):
        if jnp.ndim(x) != 4:
            raise ConfigError(f"{name}: expected images [n, height, width, channels], got shape {jnp.shape(x)}")
    kernel_fn = cntk_kernel_fn(depth, pooling)
    get = get if isinstance(get, str) else tuple(get)

    def kernel(x1, x2=None):
        return kernel_fn(x1, x2, get)

    found = kernel(x1, x2) if block_size is None else kernel_blocks(kernel, x1, x2, block_size=block_size)
    if not paper_scale:
        return found
    scale = x1.shape[3] * (1 if POOLING[pooling] else math.prod(x1.shape[1:3]))
    return jax.tree.map(lambda leaf: scale * leaf, found)


def cntk_kernel_fn(depth: int = 5, pooling: str = "gap") -> Callable[..., PyTree]:
    """Returns `kernel_fn(x1, x2, get)` of the network, for `kernel_blocks`, `batch` and `predict`.

    Args:
      depth, pooling: as in `compute_cntk`.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ConfigError(f"depth: expected a positive number of convolutions, got {depth!r}")
    pool = stax.GlobalAvgPool() if choose(POOLING, pooling, "pooling") else stax.Flatten()
    block = (stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5), stax.Relu())
    return stax.serial(*block * depth, pool, stax.Dense(1))[2]
