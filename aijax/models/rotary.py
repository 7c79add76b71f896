"""Rotary positions: each pair of channels of queries and keys is turned by an angle that grows with the position.

    (x_i, x_{i + r}) <- (x_i cos a_i - x_{i + r} sin a_i, x_{i + r} cos a_i + x_i sin a_i),        a_i = position w_i

so that q . k depends on the distance of positions only (Su et al. 2021, section 3.4.2). w_i = base^(-i / r) for r
pairs; models of long texts change these frequencies (`scaled_frequencies`). Positions in the plane turn one half of the
pairs by the row and the other by the column: they are angles like any other.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.typing import Array, Float

BASE = 10_000.0


def rotate(x: Float[Array, "*b t h k"], angles: Float[Array, "*c t r"] | None = None) -> Float[Array, "*b t h k"]:
    """Returns `x` with the pair (x_i, x_{i + r}) of each head turned by the angle a_i of its position, for i < r.

    Args:
      x: queries or keys.
      angles: one for each position and pair, at most k / 2 pairs; channels from 2 r on are left alone. None for
        t base^(-2i/k).

    Raises:
      ConfigError: a head of odd width where there are no angles, or more pairs than a head has.
    """
    length, width = x.shape[-3], x.shape[-1]
    if angles is None:
        if width % 2:
            raise ConfigError(f"num_heads: rotary positions need heads of even width, got width {width}")
        angles = rotary_angles(jnp.arange(length), frequencies(width))
    pairs = angles.shape[-1]
    if 2 * pairs > width:
        raise ConfigError(f"angles: expected at most {width // 2} a position for heads of width {width}, got {pairs}")
    cos, sin = (f(angles)[..., None, :].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    left, right, rest = jnp.split(x, [pairs, 2 * pairs], axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin, rest], axis=-1)


def rotary_angles(positions: Any, frequencies: Any) -> Float[Array, "*b t r"]:
    """Returns position w_i for each position and frequency, computed in 32 bits as published models do.

    >>> rotary_angles(jnp.arange(3), [1.0, 0.5]).tolist()
    [[0.0, 0.0], [1.0, 0.5], [2.0, 1.0]]
    """
    return jnp.asarray(positions, jnp.float32)[..., None] * jnp.asarray(frequencies, jnp.float32)


def frequencies(width: int, base: float = BASE) -> np.ndarray:
    """Returns w_i = base^(-2i / width) for i < width / 2.

    >>> frequencies(4, 100.0).tolist()
    [1.0, 0.10000000149011612]
    """
    return np.float32(1.0) / np.float32(base) ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width))
