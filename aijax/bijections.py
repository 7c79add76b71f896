"""Bijections between the whole line and where a parameter may lie: what an optimiser moves, and what a model holds.

    real            x = u
    positive        x = exp(u)
    nonnegative     x = exp(u); 0 is its edge, which no finite u reaches
    unit_interval   x = 1 / (1 + exp(-u))

A positive parameter is a scale more often than not (a lengthscale, a variance, a rate): a step of 1 in its logarithm is
the same change of a model at 10^-3 as at 10^3, and the logarithm has no point near which it turns into something else,
as softplus has at 1. The names are those of `aijax.parameters.CONSTRAINTS`.
"""

import jax
import jax.numpy as jnp

from aijax.errors import choose
from aijax.typing import Array, Callable

_IDENTITY = (lambda x: x, lambda x: x)
_EXPONENTIAL = (jnp.exp, jnp.log)

BIJECTIONS: dict[str, tuple[Callable, Callable]] = {
    "real": _IDENTITY,
    "positive": _EXPONENTIAL,
    "nonnegative": _EXPONENTIAL,
    "unit_interval": (jax.nn.sigmoid, lambda x: jnp.log(x) - jnp.log1p(-x)),
}
"""Name of a constraint: the function from the line to where the parameter may lie, and its inverse."""


def from_line(u: Array, constraint: str) -> Array:
    """Returns the parameter at `u` on the line.

    >>> float(from_line(0.0, "positive")), float(from_line(0.0, "unit_interval"))
    (1.0, 0.5)
    """
    return choose(BIJECTIONS, constraint, "constraint")[0](u)


def to_line(x: Array, constraint: str) -> Array:
    """Returns where on the line the parameter `x` is; an edge of the constraint is at infinity.

    >>> float(to_line(1.0, "positive"))
    0.0
    """
    return choose(BIJECTIONS, constraint, "constraint")[1](x)
