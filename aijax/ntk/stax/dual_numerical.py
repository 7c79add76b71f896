"""The dual of any elementwise function: its kinks exactly, the rest by its Hermite series.

In the orthonormal Hermite polynomials h_n of a standard normal z, with a_n(q) = E[phi(sqrt(q) z) h_n(z)] and
correlation r = k / sqrt(q1 q2) (Mehler 1866; Daniely, Frostig and Singer 2016, section 4),

    K = sum_n a_n(q1) a_n(q2) r^n,        K' = the same with phi' for phi.

The coefficients are one-dimensional integrals, one set for each variance, so that an entry of the kernel costs a
polynomial in r and no quadrature. For an analytic phi they fall like exp(-w sqrt(2 n / q)), w the distance of its
nearest pole from the real line. A kink of height c at t leaves a_n ~ n^(-5/4), too slow near r = +-1. So the kinks
(and jumps) are found by `find_jumps` and split off,

    phi(x) = psi(x) + sum_i c_i (x - t_i)_+ + sum_i d_i 1(x > t_i),

psi being smooth to first order: the coefficients of the ramps and steps are known, their contributions to the series
are taken out, and put back as the moments of a pair of normal variables above thresholds, exactly (`bivariate_normal`).

Error, against max |K| and max |K'|, at any correlation including +-1: in float64 below 1e-9 for ramps (relu, leaky
relu, hard tanh); below 1e-6 for tanh, softplus, silu and others with poles no nearer than pi / 2 up to q = 10; where
|r| < 0.9, below 1e-9 for all of these and any q. For functions with a jump of the second derivative, 1e-6 (elu) to
1e-4 (selu at q = 10). In float32 add rounding of 1e-6. `quadrature_error` measures it for a function.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from aijax.ntk.stax.arcsine import PARALLEL_ULPS, correlation, root
from aijax.ntk.stax.bivariate_normal import orthant, orthant_bilinear, orthant_linear
from aijax.ntk.stax.dual import Dual
from aijax.ntk.stax.kinks import find_jumps
from aijax.typing import Array

TERMS = 512
_BLOCK = 16
_SPACING, _REACH = 1 / 32, 12.0
_VARIANCES_AT_ONCE = 4096


def numerical(fn: Callable[[Array], Array], derivative: Callable[[Array], Array] | None = None) -> Dual:
    """Returns the dual of any elementwise function of moderate growth; the error is in the module's docstring.

    Args:
      fn: x -> phi(x), on arrays. Kinks and jumps are looked for up to |x| = 1000 (see `find_jumps`).
      derivative: x -> phi'(x); by default by automatic differentiation. A jump of phi adds nothing to K', whose exact
        value would be infinite.

    >>> value, slope = numerical(jax.nn.relu).kernel(1.0, 1.0, 1.0)
    >>> round(float(value), 5), round(float(slope), 5)
    (0.5, 0.5)
    """

    slope = slope_of(fn, derivative)

    @functools.cache
    def jumps_of_derivatives(dtype):
        return [find_jumps(f, dtype) for f in (fn, slope, slope_of(slope))]

    def kernel(q1, k, q2):
        q1, k, q2 = jnp.asarray(q1), jnp.asarray(k), jnp.asarray(q2)
        jumps, kinks, bends = jumps_of_derivatives(jnp.result_type(q1, k, q2))
        r = correlation(q1, k, q2)
        r = jnp.where(1 - jnp.abs(r) > PARALLEL_ULPS * jnp.finfo(r.dtype).eps, r, jnp.sign(r))
        return _expectation(fn, jumps, kinks, q1, q2, r), _expectation(slope, kinks, bends, q1, q2, r)

    return Dual(fn, kernel, lambda q: kernel(q, q, q))


def slope_of(fn: Callable[[Array], Array], derivative: Callable | None = None) -> Callable[[Array], Array]:
    """Returns the derivative of an elementwise function: the one that is given, or the automatic one."""
    return derivative or (lambda x: jax.jvp(fn, (x,), (jnp.ones_like(x),))[1])


def _expectation(fn: Callable, steps: list, ramps: list, q1: Array, q2: Array, r: Array) -> Array:
    """E[f(u) f(v)] for a function with the given jumps of itself and of its derivative."""
    smooth = _remainder(_remainder(fn, steps, _step), ramps, _ramp)
    left, right = (_coefficients(smooth, steps, ramps, q) for q in (q1, q2))
    return _series(left, right, r) + _singular_part(steps, ramps, _deviation(q1), _deviation(q2), r)


def _remainder(fn: Callable, jumps: list, shape: Callable) -> Callable:
    """fn less the steps or ramps of given heights."""
    return lambda x: fn(x) - sum((height * shape(x - place) for place, height in jumps), jnp.zeros_like(x))


def _step(x: Array) -> Array:
    return jnp.where(x > 0, 1, 0).astype(x.dtype)


def _ramp(x: Array) -> Array:
    return jnp.maximum(x, 0)


def _deviation(q: Array) -> Array:
    """sqrt(q), at least so large that thresholds measured in it stay finite."""
    return jnp.maximum(root(q), jnp.finfo(q.dtype).tiny ** 0.25)


def _coefficients(smooth: Callable, steps: list, ramps: list, q: Array) -> tuple[Array, Array]:
    """Hermite coefficients [n, ...] of the whole function, and of its steps and ramps alone."""
    deviation = _deviation(q)
    nodes, weights = (jnp.asarray(a, q.dtype) for a in _hermite_rule())
    integrals = jax.lax.map(
        lambda d: jnp.matmul(weights, smooth(d * nodes), precision=jax.lax.Precision.HIGHEST),
        deviation.reshape(-1),
        batch_size=_VARIANCES_AT_ONCE,
    )
    rest = jnp.moveaxis(integrals, -1, 0).reshape(-1, *q.shape)
    singular = jnp.zeros_like(rest)
    for place, height in steps:
        singular += height * _step_coefficients(place / deviation)[0]
    for place, height in ramps:
        singular += height * deviation * _step_coefficients(place / deviation)[1]
    return rest + singular, singular


def _step_coefficients(h: Array) -> tuple[Array, Array]:
    """Hermite coefficients [n, ...] of 1(z > h), which are p(h) h_{n-1}(h) / sqrt(n), and of (z - h)_+."""
    density = jnp.exp(-h * h / 2) / math.sqrt(2 * math.pi)
    tail = jax.scipy.special.erfc(h / math.sqrt(2)) / 2
    # where the density is 0 only the constants differ from 0, and h may be too large to be multiplied
    near = jnp.where(density > 0, h, 0)

    def advance(pair, n):
        before, now = pair
        return (now, (near * now - jnp.sqrt(n - 1) * before) / jnp.sqrt(n)), now

    n = jnp.arange(1, TERMS, dtype=h.dtype)
    _, polynomials = jax.lax.scan(advance, (jnp.zeros_like(h), density), n)
    scale = jnp.sqrt(n).reshape(-1, *[1] * h.ndim)
    step = jnp.concatenate([tail[None], polynomials / scale])
    return step, jnp.concatenate([(density - h * tail)[None], step[:-1] / scale])


def _series(left: tuple[Array, Array], right: tuple[Array, Array], r: Array) -> Array:
    """sum_n (a_n b_n - c_n d_n) r^n for left = (a, c), right = (b, d), by Horner's rule."""

    def block(total, coefficients):
        (a, c), (b, d) = coefficients
        for i in reversed(range(_BLOCK)):
            total = total * r + (a[i] * b[i] - c[i] * d[i])
        return total, None

    blocked = jax.tree.map(lambda a: a.reshape(-1, _BLOCK, *a.shape[1:]), (left, right))
    zero = jnp.zeros(jnp.broadcast_shapes(left[0].shape[1:], r.shape, right[0].shape[1:]), r.dtype)
    return jax.lax.scan(block, zero, blocked, reverse=True)[0]


