"""Kernels that repeat: periodic, cosine, and spectral mixtures.

All are products over coordinates. Functions of the periodic *distance* of two points are not positive semidefinite for
d >= 2; products over coordinates of kernels of one coordinate are.
"""

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.kernels.base import Kernel
from aijax.kernels.distances import squared_distances
from aijax.kernels.stationary import RBF, each_coordinate
from aijax.parameters import noun, parameter
from aijax.typing import Any, Array, Float


@noun
class Periodic(Kernel):
    """`variance exp(-2 sum_i sin^2(pi (x_i - x'_i) / period_i) / lengthscale_i^2)`.

    It is the RBF of the points on circles `(cos, sin)(2 pi x_i / period_i)`, and is computed as such.

    Args:
      lengthscale: in units of the circle's radius, positive, a number or `[d]`; default 1.
      period: positive, a number or `[d]`; default 1.
      variance: `k(x, x)`, positive; default 1.

    Source: MacKay 1998; Rasmussen and Williams 2006, equation 4.31.
    """

    lengthscale: Any = parameter(1.0, "positive")
    period: Any = parameter(1.0, "positive")
    variance: Any = parameter(1.0, "positive")

    def gram(self, x1, x2=None):
        lengthscale = jnp.broadcast_to(each_coordinate("lengthscale", self.lengthscale, x1), x1.shape[1:])
        frequency = 2 * jnp.pi / each_coordinate("period", self.period, x1)

        def on_circles(x):
            return None if x is None else jnp.concatenate([jnp.cos(frequency * x), jnp.sin(frequency * x)], 1)

        return RBF(jnp.tile(lengthscale, 2), self.variance).gram(on_circles(x1), on_circles(x2))

    def gram_diagonal(self, x):
        return jnp.broadcast_to(jnp.asarray(self.variance, x.dtype), x.shape[:1])


@noun
class Cosine(Kernel):
    """`variance prod_i cos(2 pi (x_i - x'_i) / period_i)`: the product over coordinates, not the cosine of a distance.

    Args:
      period: positive, a number or `[d]`; default 1.
      variance: `k(x, x)`, positive; default 1.
    """

    period: Any = parameter(1.0, "positive")
    variance: Any = parameter(1.0, "positive")

    def gram(self, x1, x2=None):
        frequency = jnp.broadcast_to(1 / each_coordinate("period", self.period, x1), x1.shape[1:])
        return self.variance * _cosines(x1, x1 if x2 is None else x2, frequency)

    def gram_diagonal(self, x):
        return jnp.broadcast_to(jnp.asarray(self.variance, x.dtype), x.shape[:1])


@noun
class SpectralMixture(Kernel):
    """`sum_q w_q prod_i exp(-2 pi^2 (x_i - x'_i)^2 s_qi^2) cos(2 pi (x_i - x'_i) m_qi)`.

    The sum over mixtures is outside, the product over coordinates inside: the spectral density is a mixture of
    Gaussians with means `m_q` and standard deviations `s_q`, in cycles per unit of x.

    Args:
      weights: w, `[q]`, positive; their sum is `k(x, x)`.
      means: m, `[q, d]` (or `[q]` for d = 1).
      scales: s, `[q, d]` (or `[q]` for d = 1), at least 0.

    Source: Wilson and Adams 2013, equation 12.
    """

    weights: Any = parameter(constraint="positive")
    means: Any = parameter()
    scales: Any = parameter(constraint="nonnegative")

    def gram(self, x1, x2=None):
        x2_or_x1 = x1 if x2 is None else x2
        weights = jnp.asarray(self.weights, x1.dtype)
        if weights.ndim != 1:
            raise ConfigError(f"weights: expected one for each mixture, [q], got {weights.shape}")
        means, scales = (self._each(name, weights, x1) for name in ("means", "scales"))

        @jax.checkpoint
        def add(total, mixture):
            weight, mean, scale = mixture
            envelope = jnp.exp(-squared_distances(x1, x2, (2 * jnp.pi * scale) ** 2) / 2)
            return total + weight * envelope * _cosines(x1, x2_or_x1, mean), None

        start = jnp.zeros((len(x1), len(x2_or_x1)), x1.dtype)
        return jax.lax.scan(add, start, (weights, means, scales))[0]

    def gram_diagonal(self, x):
        return jnp.broadcast_to(jnp.sum(jnp.asarray(self.weights, x.dtype)), x.shape[:1])

    def _each(self, name, weights, x):
        value = jnp.asarray(getattr(self, name), x.dtype)
        value = value[:, None] if value.ndim == 1 and x.shape[1] == 1 else value
        if value.shape != (len(weights), x.shape[1]):
            raise ConfigError(f"{name}: expected [mixtures, d] = {(len(weights), x.shape[1])}, got {value.shape}")
        return value


def _cosines(x, z, frequency) -> Float[Array, "n1 n2"]:
    result = jnp.ones((len(x), len(z)), x.dtype)
    for a, b, f in zip(x.T, z.T, frequency, strict=True):
        result = result * jnp.cos(2 * jnp.pi * f * (a[:, None] - b))
    return result
