"""Where to evaluate next: the point, or the q points, at which an acquisition is largest.

`suggest` scores points that fill the box and points around the best one so far, and climbs from the best of them by
L-BFGS in the box, all starts at once. Everything is for maximisation; give the posterior of -f for a minimum.

An acquisition is a noun with `scorer(key, posterior, best, bounds, q)`, which returns the function of q points `[q, d]`
that is to be maximised. The formulas are in `aijax.gp.acquisition`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.gp import acquisition as formulas
from aijax.gp.pathwise import pathwise_sample
from aijax.lbfgs import lbfgs
from aijax.linalg import cholesky_with_jitter
from aijax.linalg.blocked import solve_lower
from aijax.parameters import noun, parameter, static
from aijax.typing import Any, Array, Bool, Callable, Float, PRNGKey

Scorer = Callable[[Float[Array, "q d"]], Float[Array, ""]]


class Acquisition:
    """The base of acquisitions. `joint` says whether it knows what several points are worth together."""

    joint = False

    def scorer(self, key: PRNGKey, posterior: Any, best: Array, bounds: Array, q: int) -> Scorer:
        raise NotImplementedError


@noun
class LogExpectedImprovement(Acquisition):
    """`log E max(max_j f(x_j) - best, 0)`; for q points smoothed, and averaged over `count` points of a cubature."""

    softness: float = static(1e-3)
    count: int = static(512)
    joint = True

    def scorer(self, key, posterior, best, bounds, q):
        if q == 1:
            return lambda x: formulas.log_expected_improvement(*_normal(posterior, x), best)
        cubature = formulas.normal_cubature(self.count, q - 1, bounds.dtype)
        softness = self.softness
        return lambda x: formulas.log_batch_expected_improvement(
            *posterior.predict(x, True), best, cubature, softness=softness
        )


@noun
class ExpectedImprovement(Acquisition):
    """`E max(max_j f(x_j) - best, 0)`; flat where the logarithm still has a slope."""

    count: int = static(512)
    joint = True

    def scorer(self, key, posterior, best, bounds, q):
        if q == 1:
            return lambda x: formulas.expected_improvement(*_normal(posterior, x), best)
        cubature = formulas.normal_cubature(self.count, q - 1, bounds.dtype)
        return lambda x: formulas.batch_expected_improvement(*posterior.predict(x, True), best, cubature)


@noun
class ProbabilityOfImprovement(Acquisition):
    """`log P(f(x) > best + margin)`."""

    margin: Any = parameter(0.0, "nonnegative")

    def scorer(self, key, posterior, best, bounds, q):
        return lambda x: formulas.log_probability_of_improvement(*_normal(posterior, x), best + self.margin)


@noun
class UpperConfidenceBound(Acquisition):
    """`mean + weight std`."""

    weight: Any = parameter(2.0, "nonnegative")

    def scorer(self, key, posterior, best, bounds, q):
        return lambda x: formulas.upper_confidence_bound(*_normal(posterior, x), self.weight)


@noun
class KnowledgeGradient(Acquisition):
    """The expected rise of the largest posterior mean, over `points` points of the box and the q points x
    (Scott, Frazier and Powell 2011; Wu and Frazier 2016); for q points averaged over `count` points of a cubature."""

    points: int = static(32)
    count: int = static(64)
    joint = True

    def scorer(self, key, posterior, best, bounds, q):
        grid = box_points(key, self.points, bounds)
        cubature = formulas.normal_cubature(self.count, q - 1, bounds.dtype) if q > 1 else None

        def score(x):
            mean, covariance = posterior.predict(jnp.concatenate([grid, x]), True)
            noise = jnp.broadcast_to(posterior.gp.noise_variance, (q,)).astype(mean.dtype)
            root, _ = cholesky_with_jitter(covariance[-q:, -q:], noise, max_tries=8)
            slopes = solve_lower(root, covariance[-q:]).T
            return formulas.batch_knowledge_gradient(mean, slopes, cubature)

        return score


@noun
class ThompsonSampling(Acquisition):
    """The largest value of a function drawn from the posterior; q functions for q points.

    By default it is drawn at the candidates alone, jointly. With `num_features` it is drawn as a function
    (`aijax.gp.pathwise`; Wilson et al. 2020, section 6) and climbed in the box as other acquisitions are.
    """

    num_features: int | None = static(None)
    joint = True


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Suggestion:
    """Where to evaluate next.

    Args:
      x: `[q, d]`.
      value: of the acquisition there (for Thompson sampling the largest value drawn).
      converged: whether the climb to it ended at a maximum; of Thompson sampling at the candidates: whether it could
        draw.
    """

    x: Array
    value: Array
    converged: Array


def suggest(
    key: PRNGKey,
    posterior: Any,
    bounds: Float[Array, "d 2"],
    *,
    acquisition: Acquisition = LogExpectedImprovement(),  # noqa: B008
    q: int = 1,
    best: Array | None = None,
    restarts: int = 20,
    candidates: int | Float[Array, "m q d"] = 512,
    continuous: Bool[Array, " d"] | None = None,
) -> Suggestion:
    """Returns the q points of the box at which the acquisition is largest.

    Args:
      key: for the candidates and the draws.
      posterior: of `condition` or of a fit.
      bounds: (lowest, highest) of each input.
      acquisition: default `LogExpectedImprovement()`.
      q: points to be evaluated at once.
      best: value to improve on; default the largest posterior mean at the data that were observed.
      restarts: how many of the best candidates are climbed from.
      candidates: how many, or which, sets of q points are scored first.
      continuous: which inputs may be moved from a candidate's values; default all.

    Raises:
      ConfigError: bounds that are not `[d, 2]` or not in order, an acquisition that has no value for q points
        together, a posterior without points where `best` is not given.

    >>> from aijax import gp, kernels
    >>> x = jnp.array([[0.0], [1.0]])
    >>> posterior = gp.condition(gp.GP(kernels.RBF(0.3), noise_variance=1e-4), x, jnp.zeros(2))
    >>> found = suggest(jax.random.key(0), posterior, jnp.array([[0.0, 1.0]]))
    >>> round(float(found.x[0, 0]), 2)
    0.5
    """
    bounds = check_bounds(bounds)
    if q < 1 or (q > 1 and not acquisition.joint):
        raise ConfigError(
            f"q: {type(acquisition).__name__} says what one point is worth, got q = {q}; LogExpectedImprovement, "
            "KnowledgeGradient and ThompsonSampling take several"
        )
    points, mean = _known_points(posterior)
    if best is None:
        if points is None:
            raise ConfigError(
                f"best: a {type(posterior).__name__} does not hold its points; give the value to improve on"
            )
        best = jnp.max(mean)
    keys = jax.random.split(key, 3)
    if isinstance(candidates, int):
        centre = None if points is None else points[jnp.argmax(mean)]
        candidates = _candidates(keys[0], candidates, bounds, q, centre)
    if isinstance(acquisition, ThompsonSampling):
        if acquisition.num_features is None:
            return _thompson(keys[1], posterior, candidates, q)
        functions = jax.random.split(keys[1], q), posterior, acquisition.num_features
        return _climb_functions(*functions, candidates, bounds, restarts, continuous)
    score = acquisition.scorer(keys[1], posterior, best, bounds, q)
    return _climb(score, candidates, bounds, restarts, continuous)


def box_points(key: PRNGKey, count: int, bounds: Float[Array, "d 2"]) -> Float[Array, "count d"]:
    """Returns points that fill the box evenly: Sobol's sequence, its digits shifted at random."""
    from scipy.stats import qmc

    dimension = len(bounds)
    exponent = max(count - 1, 1).bit_length()
    digits = qmc.Sobol(dimension, scramble=False).random_base2(exponent)[:count] * 2.0**32
    shift = jax.random.bits(key, (dimension,), jnp.uint32)
    shifted = jnp.asarray(digits.astype(np.uint32)) ^ shift
    unit = (shifted >> 8).astype(bounds.dtype) * 2.0**-24 + 2.0**-25
    return bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) * unit


