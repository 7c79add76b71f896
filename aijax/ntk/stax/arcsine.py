"""Angles between Gaussian variables: fast, exact near correlation +-1, with finite derivatives.

XLA does not vectorise `arctan2` and `arccos` on a CPU: they cost 20 ns an element there, against 1 ns for what follows.
The arc sine is a polynomial on |w| <= 1/2, and elsewhere

    arcsin(x / s) = pi / 2 - 2 arcsin(sqrt((1 - x / s) / 2)),        1 - x / s = y^2 / (s (s + x)),   s^2 = x^2 + y^2,

in which nothing cancels as y -> 0. Both are exact to about one unit in the last place.
"""

import functools
import math

import jax
import jax.numpy as jnp

from aijax.typing import Array

PARALLEL_ULPS = 4
"""Two Gaussian variables whose |correlation| is this many units in the last place from 1 count as parallel."""

# arcsin(w) = w + w z p(z), z = w^2 in [0, 1/4]: Chebyshev interpolants, relative error 1.6e-8 and 5.5e-17
_FLOAT32 = (0.16666672414795305, 0.07498855072600821, 0.04500138006991017, 0.026554542206161328, 0.038085023561092654)
_FLOAT64 = (
    0.1666666666666665,
    0.07500000000020764,
    0.044642857103423646,
    0.03038194736709848,
    0.02237204763174451,
    0.017355259955786323,
    0.013929652902326633,
    0.011875494382636922,
    0.0078029494773533175,
    0.01603551434914882,
    -0.010749050339697808,
    0.028169218060881414,
)


def arcsine_of_root(z: Array) -> Array:
    """Returns arcsin(sqrt(z)) for z in [0, 1/4]. Its derivative at z = 0 is left at 0: callers bring their own rule."""
    w = root(z)
    coefficients = _FLOAT64 if jnp.finfo(w.dtype).bits == 64 else _FLOAT32
    series = functools.reduce(lambda total, c: total * z + c, coefficients[::-1])
    return w + w * (z * series)


@jax.custom_jvp
def angle(x: Array, y: Array) -> Array:
    """Returns `arctan2(x, y)` for y >= 0, in [-pi / 2, pi / 2]; 0 with derivative 0 where both are 0."""
    size = jnp.abs(x)
    s = root(x * x + y * y)
    wide = 2 * size <= s
    z = jnp.where(wide, ratio(x, s) ** 2, ratio(y * y, 2 * s * (s + size)))
    arcsine = arcsine_of_root(z)
    return jnp.sign(x) * jnp.where(wide, arcsine, math.pi / 2 - 2 * arcsine)


@angle.defjvp
def _angle_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return angle(x, y), ratio(y * dx - x * dy, x * x + y * y)


@jax.custom_jvp
def gram_determinant(q1: Array, k: Array, q2: Array) -> Array:
    """Returns q1 q2 - k^2 as (s - |k|) (s + |k|) with s = sqrt(q1 q2), at least 0: exact to rounding of s - |k|."""
    s, size = root(q1) * root(q2), jnp.abs(k)
    return jnp.maximum(s - size, 0) * (s + size)


@gram_determinant.defjvp
def _gram_determinant_jvp(primals, tangents):
    (q1, k, q2), (dq1, dk, dq2) = primals, tangents
    return gram_determinant(q1, k, q2), q2 * dq1 + q1 * dq2 - 2 * k * dk


def correlation(q1: Array, k: Array, q2: Array) -> Array:
    """Returns k / sqrt(q1 q2), and 0 where a variance is 0."""
    return ratio(k, root(q1) * root(q2))


def ratio(a: Array, b: Array) -> Array:
    """Returns a / b, and 0 where b is not positive; its derivatives are finite there too."""
    positive = b > 0
    return jnp.where(positive, a, 0) / jnp.where(positive, b, 1)


def root(x: Array) -> Array:
    """Returns sqrt(x), and 0 with derivative 0 where x is not positive."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
