"""Gaussian processes on many points: conjugate gradients in place of a factor, and kernel rows that are never held.

In the whitened system of `aijax.gp.whitened`, `A = I + W K W ~ F F^T` and `B = F^-1 A F^-T >= I`; e = W (y - mean):

    log p(y) = -1/2 e^T A^-1 e - 1/2 log det A - 1/2 sum log(2 pi D_i)
    log det A = 2 log det F + tr log B

The trace is estimated by random signs z and the Lanczos process that conjugate gradients run through on the way to
`B^-1 z` (Gardner et al. 2018, arXiv:1809.11165; Ubaru, Chen and Saad 2017). What F knows of the determinant is exact,
and only the rest is left to chance (Wenger et al. 2022, arXiv:2107.00243). The gradient has the same form. With
a = A^-1 e, and p = F^-T z, s = F^-T B^-1 z,

    d log p(y) = 1/2 a^T dA a - a^T de - 1/2 d log det A
    d log det A = tr(P^-1 dP) + E[s^T dA p - p^T dP p],    P = F F^T

where dP is that of the Nystrom approximation with its points held. It takes the same solves and one more pass over
the kernel, in blocks. When the preconditioner has the whole rank, all of it is exact.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh

from aijax.errors import ConfigError
from aijax.gp.iterative_posterior import IterativePosterior
from aijax.gp.model import GP, Evidence
from aijax.gp.observations import residuals
from aijax.gp.once import once
from aijax.gp.whitened import System, make_system, solve, solve_whitened, white_part
from aijax.kernels.products import Rows, map_rows, rows_product, split_rows
from aijax.known import known
from aijax.linalg import quadrature
from aijax.linalg.low_rank import low_rank_log_determinant, solve_root, solve_root_transpose
from aijax.linalg.vectors import check_count
from aijax.parameters import noun, static
from aijax.typing import Any, Array, Float, PRNGKey

MOST_RANK = 2048
FACTOR_ENTRIES = 2**27
PROBE_ENTRIES = 2**18


@noun
class Iterative:
    """Inference by preconditioned conjugate gradients, in the memory of some rows of the kernel matrix.

    The estimate of the evidence needs a `key`; the same key gives the same probes, as an optimiser wants it.

    Args:
      rank: columns of the preconditioner; default the least of n, 2048 and `2^27 / n`. Up to n = 2048 the default is
        thus exact.
      num_probes: random probes for the log-determinant and its derivative; default `2^18 / n`, within 16 and 128. The
        standard error falls as their square root.
      tolerance: the relative residual of every solve, in the norm of the preconditioner; default 1e-4. In float32
        rounding may end a solve above that, which is told; 1e-2 suits it.
      max_iterations: of a solve; default 1000.
      lanczos_steps: of the quadrature for the log-determinant; default 100.
      block_size: rows of the kernel matrix made at a time on each device, 4096 entries of each; default 1024. More of
        them suit an accelerator.
      solve_size: right-hand sides solved for together when variances are predicted; default 256.
      mesh: devices that share the rows; default one. Any number of devices gives the same numbers.

    >>> Iterative(num_probes=8).tolerance
    0.0001
    """

    rank: int | None = static(None)
    num_probes: int | None = static(None)
    tolerance: float = static(1e-4)
    max_iterations: int = static(1000)
    lanczos_steps: int = static(100)
    block_size: int | None = static(None)
    solve_size: int = static(256)
    mesh: Mesh | None = static(None)

    def check(self):
        for name, least in (("rank", 1), ("num_probes", 2), ("block_size", 1)):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least)
        for name in ("max_iterations", "lanczos_steps", "solve_size"):
            check_count(name, getattr(self, name))
        if not 0 < self.tolerance < 1:
            raise ConfigError(f"tolerance: expected a number between 0 and 1, got {self.tolerance!r}")

    def evidence(self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: PRNGKey | None = None) -> Evidence:
        residual, noise, observed = checked_residuals(gp, x, y, observed)
        return _evidence(self, gp.kernel, jax.tree.map(jnp.asarray, x), noise, residual, observed, checked_key(key))

    def condition(
        self, gp: GP, x: Any, y: Array, observed: Array | None = None, key: PRNGKey | None = None
    ) -> IterativePosterior:
        residual, noise, observed = checked_residuals(gp, x, y, observed)
        return _condition(self, gp, jax.tree.map(jnp.asarray, x), noise, residual, observed)

    def rows(self, n: int) -> Rows:
        """Returns how n rows are dealt out."""
        return split_rows(n, self.block_size, self.mesh)

    def rank_of(self, n: int) -> int:
        """Returns the rank of the preconditioner for n points."""
        return min(n, min(MOST_RANK, max(1, FACTOR_ENTRIES // n)) if self.rank is None else self.rank)

    def probes_of(self, n: int) -> int:
        """Returns the number of probes for n points."""
        return min(128, max(16, PROBE_ENTRIES // n)) if self.num_probes is None else self.num_probes


def checked_residuals(gp: GP, x: Any, y: Any, observed: Any) -> tuple[Array, Array, Array | None]:
    """Returns `(y - mean, noise, observed)` as `residuals` does, and refuses noise of 0."""
    residual, noise, observed = residuals(gp, x, y, observed)
    if known((noise > 0).all()) is False:
        raise ConfigError(f"gp.noise_variance: expected a positive number for Iterative, got {float(noise.min())}")
    return residual, noise, observed


def checked_key(key: Any) -> PRNGKey:
    """Returns the key, and refuses None."""
    if key is None:
        raise ConfigError("key: expected a key of jax.random.key, got None; Iterative estimates by random probes")
    return key


@jax.jit
def _condition(solver, gp, x, noise, residual, observed):
    n = len(noise)
    rows = solver.rows(n)
    system = make_system(gp.kernel, x, noise, observed, rows, solver.rank_of(n))
    target = system.whitening[:, None] * rows.pad_zero(residual.reshape(n, -1))
    solution, status = solve_whitened(system, target, tolerance=solver.tolerance, max_iterations=solver.max_iterations)
    weights = system.whitening[:, None] * solution
    shape = (rows.padded, *residual.shape[1:])
    good = status.converged.all() & jnp.isfinite(weights).all()
    return IterativePosterior(
        gp, system, weights.reshape(shape), status.residual.max(), status.iterations.max(), good, solver
    )


@jax.jit
def _evidence(solver, kernel, x, noise, residual, observed, key):
    variables = kernel, x, noise, residual
    estimate, terms, _ = estimate_terms(solver, *jax.lax.stop_gradient(variables), observed, key)
    return Evidence(
        _with_derivative(estimate.value, terms, variables),
        estimate.standard_error,
        jnp.zeros_like(estimate.value),
        estimate.residual,
        estimate.iterations,
        estimate.converged,
    )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["system", "pivots", "weights", "solves", "probes", "share", "inverse", "cross", "within"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Terms:
    """What the derivative is put together from, all constant.

    Args:
      system: A and F.
      pivots: the points of the preconditioner.
      weights: `(K + D)^-1 (y - mean)`, `[n, m]`.
      solves: W s for each probe, `[n, k]`.
      probes: W p for each probe, `[n, k]`.
      share: of each pivot in p, `K_II^-1 K_I: W p`, `[rank, k]`.
      inverse: the diagonal of `(W^-1 P W^-1)^-1`, `[n]`.
      cross: `[rank, rank]`: `tr(P^-1 dP)` has `2 <W C cross, dK_:I>`
      within: `[rank, rank]`: and `- <within, dK_II>`.
    """

    system: System
    pivots: Any
    weights: Array
    solves: Array
    probes: Array
    share: Array
    inverse: Array
    cross: Array
    within: Array


def estimate_terms(solver, kernel, x, noise, residual, observed, key):
    """Returns the `Evidence`, the `Terms` of its derivative, and the norm of the residual of each solve, `[m + k]`."""
    n, rows = len(noise), solver.rows(len(noise))
    system = make_system(kernel, x, noise, observed, rows, solver.rank_of(n))
    root, scale = system.root, system.whitening[:, None]
    residual = residual.reshape(n, -1)
    outputs, num_probes = residual.shape[1], solver.probes_of(n)
    signs = jax.random.rademacher(key, (n, num_probes), residual.dtype)
    signs = jnp.where(system.observed[:, None], rows.pad_zero(signs), 0)
    target = solve_root(root, scale * rows.pad_zero(residual))
    sides = jnp.concatenate([target, signs], 1)
    result = solve(
        system,
        sides,
        tolerance=solver.tolerance,
        max_iterations=solver.max_iterations,
        lanczos_steps=min(solver.lanczos_steps, n),
    )
    fit = jnp.sum(sides[:, :outputs] * result.solution[:, :outputs])
    logs = quadrature(jnp.log, jax.tree.map(lambda leaf: leaf[..., outputs:], result.lanczos))
    scales = jnp.sum(jnp.where(system.observed, jnp.log(2 * math.pi * system.noise), 0))
    value = -0.5 * fit - outputs / 2 * (low_rank_log_determinant(root) + jnp.mean(logs) + scales)
    evidence = Evidence(
        value,
        outputs / 2 * jnp.std(logs, ddof=1) / num_probes**0.5,
        jnp.zeros_like(value),
        result.residual.max(),
        result.iterations.max(),
        result.converged.all() & jnp.isfinite(value),
    )
    found = solve_root_transpose(root, result.solution)
    probes = solve_root_transpose(root, signs)
    terms = _terms(system, scale * found[:, :outputs], scale * found[:, outputs:], probes)
    return evidence, terms, result.residual * jnp.linalg.norm(sides, axis=0)


def _terms(system, weights, solves, probes):
    scale = system.whitening
    factor, triangle = system.root.factor, system.root.triangle
    rank = factor.shape[1]
    found = jnp.arange(rank) < system.count
    within = jnp.where(found & found[:, None], factor[system.pivots], jnp.eye(rank, dtype=factor.dtype))
    pivot_scale = jnp.where(found, scale[system.pivots], 0)
    # whitened: C = K~_:I L^-T with L = `within`; (I + C^T C)^-1 = S
    shrunk = jax.scipy.linalg.cho_solve((triangle, True), jnp.eye(rank, dtype=factor.dtype))
    unlower = jax.scipy.linalg.solve_triangular(within, jnp.diag(pivot_scale), lower=True)
    share = jnp.matmul(unlower.T, jnp.matmul(factor.T, probes, precision="highest"), precision="highest")
    cross = jnp.matmul(shrunk, unlower, precision="highest")
    inner = jnp.eye(rank, dtype=factor.dtype) - shrunk

    def block(shrunk, part):
        return 1 - jnp.sum(part * jnp.matmul(part, shrunk, precision="highest"), 1), ()

    inverse, _ = map_rows(block, system.rows, (shrunk,), (factor,))
    pivots = jax.tree.map(lambda leaf: leaf[system.pivots], system.x)
    middle = jnp.matmul(unlower.T, jnp.matmul(inner, unlower, precision="highest"), precision="highest")
    return Terms(system, pivots, weights, solves, scale[:, None] * probes, share, scale**2 * inverse, cross, middle)


def bilinear_parts(terms: Terms, kernel: Any, x: Any, noise: Array) -> tuple[Array, Array, Array]:
    """Returns `(A V, p^T P p, tr-weights of P)` as functions of the kernel, the points and the noise, all else held.

    V is `[weights, probes]`; the second is one number for each probe, the third is `tr(P_0^-1 P)` up to a constant,
    both for P as a Nystrom approximation with `K_II^-1 K_I:` held on both sides. One pass over the kernel matrix.
    """
    system = terms.system
    rows, scale = system.rows, system.whitening
    x = rows.pad(x)
    pivots = jax.tree.map(lambda leaf: leaf[system.pivots], x)
    noise = rows.pad(noise) + white_part(kernel, x)
    vectors = jnp.concatenate([terms.weights, terms.probes], 1)

    product = rows_product(kernel, rows, x, x, vectors)

    def block(kernel, pivots, share, cross, part, probes, factor, scale):
        near = kernel(part, pivots)
        seen = jnp.sum(probes * jnp.matmul(near, share, precision="highest"), 0)
        weight = scale[:, None] * jnp.matmul(factor, cross, precision="highest")
        return (), (2 * seen, 2 * jnp.sum(weight * near))

    parts = (x, terms.probes, system.root.factor, scale)
    _, (seen, trace) = map_rows(block, rows, (kernel, pivots, terms.share, terms.cross), parts)
    among = kernel(pivots, pivots)
    seen = seen - jnp.sum(terms.share * jnp.matmul(among, terms.share, precision="highest"), 0)
    seen = seen + jnp.sum(noise[:, None] * terms.probes**2, 0)
    trace = trace - jnp.sum(terms.within * among) + jnp.sum(terms.inverse * noise)
    return product + noise[:, None] * vectors, seen, trace


def surrogate(terms: Terms, kernel: Any, x: Any, noise: Array, residual: Array) -> Float[Array, ""]:
    """Returns a function with the derivative of the evidence, where kernel, x, noise and residual are those of the
    terms."""
    product, seen, trace = bilinear_parts(terms, kernel, x, noise)
    outputs = terms.weights.shape[1]
    residual = terms.system.rows.pad_zero(residual.reshape(len(noise), -1))
    data = jnp.sum(terms.weights * (product[:, :outputs] / 2 - residual))
    chance = jnp.mean(jnp.sum(terms.solves * product[:, outputs:], 0) - seen)
    return data - outputs / 2 * (trace + chance)


@jax.custom_jvp
def _with_derivative(value, terms, variables):
    return value


@functools.partial(_with_derivative.defjvp, symbolic_zeros=True)
def _with_derivative_jvp(primals, tangents):
    value, terms, variables = primals
    leaves, structure = jax.tree.flatten(once(variables, "Iterative"))
    slopes = jax.tree.leaves(tangents[2], is_leaf=lambda leaf: isinstance(leaf, SymbolicZero))
    moved = [i for i, slope in enumerate(slopes) if not isinstance(slope, SymbolicZero)]

    def function(*values):
        changed = dict(zip(moved, values, strict=True))
        return surrogate(terms, *structure.unflatten([changed.get(i, leaf) for i, leaf in enumerate(leaves)]))

    if not moved:
        return value, jnp.zeros_like(value)
    return value, jax.jvp(function, [leaves[i] for i in moved], [slopes[i] for i in moved])[1]
