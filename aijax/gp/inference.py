"""The verbs of Gaussian process regression, the same for every solver.

    log_marginal_likelihood(gp, x, y)           log p(y)
    posterior = condition(gp, x, y)             p(f | y)
    mean, std = predict(posterior, x_new)       of f at new points
    sample(key, posterior, x_new, num_samples)  functions from it

`solver` says how: `Exact()` by a Cholesky factor; `Iterative(...)`, `StateSpace()`, `SGPR(...)` and the like are nouns
with the same two methods, `evidence` and `condition`.
"""

import jax.numpy as jnp
from jax.experimental import checkify

from aijax.errors import ConfigError, RunError
from aijax.gp.exact import Exact, sample_prior
from aijax.gp.indefinite import refuse_indefinite_kernel
from aijax.gp.model import GP, Evidence
from aijax.gp.observations import check_points
from aijax.gp.targets import likelihood_of
from aijax.known import known
from aijax.typing import Any, Array, Bool, Float, PRNGKey


def log_marginal_likelihood(
    gp: GP,
    x: Any,
    y: Float[Array, "n *m"],
    *,
    observed: Bool[Array, " n"] | None = None,
    solver: Any = Exact(),  # noqa: B008
    key: PRNGKey | None = None,
) -> Float[Array, ""]:
    """Returns `log p(y)`, in nats, summed over outputs; `evidence` says besides how far it is to be trusted.

    Args: as `evidence`.

    Raises:
      ConfigError, DataError: as `evidence`.
      RunError: outside of `jit`, a solver that did not converge. Inside, only `evidence` tells.

    >>> from aijax import gp, kernels
    >>> round(float(log_marginal_likelihood(gp.GP(kernels.RBF()), jnp.zeros(1), jnp.zeros(1))), 4)
    -0.9666
    """
    found = evidence(gp, x, y, observed=observed, solver=solver, key=key)
    _refuse_unconverged(found, "log_marginal_likelihood", solver, gp, x)
    return found.value


def evidence(
    gp: GP,
    x: Any,
    y: Float[Array, "n *m"],
    *,
    observed: Bool[Array, " n"] | None = None,
    solver: Any = Exact(),  # noqa: B008
    key: PRNGKey | None = None,
) -> Evidence:
    """Returns the log marginal likelihood `log N(y; mean(x), k(x, x) + noise)` with its jitter, error and status.

    Args:
      gp: the prior and the noise.
      x: n points, whatever the kernel takes.
      y: targets `[n]`, or `[n, m]` for m outputs that share the kernel.
      observed: `[n]` of bool, False where a target is missing: it is integrated out, and y there may be NaN.
      solver: how; default `Exact()`.
      key: for solvers that draw probes.

    Raises:
      ConfigError, DataError: parameters, shapes or values that cannot be used; a matrix that stays indefinite.
    """
    check_solver(solver)
    return solver.evidence(gp, x, y, observed, key)


def condition(
    gp: GP,
    x: Any,
    y: Float[Array, "n *m"],
    *,
    observed: Bool[Array, " n"] | None = None,
    solver: Any = Exact(),  # noqa: B008
    key: PRNGKey | None = None,
) -> Any:
    """Returns the posterior `p(f | y)`, for `predict` and `sample`.

    Args and raises: as `log_marginal_likelihood`; inside of `jit` the posterior's `converged` tells.
    """
    check_solver(solver)
    found = solver.condition(gp, x, y, observed, key)
    _refuse_unconverged(found, "condition", solver, gp, x)
    return found


def predict(
    posterior: Any, x_new: Any, *, full_covariance: bool = False, include_noise: bool = False
) -> tuple[Array, Array]:
    """Returns `(mean, standard deviation)` of f at new points, each `[n_new]`; or `(mean, covariance)`.

    Args:
      posterior: of `condition` or of a fit.
      x_new: n_new points.
      full_covariance: return the covariance `[n_new, n_new]` in place of the standard deviation.
      include_noise: of new targets in place of f: the noise variance is added, which must be a number then.

    Raises:
      ConfigError: `include_noise` where the noise differs from target to target, so that it is not known of new ones,
        or where the targets are not f with Gaussian noise: `predict_targets` has theirs.
      DataError: points that are not finite.

    >>> from aijax import gp, kernels
    >>> posterior = condition(gp.GP(kernels.RBF()), jnp.zeros(1), jnp.ones(1))
    >>> mean, std = predict(posterior, jnp.zeros(1))
    >>> round(float(mean[0]), 4), round(float(std[0]), 4)
    (0.9091, 0.3015)
    """
    if include_noise and (likelihood := likelihood_of(posterior)) is not None:
        raise ConfigError(
            f"include_noise: targets come from f by {type(likelihood).__name__}; predict_targets predicts them"
        )
    check_points(x_new)
    mean, spread = posterior.predict(x_new, full_covariance)
    if include_noise:
        noise = posterior.gp.noise_variance
        if jnp.ndim(noise):
            raise ConfigError(
                "include_noise: gp.noise_variance is one for each target of the data; add that of new ones"
            )
        spread = spread + (noise * jnp.eye(len(spread), dtype=spread.dtype) if full_covariance else noise)
    return mean, spread if full_covariance else jnp.sqrt(spread)


def sample(key: PRNGKey, posterior: Any, x_new: Any, num_samples: int = 1) -> Array:
    """Returns functions drawn jointly at new points, `[num_samples, n_new]` (with m outputs `[num_samples, n_new, m]`).

    Args:
      key: for the draws.
      posterior: of `condition` or of a fit; a `GP` for draws of the prior.
      x_new: n_new points.
      num_samples: how many; default 1.

    Raises:
      DataError: points that are not finite.

    >>> import jax
    >>> from aijax import gp, kernels
    >>> sample(jax.random.key(0), gp.GP(kernels.RBF()), jnp.linspace(0, 1, 5), 3).shape
    (3, 5)
    """
    check_points(x_new)
    if isinstance(posterior, GP):
        return sample_prior(key, posterior, x_new, num_samples)
    return posterior.sample(key, x_new, num_samples)


def check_solver(solver: Any) -> None:
    """Raises a `ConfigError` for anything that is no solver, such as the class of one or a likelihood."""
    if isinstance(solver, type) or not (hasattr(solver, "evidence") and hasattr(solver, "condition")):
        raise ConfigError(f"solver: expected one such as gp.Exact() or gp.Laplace(gp.Bernoulli()), got {solver!r}")


def _refuse_unconverged(found, verb, solver, gp, x):
    converged = getattr(found, "converged", True)
    if known(converged) is False:
        refuse_indefinite_kernel(gp, x)
        residual = getattr(found, "residual", None)
        reached = "" if residual is None else f"; it stopped at a residual of {float(residual):.1e}"
        raise RunError(f"{verb}: {type(solver).__name__} did not converge{reached}")
    checkify.debug_check(converged, f"{verb}: the solver did not converge")
