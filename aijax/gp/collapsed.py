"""The log density of n targets under a prior of rank m, in chunks of points, with its derivative from one identity.

With m inducing points Z, K = k(Z, Z) = L L^T, columns a_i = L^-1 k(Z, x_i), q_ii = |a_i|^2, r = y - mean(x) and weights
w_i,

    B = I + sum_i w_i a_i a_i^T,    b = sum_i w_i a_i r_i,    beta = B^-1 b

    V = 1/2 (sum log w_i - log det B - sum w_i r_i^2 + b.beta - n log 2 pi) - penalty

    "vfe":   w_i = 1 / noise_i,  penalty = 1/2 sum w_i (k_ii - q_ii)    (Titsias 2009, equation 9)
    "fitc":  w_i = 1 / (noise_i + k_ii - q_ii),  penalty = 0            (Snelson and Ghahramani 2006)

which is log N(r; 0, A^T A + 1/w). Only sums over points enter, so that points come in chunks and memory does not grow
with n. So do they in the derivative: with e_i = r_i - a_i.beta,

    omega_i = dV/dw_i = 1/2 (1/w_i - e_i^2 - a_i^T B^-1 a_i - [vfe] (k_ii - q_ii))
    dV/da_i = w_i beta e_i - w_i B^-1 a_i + s_i a_i,    s_i = w_i in "vfe", 2 w_i^2 omega_i in "fitc"
    dV/dk(Z, x_i) = L^-T dV/da_i,    dV/dK = -1/2 L^-T (sum_i dV/da_i a_i^T) L^-1,
    sum_i dV/da_i a_i^T = beta beta^T - I + B^-1 + sum_i s_i a_i a_i^T

The columns a_i are made with L^-1, and B from them: B has no eigenvalue below 1, however close K is to singular, where
k(Z, x) k(x, Z) + noise K, which is cheaper, squares the condition number. With p columns of r, V is summed over them.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aijax.linalg import cholesky_with_jitter
from aijax.typing import Any, Array, Bool, Float

WHOLE = 2**24
"""Entries of k(Z, x) up to which all points are one chunk."""
CHUNK = 2**22
"""Entries of a chunk beyond that."""


class Factors(NamedTuple):
    """What there is to know of the data: `[m, m]` matrices and `[m, p]` weights.

    Args:
      root: L, the Cholesky factor of `K + jitter I`.
      root_inverse: its inverse.
      precision_root: the Cholesky factor of B.
      weights: beta, `[m, p]`.
      jitter: what was added to the diagonal of K.
      value: V.
    """

    root: Array
    root_inverse: Array
    precision_root: Array
    weights: Array
    jitter: Array
    value: Array


def collapsed_density(
    method: str,
    chunk_size: int | None,
    kernel: Any,
    inducing: Any,
    x: Any,
    residual: Float[Array, "n p"],
    noise: Float[Array, " n"],
    observed: Bool[Array, " n"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns `(V, jitter)`; V is NaN where K or B has no factor. The jitter is held in derivatives.

    Args:
      method: "vfe" or "fitc".
      chunk_size: points of a chunk; None for all where k(Z, x) has fewer than `WHOLE` entries, else `CHUNK` entries.
      kernel: of `aijax.kernels`.
      inducing: Z, m points.
      x: n points, a tree of arrays.
      residual: y - mean(x).
      noise: variances.
      observed: None or a mask; other points do not count.
    """
    data = _chunks(chunk_size, inducing, x, residual, noise, observed)
    return _density(method, kernel, inducing, *data)


def collapsed_factors(
    method: str,
    chunk_size: int | None,
    kernel: Any,
    inducing: Any,
    x: Any,
    residual: Float[Array, "n p"],
    noise: Float[Array, " n"],
    observed: Bool[Array, " n"] | None = None,
) -> Factors:
    """Returns V with what predictions need. Arguments as of `collapsed_density`."""
    data = _chunks(chunk_size, inducing, x, residual, noise, observed)
    return _factors(method, kernel, inducing, *data)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _density(method, kernel, inducing, x, residual, noise, observed):
    factors = _factors(method, kernel, inducing, x, residual, noise, observed)
    return factors.value, factors.jitter


