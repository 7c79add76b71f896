"""Radial profiles: correlations as functions of `u = r^2`, with derivatives that are right where points coincide.

A kernel of the distance r is smooth at r = 0 in the points though `r = sqrt(u)` is not smooth in u, and autodiff
through the root gives NaN there. But the derivative of a Matern profile is the profile one step rougher, and likewise
that of a Wendland one:

    M_p(u) = e^-s sum ...,  s = sqrt(u):    M_2 = (1 + s + u/3) e^-s,  M_1 = (1 + s) e^-s,  M_0 = e^-s
    M_2' = -M_1 / 6,    M_1' = -M_0 / 2,    M_0' = -e^-s / (2 s)

    W_3' = -(j+5)(j+6)/10 W_2,  W_2' = -(j+3)(j+4)/6 W_1,  W_1' = -(j+1)(j+2)/2 W_0,  W_0' = -j (1-r)^(j-1) / (2 r)

So the derivatives of each order are made from exact values, and only the last of each ladder is singular: it is set to
0 at u = 0, which is right wherever it meets `du = 0` (every parameter) or, from order 1 on, the product of two such
(second derivatives in the points).
"""

import functools

import jax
import jax.numpy as jnp

from aijax.typing import Array, Float


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def matern(order: int, u: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `M_order(u)` for order 0, 1 or 2: the Matern correlation of smoothness `order + 1/2` at `u = 2 nu r^2`.

    Source: Rasmussen and Williams 2006, equation 4.16.

    >>> float(matern(1, jnp.zeros(())))
    1.0
    """
    s = jnp.sqrt(u)
    return (1.0, 1 + s, 1 + s * (1 + s / 3))[order] * jnp.exp(-s)


@matern.defjvp
def _matern_jvp(order, primals, tangents):
    (u,), (du,) = primals, tangents
    if order:
        slope = (-1 / 2, -1 / 6)[order - 1] * matern(order - 1, u)
    else:
        s, reciprocal = _root(u)
        slope = -jnp.exp(-s) * reciprocal / 2
    return matern(order, u), slope * du


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def wendland(order: int, exponent: int, u: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `W_order(u)` for order 0 to 3: the piecewise polynomial of compact support, 0 from u = 1 on.

    Args:
      order: q; samples have q derivatives.
      exponent: j; at least `floor(d / 2) + q + 1` for a kernel in d dimensions.
      u: squared distances, in units of the support.

    Source: Wendland 2005; Rasmussen and Williams 2006, equation 4.21.
    """
    j, r = exponent, jnp.sqrt(u)
    polynomial = (
        1.0,
        1 + (j + 1) * r,
        1 + (j + 2) * r + (j * j + 4 * j + 3) / 3 * u,
        1 + (j + 3) * r + (6 * j * j + 36 * j + 45) / 15 * u + (j**3 + 9 * j * j + 23 * j + 15) / 15 * u * r,
    )[order]
    return jnp.maximum(1 - r, 0) ** (j + order) * polynomial


@wendland.defjvp
def _wendland_jvp(order, exponent, primals, tangents):
    (u,), (du,) = primals, tangents
    j = exponent
    if order:
        factor = ((j + 1) * (j + 2) / 2, (j + 3) * (j + 4) / 6, (j + 5) * (j + 6) / 10)[order - 1]
        slope = -factor * wendland(order - 1, exponent, u)
    else:
        r, reciprocal = _root(u)
        inside = jnp.where(r < 1, jnp.maximum(1 - r, 0) ** (j - 1), 0)
        slope = -j / 2 * inside * reciprocal
    return wendland(order, exponent, u), slope * du


def _root(u):
    """Returns sqrt(u) and 1 / sqrt(u), with 0 for the reciprocal and all derivatives at 0."""
    positive = u > 0
    root = jnp.sqrt(jnp.where(positive, u, 1))
    return jnp.where(positive, root, 0), jnp.where(positive, 1 / root, 0)
