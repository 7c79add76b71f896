"""The softmax likelihood, with its expectations as integrals over one dimension.

    p(y = k | f) = exp(f_k) / sum_c exp(f_c)

Add to each f_c an independent Gumbel variable g_c: the largest of f_c + g_c is class k with probability softmax(f)_k,
and its mean is log sum_c exp(f_c) + gamma, gamma being Euler's constant. With F_c the distribution function of
f_c + g_c, f_c independent and normal, one dimension is left where the softmax has as many as there are classes:

    E[softmax(f)_k]    = int F_k'(t) prod_{c != k} F_c(t) dt
    E[log sum exp(f)]  = int t sum_k F_k'(t) prod_{c != k} F_c(t) dt - gamma
"""

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.gp.likelihoods import Likelihood
from aijax.gp.quadrature import normal_rule
from aijax.parameters import noun, static
from aijax.typing import Array, Float


@noun
class Categorical(Likelihood):
    """`y` is class k of `num_classes` with probability `softmax(f)_k`; f is `[n, num_classes]`.

    Args:
      num_classes: classes, numbered from 0.
      num_points: nodes of each of two nested sums; 32 give 5 digits for deviations of f up to 3.
      num_samples: quasi-random points where the latents of a point are correlated; 2048 give 3 digits for 3 classes.
    """

    num_classes: int = static()
    num_points: int = static(32)
    num_samples: int = static(2048)
    log_concave = True

    def check(self):
        if not isinstance(self.num_classes, int) or self.num_classes < 2:
            raise ConfigError(f"num_classes: expected a whole number of at least 2, got {self.num_classes!r}")

    @property
    def num_latents(self):
        return self.num_classes

    @property
    def support(self):
        return f"classes 0 to {self.num_classes - 1}"

    def log_density(self, f, y):
        return jnp.take_along_axis(jax.nn.log_softmax(f), _column(y), -1)[..., 0]

    def moments(self, f):
        probability = jax.nn.softmax(f)
        return probability, probability * (1 - probability)

    def supports(self, y):
        return (y >= 0) & (y < self.num_classes) & (y == jnp.floor(y))

    def expected_log_density(self, mean, variance, y):
        t, density = self._largest(mean, variance)
        log_sum = jnp.sum(t * jnp.sum(density, -2), -1) - np.euler_gamma
        return jnp.take_along_axis(mean, _column(y), -1)[..., 0] - log_sum

    def predictive_log_density(self, mean, variance, y):
        probability, _ = self.predict(mean, variance)
        return jnp.log(jnp.take_along_axis(probability, _column(y), -1)[..., 0])

    def predict(self, mean, variance):
        """Returns the probability of each class and p (1 - p), each `[n, c]`.

        Args:
          mean: `[n, c]`.
          variance: `[n, c]`, or covariances `[n, c, c]` of the latents of each point.
        """
        if variance.ndim > mean.ndim:
            probability = self._average(mean, variance)
        else:
            probability = jnp.sum(self._largest(mean, variance)[1], -1)
        return probability, probability * (1 - probability)

    def _largest(self, mean, variance):
        """Returns t `[n, p]` and the density of (largest is class k, at t) times the step, `[n, c, p]`."""
        std = jnp.sqrt(variance)
        low = jnp.max(mean - 6.5 * std, -1) - 3.3
        high = jnp.max(mean + 6.5 * std, -1) + 24
        points = 2 * self.num_points
        t = low[..., None] + (high - low)[..., None] * jnp.linspace(0, 1, points, dtype=mean.dtype)
        t, step = jax.lax.stop_gradient((t, (high - low) / (points - 1)))
        center = t[..., None, :]
        nodes, weights = normal_rule(mean[..., None], variance[..., None], center, 1.5, self.num_points)
        below = -jnp.exp(nodes - center[..., None])
        log_cdf = jax.scipy.special.logsumexp(below, -1, b=weights)
        log_pdf = jax.scipy.special.logsumexp(below + nodes - center[..., None], -1, b=weights)
        others = jnp.sum(log_cdf, -2, keepdims=True) - log_cdf
        return t, jnp.exp(log_pdf + others) * step[..., None, None]

    def _average(self, mean, covariance):
        """Returns the mean of the softmax over quasi-random points of correlated latents, `[n, c]`."""
        white = _quasi_normal(self.num_samples, self.num_classes).astype(mean.dtype)
        values, vectors = jnp.linalg.eigh(covariance)
        root = vectors * jnp.sqrt(jnp.maximum(values, 0))[..., None, :]

        def one(mean, root):
            return jnp.mean(jax.nn.softmax(mean + jnp.matmul(white, root.T, precision="highest")), 0)

        return jax.vmap(one)(mean, root)


def _column(y: Array) -> Array:
    return y.astype(int)[..., None]


def _quasi_normal(count: int, dimension: int) -> Float[np.ndarray, "s d"]:
    """Returns scrambled points of Sobol as normal quantiles, each with its opposite; count is rounded up to a power
    of two. They are the same in every call."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    uniform = qmc.Sobol(dimension, rng=0).random_base2(max(count - 1, 1).bit_length() - 1)
    normal = ndtri(uniform)
    return np.concatenate([normal, -normal])
