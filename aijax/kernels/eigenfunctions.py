"""The Mercer view of a kernel: `k(x, x') = sum_j l_j f_j(x) f_j(x')`, the f_j orthonormal under a measure of points.

For the empirical measure of n points, with weights w that sum to one, the eigenvalues and eigenfunctions of
`(T f)(x) = sum_i w_i k(x, x_i) f(x_i)` are those of a matrix:

    S = sqrt(w) K sqrt(w) = U diag(l) U^T,    f_j(x) = (1 / l_j) sum_i sqrt(w_i) k(x, x_i) U_ij

the second defined for every x (Nystrom's extension: Baker 1977; Williams and Seeger 2001). As n grows l and f approach
those of the measure that the points are drawn from, l_j with an error of order n^(-1/2).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.kernels.products import count_rows, kernel_product
from aijax.linalg import eigsh
from aijax.linalg.vectors import check_count
from aijax.typing import Any, Array, Float, PRNGKey


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Eigenfunctions:
    """The leading eigenfunctions, as a map of points to `[n, k]`.

    Args:
      kernel: the kernel.
      x: the points of the measure.
      values: eigenvalues, largest first, `[k]`.
      coefficients: `sqrt(w) U / l`, `[n, k]`.
      converged: `[k]`; False where the iterative search did not reach its tolerance.
    """

    kernel: Any
    x: Any
    values: Array
    coefficients: Array
    converged: Array

    def __call__(self, x_new: Any) -> Float[Array, "n k"]:
        return kernel_product(self.kernel, x_new, self.x, self.coefficients)


def eigenfunctions(
    kernel: Any,
    x: Any,
    k: int,
    *,
    weights: Float[Array, " n"] | None = None,
    key: PRNGKey | None = None,
    tolerance: float = 1e-6,
) -> Eigenfunctions:
    """Returns the k leading eigenvalues and eigenfunctions of a kernel under the measure of the points x.

    Args:
      kernel: any kernel.
      x: n points.
      k: how many, at most n; an eigenvalue of 0 has no function (it is NaN or noise).
      weights: `[n]`, at least 0, which sum to one: a quadrature rule; default 1/n each.
      key: search by products with the matrix, which is then never held; default None: the matrix is decomposed.
      tolerance: of that search.

    Raises:
      ConfigError: more functions than points, weights of another shape.

    >>> from aijax.kernels.stationary import RBF
    >>> functions = eigenfunctions(RBF(), jnp.linspace(-2.0, 2.0, 50), 3)
    >>> [round(float(value), 2) for value in functions.values], functions(jnp.zeros(1)).shape
    ([0.51, 0.3, 0.13], (1, 3))
    """
    n = count_rows(x)
    check_count("k", k)
    if k > n:
        raise ConfigError(f"k: expected at most the number of points {n}, got {k}")
    weights = jnp.full(n, 1 / n, kernel.diagonal(x).dtype) if weights is None else jnp.asarray(weights)
    if weights.shape != (n,):
        raise ConfigError(f"weights: expected one for each of the {n} points, got shape {weights.shape}")
    root = jnp.sqrt(weights)
    if key is None:
        values, vectors = jnp.linalg.eigh(root[:, None] * kernel(x, x) * root)
        values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
        converged = jnp.isfinite(values)
    else:
        pairs = eigsh(
            lambda v: root * kernel_product(kernel, x, x, root * v),
            key,
            jax.ShapeDtypeStruct((n,), root.dtype),
            k,
            tolerance=tolerance,
        )
        values, vectors, converged = pairs.values, pairs.vectors.T, pairs.converged
    return Eigenfunctions(kernel, x, values, root[:, None] * vectors / values, converged)
