"""Arguments of many functions here, told in a sentence where they cannot be used: numbers, arrays, axes, functions.

Inside a trace values are unknown: what needs them is then not looked at.
"""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.typing import Array, PyTree


def any_array(name: str, value: Any) -> Array:
    """Returns numbers as an array."""
    if isinstance(value, jax.Array):
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: expected an array of numbers, got {_short(value)}") from error


def arrays(name: str, tree: PyTree) -> PyTree:
    """Returns a tree of numbers as one of arrays."""
    return jax.tree.map(functools.partial(any_array, name), tree)


def real_array(name: str, value: Any) -> Array:
    """Returns real numbers as an array."""
    array = any_array(name, value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ConfigError(f"{name}: expected real numbers, got {array.dtype}")
    return array


def floating(name: str, value: Any) -> Array:
    """Returns real numbers as an array of floating-point numbers."""
    array = real_array(name, value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))


def nonnegative(name: str, value: Any) -> None:
    """Refuses what is not a number, or an array of numbers, of 0 or more."""
    if isinstance(value, jax.core.Tracer):
        return
    dtype = np.asarray(value).dtype
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise ConfigError(f"{name}: expected numbers, got {value!r}")
    if not np.all(np.asarray(value) >= 0):
        raise ConfigError(f"{name}: expected nothing below 0, got {value}")


def rate(name: str, value: Any) -> None:
    """Refuses what is not one finite number of 0 or more."""
    nonnegative(name, value)
    if jnp.size(value) != 1:
        raise ConfigError(f"{name}: expected one number, got an array of shape {jnp.shape(value)}")
    if not isinstance(value, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(value))):
        raise ConfigError(f"{name}: expected a finite number, got {value}")


def check_momentum(momentum: Any) -> None:
    """Refuses a momentum that is not at least 0 and below 1."""
    rate("momentum", momentum)
    if not isinstance(momentum, jax.core.Tracer) and not np.all(np.asarray(momentum) < 1):
        raise ConfigError(f"momentum: expected a number of at least 0 and below 1, got {momentum!r}")


def whole(name: str, value: Any, least: int, expected: str) -> int:
    """Returns a whole number of `least` or more."""
    number = _index(value)
    if number is None or number < least:
        raise ConfigError(f"{name}: expected {expected}, got {value!r}")
    return number


def as_axes(name: str, axes: int | Sequence[int]) -> tuple[int, ...]:
    """Returns one axis or several as a tuple."""
    several = tuple(axes) if isinstance(axes, (Sequence, np.ndarray, set, range)) else (axes,)
    found = tuple(map(_index, several))
    if isinstance(axes, str) or None in found:
        raise ConfigError(f"{name}: expected an axis or several, got {axes!r}")
    return found


def check_key(name: str, key: Any) -> Array:
    """Returns a key of random numbers, as `jax.random.key` or `jax.random.PRNGKey` make them."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
        raise ConfigError(f"{name}: expected a key of jax.random.key, got {_short(key)}")
    return key


def check_flag(name: str, value: Any) -> None:
    """Refuses what is neither true nor false."""
    if not isinstance(value, (bool, np.bool_)):
        raise ConfigError(f"{name}: expected true or false, got {value!r}")


def check_function(name: str, value: Any) -> None:
    """Refuses what cannot be called."""
    if not callable(value):
        raise ConfigError(f"{name}: expected a function, got {_short(value)}")


def _index(value):
    """Returns a whole number as an `int`, None for what is none."""
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _short(value):
    return type(value).__name__ if hasattr(value, "shape") or len(repr(value)) > 60 else repr(value)