@_density.defjvp
def _density_jvp(method, primals, tangents):
    kernel, inducing, *data = primals
    d_kernel, d_inducing, d_x, d_residual, d_noise, _ = tangents
    factors = _factors(method, *primals)
    half = _solve(factors.precision_root, jnp.eye(len(factors.root), dtype=factors.root.dtype))
    fixed = (kernel, inducing, factors.root_inverse, _product(half.T, half), factors.weights)
    # integers among the coordinates of x have tangents without values, which a scan does not take
    d_x = jax.tree.map(lambda d: None if d.dtype == jax.dtypes.float0 else d, d_x)

    slope_of = functools.partial(_slope, method, fixed, (d_kernel, d_inducing))
    slope = _sum(lambda chunk: slope_of(*chunk), (tuple(data), (d_x, d_residual, d_noise)))
    inner = _inner(method, fixed, factors.precision_root, data)
    gram_slope = -_product(_product(factors.root_inverse.T, inner), factors.root_inverse) / 2
    _, d_gram = jax.jvp(lambda kernel, z: kernel(z), (kernel, inducing), (d_kernel, d_inducing))
    slope += jnp.sum(gram_slope * d_gram)
    return (factors.value, factors.jitter), (slope, jnp.zeros_like(factors.jitter))


def _factors(method, kernel, inducing, x, residual, noise, observed):
    """Returns `Factors`, from one pass over the chunks."""
    root, jitter = cholesky_with_jitter(kernel(inducing))
    identity = jnp.eye(len(root), dtype=root.dtype)
    root_inverse = _solve(root, identity)

    def sums(chunk):
        x, residual, noise, observed = chunk
        columns = _product(root_inverse, kernel(inducing, x))
        unexplained = kernel.diagonal(x) - jnp.sum(columns**2, 0)
        weight, log_weight = _weights(method, noise, unexplained, observed)
        penalty = weight * unexplained if method == "vfe" else 0
        p = residual.shape[1]
        scalar = p * jnp.sum(log_weight - penalty - math.log(2 * math.pi) * observed)
        scalar -= jnp.sum(weight[:, None] * residual**2)
        weighted = columns * weight
        return _product(weighted, columns.T), _product(weighted, residual), scalar / 2

    outer, b, scalar = _sum(sums, (x, residual, noise, observed))
    precision_root = jnp.tril(jax.lax.linalg.cholesky(identity + outer))
    weights = jax.scipy.linalg.cho_solve((precision_root, True), b)
    log_determinant = 2 * jnp.sum(jnp.log(jnp.diagonal(precision_root)))
    value = scalar + (jnp.sum(b * weights) - residual.shape[-1] * log_determinant) / 2
    return Factors(root, root_inverse, precision_root, weights, jitter, value)


def _slope(method, fixed, d_fixed, primals, tangents):
    """Returns what the tangents of a chunk, and through it those of the kernel and of Z, add to dV."""
    kernel, inducing = fixed[:2]
    x, residual, noise, observed = primals
    d_x, d_residual, d_noise = tangents
    d_x = jax.tree.map(
        lambda leaf, d: np.zeros(leaf.shape, jax.dtypes.float0) if d is None else d, x, d_x, is_leaf=lambda d: d is None
    )
    cross, d_cross = jax.jvp(lambda kernel, z, x: kernel(z, x), (kernel, inducing, x), (*d_fixed, d_x))
    variance, d_variance = jax.jvp(lambda kernel, x: kernel.diagonal(x), (kernel, x), (d_fixed[0], d_x))
    columns_slope, weight, omega, error, _ = _cotangents(method, fixed, cross, variance, residual, noise, observed)
    p = residual.shape[1]
    by_noise = -(weight**2) * omega
    by_variance = -p * weight / 2 if method == "vfe" else by_noise
    slope = jnp.sum(_product(fixed[2].T, columns_slope) * d_cross)
    slope += jnp.sum(by_variance * d_variance) + jnp.sum(by_noise * d_noise)
    return slope - jnp.sum(weight[:, None] * error * d_residual)