def _singular_part(steps: list, ramps: list, d1: Array, d2: Array, r: Array) -> Array:
    """E of the product of the steps and ramps of u and those of v; d1, d2 are the standard deviations."""

    def pairs(moment, left, right):
        zero = jnp.zeros(jnp.broadcast_shapes(d1.shape, r.shape, d2.shape), r.dtype)

        def add(total, pair):
            (t, c), (s, d) = pair
            return total + c * d * moment(t / d1, s / d2, r), None

        table = [(a, b) for a in left for b in right]
        return jax.lax.scan(add, zero, jax.tree.map(lambda *x: jnp.asarray(x, r.dtype), *table))[0] if table else zero

    value = pairs(orthant, steps, steps) + d1 * d2 * pairs(orthant_bilinear, ramps, ramps)
    value += d2 * pairs(orthant_linear, steps, ramps)
    return value + d1 * pairs(lambda h, g, r: orthant_linear(g, h, r), ramps, steps)


@functools.cache
def _hermite_rule() -> tuple[np.ndarray, np.ndarray]:
    """Points z [m] and weights [n, m] with E[f(z) h_n(z)] = weights @ f(points): the trapezoidal rule.

    The points are shifted by an irrational part of their spacing, so that they miss 0 and other places of kinks.
    """
    points = np.arange(-_REACH, _REACH, _SPACING) + _SPACING * (math.sqrt(5) - 1) / 2
    rows = [_SPACING * np.exp(-points * points / 2) / math.sqrt(2 * math.pi)]
    rows.append(points * rows[0])
    for n in range(1, TERMS - 1):
        rows.append((points * rows[n] - math.sqrt(n) * rows[n - 1]) / math.sqrt(n + 1))
    return points, np.stack(rows)
