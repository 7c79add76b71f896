"""Duals of rectified monomials x^n for x > 0 and of what they make: the arc-cosine kernels.

With s = sqrt(q1 q2), k = s cos(theta) and y = s sin(theta), the moments D_n = E[u_+^n v_+^n] are

    D_0 = (pi - theta) / (2 pi),        D_1 = y / (2 pi) + k D_0,
    P_2 = s^2 D_0 + k y / (2 pi),       P_n = (n - 1) s^2 D_{n-2} + (n - 2) k P_{n-1},
    D_n = (n - 1) P_n + n k D_{n-1},

where P_n = q1 E[u_+^(n-2) v_+^n]; each line is one Gaussian integration by parts. They are the kernels of Cho and
Saul 2009, "Kernel methods for deep learning", section 2: D_n = s^n J_n(theta) / (2 pi). The derivative dual of
x_+^n is n^2 D_{n-1}. As (u, v) -> (c u, v) scales D_n by c^n,

    dD_n = n^2 D_{n-1} dk + (n D_n - n^2 k D_{n-1}) (dq1 / q1 + dq2 / q2) / 2        for n >= 1,
    dD_0 = (dk - k (dq1 / q1 + dq2 / q2) / 2) / (2 pi y),

which is given to JAX as the rule of differentiation: it has no 0/0 for n >= 1, and dD_0 is 0 where y = 0, the middle of
the two one-sided derivatives at coincident points.

The angle comes from sin(theta / 2) = sqrt((s - |k|) / 2s) where |k| > s / 2 and from k / s elsewhere (see `arcsine`).
s - |k| is exact there, so that nothing cancels near correlation +-1. Where s - |k| is within rounding of 0 the two
points count as parallel: rounding of 1 ulp would otherwise show as an angle of sqrt(ulp), 3e-4 in float32.
"""

import functools
import math

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax.arcsine import PARALLEL_ULPS, arcsine_of_root, ratio, root
from aijax.ntk.stax.dual import Dual
from aijax.typing import Array


def rectified_monomial(degree: int) -> Dual:
    """Returns the dual of phi(x) = x^n for x > 0, else 0: K = D_n, K' = n^2 D_{n-1}, and K' = 0 for the step n = 0.

    Args:
      degree: n, a non-negative integer. phi(0) for n = 0 is 1.

    Raises:
      ConfigError: `degree` is not a non-negative integer.

    Source: Cho and Saul 2009, section 2.

    >>> value, slope = rectified_monomial(2).diagonal(1.0)
    >>> float(value), float(slope)
    (1.5, 2.0)
    """
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 0:
        raise ConfigError(f"degree: expected a non-negative integer, got {degree!r}")

    def fn(x):
        return jnp.where(x >= 0, x**degree, 0)

    def kernel(q1, k, q2):
        value, lower = rectified_moments(degree, q1, k, q2)
        return value, degree**2 * lower

    def diagonal(q):
        q = jnp.asarray(q)
        half = jnp.where(q > 0, 0.5, 0.25)
        slope = degree**2 * _double_factorial(2 * degree - 3) * q ** (degree - 1) if degree else jnp.zeros_like(q)
        return _double_factorial(2 * degree - 1) * q**degree * half, slope * half

    return Dual(fn, kernel, diagonal)


def abrelu(a: Array | float, b: Array | float) -> Dual:
    """Returns the dual of phi(x) = a min(x, 0) + b max(x, 0): K = (a - b)^2 D_1 + a b k, K' = (a - b)^2 D_0 + a b.

    Args:
      a: slope for negative x; (0, 1) is relu, (-1, 1) the absolute value.
      b: slope for positive x.

    Source: Cho and Saul 2009 for (0, 1); E[u_+ (-v)_+] = D_1(q1, -k, q2) = D_1 - k / 2 gives the rest.

    >>> value, slope = abrelu(0, 1).kernel(1.0, 1.0, 1.0)
    >>> float(value), float(slope)
    (0.5, 0.5)
    """

    def fn(x):
        return a * jnp.minimum(x, 0) + b * jnp.maximum(x, 0)

    def kernel(q1, k, q2):
        value, slope = rectified_moments(1, q1, k, q2)
        return (a - b) ** 2 * value + a * b * k, (a - b) ** 2 * slope + a * b

    def diagonal(q):
        q = jnp.asarray(q)
        return (a**2 + b**2) / 2 * q, (a - b) ** 2 * jnp.where(q > 0, 0.5, 0.25).astype(q.dtype) + a * b

    return Dual(fn, kernel, diagonal)


