"""Sparse variational Gaussian processes: any likelihood, minibatches, natural gradients.

f(Z) = mean(Z) + L v at inducing points Z, L L^T = k(Z, Z), and q(v) = N(m, R R^T), R lower triangular. With
a_i = L^-1 k(Z, x_i),

    q(f_i) = N(mean(x_i) + a_i.m, k_ii - a_i.a_i + |R^T a_i|^2)
    log p(y) >= sum_i E_q[log p(y_i | f_i)] - KL(q(v) | N(0, I))

(Titsias 2009; Hensman, Fusi and Lawrence 2013; Hensman, Matthews and Ghahramani 2015, with v for f(Z)). Each of several
latents has its own m and R; they share kernel and inducing points.

The natural gradient of the bound in q is its gradient in the mean parameters of q (Salimbeni, Eleftheriadis and Hensman
2018, section 2; Khan and Lin 2017). With g_i, h_i the derivatives of E_q[log p(y_i | f_i)] in mean and variance of f_i,
P = (R R^T)^-1 and a step of size rho,

    T  = I - 2 sum_i h_i a_i a_i^T,    P' = (1 - rho) P + rho T,    m' = m + rho P'^-1 (sum_i g_i a_i - m)

which for Gaussian noise and rho = 1 is the optimum. Where the likelihood is not log-concave P' may be indefinite; then
P' = P + rho D + rho^2 / 2 D P^-1 D, D = T - P, which never is (Lin, Schmidt and Khan 2020, theorem 1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from aijax.errors import ConfigError, DataError
from aijax.gp.exact import draw_normal
from aijax.gp.indefinite import refuse_indefinite_kernel
from aijax.gp.likelihoods import Likelihood
from aijax.gp.model import GP, prior_mean
from aijax.gp.observations import check_points
from aijax.kernels.products import map_points
from aijax.known import known
from aijax.linalg import cholesky_with_jitter
from aijax.parameters import noun, parameter
from aijax.typing import Any, Array, Float, PRNGKey


@noun
class SVGP:
    """A posterior `q(f)` through inducing points, for `predict` and `sample`.

    Args:
      gp: the prior; its noise variance plays no part.
      inducing: Z, M points.
      white_mean: m, `[M]`, or `[M, q]` for q latents.
      white_root: R, lower triangular, `[M, M]`, or `[q, M, M]`.
    """

    gp: GP
    inducing: Any = parameter()
    white_mean: Any = parameter()
    white_root: Any = parameter()

    def check(self):
        mean, root = jnp.shape(self.white_mean), jnp.shape(self.white_root)
        if not mean or root != (*mean[1:], mean[0], mean[0]):
            raise ConfigError(f"white_root: expected {(*mean[1:], *mean[:1] * 2)} for white_mean {mean}, got {root}")

    def predict(self, x_new: Any, full_covariance: bool = False) -> tuple[Array, Array]:
        """Returns mean and variance of f, each `[n]` or `[n, q]`; or the covariance, of one latent."""
        check_points(x_new)
        if not full_covariance:
            moments = latent_moments(self, x_new)
            _refuse_nan(self, moments[0])
            return moments
        if self.white_mean.ndim == 2:
            raise ConfigError("full_covariance: it is given for one latent, this posterior has several")
        columns = inducing_columns(self, x_new).columns
        spread = _product(self.white_root.T, columns)
        mean = _product(columns.T, self.white_mean) + prior_mean(self.gp, x_new, columns.shape[1])
        _refuse_nan(self, mean)
        return mean, self.gp.kernel(x_new) - _product(columns.T, columns) + _product(spread.T, spread)

    def sample(self, key: PRNGKey, x_new: Any, num_samples: int) -> Array:
        mean, covariance = self.predict(x_new, full_covariance=True)
        return draw_normal(key, mean, covariance, num_samples)


def prior_svgp(gp: GP, inducing: Any, num_latents: int = 1) -> SVGP:
    """Returns the `SVGP` whose q is the prior: m = 0, R = I.

    Args:
      gp: the prior.
      inducing: Z, M points, as from `aijax.gp.inducing`.
      num_latents: `likelihood.num_latents`.
    """
    inducing = jax.tree.map(jnp.asarray, inducing)
    leaf = jax.tree.leaves(inducing)[0]
    dtype = leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.result_type(float)
    mean, root = jnp.zeros(len(leaf), dtype), jnp.eye(len(leaf), dtype=dtype)
    if num_latents > 1:
        mean, root = jnp.zeros((len(leaf), num_latents), dtype), jnp.tile(root, (num_latents, 1, 1))
    return SVGP(gp, inducing, mean, root)


def elbo(
    svgp: SVGP, likelihood: Likelihood, x: Any, y: Float[Array, " n"], *, num_data: int | None = None
) -> Float[Array, ""]:
    """Returns the lower bound of `log p(y)`, in nats; from a minibatch an unbiased estimate of it.

    Args:
      svgp: q.
      likelihood: of `aijax.gp.likelihoods`.
      x: n points, a minibatch of them or all.
      y: their targets.
      num_data: points of the whole data; default n.

    Raises:
      DataError: targets outside the support.

    Source: Hensman, Matthews and Ghahramani 2015, equation 19.

    >>> from aijax import gp, kernels
    >>> x = jnp.linspace(0.0, 1.0, 8)
    >>> q = prior_svgp(gp.GP(kernels.RBF()), x[::2])
    >>> round(float(elbo(q, gp.Bernoulli(), x, jnp.ones(8))), 3)
    -6.448
    """
    y = jnp.asarray(y)
    likelihood.check_targets(y)
    bound = weighted_elbo(svgp, likelihood, x, y, inducing_columns(svgp, x), _share(y, num_data))
    _refuse_nan(svgp, bound)
    return bound


def weighted_elbo(
    svgp: SVGP, likelihood: Likelihood, x: Any, y: Array, columns: "Columns", weight: Array | float
) -> Float[Array, ""]:
    """Returns the bound with a weight for each point, a number or `[n]`."""
    expected = likelihood.expected_log_density(*_moments(svgp, columns, x), y)
    return jnp.sum(weight * expected) - kl_divergence(svgp)


def kl_divergence(svgp: SVGP) -> Float[Array, ""]:
    """Returns `KL(q(v) | N(0, I))`, summed over latents."""
    diagonal = jnp.diagonal(svgp.white_root, axis1=-2, axis2=-1)
    squares = jnp.sum(svgp.white_root**2) + jnp.sum(svgp.white_mean**2)
    return (squares - svgp.white_mean.size) / 2 - jnp.sum(jnp.log(jnp.abs(diagonal)))


def latent_moments(svgp: SVGP, x: Any) -> tuple[Array, Array]:
    """Returns mean and variance of q(f_i) at n points, each `[n]` or `[n, q]`, in blocks of points."""
    root = cholesky_with_jitter(svgp.gp.kernel(svgp.inducing))
    return map_points(lambda part: _moments(svgp, _columns(svgp, *root, part), part), x)


def natural_step(
    svgp: SVGP,
    likelihood: Likelihood,
    x: Any,
    y: Float[Array, " n"],
    step_size: Array | float,
    *,
    num_data: int | None = None,
) -> tuple[SVGP, Array]:
    """Returns q after a natural gradient step on the bound, and whether the second form of P' was needed.

    Args:
      svgp, likelihood, x, y, num_data: as of `elbo`.
      step_size: rho, in (0, 1].

    Source: Salimbeni, Eleftheriadis and Hensman 2018; Lin, Schmidt and Khan 2020.
    """
    y = jnp.asarray(y)
    change = natural_gradient(svgp, likelihood, x, y, inducing_columns(svgp, x), _share(y, num_data))
    return move(svgp, change, step_size)


def natural_gradient(
    svgp: SVGP, likelihood: Likelihood, x: Any, y: Array, columns: "Columns", weight: Array | float
) -> tuple[Array, Array]:
    """Returns `sum_i g_i a_i - m` and `D = T - P`, for each latent: `[q, M]` and `[q, M, M]`.

    Args:
      columns: of `inducing_columns`.
      weight: of each point, a number or `[n]`.
    """
    mean, spread = _moments(svgp, columns, x)
    by_mean, by_variance = jax.grad(
        lambda mean, spread: jnp.sum(weight * likelihood.expected_log_density(mean, spread, y)), argnums=(0, 1)
    )(mean, spread)
    m, roots = _latents_first(svgp)
    a = columns.columns
    g, h = (jnp.atleast_2d(slope.T) for slope in (by_mean, by_variance))
    precision = jax.lax.map(_precision, roots)
    target = jnp.eye(m.shape[1], dtype=m.dtype) - 2 * jax.vmap(lambda h: _product(a * h, a.T))(h)
    return _product(g, a.T) - m, target - precision


def move(svgp: SVGP, change: tuple[Array, Array], step_size: Array | float) -> tuple[SVGP, Array]:
    """Returns q after a step along the `natural_gradient`, and whether the second form of P' was needed."""
    slope, difference = change
    m, roots = _latents_first(svgp)

    def one(latent):
        m, root, slope, difference = latent
        # in the coordinates R^-1 v the precision P is the identity
        inner = _product(_product(root.T, difference), root)
        identity = jnp.eye(len(m), dtype=m.dtype)
        first = _flipped_cholesky(identity + step_size * inner)
        second = identity + step_size * inner + step_size**2 / 2 * _product(inner, inner)
        indefinite = ~jnp.isfinite(first).all()
        factor = jnp.where(indefinite, _flipped_cholesky(second), first)
        # P' = R^-T U U^T R^-1, and so R' = R U^-T
        new_root = jax.lax.linalg.triangular_solve(factor, root, left_side=False, lower=False, transpose_a=True)
        return m + step_size * _product(new_root, _product(new_root.T, slope)), new_root, indefinite

    m, roots, indefinite = jax.lax.map(one, (m, roots, slope, difference))
    several = svgp.white_mean.ndim == 2
    moved = SVGP(svgp.gp, svgp.inducing, m.T if several else m[0], roots if several else roots[0])
    return moved, indefinite.any()


