"""Kernels of the distance between two points, `r^2 = sum_k ((x_k - x'_k) / lengthscale_k)^2`.

`lengthscale` is a number, or `[d]`: one for each coordinate (automatic relevance determination). Distances are
Euclidean: with others most of these functions are not positive semidefinite for d >= 2. Rasmussen and Williams 2006,
section 4.2.
"""

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.kernels.base import Kernel
from aijax.kernels.distances import squared_distances
from aijax.kernels.profiles import matern, wendland
from aijax.parameters import noun, parameter, static
from aijax.typing import Any, Array, Float


class Stationary(Kernel):
    """`variance correlation(r^2)`; a subclass has the fields `lengthscale` and `variance`, and `correlation`."""

    def correlation(self, squared_distance: Float[Array, "n1 n2"], dimension: int) -> Float[Array, "n1 n2"]:
        """Returns the correlation at squared distances in units of the lengthscale, in `dimension` dimensions."""
        raise NotImplementedError

    def gram(self, x1, x2=None):
        precision = each_coordinate("lengthscale", self.lengthscale, x1) ** -2

        @jax.checkpoint  # distances made again in reverse mode cost less than matrices kept for it
        def correlations(x1, x2, precision):
            return self.correlation(squared_distances(x1, x2, precision), x1.shape[1])

        return _scaled(self.variance, correlations(x1, x2, precision))

    def gram_diagonal(self, x):
        return jnp.broadcast_to(jnp.asarray(self.variance, x.dtype), x.shape[:1])


@noun
class RBF(Stationary):
    """`variance exp(-r^2 / 2)`: infinitely smooth samples. Also called squared exponential or Gaussian.

    Args:
      lengthscale: positive, a number or `[d]`; default 1.
      variance: `k(x, x)`, positive; default 1.

    >>> RBF(lengthscale=[1.0, 2.0])(jnp.zeros((3, 2))).shape
    (3, 3)
    """

    lengthscale: Any = parameter(1.0, "positive")
    variance: Any = parameter(1.0, "positive")

    def correlation(self, squared_distance, dimension):
        return jnp.exp(-squared_distance / 2)


@noun
class Matern12(Stationary):
    """`variance exp(-r)`: continuous samples without derivatives (Ornstein-Uhlenbeck). Arguments as of `RBF`."""

    lengthscale: Any = parameter(1.0, "positive")
    variance: Any = parameter(1.0, "positive")
    differentiable = False

    def correlation(self, squared_distance, dimension):
        return matern(0, squared_distance)


@noun
class Matern32(Stationary):
    """`variance (1 + s) exp(-s)`, `s = sqrt(3) r`: samples with one derivative. Arguments as of `RBF`."""

    lengthscale: Any = parameter(1.0, "positive")
    variance: Any = parameter(1.0, "positive")

    def correlation(self, squared_distance, dimension):
        return matern(1, 3 * squared_distance)


@noun
class Matern52(Stationary):
    """`variance (1 + s + s^2/3) exp(-s)`, `s = sqrt(5) r`: samples with two derivatives. Arguments as of `RBF`."""

    lengthscale: Any = parameter(1.0, "positive")
    variance: Any = parameter(1.0, "positive")

    def correlation(self, squared_distance, dimension):
        return matern(2, 5 * squared_distance)


@noun
class RationalQuadratic(Stationary):
    """`variance (1 + r^2 / (2 alpha))^-alpha`: RBFs of all lengthscales; alpha to infinity is one RBF.

    Args:
      lengthscale, variance: as of `RBF`.
      alpha: positive; small values spread the lengthscales. Default 1.

    Source: Rasmussen and Williams 2006, equation 4.19.
    """

    lengthscale: Any = parameter(1.0, "positive")
    alpha: Any = parameter(1.0, "positive")
    variance: Any = parameter(1.0, "positive")

    def correlation(self, squared_distance, dimension):
        return jnp.exp(-self.alpha * jnp.log1p(squared_distance / (2 * self.alpha)))


@noun
class Wendland(Stationary):
    """`variance (1 - r)_+^(j + q) polynomial_q(r)`, `j = floor(d/2) + q + 1`: exactly 0 from one lengthscale on.

    Args:
      lengthscale: the support; `variance`: as of `RBF`.
      order: q, 0 to 3: how many derivatives samples have. Default 1.

    Source: Wendland 2005; Rasmussen and Williams 2006, equation 4.21.
    """

    lengthscale: Any = parameter(1.0, "positive")
    variance: Any = parameter(1.0, "positive")
    order: int = static(1)

    def check(self):
        if self.order not in (0, 1, 2, 3):
            raise ConfigError(f"order: expected 0, 1, 2 or 3, got {self.order!r}")

    @property
    def differentiable(self):
        return self.order > 0

    def correlation(self, squared_distance, dimension):
        return wendland(self.order, dimension // 2 + self.order + 1, squared_distance)


def each_coordinate(name: str, value: Any, x: Float[Array, "n d"]) -> Float[Array, "*d"]:
    """Returns a parameter that is a number or one for each coordinate of x, and refuses any other shape."""
    value = jnp.asarray(value, x.dtype)
    if value.ndim > 1 or (value.ndim == 1 and value.shape[0] not in (1, x.shape[1])):
        raise ConfigError(
            f"{name}: expected a number or one for each of the {x.shape[1]} coordinates, got {value.shape}"
        )
    return value


@jax.custom_jvp
def _scaled(variance, correlation):
    return variance * correlation


@_scaled.defjvp
def _scaled_jvp(primals, tangents):
    """With the product itself in place of the correlation, which then need not be kept beside it."""
    variance, _ = primals
    product = _scaled(*primals)
    return product, tangents[0] / variance * product + variance * tangents[1]
