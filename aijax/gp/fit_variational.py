"""Training of sparse variational posteriors in minibatches: natural gradients for q, any optax optimiser for the rest.

Each step draws a batch, makes a natural gradient step of q, and then one of the optimiser on kernel, mean, likelihood
and inducing points with q held (Salimbeni, Eleftheriadis and Hensman 2018, section 4). Parameters move on the line by
the bijection of their constraint, as in `aijax.gp.fit`. All steps are one compiled loop.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from aijax.errors import ConfigError
from aijax.gp.laplace import check_likelihood_data
from aijax.gp.likelihoods import Likelihood
from aijax.gp.svgp import SVGP, elbo, natural_step
from aijax.gp.trainable import Moved, choose_moved, split_arrays
from aijax.linalg.vectors import check_count
from aijax.typing import Any, Array, Callable, Float, PRNGKey

ADAM = optax.adam(1e-2)
"""One for all calls, which then share their compiled loop."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class VariationalFit:
    """A trained posterior: `predict`, `sample` and `predict_targets` take it as any other.

    Args:
      posterior: the `SVGP`.
      likelihood: as it was trained.
      history: the bound, or its estimate by each batch, after q moved and before the rest did, `[num_steps]`.
      indefinite: how many steps of q needed the second form of the precision (see `aijax.gp.svgp`).
      converged: False where the bound or q was not finite in the end; that the bound has settled is for `history` to
        show.
    """

    posterior: SVGP
    likelihood: Any
    history: Array
    indefinite: Array
    converged: Array

    @property
    def gp(self) -> Any:
        """The trained prior."""
        return self.posterior.gp

    def predict(self, x_new: Any, full_covariance: bool = False) -> tuple[Array, Array]:
        return self.posterior.predict(x_new, full_covariance)

    def sample(self, key: PRNGKey, x_new: Any, num_samples: int) -> Array:
        return self.posterior.sample(key, x_new, num_samples)


def fit_variational(
    key: PRNGKey,
    svgp: SVGP,
    likelihood: Likelihood,
    x: Any,
    y: Float[Array, " n"],
    *,
    num_steps: int = 1000,
    batch_size: int | None = None,
    natural_step_size: float | Callable[[Array], Array] = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    trainable: Any = None,
) -> VariationalFit:
    """Returns the posterior that maximises the bound over q, kernel, mean, likelihood and inducing points.

    Args:
      key: for the batches.
      svgp: where to begin, as from `prior_svgp`.
      likelihood: of `aijax.gp.likelihoods`.
      x: n points.
      y: targets.
      num_steps: how many.
      batch_size: points drawn for a step, with replacement; default all points, none drawn.
      natural_step_size: rho, in (0, 1], or a schedule of optax for it; with Gaussian noise and all points 1 is best,
        else about 0.1, and less in the first steps of a bad start.
      optimizer: of the other parameters; default `optax.adam(1e-2)`.
      trainable: patterns or a function of names such as `gp.kernel.lengthscale`, `inducing`, `likelihood.scale`, as in
        `fit`; default all but the GP's noise, which plays no part; () for none.

    Raises:
      ConfigError, DataError: data that cannot be used, a pattern that matches nothing, a step size out of its range.

    >>> from aijax import gp, kernels
    >>> x = jnp.linspace(-1.0, 1.0, 20)
    >>> start = gp.prior_svgp(gp.GP(kernels.RBF()), x[::4])
    >>> trained = fit_variational(jax.random.key(0), start, gp.Bernoulli(), x, x > 0, num_steps=20)
    >>> bool(trained.history[-1] > trained.history[0])
    True
    """
    check_likelihood_data(likelihood, svgp.gp, x, y)
    check_count("num_steps", num_steps)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    if not callable(natural_step_size) and not 0 < natural_step_size <= 1:
        raise ConfigError(f"natural_step_size: expected a number in (0, 1], got {natural_step_size!r}")
    if likelihood.num_latents != (1 if jnp.ndim(svgp.white_mean) == 1 else svgp.white_mean.shape[1]):
        raise ConfigError(
            f"svgp: {type(likelihood).__name__} has {likelihood.num_latents} latents, "
            f"white_mean is {jnp.shape(svgp.white_mean)}; give num_latents to prior_svgp"
        )
    y = jnp.asarray(y)
    y = y.astype(svgp.white_mean.dtype) if y.dtype == bool else y
    parameters = {"gp": svgp.gp, "inducing": svgp.inducing, "likelihood": likelihood}
    if trainable == ():
        moved = Moved((), (), (), (), ())
    else:
        default = (lambda name: name != "gp.noise_variance") if trainable is None else trainable
        moved = choose_moved(parameters, None, default, {}, {})
    options = _Options(num_steps, batch_size, natural_step_size, optimizer or ADAM)
    arrays, rest = split_arrays((key, parameters, (svgp.white_mean, svgp.white_root), x, y))
    return _train(arrays, moved, rest, options)


@dataclass(frozen=True)
class _Options:
    num_steps: int
    batch_size: int | None
    step_size: Any
    optimizer: Any


@functools.partial(jax.jit, static_argnames=("rest", "options"))
def _train(arrays: Any, moved: Moved, rest: Any, options: _Options) -> VariationalFit:
    key, parameters, q, x, y = rest.join(arrays)
    n = len(y)

    def place(line, q):
        here = moved.place((parameters, None), line)[0]
        return SVGP(here["gp"], here["inducing"], *q), here["likelihood"]

    def draw(step, likelihood):
        if options.batch_size is None:
            return x, y, likelihood
        rows = jax.random.randint(jax.random.fold_in(key, step), (options.batch_size,), 0, n)
        return jax.tree.map(lambda leaf: leaf[rows], x), y[rows], likelihood.at(rows)

    def turn(state, step):
        line, memory, q = state
        svgp, likelihood = place(line, q)
        x, y, likelihood = draw(step, likelihood)
        size = options.step_size(step) if callable(options.step_size) else options.step_size
        svgp, indefinite = natural_step(svgp, likelihood, x, y, jnp.asarray(size, q[0].dtype), num_data=max(n, len(y)))
        q = (svgp.white_mean, svgp.white_root)

        def loss(line):
            svgp, likelihood = place(line, q)
            x, y, likelihood = draw(step, likelihood)
            return -elbo(svgp, likelihood, x, y, num_data=max(n, len(y)))

        value, slope = jax.value_and_grad(loss)(line)
        updates, memory = options.optimizer.update(slope, memory, line)
        return (optax.apply_updates(line, updates), memory, q), (-value, indefinite)

    line = moved.to_line((parameters, None), q[0].dtype)
    start = (line, options.optimizer.init(line), q)
    (line, _, q), (history, indefinite) = jax.lax.scan(turn, start, jnp.arange(options.num_steps))
    svgp, likelihood = place(line, q)
    converged = jnp.isfinite(history[-1]) & jnp.isfinite(q[0]).all() & jnp.isfinite(q[1]).all()
    return VariationalFit(svgp, likelihood, history, jnp.sum(indefinite), converged)