def check_bounds(bounds: Any) -> Float[Array, "d 2"]:
    """Returns the bounds as a floating array `[d, 2]`."""
    bounds = jnp.asarray(bounds)
    if bounds.ndim != 2 or bounds.shape[1] != 2 or not len(bounds):
        raise ConfigError(f"bounds: expected (lowest, highest) of each input, [d, 2], got an array of {bounds.shape}")
    if not isinstance(bounds, jax.core.Tracer):
        rows = np.asarray(bounds)
        wrong = np.flatnonzero(~(rows[:, 0] < rows[:, 1]) | ~np.isfinite(rows).all(1))
        if wrong.size:
            raise ConfigError(f"bounds: expected lowest < highest, got {rows[wrong[0]].tolist()} for input {wrong[0]}")
    return bounds if jnp.issubdtype(bounds.dtype, jnp.floating) else bounds.astype(float)


def _normal(posterior, x):
    """Returns mean and standard deviation at one point; the variance is kept above rounding."""
    mean, variance = posterior.predict(x)
    return mean[0], jnp.sqrt(jnp.maximum(variance[0], jnp.finfo(mean.dtype).tiny ** 0.5))


def _known_points(posterior):
    """Returns the points of the data and the posterior mean there, -inf where no target was observed; else None."""
    posterior = getattr(posterior, "posterior", posterior)
    points = getattr(posterior, "x", None)
    if points is None:
        return None, None
    mean = posterior.predict(points)[0]
    observed = getattr(posterior, "observed", None)
    points = points[:, None] if points.ndim == 1 else points
    return points, mean if observed is None else jnp.where(observed, mean, -jnp.inf)


