"""How networks are told the time: sines and cosines of it at frequencies from 1 down to 1/max_period.

    w_k = max_period^(-k / (d/2 - shift)),      e = (sin(scale t w_k), cos(scale t w_k))

(Vaswani et al. 2017; as in Ho et al. 2020.)
"""

import math

import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.indices import check_indices
from aijax.typing import Any, Array, Float, Int


def sinusoidal_embedding(
    t: Any,
    width: int,
    *,
    cosine_first: bool = False,
    shift: float = 1.0,
    max_period: float = 10_000.0,
    scale: float = 1.0,
) -> Float[Array, "n d"]:
    """Returns the embedding of n times, `[n, width]`; an odd width ends with zeros.

    Args:
      t: times, `[n]`.
      width: at least 4.
      cosine_first: whether the cosines come first; default False.
      shift: "downscale_freq_shift" of published configs, default 1.
      max_period: default 10000.
      scale: of the times, default 1.

    >>> sinusoidal_embedding(jnp.zeros(1), 4, cosine_first=True).tolist()
    [[1.0, 1.0, 0.0, 0.0]]
    """
    half = width // 2
    if half - shift <= 0:
        raise ConfigError(f"width: expected more than {2 * shift:g}, got {width}")
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half) / (half - shift))
    angles = scale * jnp.asarray(t)[:, None] * frequencies
    parts = (jnp.cos(angles), jnp.sin(angles)) if cosine_first else (jnp.sin(angles), jnp.cos(angles))
    return jnp.pad(jnp.concatenate(parts, 1), ((0, 0), (0, width % 2)))


def grid_embedding(grid: tuple[int, int], width: int, *, base_size: float = 16.0) -> Float[Array, "h w d"]:
    """Returns fixed positions of an h x w grid of patches, as the diffusion transformers have them.

    The first half of the channels embeds the column and the second the row, each scaled to a grid of `base_size`
    (Peebles and Xie 2022).

    Args:
      grid: (h, w).
      width: a multiple of 4.
      base_size: of the grid the network was made for; default 16.
    """
    if width % 4 or width < 4:
        raise ConfigError(f"width: expected a multiple of 4, got {width}")
    h, w = grid
    rows, columns = (
        sinusoidal_embedding(jnp.arange(size) * (base_size / size), width // 2, shift=0.0) for size in (h, w)
    )
    shape = (h, w, width // 2)
    return jnp.concatenate([jnp.broadcast_to(columns, shape), jnp.broadcast_to(rows[:, None], shape)], -1)


def checked_indices(where: str, indices: Any, count: int) -> Int[Array, "..."]:
    """Returns indices of a table of `count`, of which those that are known are checked as by `check_indices`; unknown
    ones below 0 become `count`, so that their embedding is NaN and not that of a row counted from the end.

    >>> import jax
    >>> jax.jit(lambda tokens: checked_indices("tokens", tokens, 5))(jnp.array([4, -1])).tolist()
    [4, 5]
    """
    check_indices(where, indices, count)
    return jnp.where(jnp.asarray(indices) < 0, count, indices)
