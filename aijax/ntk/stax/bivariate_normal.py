"""Moments of a pair of standard normal variables above thresholds: E[(Z1 - h)_+^i (Z2 - g)_+^j] for i, j in {0, 1}.

With correlation r, s = sqrt(1 - r^2), density p and upper tail Q of the standard normal, and

    c1 = (g - r h) / s,    c2 = (h - r g) / s,    A1 = p(h) Q(c1),    A2 = p(g) Q(c2),

    (0, 0)  L = P(Z1 > h, Z2 > g)                (1, 0)  A1 + r A2 - h L
    (1, 1)  (r + h g) L - g A1 - h A2 + s p(h) p(c1)        (0, 1)  A2 + r A1 - g L

by Gaussian integration by parts (Rosenbaum 1961). The orthant probability is, by Owen 1956,

    L = (Q(h) + Q(g)) / 2 - T(h, c1 / h) - T(g, c2 / g) - [1 / 2 if h g < 0],
    T(x, a) = 1 / (2 pi) int_0^a exp(-x^2 (1 + t^2) / 2) / (1 + t^2) dt,

where T is reduced to |a| <= 1, there 12 points of Gauss-Legendre are exact to 1e-15. c1 and c2 are formed from g - h or
g + h, so that nothing cancels as r -> +-1. The derivatives are those of the moments themselves: d/dr lowers i and j by
one, d/dh and d/dg lower one of them with a minus sign.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc

from aijax.ntk.stax.arcsine import angle, ratio, root
from aijax.typing import Array


@jax.custom_jvp
def orthant(h: Array, g: Array, r: Array) -> Array:
    """Returns P(Z1 > h, Z2 > g) for finite thresholds and -1 <= r <= 1."""
    s, c1, c2 = _conditional(h, g, r)
    general = (_tail(h) + _tail(g)) / 2 - _owen(h, c1) - _owen(g, c2) - jnp.where(_opposite(h, g), 0.5, 0)
    at_zero = 0.25 + angle(r, s) / (2 * math.pi)
    return jnp.where((h == 0) & (g == 0), at_zero, jnp.clip(general, 0, 1))


@orthant.defjvp
def _orthant_jvp(primals, tangents):
    (h, g, r), (dh, dg, dr) = primals, tangents
    s, c1, c2 = _conditional(h, g, r)
    joint = ratio(_density(h) * _density(c1), s)
    return orthant(h, g, r), joint * dr - _density(h) * _tail(c1) * dh - _density(g) * _tail(c2) * dg


@jax.custom_jvp
def orthant_linear(h: Array, g: Array, r: Array) -> Array:
    """Returns E[1(Z1 > h) (Z2 - g)_+]."""
    _, c1, c2 = _conditional(h, g, r)
    return _density(g) * _tail(c2) + r * _density(h) * _tail(c1) - g * orthant(h, g, r)


@orthant_linear.defjvp
def _orthant_linear_jvp(primals, tangents):
    (h, g, r), (dh, dg, dr) = primals, tangents
    s, c1, _ = _conditional(h, g, r)
    conditional = _density(h) * s * (_density(c1) - c1 * _tail(c1))
    return orthant_linear(h, g, r), _density(h) * _tail(c1) * dr - conditional * dh - orthant(h, g, r) * dg


@jax.custom_jvp
def orthant_bilinear(h: Array, g: Array, r: Array) -> Array:
    """Returns E[(Z1 - h)_+ (Z2 - g)_+]."""
    s, c1, c2 = _conditional(h, g, r)
    edges = g * _density(h) * _tail(c1) + h * _density(g) * _tail(c2)
    return (r + h * g) * orthant(h, g, r) - edges + s * _density(h) * _density(c1)


@orthant_bilinear.defjvp
def _orthant_bilinear_jvp(primals, tangents):
    (h, g, r), (dh, dg, dr) = primals, tangents
    slope = orthant(h, g, r) * dr - orthant_linear(h, g, r) * dh - orthant_linear(g, h, r) * dg
    return orthant_bilinear(h, g, r), slope


def _conditional(h: Array, g: Array, r: Array) -> tuple[Array, Array, Array]:
    """(s, c1, c2): c1 is the threshold of Z2, standardised, given Z1 = h; c2 that of Z1 given Z2 = g."""
    s = root((1 - r) * (1 + r))
    divisor = jnp.maximum(s, jnp.finfo(s.dtype).tiny ** 0.25)
    flip = jnp.where(r >= 0, 1, -1)
    shared = s / (1 + jnp.abs(r))
    return s, (g - flip * h) / divisor + flip * shared * h, (h - flip * g) / divisor + flip * shared * g


def _owen(h: Array, c: Array) -> Array:
    """T(h, c / h), by exchanging h and c where |c| > |h|."""
    a, b = jnp.abs(h), jnp.abs(c)
    large, small = jnp.maximum(a, b), jnp.minimum(a, b)
    end = ratio(small, large)

    def add(total, rule):
        node, weight = rule
        square = 1 + (end * (1 + node) / 2) ** 2
        return total + weight / 2 * jnp.exp(-large * large * square / 2) / square, None

    rule = jnp.asarray(np.polynomial.legendre.leggauss(12), end.dtype).T
    total, _ = jax.lax.scan(add, jnp.zeros_like(end), rule)
    value = end * total / (2 * math.pi)
    exchanged = (_tail(a) + _tail(b)) / 2 - _tail(a) * _tail(b) - value
    return jnp.where(_opposite(h, c), -1, 1) * jnp.where(b > a, exchanged, value)


def _opposite(x: Array, y: Array) -> Array:
    """Whether x and y lie on two sides of 0, which itself counts as positive."""
    return (x < 0) != (y < 0)


def _density(x: Array) -> Array:
    return jnp.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _tail(x: Array) -> Array:
    return erfc(x / math.sqrt(2)) / 2
