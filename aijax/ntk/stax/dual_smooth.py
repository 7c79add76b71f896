"""Duals of smooth functions in closed form: error functions, waves, exponentials, Gaussians.

Each is a Gaussian integral; below, det = q1 q2 - k^2, and s = sqrt(q1 q2). Determinants of shifted covariances are
written through det, which `gram_determinant` gives without cancellation.

Sources: Williams 1997, "Computing with infinite networks" (error function, Gaussian); Tsuchida, Pearce, van der Heide,
Roosta and Gallagher 2020, "Avoiding kernel fixed points: computing with ELU and GELU infinite networks" (GELU); Rahimi
and Recht 2007, "Random features for large-scale kernel machines" (waves); Mairal, Koniusz, Harchaoui and Schmid 2014,
"Convolutional kernel networks" (normalised exponential).
"""

import math

import jax
import jax.numpy as jnp

from aijax.ntk.stax.arcsine import angle, correlation, gram_determinant, root
from aijax.ntk.stax.dual import Dual
from aijax.typing import Array

Number = Array | float


def erf(a: Number = 1.0, b: Number = 1.0, c: Number = 0.0) -> Dual:
    """Returns the dual of phi(x) = a erf(b x) + c.

        K = a^2 (2 / pi) arctan(2 b^2 k / sqrt(D)) + c^2,        K' = 4 a^2 b^2 / (pi sqrt(D)),
        D = (1 + 2 b^2 q1) (1 + 2 b^2 q2) - 4 b^4 k^2 = 1 + 2 b^2 (q1 + q2) + 4 b^4 det.

    Source: Williams 1997, section 3.1.

    >>> round(float(erf().diagonal(0.5)[0]), 6)
    0.333333
    """

    def kernel(q1, k, q2):
        scale = 2 * b**2
        y = jnp.sqrt(1 + scale * (q1 + q2) + scale**2 * gram_determinant(q1, k, q2))
        return a**2 * (2 / math.pi) * angle(scale * k, y) + c**2, 4 * (a * b) ** 2 / (math.pi * y)

    return _dual(lambda x: a * jax.scipy.special.erf(b * x) + c, kernel)


def gelu(*, approximate: bool = False) -> Dual:
    """Returns the dual of phi(x) = x Phi(x), with Phi the normal distribution function.

        K  = k G + (det + k^2 h) / (2 pi sqrt(D)),        h = 1 / (1 + q1) + 1 / (1 + q2),
        K' = G + k (2 h + (k^2 h - 1 - q1 - q2) / D) / (2 pi sqrt(D)),
        G  = E[Phi(u) Phi(v)] = 1 / 4 + arctan(k / sqrt(D)) / (2 pi),        D = 1 + q1 + q2 + det.

    Args:
      approximate: `fn` is the tanh approximation; the dual is that of the exact function all the same (they differ by
        less than 5e-4).

    Source: Tsuchida et al. 2020; here by E[u v Phi(u) Phi(v)] integrated by parts twice.
    """

    def kernel(q1, k, q2):
        det = gram_determinant(q1, k, q2)
        square = 1 + q1 + q2 + det
        y = jnp.sqrt(square)
        h = 1 / (1 + q1) + 1 / (1 + q2)
        both = 0.25 + angle(k, y) / (2 * math.pi)
        value = k * both + (det + k * k * h) / (2 * math.pi * y)
        slope = both + k * (2 * h + (k * k * h - 1 - q1 - q2) / square) / (2 * math.pi * y)
        return value, slope

    return _dual(lambda x: jax.nn.gelu(x, approximate=approximate), kernel)


def sin(a: Number = 1.0, b: Number = 1.0, c: Number = 0.0) -> Dual:
    """Returns the dual of phi(x) = a sin(b x + c).

    K = a^2 (W + sin^2(c) V),        K' = a^2 b^2 (W + cos^2(c) V),
    V = exp(-b^2 (q1 + q2 + 2 k) / 2),        W = exp(-b^2 (q1 + q2) / 2) sinh(b^2 k).
    """

    def kernel(q1, k, q2):
        odd, even = _waves(b, q1, k, q2)
        return a**2 * (odd + jnp.sin(c) ** 2 * even), (a * b) ** 2 * (odd + jnp.cos(c) ** 2 * even)

    return _dual(lambda x: a * jnp.sin(b * x + c), kernel)


def cos(a: Number = 1.0, b: Number = 1.0, c: Number = 0.0) -> Dual:
    """Returns the dual of phi(x) = a cos(b x + c): that of the sine with the phase c + pi / 2."""

    def kernel(q1, k, q2):
        odd, even = _waves(b, q1, k, q2)
        return a**2 * (odd + jnp.cos(c) ** 2 * even), (a * b) ** 2 * (odd + jnp.sin(c) ** 2 * even)

    return _dual(lambda x: a * jnp.cos(b * x + c), kernel)


