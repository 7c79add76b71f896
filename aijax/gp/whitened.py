"""The system of a Gaussian process on many points, solved without its matrix.

With `D` the noise, `W = D^(-1/2)` and K the kernel matrix, the system `(K + D) a = y` is

    A u = W y,    A = I + W K W,    a = W u

where a target is missing W is 0 and A the identity. A partial pivoted Cholesky factor `C C^T ~ W K W` (Harbrecht 2012)
gives the preconditioner `P = I + C C^T = F F^T` (Gardner et al. 2018, arXiv:1809.11165, section 4), and conjugate
gradients run on

    B = F^-1 A F^-T

for all right-hand sides at once. As C leaves a positive semidefinite rest, `A >= P` and so **B >= I**: the error of a
solution u of `B u = b` with residual r is known to be at most |r|, and that of `b^T B^-1 b` at most |r|^2.

Products with K are made in blocks of rows, over the devices of a mesh (`aijax.kernels.products`).
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.kernels.products import Rows, map_rows, rows_product
from aijax.linalg import CGResult, cg, pivoted_cholesky
from aijax.linalg.low_rank import LowRankRoot, low_rank_root, solve_root, solve_root_transpose
from aijax.typing import Any, Array, Bool, Float

PIVOT_BLOCK = 64


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["kernel", "x", "noise", "observed", "root", "pivots", "count"],
    meta_fields=["rows"],
)
@dataclass(frozen=True)
class System:
    """A and its preconditioner. Arrays have `rows.padded` rows; those that fill up count as missing.

    Args:
      kernel: the kernel.
      x: the points.
      noise: D, what is on the diagonal besides `k(x_i, x_j)` of two sets: the noise and white terms of the kernel.
      observed: where there is a target.
      root: F.
      pivots: the points of the preconditioner, `[rank]`, and how many of them there are: `count`.
      rows: how the rows are dealt out.
    """

    kernel: Any
    x: Any
    noise: Float[Array, " n"]
    observed: Bool[Array, " n"]
    root: LowRankRoot
    pivots: Array
    count: Array
    rows: Rows

    @property
    def whitening(self) -> Float[Array, " n"]:
        """W; 0 where there is no target."""
        return jnp.where(self.observed, 1 / jnp.sqrt(self.noise), 0)


def make_system(kernel: Any, x: Any, noise: Array, observed: Array | None, rows: Rows, rank: int) -> System:
    """Returns the system of n points: the preconditioner is made. It has no derivative; the rest has.

    Args:
      kernel, x: the kernel and its n points.
      noise: variances `[n]`.
      observed: None or `[n]` of bool.
      rows: of `split_rows(n, ...)`.
      rank: columns of the preconditioner.
    """
    observed = jnp.ones(rows.n, bool) if observed is None else observed
    observed = rows.pad_zero(observed)
    noise = rows.pad(noise) + white_part(kernel, rows.pad(x))
    system = System(kernel, rows.pad(x), noise, observed, None, None, None, rows)
    fixed = jax.lax.stop_gradient(system)
    whitening = fixed.whitening

    def columns(indices):
        chosen = jax.tree.map(lambda leaf: leaf[indices], fixed.x)
        return whitening[:, None] * cross_columns(fixed, chosen) * whitening[indices]

    diagonal = whitening**2 * cross_diagonal(fixed.kernel, fixed.x)
    found = pivoted_cholesky(columns, diagonal, min(rank, rows.n), block=PIVOT_BLOCK)
    return System(kernel, system.x, noise, observed, low_rank_root(found.factor), found.pivots, found.count, rows)


def solve(
    system: System, b: Float[Array, "n k"], *, tolerance: float, max_iterations: int, lanczos_steps: int = 0
) -> CGResult:
    """Returns `B u = b`, a column at a time at once; `B = F^-1 A F^-T`."""

    def matvec(v):
        return solve_root(system.root, apply_matrix(system, solve_root_transpose(system.root, v)))

    return cg(matvec, b, tolerance=tolerance, max_iterations=max_iterations, columns=True, lanczos_steps=lanczos_steps)


def solve_whitened(
    system: System, b: Float[Array, "n k"], *, tolerance: float, max_iterations: int
) -> tuple[Float[Array, "n k"], CGResult]:
    """Returns `u = A^-1 b`, with its derivative, and how well it was found (of the system in B)."""
    fixed = jax.lax.stop_gradient(system)

    def by_iteration(_, b):
        result = solve(fixed, solve_root(fixed.root, b), tolerance=tolerance, max_iterations=max_iterations)
        return solve_root_transpose(fixed.root, result.solution), result

    return jax.lax.custom_linear_solve(
        functools.partial(apply_matrix, system), b, by_iteration, symmetric=True, has_aux=True
    )


def apply_matrix(system: System, v: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Returns `A v = v + W K W v`."""
    scale = system.whitening[:, None]
    return v + scale * rows_product(system.kernel, system.rows, system.x, system.x, scale * v)


def cross_columns(system: System, x_other: Any) -> Float[Array, "n m"]:
    """Returns `k(x, x_other)`, held whole; the rows are made where they belong."""
    return map_rows(
        lambda kernel, other, part: (kernel(part, other), ()), system.rows, (system.kernel, x_other), (system.x,)
    )[0]


def cross_diagonal(kernel: Any, x: Any) -> Float[Array, " n"]:
    """Returns `k(x_i, x_i)` of two sets that happen to be equal: without white noise."""
    return jax.vmap(lambda point: kernel(*[jax.tree.map(lambda leaf: leaf[None], point)] * 2)[0, 0])(x)


def white_part(kernel: Any, x: Any) -> Float[Array, " n"]:
    """Returns what `kernel(x)` has on its diagonal besides `k(x_i, x_i)` of two sets."""
    return kernel.diagonal(x) - cross_diagonal(kernel, x)
