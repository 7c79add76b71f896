"""Kernels of the inner product: linear, polynomial, arc-cosine."""

import functools

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.kernels.base import Kernel
from aijax.kernels.distances import squared_distances
from aijax.kernels.stationary import each_coordinate
from aijax.parameters import noun, parameter, static
from aijax.typing import Any


@noun
class Linear(Kernel):
    """`sum_i variance_i x_i x'_i`: Bayesian linear regression through the origin; `+ Constant(b**2)` is the bias.

    Args:
      variance: of the weights, positive, a number or `[d]`; default 1.

    Source: Rasmussen and Williams 2006, section 4.2.2.

    >>> Linear(2.0)(jnp.array([[1.0, 1.0]])).tolist()
    [[4.0]]
    """

    variance: Any = parameter(1.0, "positive")

    def gram(self, x1, x2=None):
        variance = each_coordinate("variance", self.variance, x1)
        return inner_products(variance * x1, x1 if x2 is None else x2)

    def gram_diagonal(self, x):
        return jnp.sum(each_coordinate("variance", self.variance, x) * x * x, -1)


@noun
class Polynomial(Kernel):
    """`(gamma x.x' + coef0)^degree`.

    Args:
      degree: a positive integer; default 2.
      gamma: positive, a number or `[d]` (a weight for each coordinate); default 1.
      coef0: at least 0; default 1.

    Source: Rasmussen and Williams 2006, section 4.2.2.
    """

    degree: int = static(2)
    gamma: Any = parameter(1.0, "positive")
    coef0: Any = parameter(1.0, "nonnegative")

    def check(self):
        if isinstance(self.degree, bool) or not isinstance(self.degree, int) or self.degree < 1:
            raise ConfigError(f"degree: expected a positive integer, got {self.degree!r}")

    def gram(self, x1, x2=None):
        gamma = each_coordinate("gamma", self.gamma, x1)
        return (inner_products(gamma * x1, x1 if x2 is None else x2) + self.coef0) ** self.degree

    def gram_diagonal(self, x):
        return (jnp.sum(each_coordinate("gamma", self.gamma, x) * x * x, -1) + self.coef0) ** self.degree


@noun
class ArcCosine(Kernel):
    """`variance |u|^n |u'|^n J_n(theta) / J_n(0)`: infinitely many units `max(0, w.x + b)^n` of random weights.

    u is x with the weights' variance in its metric and the bias as one more coordinate, `u.u' = weight_variance x.x' +
    bias_variance`, theta is the angle between u and u', and

        J_0 = pi - theta,  J_1 = sin theta + (pi - theta) cos theta,
        J_2 = 3 sin theta cos theta + (pi - theta) (1 + 2 cos^2 theta)

    so that `k(x, x) = variance (u.u)^n`. The angle is `2 atan2(|a - b|, |a + b|)` of the unit vectors, exact where it
    is small, and `dJ_n / dcos = n^2 J_(n-1)`: nothing is lost and nothing is NaN where points coincide.

    Args:
      degree: n: 0 (steps), 1 (rectified linear units) or 2; default 1.
      weight_variance: positive, a number or `[d]`; default 1.
      bias_variance: at least 0; default 1.
      variance: positive; default 1.

    Source: Cho and Saul 2009, equations 1 to 6 (whose `k(x, x)` is that of degree 2 three times ours).
    """

    degree: int = static(1)
    weight_variance: Any = parameter(1.0, "positive")
    bias_variance: Any = parameter(1.0, "nonnegative")
    variance: Any = parameter(1.0, "positive")

    def check(self):
        if self.degree not in (0, 1, 2):
            raise ConfigError(f"degree: expected 0, 1 or 2, got {self.degree!r}")

    @property
    def differentiable(self):
        return self.degree > 0

    def gram(self, x1, x2=None):
        metric = jnp.broadcast_to(each_coordinate("weight_variance", self.weight_variance, x1), x1.shape[1:])
        metric = jnp.append(metric, self.bias_variance)
        size1, unit1 = self._direction(x1)
        size2, unit2 = (size1, unit1) if x2 is None else self._direction(x2)
        minus = squared_distances(unit1, None if x2 is None else unit2, metric)
        plus = squared_distances(unit1, -unit2, metric)
        angular = _angular(self.degree, minus, plus) / (jnp.pi, jnp.pi, 3 * jnp.pi)[self.degree]
        return self.variance * (size1[:, None] * size2) ** self.degree * angular

    def gram_diagonal(self, x):
        return self.variance * self._squared_size(x) ** self.degree

    def _squared_size(self, x):
        return jnp.sum(each_coordinate("weight_variance", self.weight_variance, x) * x * x, -1) + self.bias_variance

    def _direction(self, x):
        """Returns |u|, `[n]`, and the points and a one, divided by it."""
        squared = self._squared_size(x)
        size = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
        unit = jnp.concatenate([x, jnp.ones_like(x[:, :1])], 1) / jnp.where(squared > 0, size, 1)[:, None]
        return size, unit


def inner_products(x1, x2):
    return jnp.matmul(x1, x2.T, precision="highest")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _angular(degree, minus, plus):
    """J_degree of the angle between unit vectors at squared distance `minus`, and `plus` from each other's opposite."""
    theta = 2 * jnp.arctan2(jnp.sqrt(minus), jnp.sqrt(plus))
    cos, sin = (plus - minus) / 4, jnp.sqrt(minus * plus) / 2
    if degree == 0:
        return jnp.pi - theta
    if degree == 1:
        return sin + (jnp.pi - theta) * cos
    return 3 * sin * cos + (jnp.pi - theta) * (1 + 2 * cos**2)


@_angular.defjvp
def _angular_jvp(degree, primals, tangents):
    minus, plus = primals
    if degree:
        slope = degree**2 * _angular(degree - 1, minus, plus)
    else:
        squared = minus * plus / 4
        slope = jnp.where(squared > 0, 1 / jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
    return _angular(degree, minus, plus), slope * (tangents[1] - tangents[0]) / 4
