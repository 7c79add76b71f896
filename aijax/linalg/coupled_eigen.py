"""Eigenvectors of a symmetric float32 matrix, and what is left between them.

`jnp.linalg.eigh` leaves errors of a few eps |A|: in a matrix of condition c the smallest eigenvalues have only the
digits beyond c eps, and their vectors lean on the largest ones' by as much. Here what it gives, V and L, is measured,

    W = A V - V L,    G = V^T V - I,    V' = V (I - G / 2),
    V'^T A V' = L + V^T W + (G L - L G) / 2   up to squares,

so that A is known as V' (L' + N) V'^T with a diagonal L' and a small N without diagonal, far below eps |A|. A function
of A is then V' (f(L') + D o N) V'^T up to squares of N, with D the divided differences of f (Daleckii and Krein 1965):
no difference of eigenvalues is divided by, and close ones do no harm.

W and G are small differences of large products, which are therefore summed exactly: a matrix is cut into slices of b
bits, row by row in units of its largest entry, and a product of two slices is then a sum of integers below 2^24, which
float32 sums without rounding (Ozaki, Ogita, Oishi and Rump 2012, Numer. Algorithms 59).
"""

import math

import jax
import jax.numpy as jnp

from aijax.typing import Array, Float

_KEPT_BITS = 28
"""Bits of the larger factor that the products of slices hold; float32 itself has 24."""


def coupled_eigh(
    matrix: Float[Array, "n n"],
) -> tuple[Float[Array, " n"], Float[Array, "n n"], Float[Array, "n n"] | None]:
    """Returns `(L', V', N)` with `A = V' (diag(L') + N) V'^T`: eigenvalues, eigenvectors (columns) and their coupling.

    In float64 the coupling is None, and the rest what `jnp.linalg.eigh` gives. There are no derivatives.

    Args:
      matrix: symmetric; the mean of both halves is taken.

    >>> values, vectors, coupling = coupled_eigh(jnp.diag(jnp.array([2.0, 1.0])))
    >>> values.tolist()
    [1.0, 2.0]
    """
    matrix = (matrix + matrix.T) / 2
    values, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    if matrix.dtype != jnp.float32:
        return values, vectors, None
    values = _leading_bits(values)
    coarse = _leading_bits(vectors)
    high, low = _product(matrix, vectors)
    for part in (coarse, vectors - coarse):  # products of numbers of 12 bits are exact
        high, low = _add(high, low, -part * values[None])
    middle = _matmul(vectors.T, high + low)
    high, low = _product(vectors.T, vectors)
    high, low = _add(high, low, -jnp.eye(len(matrix), dtype=matrix.dtype))
    gram = high + low
    middle = (middle + middle.T) / 2 + gram * (values[None] - values[:, None]) / 2
    shift = jnp.diagonal(middle)
    return values + shift, vectors - _matmul(vectors, gram) / 2, middle - jnp.diag(shift)


def _product(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns `a @ b` as the sum of two arrays, the second of which is what the first cannot hold."""
    bits = (24 - math.ceil(math.log2(a.shape[1]))) // 2
    count = -(-_KEPT_BITS // bits)
    first, second = _slices(a, bits, count), [part.T for part in _slices(b.T, bits, count)]
    high = low = jnp.zeros((a.shape[0], b.shape[1]), a.dtype)
    for i in range(count):
        for j in range(count - i):
            high, low = _add(high, low, _matmul(first[i], second[j]))
    return high, low


def _slices(a: Array, bits: int, count: int) -> list[Array]:
    """Returns matrices that sum to `a`, the i-th of whole multiples of 2^-(i bits) of what its row's largest entry is
    rounded up to."""
    _, exponent = jnp.frexp(jnp.abs(a).max(axis=1, keepdims=True))
    found = []
    for i in range(1, count + 1):
        unit = jnp.ldexp(jnp.ones((), a.dtype), exponent - i * bits)
        found.append(jnp.round(a / unit) * unit)
        a = a - found[-1]
    return found


def _add(high: Array, low: Array, x: Array) -> tuple[Array, Array]:
    """Returns `high + low + x`, its rounding error kept in `low` (Knuth's sum of two numbers)."""
    total = high + x
    of_x = total - high
    return total, low + ((high - (total - of_x)) + (x - of_x))


def _leading_bits(x: Array) -> Array:
    """Returns float32 numbers rounded to 12 bits."""
    mantissa, exponent = jnp.frexp(x)
    return jnp.ldexp(jnp.round(mantissa * 4096) / 4096, exponent)


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