def rbf(gamma: Number = 1.0) -> Dual:
    """Returns the dual of phi(x) = sqrt(2) sin(sqrt(2 gamma) x + pi / 4): the Gaussian kernel of the pre-activations.

        K = exp(-gamma (q1 + q2 - 2 k)),        K' = 2 gamma K.

    Source: Rahimi and Recht 2007, section 3.
    """

    def kernel(q1, k, q2):
        value = jnp.exp(-gamma * (q1 + q2 - 2 * k))
        return value, 2 * gamma * value

    return _dual(lambda x: math.sqrt(2) * jnp.sin(jnp.sqrt(2 * gamma) * x + math.pi / 4), kernel)


def exp(a: Number = 1.0, b: Number = 1.0) -> Dual:
    """Returns the dual of phi(x) = a exp(b x): K = a^2 exp(b^2 (q1 + q2 + 2 k) / 2), K' = b^2 K."""

    def kernel(q1, k, q2):
        value = a**2 * jnp.exp(b**2 * (q1 + q2 + 2 * k) / 2)
        return value, b**2 * value

    return _dual(lambda x: a * jnp.exp(b * x), kernel)


def exp_normalized(gamma: Number = 1.0, shift: Number = -1.0, *, clip: bool = False) -> Dual:
    """Returns the dual K = s exp(gamma (k / s + shift)), K' = gamma exp(gamma (k / s + shift)); k / s is 0 at s = 0.

    No function of finite width is known for it: `fn` raises NotImplementedError.

    Args:
      gamma: steepness.
      shift: -1 makes K homogeneous of degree 1 with K = q on the diagonal.
      clip: k / s is held to [-1, 1].

    Source: Mairal et al. 2014.
    """

    def fn(x):
        raise NotImplementedError("ExpNormalized is known by its kernel alone; it has no layer of finite width")

    def kernel(q1, k, q2):
        cosine = correlation(q1, k, q2)
        cosine = jnp.clip(cosine, -1, 1) if clip else cosine
        value = jnp.exp(gamma * (cosine + shift))
        return root(q1) * root(q2) * value, gamma * value

    return _dual(fn, kernel)


def gaussian(a: Number = 1.0, b: Number = -1.0) -> Dual:
    """Returns the dual of phi(x) = a exp(b x^2).

        K = a^2 / sqrt(D),        K' = 4 a^2 b^2 k / D^(3/2),        D = 1 - 2 b (q1 + q2) + 4 b^2 det,

    where for b > 0 the expectation exists only if (1 - 2 b q1) (1 - 2 b q2) > 4 b^2 k^2 and both factors are positive.

    Source: Williams 1997, section 3.2.
    """

    def kernel(q1, k, q2):
        square = 1 - 2 * b * (q1 + q2) + 4 * b**2 * gram_determinant(q1, k, q2)
        y = jnp.sqrt(square)
        return a**2 / y, (2 * a * b) ** 2 * k / (square * y)

    return _dual(lambda x: a * jnp.exp(b * x**2), kernel)


def gabor() -> Dual:
    """Returns the dual of phi(x) = exp(-x^2) sin(x).

        K  = D^(-1/2) exp(-S / 2) sinh(r),        K' = D^(-3/2) exp(-S / 2) (4 k (2 - S) sinh(r) + (1 + 8 k r) cosh(r)),
        D  = 1 + 2 (q1 + q2) + 4 det,    S = (q1 + q2 + 4 det) / D,    r = k / D:

    the weight exp(-u^2 - v^2) makes of (u, v) another Gaussian pair, of total variance S and covariance r.
    """

    def kernel(q1, k, q2):
        det = gram_determinant(q1, k, q2)
        square = 1 + 2 * (q1 + q2) + 4 * det
        total = (q1 + q2 + 4 * det) / square
        r = k / square
        weight = jnp.exp(-total / 2) / jnp.sqrt(square)
        slope = 4 * k * (2 - total) * jnp.sinh(r) + (1 + 8 * k * r) * jnp.cosh(r)
        return weight * jnp.sinh(r), weight / square * slope

    return _dual(lambda x: jnp.exp(-(x**2)) * jnp.sin(x), kernel)


def _waves(b: Number, q1: Array, k: Array, q2: Array) -> tuple[Array, Array]:
    """(W, V) of `sin`, without overflow of the hyperbolic sine."""
    flip = jnp.where(k >= 0, 1, -1)
    size = flip * k
    odd = -flip / 2 * jnp.exp(-(b**2) * (q1 + q2 - 2 * size) / 2) * jnp.expm1(-2 * b**2 * size)
    return odd, jnp.exp(-(b**2) * (q1 + q2 + 2 * k) / 2)


def _dual(fn, kernel) -> Dual:
    """The dual whose diagonal is `kernel` at q1 = k = q2; its arguments may be numbers."""

    def on_arrays(q1, k, q2):
        return kernel(jnp.asarray(q1), jnp.asarray(k), jnp.asarray(q2))

    return Dual(fn, on_arrays, lambda q: on_arrays(q, q, q))
