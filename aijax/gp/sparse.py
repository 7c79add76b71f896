"""Sparse Gaussian process regression: m inducing points in place of n, in n m^2 operations.

With f(Z) at the inducing points Z as what is known of f, and A, B, beta as in `aijax.gp.collapsed`,

    log p(y) >= log N(y; mean, Q + noise) - 1/2 tr((K - Q) / noise),  Q = k(x, Z) k(Z, Z)^-1 k(Z, x)      ("vfe")
    log p(y) ~  log N(y; mean, Q + diag(K - Q) + noise)                                                   ("fitc")

    a* = L^-1 k(Z, x*):    mean* = mean(x*) + a*.beta,    var* = k(x*, x*) - a*.a* + a*.B^-1 a*
    q(f(Z)) = N(mean(Z) + L beta, L B^-1 L^T)

Titsias 2009 ("vfe": a bound, whose gradient in Z places the inducing points); Snelson and Ghahramani 2006 ("fitc").
No jitter is added to k(Z, Z) unless it has no Cholesky factor: an amount above the noise would ruin the variance.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.gp.collapsed import collapsed_density, collapsed_factors
from aijax.gp.exact import draw_normal
from aijax.gp.model import GP, Evidence, prior_mean
from aijax.gp.observations import check_points, residuals
from aijax.kernels.products import map_points
from aijax.known import known
from aijax.parameters import noun, parameter, static
from aijax.typing import Any, Array, Float, PRNGKey

METHODS = ("vfe", "fitc")


@noun
class SGPR:
    """Inference by inducing points, collapsed: n m^2 operations, memory that does not grow with n beyond the data.

    Args:
      inducing: Z, `[m, d]` like x; a fit that trains the solver moves them.
      method: "vfe", Titsias' lower bound, or "fitc".
      chunk_size: points at a time; default: all where that is at most 2^24 entries of k(Z, x), else 2^22 entries.

    >>> from aijax import gp, kernels
    >>> x = jnp.linspace(0.0, 1.0, 20)
    >>> solver = SGPR(inducing=x[::5])
    >>> bound = gp.log_marginal_likelihood(gp.GP(kernels.RBF()), x, jnp.sin(x), solver=solver)
    >>> bool(bound <= gp.log_marginal_likelihood(gp.GP(kernels.RBF()), x, jnp.sin(x)))
    True
    """

    inducing: Any = parameter()
    method: str = static("vfe")
    chunk_size: int | None = static(None)

    def check(self):
        if self.method not in METHODS:
            raise ConfigError(f"method: expected 'vfe' or 'fitc', got {self.method!r}")
        if self.chunk_size is not None and (not isinstance(self.chunk_size, int) or self.chunk_size < 1):
            raise ConfigError(f"chunk_size: expected a positive whole number of points, got {self.chunk_size!r}")

    def evidence(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> Evidence:
        value, jitter = collapsed_density(self.method, self.chunk_size, *self._problem(gp, x, y, observed))
        return Evidence(value, jitter=jitter, converged=jnp.isfinite(value))

    def condition(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> "SparsePosterior":
        found = collapsed_factors(self.method, self.chunk_size, *self._problem(gp, x, y, observed))
        weights = found.weights if jnp.ndim(y) == 2 else found.weights[:, 0]
        converged = jnp.isfinite(found.value)
        return SparsePosterior(gp, self.inducing, found.root, found.precision_root, weights, found.jitter, converged)

    def _problem(self, gp, x, y, observed):
        residual, noise, observed = residuals(gp, x, y, observed)
        if known((noise > 0).all()) is False:
            raise ConfigError("gp.noise_variance: expected a positive number for SGPR, got 0")
        check_points(self.inducing)
        return gp.kernel, self.inducing, x, residual.reshape(len(residual), -1), noise, observed


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SparsePosterior:
    """`p(f | y)` through the inducing points.

    Args:
      gp: the prior.
      inducing: Z, m points.
      root: L, `[m, m]`, the Cholesky factor of k(Z, Z).
      precision_root: the Cholesky factor of B.
      weights: beta, `[m]` or `[m, p]`.
      jitter: what was added to the diagonal of k(Z, Z).
      converged: False where a factor was not found.
    """

    gp: GP
    inducing: Any
    root: Array
    precision_root: Array
    weights: Array
    jitter: Array
    converged: Array

    def predict(self, x_new: Any, full_covariance: bool = False) -> tuple[Array, Array]:
        """Returns `(mean, variance)` of f, in blocks of points, or `(mean, covariance)`."""
        check_points(x_new)
        if full_covariance:
            mean, columns, explained = self._mean(x_new)
            return mean, self.gp.kernel(x_new) - _gram(columns) + _gram(explained)
        return map_points(self._moments, x_new)

    def sample(self, key: PRNGKey, x_new: Any, num_samples: int) -> Array:
        return draw_normal(key, *self.predict(x_new, full_covariance=True), num_samples)

    def _moments(self, x_new):
        mean, columns, explained = self._mean(x_new)
        variance = self.gp.kernel.diagonal(x_new) - jnp.sum(columns**2, 0)
        return mean, jnp.maximum(variance, 0) + jnp.sum(explained**2, 0)

    def _mean(self, x_new):
        """Returns the mean, `L^-1 k(Z, x*)`, and that by the Cholesky factor of B."""
        columns = _solve(self.root, self.gp.kernel(self.inducing, x_new))
        mean = jnp.matmul(columns.T, self.weights, precision="highest")
        shift = prior_mean(self.gp, x_new, len(mean))
        mean = mean + (shift if shift.shape == mean.shape else shift[:, None])
        return mean, columns, _solve(self.precision_root, columns)


def inducing_moments(posterior: SparsePosterior) -> tuple[Float[Array, "m *p"], Float[Array, "m m"]]:
    """Returns mean and covariance of the optimal q(f(Z)): `mean(Z) + L beta` and `L B^-1 L^T`.

    Args:
      posterior: of `condition` with the solver `SGPR`.

    Source: Titsias 2009, equation 10.
    """
    mean = jnp.matmul(posterior.root, posterior.weights, precision="highest")
    shift = prior_mean(posterior.gp, posterior.inducing, len(mean))
    mean = mean + (shift if shift.shape == mean.shape else shift[:, None])
    return mean, _gram(_solve(posterior.precision_root, posterior.root.T))


def _solve(root, right):
    return jax.lax.linalg.triangular_solve(root, right, left_side=True, lower=True)


def _gram(columns):
    return jnp.matmul(columns.T, columns, precision="highest")
