"""A square root of the identity plus a matrix of low rank, `F F^T = I + C C^T`, C `[n, r]`.

With the Cholesky factor R of the small matrix, `R R^T = I + C^T C`,

    F = I + C (I + R)^-1 C^T,    F^-1 = I - C (I + R)^-T R^-1 C^T,    det F = det R

(Ambikasaran, O'Neil and Singh 2014, arXiv:1405.0223), which one checks with
`(I + R)(I + R)^T = R R^T + R + R^T + I`. F is not symmetric. Only R is worked out, and it is worked out well: the
columns of a pivoted Cholesky factor fall in size, and a Cholesky factor does not mind the scale of its columns, as
eigenvalues would.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.typing import Array, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowRankRoot:
    """F for `I + C C^T`: C, `[n, r]`, and R, `[r, r]`."""

    factor: Float[Array, "n r"]
    triangle: Float[Array, "r r"]


def low_rank_root(factor: Float[Array, "n r"]) -> LowRankRoot:
    """Returns F with `F F^T = I + C C^T`, from C.

    >>> root = low_rank_root(jnp.array([[1.0], [1.0]]))
    >>> whole = apply_root(root, apply_root_transpose(root, jnp.eye(2)))
    >>> whole.round(4).tolist()
    [[2.0, 1.0], [1.0, 2.0]]
    """
    gram = jnp.matmul(factor.T, factor, precision="highest")
    return LowRankRoot(factor, jnp.linalg.cholesky(jnp.eye(factor.shape[1], dtype=factor.dtype) + gram))


def apply_root(root: LowRankRoot, v: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Returns `F v`."""
    return v + _expand(root, _solve(_shifted(root), _reduce(root, v)))


def apply_root_transpose(root: LowRankRoot, v: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Returns `F^T v`."""
    return v + _expand(root, _solve(_shifted(root), _reduce(root, v), transpose=True))


def solve_root(root: LowRankRoot, v: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Returns `F^-1 v`."""
    inner = _solve(root.triangle, _reduce(root, v))
    return v - _expand(root, _solve(_shifted(root), inner, transpose=True))


def solve_root_transpose(root: LowRankRoot, v: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Returns `F^-T v`."""
    inner = _solve(_shifted(root), _reduce(root, v))
    return v - _expand(root, _solve(root.triangle, inner, transpose=True))


def low_rank_log_determinant(root: LowRankRoot) -> Float[Array, ""]:
    """Returns `log det (I + C C^T)`."""
    return 2 * jnp.sum(jnp.log(jnp.diagonal(root.triangle)))


def _shifted(root):
    return root.triangle + jnp.eye(len(root.triangle), dtype=root.triangle.dtype)


def _reduce(root, v):
    # as one contraction: of a transpose and a single column XLA would make a copy of the whole factor
    return jnp.einsum("nr,nk->rk", root.factor, v, precision="highest")


def _expand(root, v):
    return jnp.matmul(root.factor, v, precision="highest")


def _solve(triangle, v, transpose=False):
    return jax.lax.linalg.triangular_solve(triangle, v, left_side=True, lower=True, transpose_a=transpose)
