"""Exact inference for any stationary kernel on equally spaced points.

The Gram matrix is Toeplitz: one row says it all. The recursion of Durbin and Levinson gives its determinant and its
inverse exactly in `n^2` operations and O(n) memory (`aijax.linalg.toeplitz`), and derivatives cost `n log n` more.
Cunningham, Shenoy and Sahani 2008; Golub and Van Loan 2013, section 4.7. For kernels that are Markov, `StateSpace` is
O(n) at any times.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, DataError
from aijax.gp.exact import draw_normal
from aijax.gp.model import GP, Evidence, prior_mean
from aijax.gp.observations import residuals
from aijax.kernels.products import map_points
from aijax.known import known
from aijax.linalg.toeplitz import durbin_levinson, toeplitz_log_density, toeplitz_solve
from aijax.parameters import noun
from aijax.typing import Any, Array, PRNGKey


@noun
class Toeplitz:
    """Exact inference for a stationary kernel (RBF, Matern, periodic, spectral mixture, sums of them, ...) of equally
    spaced points `[n]` or `[n, 1]`, in increasing or decreasing order: `n^2` operations, O(n) memory.

    The noise is one number, and no target may be missing.

    Raises:
      ConfigError: a kernel that is not stationary at these points, a noise that differs, missing targets.
      DataError: points that are not equally spaced, a matrix that is not positive definite.

    Source: Golub and Van Loan 2013, section 4.7.

    >>> from aijax import gp, kernels
    >>> value = gp.log_marginal_likelihood(gp.GP(kernels.RBF()), jnp.zeros(1), jnp.zeros(1), solver=Toeplitz())
    >>> round(float(value), 4)
    -0.9666
    """

    def evidence(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> Evidence:
        column, residual, right = _data(gp, x, y, observed)
        value = toeplitz_log_density(column, residual)
        converged = jnp.isfinite(value) & right
        _refuse_unless(converged)
        return Evidence(value, converged=converged)

    def condition(
        self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None
    ) -> "ToeplitzPosterior":
        column, residual, right = _data(gp, x, y, observed)
        predictor, variances = durbin_levinson(column)
        weights = toeplitz_solve(column, predictor, variances[-1], residual)
        converged = (variances > 0).all() & jnp.isfinite(weights).all() & right
        _refuse_unless(converged)
        return ToeplitzPosterior(
            gp, gp.kernel.points(x), column, predictor, variances[-1], weights.reshape(jnp.shape(y)), converged
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ToeplitzPosterior:
    """`p(f | y)`, at any points.

    Args:
      gp: the prior.
      x: the n points.
      column: of the matrix with its noise, `[n]`.
      predictor, variance: which give its inverse (`aijax.linalg.toeplitz`).
      weights: the inverse times y less its mean, `[n]` or `[n, m]`.
      converged: False where the matrix was not positive definite, the points not regular or the kernel not stationary.
    """

    gp: GP
    x: Any
    column: Array
    predictor: Array
    variance: Array
    weights: Array
    converged: Array

    def predict(self, x_new: Any, full_covariance: bool = False) -> tuple[Array, Array]:
        """Returns the mean of f at q points, and its variance `[q]`, in blocks, or its covariance `[q, q]`."""
        if not full_covariance:
            return map_points(self._moments, x_new)
        mean, cross, told = self._mean(x_new)
        covariance = self.gp.kernel(x_new) - cross @ told
        return mean, (covariance + covariance.T) / 2

    def sample(self, key: PRNGKey, x_new: Any, num_samples: int) -> Array:
        """Returns functions drawn jointly at q points, `[num_samples, q]`, by a factor of their covariance."""
        return draw_normal(key, *self.predict(x_new, full_covariance=True), num_samples)

    def _moments(self, x_new):
        mean, cross, told = self._mean(x_new)
        return mean, jnp.maximum(self.gp.kernel.diagonal(x_new) - jnp.sum(cross * told.T, 1), 0)

    def _mean(self, x_new):
        """Returns the mean, K*, and `A^-1 K*^T`."""
        cross = self.gp.kernel(x_new, self.x)
        mean = cross @ self.weights
        shift = prior_mean(self.gp, x_new, len(cross))
        mean = mean + (shift if shift.shape == mean.shape else shift[:, None])
        return mean, cross, toeplitz_solve(self.column, self.predictor, self.variance, cross.T)


def _data(gp, x, y, observed):
    """Returns the matrix's column with the noise, the residuals `[n, m]`, and whether points and kernel are right."""
    residual, noise, observed = residuals(gp, x, y, observed)
    if observed is not None:
        raise ConfigError(
            "observed: Toeplitz takes no missing targets; expected all of them, or the solver StateSpace or Iterative"
        )
    if jnp.ndim(gp.noise_variance):
        raise ConfigError(
            f"gp.noise_variance: Toeplitz takes one number for all points, got {jnp.shape(gp.noise_variance)}; "
            "expected a number, or the solver StateSpace or Iterative"
        )
    x = gp.kernel.points(x)
    if jnp.ndim(x) > 2 or (jnp.ndim(x) == 2 and x.shape[1] != 1) or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ConfigError(f"x: Toeplitz takes floating points of one coordinate, [n] or [n, 1], got {jnp.shape(x)}")
    n, times = len(x), x.reshape(-1)
    rounding = 8 * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(times))
    regular = jnp.all(jnp.abs(times - jnp.linspace(times[0], times[-1], n, dtype=x.dtype)) <= rounding)
    if known(regular) is False:
        raise DataError("x: not equally spaced, as Toeplitz needs; expected points such as jnp.linspace gives")
    variances = gp.kernel.diagonal(x)
    column = gp.kernel(x[:1], x)[0].at[0].set(variances[0])
    stationary = _is_stationary(gp.kernel, x, column, variances)
    if known(stationary) is False:
        raise ConfigError(
            f"kernel: {type(gp.kernel).__name__} is not stationary at these points, which Toeplitz needs; expected a "
            "function of x - x', or the solver Exact"
        )
    return column.at[0].add(noise[0]), residual.reshape(n, -1), regular & stationary


def _is_stationary(kernel, x, column, variances):
    """Returns whether the first two rows, the last one and the diagonal say the same, up to the rounding of points."""
    if len(x) == 1:
        return True
    spread = jnp.finfo(x.dtype).eps ** 0.5 * jnp.max(jnp.abs(variances))
    result = jnp.all(jnp.abs(variances - variances[0]) <= spread)
    result &= jnp.all(jnp.abs(kernel(x[-1:], x)[0, :-1][::-1] - column[1:]) <= spread)
    return result & jnp.all(jnp.abs(kernel(x[1:2], x)[0, 2:] - column[1:-1]) <= spread)


def _refuse_unless(converged):
    if known(converged) is False:
        raise DataError("gp.noise_variance: the kernel matrix is not positive definite; expected more noise")