def sign() -> Dual:
    """Returns the dual of the sign: K = 4 D_0 - 1 = (2 / pi) arcsin(k / s), with K' taken as 0; both are 0 at q = 0."""

    def kernel(q1, k, q2):
        value = 4 * rectified_moments(0, q1, k, q2)[0] - 1
        return value, jnp.zeros_like(value)

    def diagonal(q):
        q = jnp.asarray(q)
        return jnp.where(q > 0, 1, 0).astype(q.dtype), jnp.zeros_like(q)

    return Dual(jnp.sign, kernel, diagonal)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def rectified_moments(n: int, q1: Array, k: Array, q2: Array) -> tuple[Array, Array]:
    """Returns (D_n, D_{n-1}), the moments of the module's docstring; D_{-1} is 0.

    At q1 = 0 or q2 = 0 the angle is pi / 2: D_0 = 1 / 4 and the others are 0.
    """
    fraction, sine, s = _angle(q1, k, q2)
    moments = [jnp.zeros_like(fraction), fraction]
    if n >= 1:
        moments.append(sine + k * fraction)
    mixed = s * s * fraction + k * sine if n >= 2 else None
    for m in range(2, n + 1):
        mixed = mixed if m == 2 else (m - 1) * s * s * moments[m - 1] + (m - 2) * k * mixed
        moments.append((m - 1) * mixed + m * k * moments[m])
    return moments[n + 1], moments[n]


@rectified_moments.defjvp
def _rectified_moments_jvp(n, primals, tangents):
    q1, k, q2 = primals
    values = rectified_moments(n, q1, k, q2)
    if n == 0:
        return values, (_moment_jvp(0, primals, tangents, *values), jnp.zeros_like(values[1]))
    lowest = rectified_moments(n - 1, q1, k, q2)[1]
    slope = _moment_jvp(n, primals, tangents, *values)
    return values, (slope, _moment_jvp(n - 1, primals, tangents, values[1], lowest))


def _moment_jvp(n: int, primals: tuple, tangents: tuple, value: Array, lower: Array) -> Array:
    """The tangent of D_n, given D_n and D_{n-1}."""
    (q1, k, q2), (dq1, dk, dq2) = primals, tangents
    scaling = (ratio(dq1, q1) + ratio(dq2, q2)) / 2
    if n == 0:
        _, sine, _ = _angle(q1, k, q2)
        return ratio(dk - k * scaling, (2 * math.pi) ** 2 * sine)
    return n * n * lower * dk + (n * value - n * n * k * lower) * scaling


def _angle(q1: Array, k: Array, q2: Array) -> tuple[Array, Array, Array]:
    """((pi - theta) / 2 pi, y / 2 pi, s), with theta = pi / 2 where s = 0. Differentiable away from y = 0."""
    s = root(jnp.asarray(q1)) * root(jnp.asarray(q2))
    dtype = jnp.result_type(s, k)
    info = jnp.finfo(dtype)
    size = jnp.minimum(jnp.abs(k), s)
    inverse = 1 / jnp.where(s > info.tiny, s, 1)
    gap = (s - size) * inverse
    gap = jnp.where(gap > PARALLEL_ULPS * info.eps, gap, 0)
    cosine = size * inverse
    wide = 2 * size <= s
    z = jnp.where(wide, cosine * cosine, gap / 2)
    arcsine = arcsine_of_root(z) / (2 * math.pi)
    narrow = jnp.where(k < 0, 2 * arcsine, 0.5 - 2 * arcsine)
    fraction = jnp.where(wide, 0.25 + jnp.sign(k) * arcsine, narrow)
    sine = s * root(gap * (1 + cosine)) / (2 * math.pi)
    return fraction.astype(dtype), sine, s


def _double_factorial(n: int) -> int:
    return math.prod(range(n, 0, -2))
