"""Functions drawn from a posterior: each is a function of new points, at the price of a mean.

A draw of the prior f and of the noise e becomes one of the posterior by what the data say against it (Matheron's rule;
Wilson et al. 2020, arXiv:2002.09309, section 3; Wilson et al. 2021, arXiv:2011.04026):

    (f | y)(x) = mean(x) + f(x) + k(x, X) (K + D)^-1 (y - mean(X) - f(X) - e),    e ~ N(0, D)
    f(x) = phi(x).w,    w ~ N(0, I),    phi(x).phi(x') ~ k(x, x')

phi are random features (`aijax.kernels.random_features`), so that f is known everywhere at once; the last term has the
kernel itself. Over keys, which draw the features as well, mean and covariance are those of the posterior, however few
features there are. Draws of one key share them: their covariance is off by an error that falls as the root of the
number of features.

With inducing points Z the data speak through u ~ q(f(Z)), and the last term is `k(x, Z) k(Z, Z)^-1 (u - f(Z))`.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.experimental import checkify
from jax.sharding import Mesh

from aijax.errors import ConfigError, RunError
from aijax.gp.exact import ExactPosterior
from aijax.gp.iterative_posterior import IterativePosterior
from aijax.gp.model import GP, prior_mean
from aijax.gp.observations import check_points
from aijax.gp.sparse import SparsePosterior
from aijax.gp.svgp import SVGP
from aijax.gp.whitened import solve_whitened, white_part
from aijax.kernels.products import count_rows, kernel_product, map_rows, split_rows
from aijax.kernels.random_features import random_features
from aijax.known import known
from aijax.linalg import cholesky_with_jitter
from aijax.linalg.blocked import solve_lower
from aijax.linalg.vectors import check_count
from aijax.typing import Any, Array, Float, PRNGKey


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["gp", "features", "feature_weights", "x", "weights", "residual", "iterations", "converged"],
    meta_fields=["shape", "block_size", "mesh"],
)
@dataclass(frozen=True, eq=False)
class PathwiseSamples:
    """Functions drawn from a posterior: call it with new points. A pytree, which `jax.jit` takes as a function.

    Args:
      gp: the prior.
      features: the map phi.
      feature_weights: w, `[f, s]`.
      x: the points of the data, or the inducing points.
      weights: what `k(x_new, x)` is multiplied by, `[n, s]`.
      residual: the largest relative residual of the solves; 0 for direct ones.
      iterations: that they took; 0 for direct ones.
      converged: False where a solve stopped above its tolerance: the functions are then not to be used.
      shape: `(num_samples,)`, with m outputs `(num_samples, m)`; s is its product.
      block_size, mesh: of the rows of the kernel, as in `Iterative`.
    """

    gp: GP
    features: Any
    feature_weights: Array
    x: Any
    weights: Array
    residual: Array
    iterations: Array
    converged: Array
    shape: tuple[int, ...]
    block_size: int | None
    mesh: Mesh | None

    def __call__(self, x_new: Float[Array, "t d"]) -> Float[Array, "s t *m"]:
        """Returns the functions at new points, `[num_samples, n_new]` (with m outputs `[num_samples, n_new, m]`).

        Features and rows of the kernel are made in blocks of points: memory grows with what is returned alone.
        """
        check_points(x_new)
        x_new = jnp.asarray(x_new)
        values = _prior_values(self.features, self.feature_weights, x_new, self.block_size, self.mesh)
        values = values + kernel_product(
            self.gp.kernel, x_new, self.x, self.weights, block_size=self.block_size, mesh=self.mesh
        )
        values = jnp.moveaxis(values.reshape(-1, *self.shape), 0, 1)
        mean = prior_mean(self.gp, x_new, values.shape[1]).astype(values.dtype)
        return values + (mean if mean.shape == values.shape[1:] else mean[:, None])


def pathwise_sample(key: PRNGKey, posterior: Any, num_samples: int = 1, *, num_features: int = 2048) -> PathwiseSamples:
    """Returns functions drawn from the posterior, which are then known at any point.

    `sample` draws values at given points, jointly, for the cube of their number; a function is evaluated at a cost
    linear in it, has derivatives, and can be maximised. White noise in the kernel is of no function and is left out.

    Args:
      key: for the features, the prior and the noise.
      posterior: of `condition` with `Exact`, `Iterative` or `SGPR`, of a fit with one of them, or an `SVGP`.
      num_samples: how many; default 1.
      num_features: of the prior, even, for each term of the kernel that needs random ones; default 2048.

    Raises:
      ConfigError: a posterior of another kind, a kernel of which no features are known, an odd number of features.
      RunError: outside of `jit`, solves that stopped above the tolerance of the posterior's `Iterative`. Inside, the
        field `converged` tells.

    Source: Wilson et al. 2020, arXiv:2002.09309.

    >>> from aijax import gp, kernels
    >>> x = jnp.array([0.0, 1.0, 2.0])
    >>> posterior = gp.condition(gp.GP(kernels.RBF(), noise_variance=1e-6), x, jnp.sin(x))
    >>> functions = pathwise_sample(jax.random.key(0), posterior, 5)
    >>> functions(jnp.array([0.5, 1.0])).shape, bool((abs(functions(x) - jnp.sin(x)) < 0.01).all())
    ((5, 2), True)
    """
    check_count("num_samples", num_samples)
    posterior = getattr(posterior, "posterior", posterior)
    if type(posterior) not in UPDATES:
        raise ConfigError(
            f"posterior: expected one of Exact, Iterative or SGPR or an SVGP, got a {type(posterior).__name__}; sample "
            "draws from any at given points"
        )
    x = _points(posterior)
    if not hasattr(x, "ndim"):
        raise ConfigError(f"x: functions are drawn over points [n, d], got a {type(x).__name__}")
    found = _draw(key, posterior, num_samples, num_features)
    if known(found.converged) is False:
        raise RunError(
            f"pathwise_sample: the solves stopped at a relative residual of {float(found.residual):.1e}; condition "
            "with a larger max_iterations or rank"
        )
    checkify.debug_check(found.converged, "pathwise_sample: the solves stopped above their tolerance")
    return found


@functools.partial(jax.jit, static_argnames=("num_samples", "num_features"))
def _draw(key, posterior, num_samples, num_features):
    gp, x, keys = posterior.gp, _points(posterior), jax.random.split(key, 3)
    centre, update, (block_size, mesh) = UPDATES[type(posterior)](posterior)
    shape = (num_samples, *centre.shape[1:])
    columns = math.prod(shape)
    features = random_features(keys[0], gp.kernel, num_features, x)
    width = jax.eval_shape(features, x).shape[1]
    feature_weights = jax.random.normal(keys[1], (width, columns), centre.dtype)
    values = _prior_values(features, feature_weights, x, block_size, mesh)
    weights, residual, iterations, converged = update(keys[2], values)
    weights = weights + jnp.broadcast_to(centre[:, None], (len(centre), *shape)).reshape(-1, columns)
    converged = converged & jnp.isfinite(weights).all()
    return PathwiseSamples(
        gp, features, feature_weights, x, weights, residual, iterations, converged, shape, block_size, mesh
    )


def _points(posterior):
    """Returns the points whose rows of the kernel the functions have."""
    if isinstance(posterior, IterativePosterior):
        system = posterior.system
        return jax.tree.map(lambda leaf: leaf[: system.rows.n], system.x)
    return posterior.x if isinstance(posterior, ExactPosterior) else posterior.inducing


def _of_exact(posterior):
    """Returns the weights of the mean; the function of a key and values of the prior at the points that gives what is
    to be added to those weights, and how well it was solved for; `(block_size, mesh)`."""
    factor = posterior.factor
    variance = posterior.gp.noise_variance + _white(posterior.gp.kernel, posterior.x) + posterior.jitter

    def update(key, values):
        values = _add_noise(key, values, variance)
        if posterior.observed is not None:
            values = jnp.where(posterior.observed[:, None], values, 0)
        solution = solve_lower(factor, solve_lower(factor, values), transpose=True)
        return -solution, jnp.zeros(()), jnp.zeros((), int), posterior.converged

    return posterior.weights, update, (None, None)


def _of_iterative(posterior):
    system, solver, n = posterior.system, posterior.solver, posterior.system.rows.n
    scale = system.whitening[:, None]

    def update(key, values):
        # noise of n rows, as they are without those that fill up: the same on any number of devices
        target = scale * system.rows.pad_zero(_add_noise(key, values, system.noise[:n]))
        options = {"tolerance": solver.tolerance, "max_iterations": solver.max_iterations}
        solution, status = solve_whitened(system, target, **options)
        converged = posterior.converged & status.converged.all()
        return -(scale * solution)[:n], status.residual.max(), status.iterations.max(), converged

    return posterior.weights[:n], update, (solver.block_size, solver.mesh)


def _of_sparse(posterior):
    root, precision_root = posterior.root, posterior.precision_root
    variance = _white(posterior.gp.kernel, posterior.inducing) + posterior.jitter

    def update(key, values):
        keys = jax.random.split(key)
        spread = solve_lower(precision_root, jax.random.normal(keys[0], values.shape, values.dtype), transpose=True)
        spread = spread - solve_lower(root, _add_noise(keys[1], values, variance))
        return solve_lower(root, spread, transpose=True), jnp.zeros(()), jnp.zeros((), int), posterior.converged

    columns = posterior.weights.reshape(len(root), -1)
    centre = solve_lower(root, columns, transpose=True).reshape(posterior.weights.shape)
    return centre, update, (None, None)


def _of_svgp(svgp):
    root, jitter = cholesky_with_jitter(svgp.gp.kernel(svgp.inducing))
    variance = _white(svgp.gp.kernel, svgp.inducing) + jitter
    roots = jnp.atleast_3d(svgp.white_root.T).T  # [q, M, M]

    def update(key, values):
        keys = jax.random.split(key)
        white = jax.random.normal(keys[0], (len(root), values.shape[1] // len(roots), len(roots)), values.dtype)
        spread = jnp.einsum("qij,jsq->isq", roots, white, precision="highest").reshape(values.shape)
        spread = spread - solve_lower(root, _add_noise(keys[1], values, variance))
        converged = jnp.isfinite(root).all()
        return solve_lower(root, spread, transpose=True), jnp.zeros(()), jnp.zeros((), int), converged

    columns = svgp.white_mean.reshape(len(root), -1)
    centre = solve_lower(root, columns, transpose=True).reshape(svgp.white_mean.shape)
    return centre, update, (None, None)


UPDATES = {ExactPosterior: _of_exact, IterativePosterior: _of_iterative, SparsePosterior: _of_sparse, SVGP: _of_svgp}


def _prior_values(features, weights, x, block_size, mesh):
    """Returns `phi(x).w`, `[n, s]`, in blocks of points."""
    rows = split_rows(count_rows(x), block_size, mesh)

    def block(features, weights, part):
        return jnp.matmul(features(part), weights, precision="highest"), ()

    return map_rows(block, rows, (features, weights), (rows.pad(x),))[0][: rows.n]


def _add_noise(key, values, variance):
    """Returns values `[n, s]` with normal noise of a variance for each row."""
    positive = variance > 0
    std = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
    return values + std[:, None] * jax.random.normal(key, values.shape, values.dtype)


def _white(kernel, x):
    """Returns the variance of white noise in the kernel at n points; what rounding leaves of none is 0."""
    return jnp.maximum(white_part(kernel, x), 0)
