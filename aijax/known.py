"""What is known of values while a program is traced: nothing of those that are not computed yet."""

import jax
import jax.numpy as jnp
import numpy as np

from aijax.typing import Any


def known(flag: Any) -> bool | None:
    """Returns a bool that is known, else (inside `jit` or `vmap`) None.

    >>> jax.jit(lambda x: [known(2 > 1), known(x > 1) is None])(2.0)
    [Array(True, dtype=bool), Array(True, dtype=bool)]
    """
    try:
        return bool(flag)
    except jax.errors.ConcretizationTypeError:
        return None


def all_finite(value: Any) -> bool | None:
    """Returns whether all entries are finite; None where they are not known."""
    if isinstance(value, jax.core.Tracer):
        return None
    if getattr(value, "is_fully_addressable", True):  # on the host nothing is compiled for it
        return bool(np.isfinite(value).all())
    return known(jnp.isfinite(value).all())
