"""Fitting: the parameters of a Gaussian process that make the data most likely.

    maximise  log p(y | theta) + sum_i log prior_i(theta_i)       (Rasmussen and Williams 2006, section 5.4.1)

Each parameter is moved on the whole line by the bijection of its constraint (`aijax.bijections`). The whole fit, from
the draw of the restarts to the posterior, is one compiled function. An evaluation that failed (`Evidence.converged`
False, or not finite) counts as infinitely bad.

The surfaces of such fits have few, wide optima and long flat valleys: a start soon shows where it leads, and most of
the steps go into the last hundredth of a nat. So all restarts make `EXPLORE_STEPS` steps, and only the best go on.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from aijax.descent import descend
from aijax.errors import ConfigError, DataError
from aijax.gp.exact import Exact
from aijax.gp.indefinite import refuse_indefinite_kernel
from aijax.gp.inference import check_solver
from aijax.gp.observations import residuals
from aijax.gp.priors import Prior
from aijax.gp.restarts import draw_starts
from aijax.gp.trainable import Moved, choose_moved, split_arrays
from aijax.known import all_finite
from aijax.lbfgs import REASONS, SAME_VALUE, SMALL_GRADIENT, Minimum, lbfgs_race
from aijax.parameters import check_parameters
from aijax.typing import Any, Array, Bool, Callable, Mapping, PRNGKey

EXPLORE_STEPS = 10


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FitResult:
    """A fitted posterior: `predict` and `sample` take it as any other. R is the number of restarts.

    Args:
      posterior: of the fitted model, by the solver of the fit.
      value: the largest `log p(y) + log priors` that was found, in nats.
      best: which restart found it; 0 is the model that was given.
      values: of each restart, `[R]`; -inf where none could be evaluated.
      status: of each restart, `[R]`: an index of `aijax.lbfgs.REASONS`.
      steps: of each restart, `[R]`.
      evaluations: of each restart, `[R]`.
      history: the value at the start and after each step, `[R, max_steps + 1]`; after the last step it repeats.
      solver: the solver with its parameters as they were fitted.
    """

    posterior: Any
    value: Array
    best: Array
    values: Array
    status: Array
    steps: Array
    evaluations: Array
    history: Array
    solver: Any

    @property
    def gp(self) -> Any:
        """The fitted model."""
        return self.posterior.gp

    @property
    def converged(self) -> Array:
        """Whether the best restart stopped at an optimum, to the tolerance or to rounding."""
        status = jnp.take(self.status, self.best)
        return (status == SMALL_GRADIENT) | (status == SAME_VALUE)

    @property
    def reason(self) -> str:
        """Why the best restart stopped, in words."""
        return REASONS[int(jnp.take(self.status, self.best))]

    def predict(self, x_new: Any, full_covariance: bool = False) -> tuple[Array, Array]:
        return self.posterior.predict(x_new, full_covariance)

    def sample(self, key: PRNGKey, x_new: Any, num_samples: int) -> Array:
        return self.posterior.sample(key, x_new, num_samples)


def fit(
    model: Any,
    x: Any,
    y: Array,
    *,
    observed: Bool[Array, " n"] | None = None,
    solver: Any = Exact(),  # noqa: B008
    optimizer: str | optax.GradientTransformation = "lbfgs",
    restarts: int = 1,
    key: PRNGKey | None = None,
    priors: Mapping[str, Prior] | None = None,
    trainable: str | Sequence[str] | Callable[[str], bool] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    max_steps: int | None = None,
    tolerance: float = 1e-3,
    finalists: int | None = 2,
    together: bool | None = None,
) -> FitResult:
    """Returns the posterior of the model with its most likely parameters, and how they were found.

    Parameters go by the names of `aijax.parameters.named_parameters`, such as `kernel.lengthscale`,
    `kernel.kernels.0.variance`, `noise_variance`; those of the solver begin with `solver.`. A pattern is a regular
    expression of a whole name; one that matches nothing is an error.

    Args:
      model: a `GP` (or what the solver takes in its place); the first start.
      x: n points, whatever the kernel takes.
      y: targets `[n]`, or `[n, m]`.
      observed: `[n]` of bool, False where a target is missing.
      solver: whose evidence is maximised; default `Exact()`.
      optimizer: "lbfgs", or any optax transformation (its last step is the answer).
      restarts: starts in all. The first is the model; the others are drawn: from its prior where a parameter has one,
        else on the scale of the data (`aijax.gp.restarts`).
      key: for the restarts and for solvers that draw probes. L-BFGS has the same probes in every evaluation, an optax
        optimiser new ones in each step.
      priors: pattern to prior.
      trainable: patterns, or a function of the name; default all floating parameters of the model, none of the solver.
      bounds: pattern to (lowest, highest) value.
      max_steps: of each restart; default 200 for L-BFGS, 1000 for optax.
      tolerance: of the largest entry of the gradient, in nats per unit on the line (for a positive parameter: per
        factor e); default 1e-3. A change below 1e-9 of the value (or a few roundings) ends L-BFGS too.
      finalists: how many restarts of L-BFGS go on after the first 10 steps; None for all.
      together: advance all restarts of L-BFGS at once, by vmap; default where their n x n matrices have at most 2^18
        entries together, beyond which a CPU only loses by it. True is for a GPU with memory for all of them.

    Raises:
      ConfigError: a pattern that matches nothing, a parameter to fit that is 0 or out of its bounds, restarts without a
        key, an unknown optimiser.
      DataError: data that `condition` refuses; an evidence that is finite at no start, as where the kernel is not
        positive semidefinite (under `jit` the value is then -inf).

    >>> from aijax import gp, kernels
    >>> x = jnp.linspace(0.0, 1.0, 9)
    >>> posterior = fit(gp.GP(kernels.RBF()), x, jnp.sin(6 * x), trainable="kernel.*")
    >>> bool(posterior.converged), round(float(posterior.gp.noise_variance), 4)
    (True, 0.1)
    """
    if restarts < 1 or (finalists is not None and finalists < 1):
        raise ConfigError(f"restarts and finalists: expected 1 or more, got {restarts} and {finalists}")
    if restarts > 1 and key is None:
        raise ConfigError(f"key: {restarts} restarts are drawn at random; give a key, such as jax.random.key(0)")
    if isinstance(optimizer, str) and optimizer != "lbfgs":
        raise ConfigError(f"optimizer: expected 'lbfgs' or an optax transformation, got {optimizer!r}")
    check_parameters(model, "model.")
    check_solver(solver)
    getattr(solver, "check_data", residuals)(model, x, y, observed)
    y = jnp.asarray(y)
    moved = choose_moved(model, solver, trainable, dict(priors or {}), dict(bounds or {}))
    if max_steps is None:
        max_steps = 200 if optimizer == "lbfgs" else 1000
    if together is None:
        together = restarts * len(y) ** 2 <= 2**18
    options = _Options(optimizer, restarts, max_steps, float(tolerance), finalists, together)
    arrays, rest = split_arrays((model, solver, x, y, observed, key))
    result = _fit(arrays, moved, rest, options)
    if all_finite(result.value) is False:
        refuse_indefinite_kernel(model, x)
        raise DataError(
            f"model: the evidence is finite at none of {restarts} starts; the first is the model as it was given"
        )
    return result


@dataclass(frozen=True)
class _Options:
    optimizer: Any
    restarts: int
    max_steps: int
    tolerance: float
    finalists: int | None
    together: bool


@functools.partial(jax.jit, static_argnames=("rest", "options"))
def _fit(arrays: Sequence[Array], moved: Moved, rest: Any, options: _Options) -> FitResult:
    model, solver, x, y, observed, key = rest.join(arrays)
    dtype = y.dtype if jnp.issubdtype(y.dtype, jnp.floating) else jnp.result_type(float)
    probes, *draws = [None] if key is None else jax.random.split(key, 2 + len(moved.names))
    first = moved.to_line((model, solver), dtype)
    starts = draw_starts(draws, moved, first, x, y, observed, options.restarts)

    def loss(line, probes):
        # tied to the line: else XLA lifts out of the loop, and keeps, n x n differences for each coordinate
        leaves, others = split_arrays(x)
        leaves, line = jax.lax.optimization_barrier((leaves, line))
        here, by = moved.place((model, solver), line)
        found = by.evidence(here, others.join(leaves), y, observed, probes)
        return -jnp.where(found.converged, found.value + moved.log_prior(line), -jnp.inf)

    low, high = moved.edges(first)
    if options.optimizer == "lbfgs":
        ends = lbfgs_race(
            lambda line: loss(line, probes),
            starts,
            together=options.together,
            explore_steps=None if options.finalists is None else EXPLORE_STEPS,
            finalists=options.finalists,
            lower=low,
            upper=high,
            max_steps=options.max_steps,
            tolerance=options.tolerance,
            value_tolerance=max(1e-9, 10 * float(jnp.finfo(dtype).eps)),
        )
    else:
        ends = jax.vmap(
            lambda start: descend(
                loss,
                start,
                optimizer=options.optimizer,
                key=probes,
                lower=low,
                upper=high,
                max_steps=options.max_steps,
                tolerance=options.tolerance,
            )
        )(starts)
    return _result(ends, moved, model, solver, x, y, observed, probes)


def _result(ends: Minimum, moved, model, solver, x, y, observed, probes):
    best = jnp.argmin(ends.value)
    model, solver = moved.place((model, solver), jax.tree.map(lambda leaf: leaf[best], ends.x))
    return FitResult(
        posterior=solver.condition(model, x, y, observed, probes),
        value=-ends.value[best],
        best=best,
        values=-ends.value,
        status=ends.status,
        steps=ends.steps,
        evaluations=ends.evaluations,
        history=-ends.history,
        solver=solver,
    )
