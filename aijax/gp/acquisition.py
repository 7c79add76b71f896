"""What is to be gained by an evaluation, in closed form. Larger is better: everything here is for maximisation.

With f ~ N(mean, std^2), the best value so far `best` and z = (mean - best) / std:

    expected improvement         E max(f - best, 0) = std h(z),   h(z) = phi(z) + z Phi(z)   (Jones et al. 1998, eq. 15)
    its logarithm                log std + log h(z)                                          (Ament et al. 2023, eq. 9)
    probability of improvement   Phi(z)
    upper confidence bound       mean + weight std                                           (Srinivas et al. 2010)
    knowledge gradient           E max_i(a_i + b_i Z) - max_i a_i                            (Frazier et al. 2009)

h(-u) is below the smallest float64 for u > 38 and cancels long before. For u > 5 we write it with Mills' ratio
R = (1 - Phi(u)) / phi(u) = 1 / (u + K) and its continued fraction K = 1 / (u + 2 / (u + 3 / ...)):

    h(-u) = phi(u) (1 - u R) = phi(u) R K,      d log h / dz = Phi / h = 1 / K

in which nothing cancels; the fraction of 40 terms is exact to rounding there.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, ndtr

from aijax.errors import ConfigError
from aijax.linalg import cholesky_with_jitter
from aijax.typing import Any, Array, ArrayLike, Float

_TAIL, _TERMS = -5.0, 40
_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)


def expected_improvement(mean: ArrayLike, std: ArrayLike, best: ArrayLike) -> Array:
    """Returns `E max(f - best, 0)`; where it underflows, its logarithm does not.

    >>> round(float(expected_improvement(0.0, 1.0, 0.0)), 4)
    0.3989
    """
    return jnp.exp(log_expected_improvement(mean, std, best))


def log_expected_improvement(mean: ArrayLike, std: ArrayLike, best: ArrayLike) -> Array:
    """Returns `log E max(f - best, 0)`, finite with finite slopes however far below `best` the mean is.

    >>> float(log_expected_improvement(-1000.0, 1.0, 0.0)) < -5e5
    True
    """
    return jnp.log(std) + log_h((mean - best) / std)


def probability_of_improvement(mean: ArrayLike, std: ArrayLike, best: ArrayLike) -> Array:
    """Returns `P(f > best)`."""
    return ndtr((mean - best) / std)


def log_probability_of_improvement(mean: ArrayLike, std: ArrayLike, best: ArrayLike) -> Array:
    """Returns `log P(f > best)`."""
    return log_ndtr((mean - best) / std)


def upper_confidence_bound(mean: ArrayLike, std: ArrayLike, weight: ArrayLike = 2.0) -> Array:
    """Returns `mean + weight std`; in the notation of Srinivas et al., weight is the root of beta_t."""
    return mean + weight * std


def knowledge_gradient(mean: Float[Array, " m"], slope: Float[Array, " m"]) -> Float[Array, ""]:
    """Returns `E max_i(mean_i + slope_i Z) - max_i mean_i`, Z ~ N(0, 1): the gain in the largest posterior mean.

    After an evaluation at x the posterior mean at point i is `mean_i + slope_i Z` with
    `slope_i = cov(f_i, f(x)) / sqrt(var f(x) + noise_variance)`. The largest of m lines is line i between the
    crossings with its steeper and its flatter neighbours, `[l_i, u_i]`, so that the expectation is

        sum_i mean_i (Phi(u_i) - Phi(l_i)) + slope_i (phi(l_i) - phi(u_i)).

    >>> round(float(knowledge_gradient(jnp.zeros(2), jnp.array([0.0, 1.0]))), 4)
    0.3989
    """
    top = jnp.max(mean)
    mean = mean - top
    flatter = slope[None, :] < slope[:, None]
    steeper = slope[None, :] > slope[:, None]
    order = jnp.arange(len(mean))
    ahead = (mean[None, :] > mean[:, None]) | ((mean[None, :] == mean[:, None]) & (order[None, :] < order[:, None]))
    hidden = ((slope[None, :] == slope[:, None]) & ahead).any(1)
    gap = jnp.where(flatter | steeper, slope[None, :] - slope[:, None], 1)
    crossing = (mean[:, None] - mean[None, :]) / gap
    low = jnp.max(jnp.where(flatter, crossing, -jnp.inf), 1)
    high = jnp.min(jnp.where(steeper, crossing, jnp.inf), 1)
    # where the crossings lie does not matter to first order: at them the lines are equal
    low, high = jax.lax.stop_gradient((low, high))
    seen = (low < high) & ~hidden
    low, high = jnp.where(seen, low, 0), jnp.where(seen, high, 0)
    return jnp.sum(mean * (ndtr(high) - ndtr(low)) + slope * (_phi(low) - _phi(high)))


def batch_knowledge_gradient(
    mean: Float[Array, " m"], slopes: Float[Array, "m q"], cubature: "Cubature"
) -> Float[Array, ""]:
    """Returns `E max_i(mean_i + slopes_i . Z) - max_i mean_i`, Z ~ N(0, I): the gain by q evaluations at once.

    After them the posterior mean at point i is `mean_i + slopes_i . Z`, with `slopes = cov(f, f(x)) L^-T` and
    `L L^T = cov(f(x)) + noise_variance I` (Wu and Frazier 2016, section 5). The first q - 1 entries of Z are averaged
    over the points of `cubature`; in the last one it is `knowledge_gradient`, in closed form.

    Args:
      mean: at m points.
      slopes: there, one for each evaluation.
      cubature: of `normal_cubature(count, p)`, p at least q - 1; not read for q = 1.

    >>> slopes = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(float(batch_knowledge_gradient(jnp.zeros(3), slopes, normal_cubature(512, 1))), 3)
    0.681
    """
    q = slopes.shape[1]
    if q == 1:
        return knowledge_gradient(mean, slopes[:, 0])
    points, weights = cubature
    means = mean + jnp.matmul(points[:, : q - 1], slopes[:, :-1].T, precision="highest")
    gains = jax.vmap(knowledge_gradient, (0, None))(means, slopes[:, -1])
    return weights @ (jnp.max(means, 1) + gains) - jnp.max(mean)


Cubature = tuple[Float[Array, "s p"], Float[Array, " s"]]
"""Points and weights of `normal_cubature`."""


def batch_expected_improvement(
    mean: Float[Array, " q"], covariance: Float[Array, "q q"], best: ArrayLike, cubature: Cubature
) -> Float[Array, ""]:
    """Returns `E max(max_j f_j - best, 0)`, f ~ N(mean, covariance): the expected improvement of q points at once.

    The first q - 1 values are averaged over the points of `cubature`; the last one, given those, is normal and is
    integrated in closed form. With 512 points the error is about 1e-6 standard deviations for q = 2, 3e-4 for q = 3,
    5e-3 for q = 8.

    Args:
      mean: of f.
      covariance: of f; a jitter is added where it is singular, as for equal points.
      best: what is to be improved.
      cubature: of `normal_cubature(count, p)`, p at least q - 1; not read for q = 1.

    >>> cubature = normal_cubature(512, 1)
    >>> round(float(batch_expected_improvement(jnp.zeros(2), jnp.eye(2), 0.0, cubature)), 4)
    0.681
    """
    if len(mean) == 1:
        return expected_improvement(mean[0], jnp.sqrt(covariance[0, 0]), best)
    first, last, std, weights = _last_given_first(mean, covariance, cubature)
    level = jnp.maximum(jnp.max(first, -1), best)
    return weights @ (level - best + expected_improvement(last, std, level))


def log_batch_expected_improvement(
    mean: Float[Array, " q"],
    covariance: Float[Array, "q q"],
    best: ArrayLike,
    cubature: Cubature,
    *,
    softness: float = 1e-3,
) -> Float[Array, ""]:
    """Returns the logarithm of `batch_expected_improvement`, made smooth so that each point has a slope everywhere.

    The maxima over the first q - 1 points and with `best` are softened by `softness log(1 + exp(x / softness))`, to
    which `0.1 softness / (1 + (x / softness)^2)` is added, and to the gain of the last point too: its tail falls like a
    power, so that points far below `best` are still shown the way (after Ament et al. 2023, section 4.2). With q = 1 it
    is `log_expected_improvement`.

    Args: as `batch_expected_improvement`, and
      softness: in units of the largest standard deviation.
    """
    if len(mean) == 1:
        return log_expected_improvement(mean[0], jnp.sqrt(covariance[0, 0]), best)
    first, last, std, weights = _last_given_first(mean, covariance, cubature)
    unit = softness * jnp.sqrt(jnp.max(jnp.diagonal(covariance)))
    x = jax.nn.logsumexp(first / unit, -1) - best / unit
    gain = unit * (jax.nn.softplus(x) + 0.1 / (1 + x**2))
    beyond = (last - best - gain) / unit
    total = jnp.logaddexp(
        jnp.log(gain + 0.1 * unit / (1 + beyond**2)), log_expected_improvement(last, std, best + gain)
    )
    return jax.nn.logsumexp(total, b=weights)


def normal_cubature(count: int, dimension: int, dtype: Any = float) -> Cubature:
    """Returns `(points [count, dimension], weights [count])` whose weighted averages are those over N(0, I).

    The points are Sobol's, through the inverse normal distribution, spread by s = 1 + 0.75 / dimension, and the weights
    those of importance, `N(x; 0, I) / N(x; 0, s^2 I)` made to sum to 1: in few dimensions it is the tails that limit a
    rule of even weights. They are the same in every call, so that what is averaged is a smooth function.

    Args:
      count: a power of two.
      dimension: at least 1.
      dtype: of the result.

    Raises:
      ConfigError: a count that is not a power of two.

    >>> points, weights = normal_cubature(64, 1)
    >>> round(float(weights @ points[:, 0] ** 4), 4)
    3.0032
    """
    if count < 2 or count & (count - 1):
        raise ConfigError(f"count: expected a power of two, got {count}")
    from scipy.special import ndtri
    from scipy.stats import qmc

    if dimension == 1:
        uniform = (np.arange(count)[:, None] + 0.5) / count
    else:
        uniform = qmc.Sobol(dimension, rng=0).random_base2(count.bit_length() - 1)
    spread = 1 + 0.75 / dimension
    points = spread * ndtri(uniform)
    weights = np.exp(-0.5 * (1 - spread**-2) * np.sum(points**2, 1))
    return jnp.asarray(points, dtype), jnp.asarray(weights / weights.sum(), dtype)


def _last_given_first(mean, covariance, cubature):
    """Returns the first q - 1 values at each point, mean and standard deviation of the last given them, and weights."""
    points, weights = cubature
    root, _ = cholesky_with_jitter(covariance, max_tries=8)
    points = points[:, : len(mean) - 1]
    first = mean[:-1] + jnp.matmul(points, root[:-1, :-1].T, precision="highest")
    last = mean[-1] + jnp.matmul(points, root[-1, :-1], precision="highest")
    return first, last, root[-1, -1], weights


@jax.custom_jvp
def log_h(z: ArrayLike) -> Array:
    """Returns `log(phi(z) + z Phi(z))`."""
    z = jnp.asarray(z)
    tail = z < _TAIL
    near, far = jnp.where(tail, 0, z), jnp.where(tail, -z, 10)
    k = _fraction(far)
    in_tail = -0.5 * far**2 - _LOG_ROOT_TWO_PI - jnp.log(far + k) + jnp.log(k)
    return jnp.where(tail, in_tail, jnp.log(_phi(near) + near * ndtr(near)))


@log_h.defjvp
def _log_h_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    z = jnp.asarray(z)
    tail = z < _TAIL
    near, far = jnp.where(tail, 0, z), jnp.where(tail, -z, 10)
    slope = jnp.where(tail, 1 / _fraction(far), ndtr(near) / (_phi(near) + near * ndtr(near)))
    return log_h(z), slope * dz


def _fraction(u):
    k = u
    for i in reversed(range(2, _TERMS + 2)):
        k = u + i / k
    return 1 / k


def _phi(z):
    return jnp.exp(-0.5 * z**2 - _LOG_ROOT_TWO_PI)
