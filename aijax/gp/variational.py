"""Variational inference for a whole data set, as a solver: the best q(f) and its bound, for any likelihood.

    log p(y) >= max_q sum_i E_q[log p(y_i | f_i)] - KL(q | prior)

q is Gaussian at inducing points (`aijax.gp.svgp`), which are the data unless others are given: then q is the best
Gaussian of all (Opper and Archambeau 2009). It is found by natural gradient steps from the prior, of size 1 where the
bound rises by that, else halved. At the maximum the bound does not change with q, so that its first derivatives in the
model are those at q held; second derivatives would need those of q and are refused.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.gp.laplace import check_likelihood_data
from aijax.gp.likelihoods import Likelihood
from aijax.gp.model import GP, Evidence
from aijax.gp.once import once
from aijax.gp.svgp import SVGP, inducing_columns, move, natural_gradient, prior_svgp, weighted_elbo
from aijax.parameters import noun, parameter, static
from aijax.typing import Any, Array, PRNGKey

MAX_HALVINGS = 20


@noun
class Variational:
    """Inference by the best Gaussian; `noise_variance` of the GP plays no part.

    Args:
      likelihood: of `aijax.gp.likelihoods`. A fit may train its parameters, as `solver.likelihood.*`.
      inducing: Z; default the points of the data.
      max_steps: natural gradient steps.

    >>> from aijax import gp, kernels
    >>> x = jnp.array([-1.0, -0.5, 0.5, 1.0])
    >>> posterior = gp.condition(gp.GP(kernels.RBF()), x, x > 0, solver=Variational(gp.Bernoulli()))
    >>> bool(posterior.converged), bool(gp.predict_probability(posterior, x)[3] > 0.5)
    (True, True)
    """

    likelihood: Any
    inducing: Any = parameter(None)
    max_steps: int = static(200)

    def check(self):
        if not isinstance(self.likelihood, Likelihood):
            raise ConfigError(f"likelihood: expected a likelihood, such as gp.Bernoulli(), got {self.likelihood!r}")

    def check_data(self, gp: GP, x: Any, y: Array, observed: Array | None = None) -> None:
        """Raises a `ConfigError` or `DataError` for data that `evidence` cannot use."""
        check_likelihood_data(self.likelihood, gp, x, y, observed)

    def evidence(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> Evidence:
        self.check_data(gp, x, y, observed)
        held = jax.lax.stop_gradient((self, gp, x, y))
        best = Variational.condition(*held, observed)
        inducing = x if self.inducing is None else self.inducing
        y, weight = _targets(y, observed)
        held = best.svgp.white_mean, best.svgp.white_root, weight
        value, jitter = _bound_at_best((self.likelihood, gp, inducing, x, y), held)
        converged = best.converged & jnp.isfinite(value)
        return Evidence(value, jitter=jitter, residual=best.residual, iterations=best.iterations, converged=converged)

    def condition(
        self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None
    ) -> "VariationalPosterior":
        self.check_data(gp, x, y, observed)
        y, weight = _targets(y, observed)
        start = prior_svgp(gp, x if self.inducing is None else self.inducing, self.likelihood.num_latents)
        svgp, residual, steps = _best(start, self.likelihood, x, y, weight, self.max_steps)
        supported = jnp.all(self.likelihood.supports(y) | (weight == 0))
        converged = (residual <= _tolerance(svgp)) & supported
        return VariationalPosterior(svgp, self.likelihood, residual, steps, converged)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class VariationalPosterior:
    """The best q(f).

    Args:
      svgp: q.
      likelihood: of the solver.
      residual: the largest entry of the natural gradient, in standard deviations of q.
      iterations: steps made.
      converged: False where the residual is above its tolerance, 10 roots of the rounding unit.
    """

    svgp: SVGP
    likelihood: Any
    residual: Array
    iterations: Array
    converged: Array

    @property
    def gp(self) -> GP:
        return self.svgp.gp

    def predict(self, x_new: Any, full_covariance: bool = False) -> tuple[Array, Array]:
        return self.svgp.predict(x_new, full_covariance)

    def sample(self, key: PRNGKey, x_new: Any, num_samples: int) -> Array:
        return self.svgp.sample(key, x_new, num_samples)


def _bound(variables, held):
    """Returns the bound and the jitter, for q and the weights as they are held."""
    likelihood, gp, inducing, x, y = variables
    white_mean, white_root, weight = held
    svgp = SVGP(gp, inducing, white_mean, white_root)
    columns = inducing_columns(svgp, x)
    return weighted_elbo(svgp, likelihood, x, y, columns, weight), columns.jitter


@jax.custom_jvp
def _bound_at_best(variables, held):
    return _bound(variables, held)


@_bound_at_best.defjvp
def _bound_at_best_jvp(primals, tangents):
    variables, held = primals
    return jax.jvp(lambda at: _bound(at, held), (once(variables, "Variational"),), tangents[:1])


def _best(start, likelihood, x, y, weight, max_steps):
    """Returns the maximum of the bound over q, the residual and the steps made."""
    columns = inducing_columns(start, x)
    epsilon = jnp.finfo(start.white_mean.dtype).eps

    def at(q):
        return SVGP(start.gp, start.inducing, *q)

    def bound(q):
        value = weighted_elbo(at(q), likelihood, x, y, columns, weight)
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def measure(q):
        slope, difference = change = natural_gradient(at(q), likelihood, x, y, columns, weight)
        roots = q[1] if q[1].ndim == 3 else q[1][None]
        in_mean = jnp.einsum("qki,qk->qi", roots, slope, precision="highest")
        in_spread = jnp.einsum("qki,qkl,qlj->qij", roots, difference, roots, precision="highest")
        return change, jnp.maximum(jnp.max(jnp.abs(in_mean)), jnp.max(jnp.abs(in_spread)))

    def turn(state):
        q, value, change, _, size, steps, _ = state

        def attempt(size, halvings):
            moved, _ = move(at(q), change, size)
            moved = (moved.white_mean, moved.white_root)
            return moved, bound(moved), size, halvings

        def worse(trial):
            return (trial[1] < value - 8 * epsilon * jnp.abs(value)) & (trial[3] < MAX_HALVINGS)

        trial = attempt(jnp.minimum(1, 2 * size), jnp.int32(0))
        trial = jax.lax.while_loop(worse, lambda trial: attempt(trial[2] / 2, trial[3] + 1), trial)
        q, value, size, halvings = trial
        change, residual = measure(q)
        return q, value, change, residual, size, steps + 1, halvings == MAX_HALVINGS

    def unfinished(state):
        _, _, _, residual, _, steps, stuck = state
        return (residual > jnp.sqrt(epsilon)) & (steps < max_steps) & ~stuck

    q = (start.white_mean, start.white_root)
    one = jnp.ones((), q[0].dtype)
    state = (q, bound(q), *measure(q), one, jnp.int32(0), jnp.array(False))
    q, _, _, residual, _, steps, _ = jax.lax.while_loop(unfinished, turn, state)
    return at(q), residual, steps


def _targets(y, observed):
    """Returns targets and their weights; a missing one is 0, which every support has, and weighs nothing."""
    y = jnp.asarray(y)
    y = y.astype(jnp.result_type(float)) if y.dtype == bool else y
    return (y, 1.0 * jnp.ones(len(y))) if observed is None else (jnp.where(observed, y, 0), 1.0 * observed)


def _tolerance(svgp):
    return 10 * jnp.sqrt(jnp.finfo(svgp.white_mean.dtype).eps)
