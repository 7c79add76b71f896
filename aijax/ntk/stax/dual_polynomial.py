"""Duals of polynomials, exact for any variances.

In the Hermite polynomials He_m of a Gaussian u of variance q,

    u^n = sum_j n! / (2^j j! m!) q^j [q^(m/2) He_m(u / sqrt(q))],        m = n - 2 j,

and by orthogonality (Mehler 1866) E[q1^(m/2) He_m(u / sqrt(q1)) q2^(m/2) He_m(v / sqrt(q2))] = m! k^m. A polynomial
with coefficients c_n therefore has

    K = sum_m m! C_m(q1) C_m(q2) k^m,        K' = dK/dk,        C_m(q) = sum_j c_{m+2j} (m + 2 j)! / (2^j j! m!) q^j.

(Daniely, Frostig and Singer 2016, section 4.)
"""

import functools
import math
from collections.abc import Sequence

import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.stax.dual import Dual


def polynomial(coefficients: Sequence[float]) -> Dual:
    """Returns the dual of phi(x) = sum_n c_n x^n.

    Args:
      coefficients: (c_0, c_1, ...), from the constant up.

    Raises:
      ConfigError: no coefficient.

    >>> value, slope = polynomial((0.0, 0.0, 1.0)).kernel(1.0, 0.5, 1.0)
    >>> float(value), float(slope)
    (1.5, 2.0)
    """
    coefficients = tuple(coefficients)
    if not coefficients:
        raise ConfigError("coef: expected at least one coefficient, got none")
    degree = len(coefficients) - 1

    def fn(x):
        return functools.reduce(lambda total, c: total * x + c, coefficients[::-1], jnp.zeros_like(x))

    def weights_of(q):
        """C_m(q) for each m."""
        result = []
        for m in range(degree + 1):
            terms = [
                coefficients[m + 2 * j] * (math.factorial(m + 2 * j) / (2**j * math.factorial(j) * math.factorial(m)))
                for j in range((degree - m) // 2 + 1)
            ]
            result.append(functools.reduce(lambda total, c: total * q + c, terms[::-1], jnp.zeros_like(q)))
        return result

    def kernel(q1, k, q2):
        q1, k, q2 = jnp.asarray(q1), jnp.asarray(k), jnp.asarray(q2)
        pairs = zip(weights_of(q1), weights_of(q2), strict=True)
        products = [math.factorial(m) * (left * right) for m, (left, right) in enumerate(pairs)]
        value = functools.reduce(lambda total, c: total * k + c, products[::-1])
        slopes = [m * product for m, product in enumerate(products)][:0:-1]
        slope = functools.reduce(lambda total, c: total * k + c, slopes, jnp.zeros_like(value))
        return jnp.broadcast_to(value, slope.shape), slope

    return Dual(fn, kernel, lambda q: kernel(q, q, q))


def monomial(degree: int) -> Dual:
    """Returns the dual of phi(x) = x^n, n a non-negative integer.

        K = sum_j (n! / (2^j j!))^2 / (n - 2 j)! (q1 q2)^j k^(n - 2 j).

    Raises:
      ConfigError: `degree` is not a non-negative integer.
    """
    _check_degree(degree)
    dual = polynomial((0.0,) * degree + (1.0,))
    return Dual(lambda x: x**degree, dual.kernel, dual.diagonal)


def hermite(degree: int) -> Dual:
    """Returns the dual of phi(x) = He_n(x) / sqrt(n!): for unit variances K = k^n, K' = n k^(n-1).

    Other variances are right as well: the module's formula holds for any.

    Raises:
      ConfigError: `degree` is not a non-negative integer.
    """
    _check_degree(degree)
    coefficients = [0.0] * (degree + 1)
    for j in range(degree // 2 + 1):
        size = math.factorial(degree) // (2**j * math.factorial(j) * math.factorial(degree - 2 * j))
        coefficients[degree - 2 * j] = (-1) ** j * size / math.sqrt(math.factorial(degree))
    return polynomial(coefficients)


def _check_degree(degree: int) -> None:
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 0:
        raise ConfigError(f"degree: expected a non-negative integer, got {degree!r}")
