"""How far the numerical dual of a function is off: measured where its Hermite series converges worst.

The series of `dual_numerical` is cut after N terms, and what is left out is at most |r|^N times what is left out at
|r| = 1. There a pair of Gaussians is one variable, and the expectations are integrals on a line,

    K(q, +-q, q) = E[phi(sqrt(q) z) phi(+-sqrt(q) z)],        K'(q, +-q, q) = the same with phi' for phi,

which a rule of another kind integrates to rounding: Gauss-Legendre on panels that end at the kinks of phi.
"""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.ntk.stax.dual_numerical import numerical, slope_of
from aijax.ntk.stax.kinks import find_jumps
from aijax.typing import Array

_REACH, _PANELS, _POINTS = 13.0, 208, 16


def quadrature_error(
    fn: Callable[[Array], Array], variance: float = 1.0, df: Callable[[Array], Array] | None = None
) -> tuple[float, float]:
    """Returns the errors of the two maps of `Elementwise(fn)`, that of K and that of K', over their diagonal values.

    They are the largest over correlations of +1 and -1 at one variance; at a correlation r they are |r|^512 times as
    large or less. The precision is that of the arrays: with 64-bit types off, rounding of about 1e-6 is part of them.

    Args:
      fn: x -> phi(x), on arrays.
      variance: q, that of the pre-activations.
      df: x -> phi'(x); by default by automatic differentiation.

    Raises:
      ConfigError: a variance that is not positive.

    >>> max(quadrature_error(jnp.tanh)) < 1e-5
    True
    """
    if not variance > 0:
        raise ConfigError(f"variance: expected a positive number, got {variance!r}")
    slope = slope_of(fn, df)
    dtype = jnp.result_type(float)
    ends = [place for f in (fn, slope, slope_of(slope)) for place, _ in find_jumps(f, dtype)]
    points, weights = _rule(np.asarray(ends) / math.sqrt(variance))
    x = jnp.asarray(math.sqrt(variance) * points, dtype)
    found = jax.jit(numerical(fn, df).kernel)(variance, jnp.asarray([variance, -variance], dtype), variance)
    errors = []
    for function, values in zip((fn, slope), found, strict=True):
        forth, back = (np.asarray(function(side), np.float64) for side in (x, -x))
        exact = weights @ forth**2, weights @ (forth * back)
        worst = float(np.abs(np.asarray(values, np.float64) - exact).max())
        errors.append(worst / float(exact[0]) if exact[0] > 0 else worst)
    return errors[0], errors[1]


def _rule(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns points and weights of E[f(z)] for f smooth between the `ends`, and between their mirror images."""
    inside = np.concatenate([ends, -ends])
    edges = np.union1d(np.linspace(-_REACH, _REACH, _PANELS + 1), inside[np.abs(inside) < _REACH])
    nodes, weights = np.polynomial.legendre.leggauss(_POINTS)
    panels = [
        (low + (high - low) * (1 + nodes) / 2, (high - low) / 2 * weights) for low, high in itertools.pairwise(edges)
    ]
    points = np.concatenate([panel[0] for panel in panels])
    weights = np.concatenate([panel[1] for panel in panels])
    return points, weights * np.exp(-(points**2) / 2) / math.sqrt(2 * math.pi)
