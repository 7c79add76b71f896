"""Points with an index: `[n, d + 1]`, the last column a whole number that says which output, or which derivative."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from aijax.errors import ConfigError
from aijax.typing import Any, Array, Float


def with_index(x: Float[Array, "n d"], index: Any, count: int | None = None) -> Float[Array, "n d+1"]:
    """Returns x with a last column: `index`, one for all or `[n]`, from 0 to count - 1."""
    index = index if isinstance(index, jax.core.Tracer) else np.asarray(index)
    if not jnp.issubdtype(index.dtype, jnp.integer) or index.shape not in ((), (len(x),)):
        raise ConfigError(f"index: expected integers, one or [{len(x)}], got {index.dtype} of shape {index.shape}")
    if isinstance(index, np.ndarray):
        last = "" if count is None else f" to {count - 1}"
        _refuse(index.reshape(-1), count, "index", f"whole numbers from 0{last}")
    return jnp.column_stack([x, jnp.broadcast_to(index, len(x)).astype(x.dtype)])


def split_index(x: Float[Array, "n d+1"], count: int, meaning: str) -> tuple[Float[Array, "n d"], Array]:
    """Returns points and index, which is to be a whole number from 0 to count - 1, as `meaning` says in words.

    Points whose index is another are refused; inside `jit` they are NaN, and `checkify` says why.
    """
    if x.shape[1] < 2:
        raise ConfigError(f"x: expected points [n, d + 1] whose last column is {meaning}, got shape {x.shape}")
    points, index = x[:, :-1], x[:, -1]
    if isinstance(x, jax.core.Tracer):
        good = _good(jnp, index, count)
        checkify.debug_check(good.all(), f"the last column of x: expected {meaning}")
        points = jnp.where(good[:, None], points, jnp.nan)
    else:
        _refuse(np.asarray(x)[:, -1], count, "the last column of x", meaning)
    return points, index.astype(jnp.int32)


def _refuse(index, count, where, expected):
    good = _good(np, index, count)
    if not good.all():
        raise ConfigError(f"{where}: expected {expected}, got {index[~good][0]:g}")


def _good(numpy, index, count):
    return (index >= 0) & (index == numpy.round(index)) & (index < (numpy.inf if count is None else count))
