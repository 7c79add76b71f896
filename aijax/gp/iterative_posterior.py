"""The posterior of many points: means by the weights, variances by solves, both in blocks.

    mean* = mean(x*) + k(x*, x) a,    a = (K + D)^-1 (y - mean)
    var*  = k(x*, x*) - b^T B^-1 b,   b = F^-1 W k(x, x*)

(`aijax.gp.whitened`). A solve that stops with residual r leaves the variance too large, by at most |r|^2, as B >= I.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from aijax.errors import RunError
from aijax.gp.exact import draw_normal
from aijax.gp.model import GP, prior_mean
from aijax.gp.observations import check_points
from aijax.gp.whitened import System, cross_columns, solve_whitened
from aijax.kernels.products import count_rows, kernel_product
from aijax.known import known
from aijax.typing import Any, Array, PRNGKey


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["gp", "system", "weights", "residual", "iterations", "converged", "solver"],
    meta_fields=[],
)
@dataclass(frozen=True)
class IterativePosterior:
    """`p(f | y)` of `Iterative`.

    Args:
      gp: the prior.
      system: the points and the preconditioner.
      weights: `a`, `[n, ...]` of the padded rows.
      residual: the largest relative residual of the solve.
      iterations: that it took.
      converged: False where it stopped above its tolerance: the posterior is then not to be used.
      solver: the `Iterative` that made it.
    """

    gp: GP
    system: System
    weights: Array
    residual: Array
    iterations: Array
    converged: Array
    solver: Any

    def predict(self, x_new: Any, full_covariance: bool = False) -> tuple[Array, Array]:
        check_points(x_new)
        x_new = jax.tree.map(jnp.asarray, x_new)
        mean, spread, residual, converged = _predict(self, x_new, full_covariance)
        if known(converged) is False:
            raise RunError(
                f"predict: the solves for the variance stopped at a relative residual of {float(residual):.1e} where "
                f"{self.solver.tolerance:.1e} is asked for; raise max_iterations ({self.solver.max_iterations}) or rank"
            )
        checkify.debug_check(converged, "predict: the solves for the variance stopped above their tolerance")
        return mean, spread

    def mean(self, x_new: Any) -> Array:
        """Returns the mean alone, which takes no solve."""
        return _mean(self, jax.tree.map(jnp.asarray, x_new))

    def sample(self, key: PRNGKey, x_new: Any, num_samples: int) -> Array:
        return draw_normal(key, *self.predict(x_new, full_covariance=True), num_samples)


@jax.jit
def _mean(posterior, x_new):
    system, solver = posterior.system, posterior.solver
    mean = kernel_product(
        system.kernel, x_new, system.x, posterior.weights, block_size=solver.block_size, mesh=solver.mesh
    )
    shift = prior_mean(posterior.gp, x_new, len(mean)).astype(mean.dtype)
    return mean + (shift if shift.shape == mean.shape else shift[:, None])


@functools.partial(jax.jit, static_argnums=2)
def _predict(posterior, x_new, full_covariance):
    """Returns the mean, the variance or the covariance, the largest relative residual, and whether all converged."""
    system, solver = posterior.system, posterior.solver
    n_new = count_rows(x_new)
    size = min(solver.solve_size, n_new)
    count = -(-n_new // size)
    padded = jax.tree.map(lambda a: jnp.pad(a, [(0, count * size - n_new)] + [(0, 0)] * (a.ndim - 1), "edge"), x_new)
    parts = jax.tree.map(lambda a: a.reshape(count, size, *a.shape[1:]), padded)

    def solved(part):
        cross = system.whitening[:, None] * cross_columns(system, part)
        solution, status = solve_whitened(
            system, cross, tolerance=solver.tolerance, max_iterations=solver.max_iterations
        )
        explained = solution if full_covariance else jnp.sum(cross * solution, 0)
        return explained, status.residual.max(), status.converged.all()

    explained, residual, converged = jax.lax.map(solved, parts)
    if full_covariance:
        solution = jnp.moveaxis(explained, 0, 1).reshape(len(system.noise), -1)[:, :n_new]
        cross = system.whitening[:, None] * cross_columns(system, x_new)
        spread = system.kernel(x_new) - jnp.matmul(cross.T, solution, precision="highest")
        spread = (spread + spread.T) / 2
    else:
        spread = jnp.maximum(system.kernel.diagonal(x_new) - explained.reshape(-1)[:n_new], 0)
    return _mean(posterior, x_new), spread, residual.max(), converged.all()
