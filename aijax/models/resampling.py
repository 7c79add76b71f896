"""Images made half and twice as large by a smooth filter, as the NCSN++ networks do.

    down(x) = (f * x) at every second pixel,        up(x) = 4 f * (x with a zero after each pixel)

with the separable filter f = (1, 3, 3, 1)/8 in each direction (Song et al. 2021, appendix H; Karras et al. 2020).
Both are sums of shifted pixels: twice as large, each new pixel is 3/4 of the nearest and 1/4 of the next nearest in
each direction; zeros lie around the image.
"""

import jax.numpy as jnp

from aijax.typing import Array, Float


def smooth_down(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """Returns the image half as large, filtered.

    >>> smooth_down(jnp.ones((1, 4, 4, 1)))[0, :, :, 0].tolist()
    [[0.765625, 0.765625], [0.765625, 0.765625]]
    """
    return _along(_along(x, 1, _halve), 2, _halve)


def smooth_up(x: Float[Array, "b h w c"]) -> Float[Array, "b 2h 2w c"]:
    """Returns the image twice as large, filtered.

    >>> smooth_up(jnp.ones((1, 2, 2, 1)))[0, :, 1, 0].tolist()
    [0.75, 1.0, 1.0, 0.75]
    """
    return _along(_along(x, 1, _double), 2, _double)


def _along(x, axis, resample):
    """`resample` along an axis, given the pixels before and after each: those outside of the image are zero."""
    return jnp.moveaxis(resample(jnp.pad(jnp.moveaxis(x, axis, 0), [(1, 1)] + [(0, 0)] * 3)), 0, axis)


def _halve(x):
    n = (x.shape[0] - 2) // 2
    return (x[: 2 * n : 2] + 3 * x[1 : 2 * n + 1 : 2] + 3 * x[2 : 2 * n + 2 : 2] + x[3 : 2 * n + 3 : 2]) / 8


def _double(x):
    before, here, after = x[:-2], x[1:-1], x[2:]
    pairs = jnp.stack([(before + 3 * here) / 4, (3 * here + after) / 4], 1)
    return pairs.reshape(-1, *x.shape[1:])
