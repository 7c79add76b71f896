"""Conjugate gradients: `A x = b` for a symmetric positive definite operator, from products alone.

Hestenes and Stiefel 1952, preconditioned. With M the preconditioner (an approximation of the inverse of A):

    r = b - A x,  z = M r,  p = z + (<r, z> / <r, z>_before) p,  x <- x + (<r, z> / <p, A p>) p

The recurrence for r drifts from the true residual by rounding; when it says that it is done, the true residual is
worked out, and the iteration starts again from there (at most five times) if it is not. Derivatives with respect to b
and to what `matvec` closes over are those of the solution, `dx = A^-1 (db - dA x)`, by a second solve: nothing of the
iteration is kept.

The steps are those of the Lanczos process from b, in the inner product of M: with a_j the length of step j and b_j the
factor of the direction that follows, its tridiagonal matrix has

    T_jj = 1 / a_j + b_(j-1) / a_(j-1),    T_j,j+1 = sqrt(b_j) / a_j

(Saad, section 6.7.3), so that one iteration gives a solution and what quadrature of `b^T f(A) b` needs.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.linalg.lanczos import Lanczos
from aijax.linalg.vectors import add_scaled, check_count, check_operator, check_vector, dimension, inner, norm
from aijax.typing import Array, Callable, PyTree

ROUNDS = 6
"""Rounds from the true residual at most: each takes off what rounding had left, down to that of `A x` itself."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["solution", "residual", "iterations", "converged", "lanczos"],
    meta_fields=[],
)
@dataclass(frozen=True)
class CGResult:
    """The solution (like b); for it, or for each column: `|b - A x| / |b|`, iterations used, and whether it is
    reached; and the Lanczos process of the first steps (without its basis), where it was asked for."""

    solution: PyTree
    residual: Array
    iterations: Array
    converged: Array
    lanczos: Lanczos | None = None


def cg(
    matvec: Callable[[PyTree], PyTree],
    b: PyTree,
    *,
    x0: PyTree | None = None,
    preconditioner: Callable[[PyTree], PyTree] | None = None,
    tolerance: float = 1e-6,
    max_iterations: int | None = None,
    columns: bool = False,
    lanczos_steps: int = 0,
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
      lanczos_steps: return the Lanczos process of so many steps at most, from `b - A x0`: of `M^(1/2) A M^(1/2)`, if
        there is a preconditioner M. It has no derivative.

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

    if lanczos_steps:
        check_count("lanczos_steps", lanczos_steps)

    def solve(operator, b):
        precondition = preconditioner or (lambda r: r)
        return _iterate(operator, b, x0, precondition, tolerance, max_iterations, columns, lanczos_steps)

    solution, (*status, scalars) = jax.lax.custom_linear_solve(matvec, b, solve, symmetric=True, has_aux=True)
    return CGResult(solution, *status, _lanczos(*scalars) if lanczos_steps else None)


def _iterate(operator, b, x0, precondition, tolerance, max_iterations, columns, recorded):
    """Returns the solution and `(relative residual, iterations, converged, scalars)`: rounds of CG from true residuals.
    The scalars are those of the first `recorded` steps of the first round, and the norm of where it began."""
    size = norm(b, columns)
    target = tolerance * size

    def true_residual(x):
        return jax.tree.map(jnp.subtract, b, operator(x))

    def one_round(state):
        x, r, count, steps, rounds, scalars = state
        z = precondition(r)
        rz = inner(r, z, columns)
        active = norm(r, columns) > target
        lengths, factors, first = scalars
        first = jnp.where(rounds == 0, jnp.sqrt(rz), first)
        start = (x, r, z, rz, active, count, steps, (lengths, factors))
        step = functools.partial(_step, operator, precondition, target, columns, rounds == 0)
        x, _, _, _, _, count, steps, scalars = jax.lax.while_loop(
            lambda s: jnp.any(s[4]) & (s[6] < max_iterations), step, start
        )
        return x, true_residual(x), count, steps, rounds + 1, (*scalars, first)

    def unfinished(state):
        _, r, _, steps, rounds, _ = state
        return jnp.any(norm(r, columns) > target) & (steps < max_iterations) & (rounds < ROUNDS)

    scalars = (jnp.zeros((recorded, *size.shape), size.dtype),) * 2 + (jnp.zeros_like(size),)
    start = (x0, true_residual(x0), jnp.zeros(size.shape, int), jnp.zeros((), int), jnp.zeros((), int), scalars)
    x, r, count, _, _, scalars = jax.lax.while_loop(unfinished, one_round, start)
    left = norm(r, columns)
    return x, (left / jnp.where(size > 0, size, 1), count, left <= target, scalars)


def _step(operator, precondition, target, columns, first_round, state):
    """Returns the state after one step; a column that is done, or whose curvature is not positive, stays as it is."""
    x, r, p, rz, active, count, steps, (lengths, factors) = state
    image = operator(p)
    curvature = inner(p, image, columns)
    active &= curvature > 0
    alpha = jnp.where(active, rz / jnp.where(active, curvature, 1), 0)
    x = add_scaled(x, alpha, p)
    r = add_scaled(r, -alpha, image)
    z = precondition(r)
    rz_next = inner(r, z, columns)
    factor = jnp.where(active, rz_next / jnp.where(active, rz, 1), 0)
    p = add_scaled(z, factor, p)
    if len(lengths):
        place = jnp.where(first_round, steps, len(lengths))
        lengths, factors = lengths.at[place].set(alpha, mode="drop"), factors.at[place].set(factor, mode="drop")
    return x, r, p, rz_next, active & (norm(r, columns) > target), count + active, steps + 1, (lengths, factors)


def _lanczos(lengths, factors, size):
    """Returns the process whose tridiagonal matrix has the scalars of CG; after the last step it is a multiple of the
    identity, to which nothing leads."""
    made = lengths > 0
    inverse = jnp.where(made, 1 / jnp.where(made, lengths, 1), 0)
    none = jnp.zeros_like(inverse[:1])
    diagonal = inverse + jnp.concatenate([none, (factors * inverse)[:-1]])
    beta = jnp.sqrt(factors) * inverse
    beta = jnp.where(jnp.concatenate([made[1:], made[:1]]), beta, 0)
    return Lanczos(jnp.where(made, diagonal, jnp.where(made[0], diagonal[0], 1)), beta, None, size)
