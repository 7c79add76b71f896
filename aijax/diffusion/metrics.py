"""Distances between two sets of samples, on features of any kind.

Frechet distance of Gaussians fitted to features (FID with an Inception's: Heusel et al. 2017), maximum mean discrepancy
(KID with a cubic kernel: Binkowski et al. 2018), sliced Wasserstein distance, precision and recall by nearest
neighbours (Kynkaanniemi et al. 2019), inception score (Salimans et al. 2016). `features` of a large set are made in
blocks, and `gaussian_of` needs one pass.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, DataError
from aijax.known import all_finite
from aijax.parallel import cut_rows
from aijax.typing import Any, Array, Callable, Float, PRNGKey


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gaussian:
    """`mean [d]` and `covariance [d, d]` (divided by n - 1) of features."""

    mean: Array
    covariance: Array


def features(apply_fn: Callable[[Array], Array], x: Any, *, batch_size: int = 256) -> Float[Array, "n d"]:
    """Returns `apply_fn` of n examples, in blocks, flattened to `[n, d]`."""
    compiled = jax.jit(apply_fn)
    blocks = [compiled(jnp.asarray(x[rows])) for rows in cut_rows(len(x), batch_size)]
    return jnp.concatenate([block.reshape(len(block), -1) for block in blocks])


def gaussian_of(x: Float[Array, "n d"]) -> Gaussian:
    """Returns the mean and the unbiased covariance of n >= 2 features."""
    if x.ndim != 2 or len(x) < 2:
        raise DataError(f"features: expected [n, d] with n of at least 2, got shape {x.shape}")
    mean = x.mean(0)
    centred = x - mean
    return Gaussian(mean, centred.T @ centred / (len(x) - 1))


def frechet_distance(a: Gaussian | Float[Array, "n d"], b: Gaussian | Float[Array, "m d"]) -> Array:
    """Returns |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), a scalar.

    With S = F^T F the trace of the root is the sum of the singular values of F_a F_b^T, real and finite for covariances
    of any rank. F is the centred features where they are fewer than their dimensions, else a symmetric root.

    Args:
      a, b: features, or their Gaussians.

    >>> float(frechet_distance(Gaussian(jnp.zeros(2), jnp.eye(2)), Gaussian(jnp.ones(2), jnp.eye(2))).round(4))
    2.0
    """
    (mean_a, root_a), (mean_b, root_b) = map(_mean_and_root, (a, b))
    if mean_a.shape != mean_b.shape:
        raise DataError(f"features: expected equal dimensions, got {mean_a.shape[0]} and {mean_b.shape[0]}")
    if any(all_finite(mean) is False for mean in (mean_a, mean_b)):
        raise DataError("features: expected finite numbers, got NaN or infinity")
    shared = jnp.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return jnp.sum((mean_a - mean_b) ** 2) + jnp.sum(root_a**2) + jnp.sum(root_b**2) - 2 * shared


def kernel_distance(
    a: Float[Array, "n d"],
    b: Float[Array, "m d"],
    *,
    kernel: Callable[[Array, Array], Array] | None = None,
    unbiased: bool = True,
) -> Array:
    """Returns the squared maximum mean discrepancy, a scalar; KID with the default kernel (x . y / d + 1)^3.

    Args:
      a, b: features.
      kernel: `([n, d], [m, d]) -> [n, m]`, such as a kernel of `aijax.kernels`.
      unbiased: the U-statistic (default), which may be below 0, or the V-statistic.

    Raises:
      DataError: features of different dimensions, of fewer than 2 samples, or that are not finite.

    Source: Gretton et al. 2012, equations 3 and 5; Binkowski et al. 2018.
    """
    _check_pair(a, b, 2 if unbiased else 1)
    kernel = cubic_kernel if kernel is None else kernel
    within = 0.0
    for part in (a, b):
        gram = kernel(part, part)
        n = len(part)
        within += (gram.sum() - jnp.trace(gram)) / (n * (n - 1)) if unbiased else gram.mean()
    return within - 2 * kernel(a, b).mean()


def cubic_kernel(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Returns (x . y / d + 1)^3."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def sliced_wasserstein(
    key: PRNGKey,
    a: Float[Array, "n d"],
    b: Float[Array, "m d"],
    *,
    num_projections: int = 128,
    projections: Array | None = None,
    order: int = 1,
) -> Array:
    """Returns the Wasserstein distance of one-dimensional projections: the `order`-th root of the mean over directions.

    Args:
      key: of the directions.
      a, b: samples; of unequal numbers, their quantiles are compared.
      num_projections: default 128.
      projections: unit vectors `[p, d]` in place of drawn ones.
      order: 1 (default) or more.

    Raises:
      ConfigError: an order below 1.
      DataError: samples of different dimensions, none, or some that are not finite.

    Source: Bonneel et al. 2015.
    """
    _check_pair(a, b, 1)
    if order < 1:
        raise ConfigError(f"order: expected a number of at least 1, got {order}")
    if projections is None:
        projections = jax.random.normal(key, (num_projections, a.shape[1]), a.dtype)
        projections /= jnp.linalg.norm(projections, axis=1, keepdims=True)
    x, y = jnp.sort(a @ projections.T, axis=0), jnp.sort(b @ projections.T, axis=0)
    if len(x) == len(y):
        distances = jnp.mean(jnp.abs(x - y) ** order, 0)
    else:
        distances = _quantile_distance(x, y, order)
    return jnp.mean(distances) ** (1 / order)


def nearest_distance(x: Float[Array, "n d"], others: Float[Array, "m d"]) -> Array:
    """Returns the mean distance of rows to the nearest of others; of samples to what was trained on: memorisation.

    >>> float(nearest_distance(jnp.array([[0.0], [3.0]]), jnp.array([[1.0], [5.0]])))
    1.5
    """
    return jnp.concatenate([_distances(x[rows], others).min(1) for rows in cut_rows(len(x), 1024)]).mean()


def precision_recall(real: Float[Array, "n d"], generated: Float[Array, "m d"], *, k: int = 3) -> tuple[Array, Array]:
    """Returns the share of generated samples within a real one's ball, and of real ones within a generated one's.

    The radius of a ball is the distance to the k-th nearest neighbour in the same set.

    Source: Kynkaanniemi et al. 2019, equation 1.
    """
    _check_pair(real, generated, 1)
    for name, part in (("real", real), ("generated", generated)):
        if len(part) <= k:
            raise DataError(f"{name}: expected more than k = {k} samples, got {len(part)}")
    across = _distances(real, generated)
    real_radius, generated_radius = (jnp.sort(_distances(part, part), 1)[:, k] for part in (real, generated))
    precision = jnp.mean(jnp.any(across <= real_radius[:, None], 0), dtype=across.dtype)
    recall = jnp.mean(jnp.any(across <= generated_radius[None, :], 1), dtype=across.dtype)
    return precision, recall


def inception_score(logits: Float[Array, "n k"]) -> Array:
    """Returns exp(mean KL(p(y | x) | p(y))) of n classified samples: from 1 to the number of classes."""
    log_conditional = jax.nn.log_softmax(logits)
    log_marginal = jax.nn.logsumexp(log_conditional, 0) - jnp.log(len(logits))
    return jnp.exp(jnp.mean(jnp.sum(jnp.exp(log_conditional) * (log_conditional - log_marginal), 1)))


def _check_pair(a, b, least):
    for part in (a, b):
        if part.ndim != 2 or len(part) < least:
            raise DataError(f"features: expected [n, d] with n of at least {least}, got shape {part.shape}")
        if all_finite(part) is False:
            raise DataError("features: expected finite numbers, got NaN or infinity")
    if a.shape[1] != b.shape[1]:
        raise DataError(f"features: expected equal dimensions, got {a.shape[1]} and {b.shape[1]}")


def _mean_and_root(part):
    """The mean [d], and F [k, d] with F^T F the covariance."""
    if not isinstance(part, Gaussian):
        if part.ndim == 2 and 2 <= len(part) < part.shape[1]:
            mean = part.mean(0)
            return mean, (part - mean) / jnp.sqrt(len(part) - 1)
        part = gaussian_of(part)
    return part.mean, _root(part.covariance)


def _root(matrix):
    values, vectors = jnp.linalg.eigh(matrix)
    # a covariance has no negative eigenvalues but by rounding
    return vectors * jnp.sqrt(jnp.maximum(values, 0)) @ vectors.T


def _distances(a, b):
    squares = jnp.sum(a**2, 1)[:, None] + jnp.sum(b**2, 1) - 2 * a @ b.T
    squares = jnp.maximum(squares, 0)
    return jnp.sqrt(squares.at[jnp.diag_indices(len(a))].set(0)) if a is b else jnp.sqrt(squares)


def _quantile_distance(x, y, order):
    """int_0^1 |F^-1 - G^-1|^order of sorted columns of unequal length, exactly."""
    n, m = len(x), len(y)
    edges = jnp.sort(jnp.concatenate([jnp.arange(n + 1) / n, jnp.arange(1, m) / m]))
    middle = (edges[1:] + edges[:-1]) / 2
    difference = x[(middle * n).astype(int)] - y[(middle * m).astype(int)]
    return jnp.sum(jnp.diff(edges)[:, None] * jnp.abs(difference) ** order, 0)
