"""Bayesian optimisation in pure functions: a state, and `ask` and `tell`.

    state = init(key, bounds, capacity=64)
    while ...:
        x = ask(key, state).x                   [q, d]
        state = tell(state, x, f(x))            larger is better
    x, y = best(state)

The state holds its evaluations in arrays of fixed capacity with a mask, so that nothing is compiled anew as they come
in, and a whole loop can be scanned and mapped over seeds. Every `ask` fits the model afresh to standardised targets on
the unit cube, by the most likely parameters under priors (lengthscales that grow like the root of the dimension:
Hvarfner et al. 2024, section 4), and maximises an acquisition (`aijax.gp.suggest`).

An evaluation that failed (NaN) takes the lowest value that was observed, for the model alone: it is a place to avoid,
and never the best. One that is pending takes the mean of the posterior, so that it is not suggested twice
(Ginsbourger et al. 2010, "kriging believer").
"""

import dataclasses
import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from aijax.errors import ConfigError, DataError
from aijax.gp.exact import Exact
from aijax.gp.fit import fit
from aijax.gp.model import GP
from aijax.gp.priors import LogNormal
from aijax.gp.suggest import Acquisition, LogExpectedImprovement, Suggestion, box_points, check_bounds, suggest
from aijax.gp.trainable import split_arrays
from aijax.kernels import Matern52
from aijax.known import known
from aijax.parameters import static
from aijax.typing import Any, Array, Bool, Float, Int, PRNGKey

EMPTY, PENDING, OBSERVED, FAILED = range(4)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BayesOpt:
    """What is known of a function.

    Args:
      model: the prior on the unit cube, whose parameters each `ask` starts from.
      priors: of its parameters, by pattern.
      bounds: of each input, `[d, 2]`.
      x: points, `[capacity, d]`, in the units of the bounds.
      y: values, `[capacity]`; 0 where there is none.
      status: `[capacity]`: EMPTY, PENDING, OBSERVED or FAILED.
      design: points that fill the box, the first `initial` of which are asked for before the model is.
      initial: how many.
    """

    model: Any
    priors: Any
    bounds: Array
    x: Array
    y: Array
    status: Array
    design: Array
    initial: int = static()

    @property
    def count(self) -> Int[Array, ""]:
        """How many evaluations it holds, those included that failed or are pending."""
        return jnp.sum(self.status != EMPTY)


def init(
    key: PRNGKey,
    bounds: Float[Array, "d 2"],
    *,
    capacity: int = 128,
    initial: int | None = None,
    model: GP | None = None,
    priors: Any = None,
) -> BayesOpt:
    """Returns the state before any evaluation.

    Args:
      key: for the points of the design.
      bounds: (lowest, highest) of each of d inputs.
      capacity: evaluations that it can hold.
      initial: evaluations of a design that fills the box before the model is asked; default 2 (d + 1).
      model: a `GP` on the unit cube with targets of mean 0 and variance 1; default a Matern-5/2 kernel with a
        lengthscale for each input, whose noise is fitted.
      priors: of the model's parameters, as for `aijax.gp.fit`; default those of the default model, none of another.

    Raises:
      ConfigError: bounds that are not `[d, 2]` or not in order, a capacity below the design.

    >>> state = init(jax.random.key(0), [[0.0, 1.0]], capacity=8)
    >>> state = tell(state, ask(jax.random.key(1), state).x, 3.0)
    >>> int(state.count), float(best(state)[1])
    (1, 3.0)
    """
    bounds = check_bounds(bounds)
    d = len(bounds)
    initial = 2 * (d + 1) if initial is None else initial
    if not 1 <= initial <= capacity:
        raise ConfigError(f"initial: expected 1 to the capacity of {capacity}, got {initial}")
    if model is None:
        typical = math.exp(math.sqrt(2) - 3) * math.sqrt(d)  # the mode of the prior of the lengthscales
        model = GP(Matern52(jnp.full(d, typical, bounds.dtype)), noise_variance=1e-3)
        if priors is None:
            priors = {
                "kernel.lengthscale": LogNormal(math.sqrt(2) + math.log(d) / 2, math.sqrt(3)),
                "kernel.variance": LogNormal(0.0, 1.0),
                "noise_variance": LogNormal(-6.0, 2.0),
            }
    return BayesOpt(
        model=model,
        priors=dict(priors or {}),
        bounds=bounds,
        x=jnp.broadcast_to(bounds.mean(1), (capacity, d)),
        y=jnp.zeros(capacity, bounds.dtype),
        status=jnp.full(capacity, EMPTY),
        design=box_points(key, capacity, bounds),
        initial=initial,
    )


