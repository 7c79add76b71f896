"""The Nystrom approximation of a kernel from a few of its points.

    k(x, x') ~ k(x, z) k(z, z)^-1 k(z, x'),    phi(x) = L^-1 k(z, x),   L L^T = k(z, z)

It is the projection on the functions `k(., z_j)`: exact at the landmarks z, never above k as a quadratic form, and the
best that those functions allow. Williams and Seeger 2001; Drineas and Mahoney 2005, JMLR 6.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.kernels.products import count_rows
from aijax.linalg import cholesky_with_jitter, pivoted_cholesky
from aijax.typing import Any, Array, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NystromFeatures:
    """A map of points to `[n, m]` features; `FeatureKernel` makes a kernel of it.

    Args:
      kernel: the kernel.
      landmarks: z, m points.
      factor: L, `[m, m]`.
      jitter: what was added to the diagonal of `k(z, z)`.
      error: where the landmarks were chosen among points: the mean of `k(x_i, x_i) - phi(x_i).phi(x_i)` over them,
        which is that of the eigenvalues of the error; else NaN.
    """

    kernel: Any
    landmarks: Any
    factor: Array
    jitter: Array
    error: Array

    def __call__(self, x: Any) -> Float[Array, "n m"]:
        return jax.lax.linalg.triangular_solve(
            self.factor, self.kernel(x, self.landmarks), left_side=False, lower=True, transpose_a=True
        )


def nystrom_features(kernel: Any, landmarks: Any) -> NystromFeatures:
    """Returns the features of given landmarks. Differentiable in the kernel and in them.

    Args:
      kernel: any kernel.
      landmarks: m points, distinct.

    >>> from aijax.kernels.stationary import RBF
    >>> z = jnp.array([[0.0], [1.0]])
    >>> features = nystrom_features(RBF(), z)(z)
    >>> bool(jnp.allclose(features @ features.T, RBF()(z), atol=1e-6))
    True
    """
    factor, jitter = cholesky_with_jitter(kernel(landmarks, landmarks))
    return NystromFeatures(kernel, landmarks, factor, jitter, jnp.full((), jnp.nan, factor.dtype))


def nystrom(kernel: Any, x: Any, rank: int, *, block: int = 1) -> NystromFeatures:
    """Returns the features of landmarks that are chosen among x, each where the approximation is worst so far.

    Args:
      kernel: any kernel.
      x: n points.
      rank: landmarks, at most n.
      block: candidates that are looked at together: `aijax.linalg.pivoted_cholesky`.

    Raises:
      ConfigError: a rank above n.
    """

    def at(indices):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[indices], x)

    diagonal = kernel.diagonal(x)
    found = pivoted_cholesky(lambda indices: kernel(x, at(indices)), diagonal, rank, block=block)
    features = nystrom_features(kernel, at(found.pivots))
    return NystromFeatures(
        kernel, features.landmarks, features.factor, features.jitter, jnp.sum(found.diagonal) / count_rows(x)
    )