def _candidates(key, count, bounds, q, centre):
    """Returns sets of q points `[count, q, d]`: half fill the box, half lie around the best point at all distances."""
    keys = jax.random.split(key, 3)
    d, width = len(bounds), bounds[:, 1] - bounds[:, 0]
    wide = box_points(keys[0], count, jnp.tile(bounds, (q, 1))).reshape(count, q, d)
    if centre is None:
        return wide
    half = count // 2
    reach = 10.0 ** jax.random.uniform(keys[1], (half, 1, 1), bounds.dtype, -3.0, -0.5)
    near = centre + reach * width * jax.random.normal(keys[2], (half, q, d), bounds.dtype)
    return jnp.concatenate([wide[: count - half], jnp.clip(near, bounds[:, 0], bounds[:, 1])])


def _climb(score, candidates, bounds, restarts, continuous):
    low, width = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
    unit = (candidates - low) / width
    values = jax.vmap(lambda u: score(low + width * u))(unit)
    values = jnp.where(jnp.isnan(values), -jnp.inf, values)
    starts = unit[jax.lax.top_k(values, min(restarts, len(unit)))[1]]
    movable = True if continuous is None else jnp.asarray(continuous)

    def climb(start):
        def loss(u):
            return -score(low + width * jnp.where(movable, u, start))

        return lbfgs(
            loss,
            start,
            lower=jnp.zeros_like(start),
            upper=jnp.ones_like(start),
            memory=6,
            max_steps=50,
            tolerance=1e-4,
            value_tolerance=1e-7,
            first_step=0.05,
        )

    ends = jax.vmap(climb)(starts)
    top = jnp.argmin(ends.value)
    return Suggestion(low + width * ends.x[top], -ends.value[top], ends.converged[top])


def _thompson(key, posterior, candidates, q):
    points = candidates.reshape(-1, candidates.shape[-1])
    mean, covariance = posterior.predict(points, True)
    # what rounding leaves of a small posterior covariance may need more jitter than a prior does
    root, _ = cholesky_with_jitter(covariance, max_tries=14)
    draws = mean + jax.random.normal(key, (q, len(points)), mean.dtype) @ root.T
    return Suggestion(points[jnp.argmax(draws, 1)], jnp.max(draws), jnp.isfinite(draws).all())


def _climb_functions(keys, posterior, num_features, candidates, bounds, restarts, continuous):
    points = candidates.reshape(-1, 1, candidates.shape[-1])

    def one(key):
        function = pathwise_sample(key, posterior, num_features=num_features)
        found = _climb(lambda x: function(x)[0, 0], points, bounds, restarts, continuous)
        return found.x[0], found.value, found.converged & function.converged

    x, values, converged = jax.lax.map(one, keys)
    return Suggestion(x, jnp.max(values), converged.all())