def ask(
    key: PRNGKey,
    state: BayesOpt,
    *,
    acquisition: Acquisition = LogExpectedImprovement(),  # noqa: B008
    q: int = 1,
    restarts: int = 20,
    candidates: int | Float[Array, "m q d"] = 512,
    continuous: Bool[Array, " d"] | None = None,
) -> Suggestion:
    """Returns the q points to evaluate next.

    Those of the design come first, and go on while nothing was observed. Points handed out that are not told yet are
    unknown to the state: `tell(state, x, None)` makes them pending.

    Args: as `aijax.gp.suggest`, candidates in the units of the bounds.
    """
    count, candidates = (candidates, None) if isinstance(candidates, int) else (0, jnp.asarray(candidates))
    arrays, rest = split_arrays((key, state, acquisition, candidates, continuous))
    return _ask(arrays, rest, q, restarts, count)


def tell(state: BayesOpt, x: Float[Array, "*q d"], y: Float[Array, "*q"] | float | None) -> BayesOpt:
    """Returns the state that knows of evaluations, and no longer has them pending.

    Args:
      state: what was known.
      x: points, `[q, d]` or `[d]`.
      y: their values, larger being better; NaN for one that failed; None while they are pending.

    Raises:
      DataError: points of another dimension, as many values as there are not points, an infinite value.
      ConfigError: more evaluations than the capacity. Inside of `jit` those that do not fit are left out, which
        `checkify` tells.
    """
    x = jnp.atleast_2d(jnp.asarray(x, state.x.dtype))
    capacity, d = state.x.shape
    if x.ndim != 2 or x.shape[1] != d:
        raise DataError(f"x: expected points of {d} inputs, got an array of shape {x.shape}")
    if y is None:
        y, status = jnp.zeros(len(x), state.y.dtype), jnp.full(len(x), PENDING)
    else:
        y = jnp.atleast_1d(jnp.asarray(y, state.y.dtype))
        if y.shape != (len(x),):
            raise DataError(f"y: expected {len(x)} values, one for each point, got an array of shape {y.shape}")
        if known(jnp.isinf(y).any()):
            raise DataError("y: got an infinite value; an evaluation that failed is NaN")
        status = jnp.where(jnp.isfinite(y), OBSERVED, FAILED)
        y = jnp.where(jnp.isfinite(y), y, 0)
    told = (state.x[:, None] == x).all(-1).any(1) & (state.status == PENDING)
    kept = jnp.where(told, EMPTY, state.status)
    fits = jnp.sum(kept == EMPTY) >= len(x)
    if known(fits) is False:
        raise ConfigError(f"capacity: {capacity} evaluations are held; init with a larger capacity")
    checkify.debug_check(fits, "capacity: more evaluations than the state can hold; init with a larger capacity")
    places = jnp.nonzero(kept == EMPTY, size=len(x), fill_value=capacity)[0]
    return dataclasses.replace(
        state, x=state.x.at[places].set(x), y=state.y.at[places].set(y), status=kept.at[places].set(status)
    )


def best(state: BayesOpt) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """Returns the point with the largest observed value, and the value; -inf where nothing was observed."""
    values = jnp.where(state.status == OBSERVED, state.y, -jnp.inf)
    top = jnp.argmax(values)
    return state.x[top], values[top]


def posterior(state: BayesOpt) -> Any:
    """Returns the fitted posterior on the unit cube, of standardised values, failed and pending ones filled in."""
    low, width = state.bounds[:, 0], state.bounds[:, 1] - state.bounds[:, 0]
    x = (state.x - low) / width
    seen, failed, pending = (state.status == s for s in (OBSERVED, FAILED, PENDING))
    worst = jnp.min(jnp.where(seen, state.y, jnp.inf))
    y = jnp.where(failed & seen.any(), worst, state.y)
    shown = seen | (failed & seen.any())
    count = jnp.maximum(shown.sum(), 1)
    mean = jnp.sum(jnp.where(shown, y, 0)) / count
    variance = jnp.sum(jnp.where(shown, (y - mean) ** 2, 0)) / count
    y = jnp.where(shown, (y - mean) / jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
    fitted = fit(state.model, x, y, observed=shown, priors=state.priors, max_steps=60, tolerance=1e-2)
    believed = fitted.predict(x)[0]
    return Exact().condition(fitted.gp, x, jnp.where(pending, believed, y), shown | pending)


@functools.partial(jax.jit, static_argnames=("rest", "q", "restarts", "count"))
def _ask(arrays, rest, q, restarts, count):
    key, state, acquisition, candidates, continuous = rest.join(arrays)
    low, width = state.bounds[:, 0], state.bounds[:, 1] - state.bounds[:, 0]

    def of_design():
        x = jax.lax.dynamic_slice_in_dim(state.design, state.count, q)
        return Suggestion(x, jnp.zeros((), x.dtype), jnp.array(True))

    def of_model():
        box = jnp.stack([jnp.zeros_like(low), jnp.ones_like(low)], 1)
        found = suggest(
            key,
            posterior(state),
            box,
            acquisition=acquisition,
            q=q,
            restarts=restarts,
            candidates=count if candidates is None else (candidates - low) / width,
            continuous=continuous,
        )
        return Suggestion(low + width * found.x, found.value, found.converged)

    designing = (state.count < state.initial) | ~(state.status == OBSERVED).any()
    return jax.lax.cond(designing, of_design, of_model)
