"""Leave-one-out cross-validation in closed form: n predictions, each from all other targets, by one inverse.

With A = k(x, x) + diag(noise) and a = A^-1 (y - mean(x)), for the target i given all others

    mean_i = y_i - a_i / (A^-1)_ii,    variance_i = 1 / (A^-1)_ii

(Rasmussen and Williams 2006, equations 5.10 to 5.12). The variance is that of the target, its noise included. The sum
of log densities is an objective for a fit in the place of the evidence, less trusting of the model.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.gp.exact import Exact
from aijax.gp.model import GP
from aijax.linalg.blocked import solve_lower
from aijax.typing import Any, Array, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LeaveOneOut:
    """Of each target given all others.

    Args:
      mean: `[n]`, or `[n, m]` for m outputs.
      variance: with the noise, `[n]`.
      log_density: of the target that was left out, in the shape of mean, nats.
    """

    mean: Array
    variance: Array
    log_density: Array


def leave_one_out(gp: GP, x: Any, y: Float[Array, "n *m"]) -> LeaveOneOut:
    """Returns the prediction of each target from all others, at the cost of one inverse. Differentiable.

    Args:
      gp: the prior and the noise, held for all predictions.
      x: n points.
      y: targets `[n]`, or `[n, m]`.

    Raises:
      ConfigError, DataError: as `aijax.gp.condition`.

    >>> from aijax import gp, kernels
    >>> result = leave_one_out(gp.GP(kernels.RBF()), jnp.array([0.0, 100.0]), jnp.ones(2))
    >>> result.mean.round(3).tolist(), result.variance.round(3).tolist()
    ([0.0, 0.0], [1.100000023841858, 1.100000023841858])
    """
    posterior = Exact().condition(gp, x, y)
    root = solve_lower(posterior.factor, jnp.eye(len(posterior.factor), dtype=posterior.factor.dtype))
    variance = 1 / jnp.sum(root**2, 0)
    error = posterior.weights * (variance if posterior.weights.ndim == 1 else variance[:, None])
    spread = variance if error.ndim == 1 else variance[:, None]
    return LeaveOneOut(jnp.asarray(y) - error, variance, jax.scipy.stats.norm.logpdf(error, scale=jnp.sqrt(spread)))
