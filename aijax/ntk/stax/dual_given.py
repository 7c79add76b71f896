"""The dual of a function that is known by its covariance map alone: E[phi(u) phi(v)] = F(k, q1, q2).

The derivative dual is dF/dk, by automatic differentiation where it is not given. Near correlation +-1 that fails for
maps like the arc-cosine's: in angles theta = arccos(k / sqrt(q1 q2)) they are smooth, but written with arccos and
square roots their derivative is the difference of two terms of size 1 / theta, all rounding when theta is small, and
not a number at theta = 0. There the derivatives are taken at larger angles, where they can be trusted, and
extrapolated in theta by a polynomial. Whether they can be trusted at theta itself is seen by moving k by a few units in
the last place: for a map without such terms nothing changes to second order.

Error where extrapolated, against max |K'|: 1e-10 in float64, 1e-5 in float32; elsewhere that of F itself.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from aijax.ntk.stax.arcsine import PARALLEL_ULPS, angle, gram_determinant, root
from aijax.ntk.stax.dual import Dual
from aijax.typing import Array

Map = Callable[[Array, Array, Array], Array]

# bits of the type: angles between which derivatives are extrapolated from, how many, agreement that counts as trust
_EXTRAPOLATION = {64: (0.05, 0.4, 8, 1e-10), 32: (0.3, 1.2, 6, 3e-5)}


def given(fn: Callable, covariance_map: Map, slope_map: Map | None = None) -> Dual:
    """Returns the dual with K(q1, k, q2) = `covariance_map(k, q1, q2)`.

    Args:
      fn: x -> phi(x).
      covariance_map: (k, q1, q2) -> E[phi(u) phi(v)], of numbers or arrays; differentiable where |k| < sqrt(q1 q2).
      slope_map: (k, q1, q2) -> E[phi'(u) phi'(v)]; by default the derivative of `covariance_map` in k.
    """

    def kernel(q1, k, q2):
        k, q1, q2 = jnp.broadcast_arrays(*(jnp.asarray(x) for x in (k, q1, q2)))
        slope = _gradient(covariance_map, k, q1, q2)[0] if slope_map is None else _given_slope(slope_map, k, q1, q2)
        return _value(covariance_map, k, q1, q2), slope

    return Dual(fn, kernel, lambda q: kernel(q, q, q))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(covariance_map: Map, k: Array, q1: Array, q2: Array) -> Array:
    return _evaluate(covariance_map, k, q1, q2)


@_value.defjvp
def _value_jvp(covariance_map, primals, tangents):
    slopes = _gradient(covariance_map, *primals)
    return _value(covariance_map, *primals), sum(s * t for s, t in zip(slopes, tangents, strict=True))


def _given_slope(slope_map: Map, k: Array, q1: Array, q2: Array) -> Array:
    """The slope at the correlation itself where it is a number: a few units inside it would be off by their root."""
    inside = _evaluate(slope_map, k, q1, q2)
    exact = jnp.vectorize(slope_map)(k, q1, q2)
    return jnp.where(jnp.isnan(exact), inside, exact)


def _evaluate(function: Callable, k: Array, q1: Array, q2: Array) -> Array | tuple[Array, ...]:
    """function(k, q1, q2) with positive variances and a correlation a few units in the last place inside (-1, 1)."""
    info = jnp.finfo(jnp.result_type(q1, k, q2))
    q1, q2 = (jnp.maximum(q, info.tiny**0.4) for q in (q1, q2))
    bound = root(q1) * root(q2) * (1 - 4 * info.eps)
    return jnp.vectorize(function)(jnp.clip(k, -bound, bound), q1, q2)


def _gradient(covariance_map: Map, k: Array, q1: Array, q2: Array) -> tuple[Array, Array, Array]:
    """dF/dk, dF/dq1, dF/dq2, extrapolated in the angle where they cannot be trusted."""
    low, high, count, agreement = _EXTRAPOLATION[64 if k.dtype == jnp.float64 else 32]
    eps = jnp.finfo(k.dtype).eps
    gradient = functools.partial(_evaluate, jax.grad(covariance_map, (0, 1, 2)))
    s = root(q1) * root(q2)
    inner = jnp.clip(k, -s * (1 - 4 * eps), s * (1 - 4 * eps))
    direct, moved, further = (gradient(inner * (1 - 8 * eps * i), q1, q2) for i in range(3))
    change = jnp.abs(direct[0] - 2 * moved[0] + further[0])

    square = gram_determinant(q1, k, q2)
    square = jnp.where(square > 2 * PARALLEL_ULPS * eps * q1 * q2, square, 0)
    theta = jnp.pi / 2 - angle(jnp.abs(k), root(square))
    nodes = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * np.arange(count) / (count - 1))
    extrapolated = [0.0] * 3
    for i, node in enumerate(nodes):
        others = np.delete(nodes, i)
        weight = jnp.prod(jnp.stack([(theta - other) / (node - other) for other in others]), axis=0)
        at_node = gradient(jnp.where(k < 0, -1, 1) * s * np.cos(node), q1, q2)
        extrapolated = [total + weight * slope for total, slope in zip(extrapolated, at_node, strict=True)]
    trusted = (theta > high) | (change <= agreement * jnp.abs(direct[0]))
    return tuple(jnp.where(trusted, d, e) for d, e in zip(direct, extrapolated, strict=True))
