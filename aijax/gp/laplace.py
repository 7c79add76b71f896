"""Laplace's approximation: a Gaussian at the mode of the posterior, for any likelihood of one latent and the softmax.

With K = k(x, x), g = d log p(y | f) / df and W = -d2 log p(y | f) / df2, the mode f and its evidence are

    f = mean + K g,    log p(y) ~ log p(y | f) - 1/2 g.(f - mean) - 1/2 log det(I + K W)

    mean* = mean(x*) + k(x*, x) g,    var* = k(x*, x*) - k(x*, x) (K + W^-1)^-1 k(x, x*)

Rasmussen and Williams 2006, sections 3.4 and 3.5, equations 3.21, 3.24 and 3.32. The mode is found by Newton's method
on a, f = mean + K a (algorithms 3.1 and 3.3), each step halved until the posterior does not fall; at the mode a = g.
Its derivative is that of the equation it solves, in place of algorithm 5.1:

    df = (I + K W)^-1 (dK g + dmean + K dg),    dg at f held,    (I + K W)^-1 = I - K (K + W^-1)^-1

K is never inverted or factorised, and no jitter is needed.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, DataError
from aijax.gp.categorical import Categorical
from aijax.gp.curvature import (
    diagonal_curvature,
    half_log_determinant,
    positive_part,
    softmax_curvature,
    softmax_half_log_determinant,
)
from aijax.gp.exact import draw_normal
from aijax.gp.likelihoods import Likelihood
from aijax.gp.model import GP, Evidence, prior_mean
from aijax.gp.observations import check_points
from aijax.kernels.products import map_points
from aijax.parameters import check_parameters, debug_check_parameters, noun, static
from aijax.typing import Any, Array, PRNGKey

MAX_HALVINGS = 30


@noun
class Laplace:
    """Inference by a Gaussian at the mode; `noise_variance` of the GP plays no part.

    Args:
      likelihood: one of `aijax.gp.likelihoods`, or a `Categorical` (its latents share the kernel). A fit may train its
        parameters, as `solver.likelihood.*`.
      max_steps: of Newton's method.

    >>> from aijax import gp, kernels
    >>> x = jnp.array([-1.0, -0.5, 0.5, 1.0])
    >>> posterior = gp.condition(gp.GP(kernels.RBF()), x, x > 0, solver=Laplace(gp.Bernoulli()))
    >>> [round(float(p), 2) for p in gp.predict_probability(posterior, x[1:3])]
    [0.42, 0.58]
    """

    likelihood: Any
    max_steps: int = static(100)

    def check(self):
        if not isinstance(self.likelihood, Likelihood):
            raise ConfigError(f"likelihood: expected a likelihood, such as gp.Bernoulli(), got {self.likelihood!r}")
        if self.likelihood.num_latents > 1 and not isinstance(self.likelihood, Categorical):
            name = type(self.likelihood).__name__
            raise ConfigError(f"likelihood: Laplace takes one latent or Categorical, got {name}; use Variational")

    def check_data(self, gp: GP, x: Any, y: Array, observed: Array | None = None) -> None:
        """Raises a `ConfigError` or `DataError` for data that `evidence` cannot use."""
        check_likelihood_data(self.likelihood, gp, x, y, observed)

    def evidence(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> Evidence:
        self.check_data(gp, x, y, observed)
        likelihood, gram, mean, y, observed = _problem(self.likelihood, gp, x, y, observed)
        f, residual, steps, found = _mode(self.max_steps, likelihood, gram, mean, y, observed)
        gradient = _gradient(likelihood, f, y, observed)
        value = _log_likelihood(likelihood, f, y, observed) - jnp.sum(gradient * (f - mean)) / 2
        value -= _half_log_determinant(likelihood, gram, f, y, observed)
        supported = jnp.all(likelihood.supports(y) | ~observed)
        value = jnp.where(supported, value, jnp.nan)
        return Evidence(value, residual=residual, iterations=steps, converged=found & jnp.isfinite(value))

    def condition(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: Any = None) -> "LaplacePosterior":
        self.check_data(gp, x, y, observed)
        likelihood, gram, mean, y, observed = _problem(self.likelihood, gp, x, y, observed)
        f, residual, steps, found = _mode(self.max_steps, likelihood, gram, mean, y, observed)
        gradient = _gradient(likelihood, f, y, observed)
        curvature = _curvature(likelihood, gram, f, y, observed)
        supported = jnp.all(likelihood.supports(y) | ~observed)
        return LaplacePosterior(gp, likelihood, x, f, gradient, curvature, residual, steps, found & supported)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LaplacePosterior:
    """`q(f)` of Laplace's approximation.

    Args:
      gp: the prior.
      likelihood: of the solver.
      x: the n points of the data.
      mode: f at them, `[n]`, or `[n, c]` for c classes.
      gradient: of the log likelihood there.
      curvature: factors of I + K W.
      residual: of the equation of the mode, relative.
      iterations: Newton steps made.
      converged: False where no mode was found.
    """

    gp: GP
    likelihood: Any
    x: Any
    mode: Array
    gradient: Array
    curvature: Any
    residual: Array
    iterations: Array
    converged: Array

    def predict(self, x_new: Any, full_covariance: bool = False) -> tuple[Array, Array]:
        """Returns mean and variance of f, each `[n_new]`, or the covariance; for c classes each `[n_new, c]`.

        Variances are worked out in blocks of points.
        """
        if self.mode.ndim == 2:
            if full_covariance:
                raise ConfigError("full_covariance: of classes it is given point by point, by latent_covariance")
            mean, covariance = self.latent_covariance(x_new)
            return mean, jnp.diagonal(covariance, axis1=1, axis2=2)
        if not full_covariance:
            return map_points(self._moments, x_new)
        mean, half, back = self._halves(x_new)
        covariance = self.gp.kernel(x_new) - half.T @ half
        return mean, covariance if back is None else covariance + back.T @ back

    def latent_covariance(self, x_new: Any) -> tuple[Array, Array]:
        """Returns mean and variance of the latents of each point, as `Likelihood.predict` takes them: of c classes with
        their covariances, `[n_new, c, c]`."""
        return map_points(self._class_moments, x_new) if self.mode.ndim == 2 else self.predict(x_new)

    def sample(self, key: PRNGKey, x_new: Any, num_samples: int) -> Array:
        mean, covariance = self.predict(x_new, full_covariance=True)
        return draw_normal(key, mean, covariance, num_samples)

    def _mean(self, x_new):
        cross = self.gp.kernel(x_new, self.x)
        mean = jnp.matmul(cross, self.gradient, precision="highest")
        return mean + _columns_like(prior_mean(self.gp, x_new, len(mean)), mean), cross

    def _halves(self, x_new):
        mean, cross = self._mean(x_new)
        gram = None if self.curvature.minus_root is None else self.gp.kernel(self.x)
        return mean, *self.curvature.halves(gram, cross.T)

    def _moments(self, x_new):
        mean, half, back = self._halves(x_new)
        variance = self.gp.kernel.diagonal(x_new) - jnp.sum(half**2, 0)
        return mean, jnp.maximum(variance if back is None else variance + jnp.sum(back**2, 0), 0)

    def _class_moments(self, x_new):
        mean, cross = self._mean(x_new)
        prior = self.gp.kernel.diagonal(x_new)[:, None, None] * jnp.eye(self.mode.shape[1], dtype=cross.dtype)
        return mean, prior - self.curvature.reduction(cross.T)


def check_likelihood_data(likelihood: Likelihood, gp: GP, x: Any, y: Any, observed: Any = None) -> None:
    """Raises a `ConfigError` or `DataError` for parameters, points or targets that cannot be used together."""
    check_parameters((gp, likelihood))
    debug_check_parameters((gp, likelihood))
    y = jnp.asarray(y)
    if y.ndim != 1 or len(y) == 0:
        raise DataError(f"y: expected targets [n], n at least 1, got an array of shape {y.shape}")
    check_points(x, len(y))
    if observed is None:
        likelihood.check_targets(y)
    elif jnp.shape(observed) != y.shape or not jnp.issubdtype(jnp.result_type(observed), bool):
        raise DataError(f"observed: expected a mask [{len(y)}] of bool, got {jnp.shape(observed)}")
    elif not isinstance(observed, jax.core.Tracer):
        likelihood.check_targets(y[np.asarray(observed)])


def _problem(likelihood, gp, x, y, observed):
    """Returns the likelihood, K, the prior mean of each latent, targets and mask; missing targets are 0, which every
    support has."""
    gram = gp.kernel(x)
    y = jnp.asarray(y)
    y = y.astype(gram.dtype) if y.dtype == bool else y
    observed = jnp.ones(len(y), bool) if observed is None else jnp.asarray(observed)
    mean = prior_mean(gp, x, len(y)).astype(gram.dtype)
    if likelihood.num_latents > 1:
        mean = jnp.broadcast_to(mean[:, None], (len(y), likelihood.num_latents))
    return likelihood, gram, mean, jnp.where(observed, y, 0), observed


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _mode(max_steps, likelihood, gram, mean, y, observed):
    """Returns f, the relative residual of `a = g`, the number of steps and whether a maximum was found."""
    epsilon = jnp.finfo(gram.dtype).eps

    def measures(a):
        f = mean + _times(gram, a)
        gradient = _gradient(likelihood, f, y, observed)
        value = _log_likelihood(likelihood, f, y, observed) - jnp.sum(a * (f - mean)) / 2
        residual = jnp.max(jnp.abs(gradient - a)) / (1 + jnp.max(jnp.abs(gradient)))
        return f, gradient, jnp.where(jnp.isfinite(value), value, -jnp.inf), residual

    def direction(a, f, gradient):
        curvature = _curvature(likelihood, gram, f, y, observed)

        def newton(curvature):
            b = curvature.times(f - mean) + gradient
            return b - curvature.solve(gram, _times(gram, b)) - a

        if curvature.definite is True:
            return newton(curvature)
        return jnp.where(curvature.definite, newton(curvature), newton(positive_part(curvature)))

    def step(state):
        a, (f, gradient, value, _), steps, _ = state
        whole = direction(a, f, gradient)

        def worse(trial):
            return (trial[1][2] < value - 8 * epsilon * jnp.abs(value)) & (trial[2] < MAX_HALVINGS)

        def halve(trial):
            moved = a + 0.5 ** (trial[2] + 1.0).astype(gram.dtype) * whole
            return moved, measures(moved), trial[2] + 1

        moved, found, halvings = jax.lax.while_loop(worse, halve, (a + whole, measures(a + whole), jnp.int32(0)))
        return moved, found, steps + 1, halvings == MAX_HALVINGS

    def unfinished(state):
        _, (_, _, _, residual), steps, stuck = state
        return (residual > epsilon ** (2 / 3)) & (steps < max_steps) & ~stuck

    start = jnp.zeros_like(mean)
    _, (f, _, value, residual), steps, _ = jax.lax.while_loop(
        unfinished, step, (start, measures(start), jnp.int32(0), jnp.array(False))
    )
    definite = _curvature(likelihood, gram, f, y, observed).definite
    return f, residual, steps, (residual <= 10 * jnp.sqrt(epsilon)) & jnp.isfinite(value) & definite


@_mode.defjvp
def _mode_jvp(max_steps, primals, tangents):
    likelihood, gram, _, y, observed = primals
    d_likelihood, d_gram, d_mean, d_y, _ = tangents
    f, residual, steps, found = out = _mode(max_steps, *primals)
    gradient, d_gradient = jax.jvp(
        lambda likelihood, y: _gradient(likelihood, f, y, observed), (likelihood, y), (d_likelihood, d_y)
    )
    change = _times(d_gram, gradient) + d_mean + _times(gram, d_gradient)
    d_f = change - _times(gram, _curvature(likelihood, gram, f, y, observed).solve(gram, change))
    return out, (d_f, jnp.zeros_like(residual), _no_tangent(steps), _no_tangent(found))


def _log_likelihood(likelihood, f, y, observed):
    return jnp.sum(jnp.where(observed, likelihood.log_density(f, y), 0))


def _gradient(likelihood, f, y, observed):
    return jax.grad(lambda f: _log_likelihood(likelihood, f, y, observed))(f)


def _diagonal(likelihood, f, y, observed):
    """Returns the diagonal of W; each log density depends on its own f only."""
    return -jax.jvp(lambda f: _gradient(likelihood, f, y, observed), (f,), (jnp.ones_like(f),))[1]


def _probability(f, observed):
    return jnp.where(observed[:, None], jax.nn.softmax(f), 0)


def _curvature(likelihood, gram, f, y, observed):
    if f.ndim == 2:
        return softmax_curvature(gram, _probability(f, observed))
    return diagonal_curvature(gram, _diagonal(likelihood, f, y, observed), likelihood.log_concave)


def _half_log_determinant(likelihood, gram, f, y, observed):
    if f.ndim == 2:
        return softmax_half_log_determinant(gram, _probability(f, observed))
    return half_log_determinant(gram, _diagonal(likelihood, f, y, observed), likelihood.log_concave)


def _columns_like(mean, like):
    return mean if mean.ndim == like.ndim else mean[:, None]


def _times(gram, v):
    return jnp.matmul(gram, v, precision="highest")


def _no_tangent(value):
    return np.zeros(value.shape, jax.dtypes.float0)
