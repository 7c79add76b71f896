"""Squared distances between two sets of points, accurate where points are close and cheap to differentiate.

    r_ij^2 = sum_k p_k (x_ik - z_jk)^2

The value is summed from differences, sixteen coordinates a pass: coincident points are at 0 exactly, and close ones to
full relative accuracy. `|x|^2 + |z|^2 - 2 x.z` would lose both. Above `MANY` coordinates that form is several times
faster; it is taken there, about the mean of the points, where no pair is so close that more than a quarter of the
digits would be lost (relative error a few `eps^(3/4)`: 1e-12 in float64, 1e-5 in float32); else differences are.

The derivative is linear in small matrices and so needs two products with a thin matrix, in either direction:

    d r_ij^2 = a_i + b_j - 2 (p dx_i + dp x_i).z_j - 2 x_i.(p dz_j),
    a_i = 2 p x_i.dx_i + dp.x_i^2,    b_j = 2 p z_j.dz_j + dp.z_j^2

Reverse mode reads the cotangent of the matrix twice and makes no other of its size. It is right to `eps |x| |dx|`, with
points taken about their mean.
"""

import functools

import jax
import jax.numpy as jnp

from aijax.typing import Array, Float

CHUNK = 16
MANY = 128


def squared_distances(
    x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"] | None = None, precision: Float[Array, " d"] | float = 1.0
) -> Float[Array, "n1 n2"]:
    """Returns `sum_k precision_k (x1_ik - x2_jk)^2`, `[n1, n2]`; x2 None stands for x1. Differentiable to any order.

    Args:
      x1: points, `[n1, d]`.
      x2: points, `[n2, d]`, or None.
      precision: the weight of each coordinate, `1 / lengthscale^2`: a number or `[d]`; at least 0.

    >>> squared_distances(jnp.array([[0.0], [3.0]])).tolist()
    [[0.0, 9.0], [9.0, 0.0]]
    """
    precision = jnp.broadcast_to(jnp.asarray(precision, x1.dtype), x1.shape[1:])
    return _distances(x2 is None, x1, x1 if x2 is None else x2, precision)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _distances(same, x, z, precision):
    if x.shape[1] <= MANY:
        return _by_differences(x, z, precision)
    x, z = _about_mean(x, z)
    # as products: XLA would fuse plain sums into what follows and sum anew for each pair
    x_norms, z_norms = (jnp.matmul(points * points, precision, precision="highest") for points in (x, z))
    norms = x_norms[:, None] + z_norms
    result = norms - 2 * _product(x * precision, z)
    close = result < jnp.finfo(x.dtype).eps ** 0.25 * norms
    if same:
        diagonal = jnp.eye(len(x), dtype=bool)
        result, close = jnp.where(diagonal, 0, result), close & ~diagonal
    return jax.lax.cond(close.any(), lambda: _by_differences(x, z, precision), lambda: result)


@_distances.defjvp
def _distances_jvp(same, primals, tangents):
    return _distances(same, *primals), _slope(*primals, *tangents)


@jax.jit
def _slope(x, z, precision, dx, dz, dp):
    x, z = _about_mean(x, z)
    ones_x, ones_z = jnp.ones_like(x[:, :1]), jnp.ones_like(z[:, :1])
    slope_x = precision * dx + dp * x
    rise_x = jnp.sum(x * (slope_x + precision * dx), -1, keepdims=True)
    rise_z = jnp.sum(z * (2 * precision * dz + dp * z), -1, keepdims=True)
    left = _product(jnp.concatenate([rise_x, -2 * slope_x], 1), jnp.concatenate([ones_z, z], 1))
    right = _product(jnp.concatenate([ones_x, -2 * x], 1), jnp.concatenate([rise_z, precision * dz], 1))
    return left + right


@jax.jit
def _by_differences(x, z, precision):
    whole = x.shape[1] // CHUNK * CHUNK

    def add(total, chunk):
        for a, b, p in zip(*chunk, strict=True):
            total = total + p * (a[:, None] - b) ** 2
        return total

    total = jnp.zeros((len(x), len(z)), x.dtype)
    total = add(total, (_transposed(x[:, whole:]), _transposed(z[:, whole:]), precision[whole:]))
    if not whole:
        return total
    chunks = [_transposed(points[:, :whole].reshape(len(points), -1, CHUNK)) for points in (x, z)]
    chunks = (*chunks, precision[:whole].reshape(-1, CHUNK))
    return jax.lax.scan(lambda total, chunk: (add(total, chunk), None), total, chunks)[0]


def _transposed(x):
    """Returns x with its first axis last, by an exact product: a plain transpose is read with strides, at twice the
    cost in all."""
    return jnp.einsum("n...k,kj->...jn", x, jnp.eye(x.shape[-1], dtype=x.dtype), precision="highest")


def _about_mean(x, z):
    """Returns both sets about the mean of z, of which distances do not depend."""
    mean = jax.lax.stop_gradient(jnp.mean(z, 0))
    return x - mean, z - mean


def _product(a, b):
    return jnp.matmul(a, b.T, precision="highest")