class Columns(NamedTuple):
    """What the inducing points say of n points.

    Args:
      columns: a_i, `[M, n]`.
      variance: `k_ii - a_i.a_i`, of f_i when f(Z) is known, `[n]`.
      jitter: what was added to the diagonal of k(Z, Z).
    """

    columns: Array
    variance: Array
    jitter: Array


def inducing_columns(svgp: SVGP, x: Any) -> Columns:
    """Returns the columns a_i of n points, and the variance that is left."""
    return _columns(svgp, *cholesky_with_jitter(svgp.gp.kernel(svgp.inducing)), x)


def _columns(svgp, root, jitter, x):
    columns = _solve(root, svgp.gp.kernel(svgp.inducing, x))
    return Columns(columns, jnp.maximum(svgp.gp.kernel.diagonal(x) - jnp.sum(columns**2, 0), 0), jitter)


def _refuse_nan(svgp, value):
    finite = jnp.isfinite(value).all()
    if known(finite) is False:
        refuse_indefinite_kernel(svgp.gp, svgp.inducing)
    checkify.debug_check(finite, "SVGP: k(Z, Z) is not positive definite, or a parameter of q is not finite")


def _share(y, num_data):
    """Returns what a point of the batch y counts for."""
    if num_data is not None and num_data < len(y):
        raise DataError(f"num_data: expected at least the {len(y)} points of the batch, got {num_data}")
    return 1.0 if num_data is None else num_data / len(y)


def _moments(svgp, columns, x):
    m, roots = _latents_first(svgp)
    mean = _product(m, columns.columns) + prior_mean(svgp.gp, x, len(columns.variance))
    spread = columns.variance + jax.vmap(lambda root: jnp.sum(_product(root.T, columns.columns) ** 2, 0))(roots)
    return (mean[0], spread[0]) if svgp.white_mean.ndim == 1 else (mean.T, spread.T)


def _latents_first(svgp):
    """Returns m `[q, M]` and R `[q, M, M]`."""
    several = svgp.white_mean.ndim == 2
    return (svgp.white_mean.T, svgp.white_root) if several else (svgp.white_mean[None], svgp.white_root[None])


def _precision(root):
    half = _solve(root, jnp.eye(len(root), dtype=root.dtype))
    return _product(half.T, half)


def _flipped_cholesky(matrix):
    """Returns U, upper triangular, with `U U^T = matrix`."""
    return jnp.tril(jax.lax.linalg.cholesky(matrix[::-1, ::-1], symmetrize_input=False))[::-1, ::-1]


def _solve(root, right):
    return jax.lax.linalg.triangular_solve(root, right, left_side=True, lower=True)


def _product(a, b):
    return jnp.matmul(a, b, precision="highest")
