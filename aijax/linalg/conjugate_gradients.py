"""Conjugate gradients: `A x = b` for a symmetric positive definite operator, from products alone.

Hestenes and Stiefel 1952, preconditioned. With M the preconditioner (an approximation of the inverse of A):

    r = b - A x,  z = M r,  p = z + (<r, z> / <r, z>_before) p,  x <- x + (<r, z> / <p, A p>) p

The recurrence for r drifts from the true residual by rounding; when it says that it is done, the true residual is
worked out, and the iteration starts again from there (at most five times) if it is not. Derivatives with respect to b and to
what `matvec` closes over are those of the solution, `dx = A^-1 (db - dA x)`, by a second solve: nothing of the
iteration is kept.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.linalg.vectors import add_scaled, check_count, check_operator, check_vector, dimension, inner, norm
from aijax.typing import Array, Callable, PyTree

ROUNDS = 6
"""Rounds from the true residual at most: each takes off what rounding had left, down to that of `A x` itself."""


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["solution", "residual", "iterations", "converged"], meta_fields=[]
)
@dataclass(frozen=True)
class CGResult:
    """The solution (like b); for it, or for each column: `|b - A x| / |b|`, iterations used, and whether it is
    reached."""

    solution: PyTree
    residual: Array
    iterations: Array
    converged: Array


def cg(
    matvec: Callable[[PyTree], PyTree],
    b: PyTree,
    *,
    x0: PyTree | None = None,
    preconditioner: Callable[[PyTree], PyTree] | None = None,
    tolerance: float = 1e-6,
    max_iterations: int | None = None,
    columns: bool = False,
) -> CGResult:
    """Returns the solution of `A x = b` and how well it solves it.

    A singular A is fine as long as b lies in its range and x0 is 0: the solution is then the one of least norm. An
    operator that shows itself not positive (`<p, A p> <= 0`) ends the iteration, unconverged.

    Args:
      matvec: `v -> A v`, symmetric and positive definite.
      b: an array or a tree of arrays.
      x0: the first guess; default 0. It has no derivative.
      preconditioner: `r -> M r`, symmetric and positive definite.
      tolerance: the relative residual `|b - A x| / |b|` to reach.
      max_iterations: default ten times the number of unknowns.
      columns: the last axis of b counts right-hand sides, each with its own scalars; `matvec` takes them together. The
        iteration ends when all are done.

    Raises:
      ConfigError: b is not made of floating numbers, `matvec` changes the shape, a tolerance that is not positive.

    Source: Hestenes and Stiefel 1952; Saad, Iterative Methods for Sparse Linear Systems, algorithm 9.1.

    >>> result = cg(lambda v: jnp.array([2.0, 4.0]) * v, jnp.ones(2))
    >>> result.solution.round(4).tolist(), bool(result.converged)
    ([0.5, 0.25], True)
    """
    b = jax.tree.map(jnp.asarray, b)
    check_vector("b", b, columns)
    check_operator(matvec, b)
    if not tolerance > 0:
        raise ConfigError(f"tolerance: expected a positive number, got {tolerance!r}")
    if max_iterations is None:
        max_iterations = 10 * dimension(b, columns)
    check_count("max_iterations", max_iterations)
    if x0 is None:
        x0 = jax.tree.map(jnp.zeros_like, b)
    elif jax.tree.map(jnp.shape, x0) != jax.tree.map(jnp.shape, b):
        raise ConfigError("x0: expected a guess of the shape of b")
    x0 = jax.lax.stop_gradient(x0)

    def solve(operator, b):
        return _iterate(operator, b, x0, preconditioner or (lambda r: r), tolerance, max_iterations, columns)

    solution, aux = jax.lax.custom_linear_solve(matvec, b, solve, symmetric=True, has_aux=True)
    return CGResult(solution, *aux)


def _iterate(operator, b, x0, precondition, tolerance, max_iterations, columns):
    """Returns the solution and `(relative residual, iterations, converged)`: rounds of CG from true residuals."""
    size = norm(b, columns)
    target = tolerance * size

    def true_residual(x):
        return jax.tree.map(jnp.subtract, b, operator(x))

    def one_round(state):
        x, r, count, steps, rounds = state
        z = precondition(r)
        active = norm(r, columns) > target
        start = (x, r, z, inner(r, z, columns), active, count, steps)
        step = functools.partial(_step, operator, precondition, target, columns)
        x, _, _, _, _, count, steps = jax.lax.while_loop(lambda s: jnp.any(s[4]) & (s[6] < max_iterations), step, start)
        return x, true_residual(x), count, steps, rounds + 1

    def unfinished(state):
        _, r, _, steps, rounds = state
        return jnp.any(norm(r, columns) > target) & (steps < max_iterations) & (rounds < ROUNDS)

    start = (x0, true_residual(x0), jnp.zeros(size.shape, int), jnp.zeros((), int), jnp.zeros((), int))
    x, r, count, _, _ = jax.lax.while_loop(unfinished, one_round, start)
    left = norm(r, columns)
    return x, (left / jnp.where(size > 0, size, 1), count, left <= target)


def _step(operator, precondition, target, columns, state):
    """Returns the state after one step; a column that is done, or whose curvature is not positive, stays as it is."""
    x, r, p, rz, active, count, steps = state
    image = operator(p)
    curvature = inner(p, image, columns)
    active &= curvature > 0
    alpha = jnp.where(active, rz / jnp.where(active, curvature, 1), 0)
    x = add_scaled(x, alpha, p)
    r = add_scaled(r, -alpha, image)
    z = precondition(r)
    rz_next = inner(r, z, columns)
    p = add_scaled(z, jnp.where(active, rz_next / jnp.where(active, rz, 1), 0), p)
    return x, r, p, rz_next, active & (norm(r, columns) > target), count + active, steps + 1
