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
import numpy as np
from jax.experimental import checkify

from aijax.errors import DataError
from aijax.gp.indefinite import refuse_indefinite, refuse_twins
from aijax.gp.model import GP, Evidence, prior_mean
from aijax.gp.observations import check_points, residuals
from aijax.kernels.products import map_points
from aijax.known import known
from aijax.linalg import cholesky_with_jitter
from aijax.linalg.blocked import solve_lower
from aijax.linalg.gaussian import gaussian_log_density
from aijax.parameters import noun
from aijax.typing import Any, Array, PRNGKey


@noun
class Exact:
    """Exact inference: about n^3 operations for the evidence with its gradient, a third of it for a posterior.

    Jitter is added to the diagonal only where rounding makes A indefinite, and is told in what is returned.

    Raises:
      DataError: outside of `jit`, a matrix that stays indefinite, two equal points without noise. Inside, `converged`
        is False and the value NaN.
    """

    def evidence(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> Evidence:
        matrix, noise, residual, observed = _system(gp, x, y, observed)
        columns = residual.reshape(len(residual), -1)
        value, jitter = gaussian_log_density(matrix, noise, columns)
        if observed is not None:
            value += columns.shape[1] / 2 * math.log(2 * math.pi) * jnp.sum(~observed)
        converged = _checked(gp, matrix, noise, jnp.isfinite(value))
        return Evidence(value, jitter=jitter, converged=converged)

    def condition(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> "ExactPosterior":
        matrix, noise, residual, observed = _system(gp, x, y, observed)
        factor, jitter = cholesky_with_jitter(matrix, noise)
        white = solve_lower(factor, residual.reshape(len(residual), -1))
        weights = solve_lower(factor, white, transpose=True).reshape(residual.shape)
        converged = _checked(gp, matrix, noise, jnp.isfinite(weights).all())
        # as arrays of JAX, which compiled code that closes over the posterior may index
        x = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, x)
        return ExactPosterior(gp, x, factor, weights, observed, jitter, converged)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExactPosterior:
    """`p(f | y)`.

    Args:
      gp: the prior.
      x: the n points of the data.
      factor: L with `L L^T = A + jitter I`, `[n, n]`.
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
        """Returns `(mean, variance)` of f, or `(mean, covariance)`.

        Variances are worked out in blocks of points: memory does not grow with their number. Where rounding leaves one
        below 0, as at a point of the data without noise, it is 0.
        """
        check_points(x_new)
        if full_covariance:
            mean, white = self._mean(x_new)
            return mean, self.gp.kernel(x_new) - jnp.matmul(white.T, white, precision="highest")
        return map_points(self._moments, x_new)

    def sample(self, key: PRNGKey, x_new: Any, num_samples: int) -> Array:
        return draw_normal(key, *self.predict(x_new, full_covariance=True), num_samples)

    def _moments(self, x_new):
        mean, white = self._mean(x_new)
        return mean, jnp.maximum(self.gp.kernel.diagonal(x_new) - jnp.sum(white**2, 0), 0)

    def _mean(self, x_new):
        """Returns the mean, and `L^-1 K*^T`."""
        cross = self.gp.kernel(x_new, self.x)
        if self.observed is not None:
            cross = jnp.where(self.observed, cross, 0)
        mean = jnp.matmul(cross, self.weights, precision="highest")
        shift = prior_mean(self.gp, x_new, len(cross)).astype(mean.dtype)
        return mean + (shift if shift.shape == mean.shape else shift[:, None]), solve_lower(self.factor, cross.T)


def sample_prior(key: PRNGKey, gp: GP, x: Any, num_samples: int) -> Array:
    """Returns functions drawn from the prior at x, `[num_samples, n]`."""
    covariance = gp.kernel(x)
    mean = prior_mean(gp, x, len(covariance)).astype(covariance.dtype)
    return draw_normal(key, mean, covariance, num_samples)


def draw_normal(key: PRNGKey, mean: Array, covariance: Array, num_samples: int) -> Array:
    """Returns draws of `N(mean, covariance)`, `[num_samples, ...]`, each output of a mean `[n, m]` independently.

    Right to the rounding of the covariance, which is that of the jitter its factor may need.

    Raises:
      DataError: a covariance that is not positive semidefinite, where it is known; else draws are NaN.
    """
    factor, _ = cholesky_with_jitter(covariance, max_tries=8)
    if known(jnp.isfinite(jnp.diagonal(factor)).all()) is False:
        smallest = jnp.linalg.eigvalsh(covariance)[0]
        raise DataError(f"covariance: cannot be drawn from, its smallest eigenvalue is {smallest:.3g}")
    white = jax.random.normal(key, (num_samples, *mean.shape), covariance.dtype)
    return mean + jnp.einsum("ij,sj...->si...", factor, white, precision="highest")


def _system(gp, x, y, observed):
    """Returns k(x, x), the noise, the targets about the mean, all in one dtype, and what was observed."""
    residual, noise, observed = residuals(gp, x, y, observed)
    matrix = gp.kernel(x)
    n = len(residual)
    if matrix.shape != (n, n):
        raise DataError(f"x: expected {n} points, as many as targets in y, got a kernel matrix of {matrix.shape}")
    matrix, noise, residual = (a.astype(jnp.result_type(matrix, residual)) for a in (matrix, noise, residual))
    if observed is not None:
        matrix, noise = jnp.where(observed[:, None] & observed, matrix, 0), jnp.where(observed, noise, 1)
    refuse_twins(x, matrix, noise)
    return matrix, noise, residual, observed


def _checked(gp, matrix, noise, converged):
    if known(converged) is False:
        refuse_indefinite(gp, matrix, noise)
    checkify.debug_check(converged, "k(x, x) + noise is not positive definite; Evidence.converged says so inside jit")
    return converged
