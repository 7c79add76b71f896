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
    _check(index.reshape(-1), count, "index", "whole numbers from 0" + ("" if count is None else f" to {count - 1}"))
    return jnp.column_stack([x, jnp.broadcast_to(index, len(x)).astype(x.dtype)])


def split_index(x: Float[Array, "n d+1"], count: int, meaning: str) -> tuple[Float[Array, "n d"], Array]:
    """Returns points and index, which is to be a whole number from 0 to count - 1, as `meaning` says in words."""
    if x.shape[1] < 2:
        raise ConfigError(f"x: expected points [n, d + 1] whose last column is {meaning}, got shape {x.shape}")
    _check((x if isinstance(x, jax.core.Tracer) else np.asarray(x))[:, -1], count, "the last column of x", meaning)
    return x[:, :-1], x[:, -1].astype(jnp.int32)


def _check(index, count, where, expected):
    """Refuses an index out of range where it is known; inside `jit` that is left to `checkify`."""
    numpy = jnp if isinstance(index, jax.core.Tracer) else np
    index = numpy.asarray(index)
    good = (index >= 0) & (index == numpy.round(index)) & (index < (numpy.inf if count is None else count))
    if numpy is jnp:
        checkify.debug_check(good.all(), f"{where}: expected {expected}")
    elif not good.all():
        raise ConfigError(f"{where}: expected {expected}, got {index[~good][0]:g}")
