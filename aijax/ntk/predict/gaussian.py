"""What predictions of several kernels look like: a mean and a covariance each, under the names that were asked for."""

import collections
import functools
from typing import NamedTuple

from aijax.errors import ConfigError, did_you_mean
from aijax.typing import Array


class Gaussian(NamedTuple):
    """A mean, in the shape of the outputs, and a covariance, in the shape of the kernels."""

    mean: Array
    covariance: Array


def names_of(get: str | tuple[str, ...] | None, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names asked for, in lower case; None asks for "nngp" and "ntk"."""
    if get is not None and not isinstance(get, (str, tuple, list)):
        raise ConfigError(f"get: expected different names of {', '.join(allowed)}, got {get!r}")
    names = ("nngp", "ntk") if get is None else (get,) if isinstance(get, str) else tuple(get)
    lower = tuple(name.lower() if isinstance(name, str) else name for name in names)
    if not names or len(set(lower)) < len(lower):
        raise ConfigError(f"get: expected different names of {', '.join(allowed)}, got {get!r}")
    for name in lower:
        if name not in allowed:
            raise ConfigError(f"get: unknown kernel {name!r}{did_you_mean(str(name), allowed)}")
    return lower


def bundle(get: str | tuple[str, ...] | None, values: dict[str, Array | Gaussian]):
    """Returns the one value that a string asks for, else a named tuple in the order asked."""
    if isinstance(get, str):
        return values[get.lower()]
    return _gaussians(tuple(values))(**values)


@functools.cache
def _gaussians(names: tuple[str, ...]) -> type:
    return collections.namedtuple("Gaussians", names)
