"""Exact inference by one Cholesky factor.

With A = k(x, x) + diag(noise), a = A^-1 (y - mean(x)), K* = k(x*, x):

    log p(y) = log N(y; mean(x), A)
    mean*    = mean(x*) + K* a
    cov*     = k(x*, x*) - K* A^-1 K*^T

(Rasmussen and Williams 2006, equations 2.23 to 2.30). A missing target is integrated out: its row and column of A are
those of the identity, and K* is 0 there.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.gp.model import GP, Evidence, prior_mean
from aijax.gp.observations import residuals
from aijax.linalg import cholesky_with_jitter
from aijax.linalg.gaussian import gaussian_log_density
from aijax.parameters import noun
from aijax.typing import Any, Array, PRNGKey


@noun
class Exact:
    """Exact inference: n^3 operations and a few `[n, n]` matrices."""

    def evidence(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> Evidence:
        residual, noise, observed = residuals(gp, x, y, observed)
        matrix, noise = _shown(gp.kernel(x), noise, observed)
        columns = residual.reshape(len(residual), -1)
        value, jitter = gaussian_log_density(matrix, noise, columns)
        if observed is not None:
            value += columns.shape[1] / 2 * math.log(2 * math.pi) * jnp.sum(~observed)
        return Evidence(value, jitter=jitter, converged=jnp.isfinite(value))

    def condition(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> "ExactPosterior":
        residual, noise, observed = residuals(gp, x, y, observed)
        matrix, noise = _shown(gp.kernel(x), noise, observed)
        factor, jitter = cholesky_with_jitter(matrix + jnp.diag(noise))
        weights = jax.scipy.linalg.cho_solve((factor, True), residual)
        return ExactPosterior(gp, x, factor, weights, observed, jitter, jnp.isfinite(weights).all())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExactPosterior:
    """`p(f | y)`.

    Args:
      gp: the prior.
      x: the n points of the data.
      factor: L with `L L^T = A`, `[n, n]`.
      weights: `a = A^-1 (y - mean)`, `[n]` or `[n, m]`.
      observed: None or `[n]`.
      jitter: what was added to the diagonal of A.
      converged: False where no factor was found.
    """

    gp: GP
    x: Any
    factor: Array
    weights: Array
    observed: Any
    jitter: Array
    converged: Array

    def predict(self, x_new: Any, full_covariance: bool = False) -> tuple[Array, Array]:
        cross = self._cross(x_new)
        half = jax.lax.linalg.triangular_solve(self.factor, cross.T, left_side=True, lower=True)
        shift = prior_mean(self.gp, x_new, len(cross))
        mean = cross @ self.weights
        mean = mean + (shift if shift.shape == mean.shape else shift[:, None])
        if full_covariance:
            return mean, self.gp.kernel(x_new) - half.T @ half
        return mean, jnp.maximum(self.gp.kernel.diagonal(x_new) - jnp.sum(half**2, 0), 0)

    def sample(self, key: PRNGKey, x_new: Any, num_samples: int) -> Array:
        mean, covariance = self.predict(x_new, full_covariance=True)
        return draw_normal(key, mean, covariance, num_samples)

    def _cross(self, x_new):
        cross = self.gp.kernel(x_new, self.x)
        return cross if self.observed is None else jnp.where(self.observed, cross, 0)


def sample_prior(key: PRNGKey, gp: GP, x: Any, num_samples: int) -> Array:
    """Returns functions drawn from the prior at x, `[num_samples, n]`."""
    covariance = gp.kernel(x)
    return draw_normal(key, prior_mean(gp, x, len(covariance)), covariance, num_samples)


def draw_normal(key: PRNGKey, mean: Array, covariance: Array, num_samples: int) -> Array:
    """Returns draws of `N(mean, covariance)`, `[num_samples, ...]`, each output of a mean `[n, m]` independently."""
    factor, _ = cholesky_with_jitter(covariance)
    white = jax.random.normal(key, (num_samples, *mean.shape), covariance.dtype)
    return mean + jnp.einsum("ij,sj...->si...", factor, white, precision="highest")


def _shown(matrix, noise, observed):
    if observed is None:
        return matrix, noise
    return jnp.where(observed[:, None] & observed, matrix, 0), jnp.where(observed, noise, 1)