def _cotangents(method, fixed, cross, variance, residual, noise, observed):
    """Returns dV/da_i, w_i, omega_i, e_i and (s_i, a_i) of a chunk."""
    _, _, root_inverse, inverse, beta = fixed
    p = residual.shape[1]
    columns = _product(root_inverse, cross)
    unexplained = variance - jnp.sum(columns**2, 0)
    weight, _ = _weights(method, noise, unexplained, observed)
    error = residual - _product(columns.T, beta)
    spread = _product(inverse, columns)
    omega = p * (noise + (0 if method == "vfe" else unexplained)) - jnp.sum(error**2, 1)
    omega -= p * (jnp.sum(columns * spread, 0) + (unexplained if method == "vfe" else 0))
    omega = jnp.where(observed, omega / 2, 0)
    scale = p * weight if method == "vfe" else 2 * weight**2 * omega
    columns_slope = weight * (_product(beta, error.T) - p * spread) + scale * columns
    return columns_slope, weight, omega, error, (scale, columns)


def _inner(method, fixed, precision_root, data):
    """Returns `sum_i dV/da_i a_i^T`, `[m, m]`."""
    kernel, inducing, _, inverse, beta = fixed
    p = beta.shape[1]
    identity = jnp.eye(len(inverse), dtype=inverse.dtype)
    known = _product(beta, beta.T) - p * (identity - inverse)
    if method == "vfe":
        return known + p * (_product(precision_root, precision_root.T) - identity)

    def outer(chunk):
        x, *rest = chunk
        *_, (scale, columns) = _cotangents(method, fixed, kernel(inducing, x), kernel.diagonal(x), *rest)
        return _product(columns * scale, columns.T)

    return known + _sum(outer, tuple(data))


def _weights(method, noise, unexplained, observed):
    """Returns w and log w, 0 for points that are not observed."""
    total = jnp.where(observed, noise if method == "vfe" else noise + unexplained, 1)
    return jnp.where(observed, 1 / total, 0), jnp.where(observed, -jnp.log(total), 0)


def _sum(function, chunks):
    """Returns the sum of `function(chunk)`, a tree; in derivatives a chunk is computed again, not kept."""
    if len(jax.tree.leaves(chunks)[0]) == 1:
        return function(jax.tree.map(lambda leaf: leaf[0], chunks))
    kept = jax.checkpoint(function)
    start = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], chunks)),
    )
    return jax.lax.scan(lambda total, chunk: (jax.tree.map(jnp.add, total, kept(chunk)), None), start, chunks)[0]


def _solve(root, right):
    return jax.lax.linalg.triangular_solve(root, right, left_side=True, lower=True)


def _product(a, b):
    return jnp.matmul(a, b, precision="highest")


def _chunks(chunk_size, inducing, x, residual, noise, observed):
    """Returns x, residual, noise and the mask as `[chunks, points, ...]`; the last rows are repeated, and masked, to
    fill the chunks. A chunk takes every so-many-th point, so that each device has its part of each chunk where the
    points are split over devices."""
    n, m = len(residual), len(jax.tree.leaves(inducing)[0])
    if chunk_size is None:
        chunk_size = n if n * m <= WHOLE else max(CHUNK // m, 1)
    count = -(-n // chunk_size)
    size = -(-n // count)
    observed = jnp.ones(n, bool) if observed is None else observed
    spare = size * count - n

    def cut(leaf, filler=None):
        leaf = jnp.asarray(leaf)
        filler = leaf[-1:] if filler is None else filler
        leaf = jnp.concatenate([leaf, jnp.repeat(filler, spare, 0)]) if spare else leaf
        return jnp.moveaxis(leaf.reshape(size, count, *leaf.shape[1:]), 1, 0)

    return jax.tree.map(cut, x), cut(residual), cut(noise), cut(observed, jnp.zeros(1, bool))
