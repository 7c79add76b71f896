"""Traces of an operator and of functions of it, by random probes, with their standard errors.

With z of independent signs, `E[z^T A z] = tr A` (Hutchinson 1990). With the Lanczos process from z, Gauss quadrature
gives

    z^T f(A) z ~ |z|^2 sum_i tau_i^2 f(theta_i),     theta, tau: eigenvalues of T, first components of its eigenvectors

(stochastic Lanczos quadrature: Ubaru, Chen and Saad 2017, SIAM J. Matrix Anal. Appl. 38). The mean over probes
estimates `tr f(A)`; `f = log` gives the log-determinant. Its derivative is `tr(f'(A) dA)`, estimated with the same
probes: `E[(f'(A) z)^T dA z]`, where `f'(A) z ~ |z| Q f'(T) e_1` comes from the same process.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.linalg.lanczos import Lanczos, lanczos
from aijax.linalg.vectors import check_count, check_operator, combine, dimension, inner, like, random_like
from aijax.typing import Array, Callable, PRNGKey, PyTree


@functools.partial(jax.tree_util.register_dataclass, data_fields=["value", "standard_error"], meta_fields=[])
@dataclass(frozen=True)
class Estimate:
    """The mean over probes, and its standard error (the spread over probes; a bias of quadrature is not in it)."""

    value: Array
    standard_error: Array


def hutchinson_trace(
    matvec: Callable[[PyTree], PyTree],
    key: PRNGKey,
    example: int | PyTree,
    num_samples: int,
    *,
    batch_size: int | None = None,
) -> Estimate:
    """Returns an unbiased estimate of `tr A` and its standard error; exact for a diagonal A.

    Args:
      matvec: `v -> A v`; A need not be symmetric.
      key: for the probes.
      example: the dimension n, or an array or tree of arrays (or of shapes) like a vector.
      num_samples: probes, at least 2; the standard error falls as their square root.
      batch_size: probes taken together (by `jax.vmap` of `matvec`); default one after the other.

    Raises:
      ConfigError: fewer than 2 probes, a `matvec` that changes the shape.

    Source: Hutchinson 1990, Commun. Stat. Simul. Comput. 19.

    >>> float(hutchinson_trace(lambda v: 3.0 * v, jax.random.key(0), 4, 2).value)
    12.0
    """
    shape = like(example)
    check_operator(matvec, shape)

    def sample(key):
        z = random_like(key, shape, jax.random.rademacher)
        return inner(z, matvec(z))

    return mean_over_probes(sample, key, num_samples, batch_size)


def slq(
    function: Callable[[Array], Array],
    matvec: Callable[[PyTree], PyTree],
    key: PRNGKey,
    example: int | PyTree,
    *,
    num_samples: int = 16,
    steps: int = 50,
    batch_size: int | None = None,
) -> Estimate:
    """Returns an estimate of `tr f(A)` for a symmetric A, and its standard error.

    Differentiable once in what `matvec` closes over (see above), for a scalar `function` that `jax.grad` can take.

    Args:
      function: f, elementwise on eigenvalues.
      matvec, key, example, num_samples, batch_size: as in `hutchinson_trace`, with A symmetric.
      steps: Lanczos steps for each probe; memory is this many vectors.

    Raises:
      ConfigError: fewer than 2 probes, a `matvec` that changes the shape.

    Source: Ubaru, Chen and Saad 2017, algorithm 1.

    >>> float(slq(jnp.square, lambda v: 3.0 * v, jax.random.key(0), 4, num_samples=2).value.round(3))
    36.0
    """
    shape = like(example)
    check_operator(matvec, shape)
    check_count("steps", steps)
    steps = min(steps, dimension(shape))

    def frozen(v):
        return jax.lax.stop_gradient(matvec(v))

    def sample(key):
        z = random_like(key, shape, jax.random.rademacher)
        process = lanczos(frozen, z, steps)
        values, vectors = jnp.linalg.eigh(process.tridiagonal())
        first = vectors[0]
        safe = _reached(values, first)
        value = process.norm**2 * jnp.sum(first**2 * function(safe))
        slopes = jax.vmap(jax.grad(lambda x: function(x).astype(x.dtype)))(safe)
        image = combine(process.norm * (vectors @ (slopes * first)), process.basis)
        sensitivity = inner(jax.lax.stop_gradient(image), matvec(z))
        return jax.lax.stop_gradient(value - sensitivity) + sensitivity

    return mean_over_probes(sample, key, num_samples, batch_size)


def quadrature(function: Callable[[Array], Array], process: Lanczos) -> Array:
    """Returns `z^T f(A) z` from a Lanczos process that began at z, by Gauss quadrature; one number for each column.

    It is exact for polynomials of degree below twice the number of steps. For `f = log` it is never too small, for
    `f = 1/x` never too large.

    Args:
      function: f, elementwise on eigenvalues.
      process: of `lanczos` or of `cg`; its basis is not read.

    Source: Golub and Meurant 2010, Matrices, Moments and Quadrature, chapter 6.

    >>> float(quadrature(jnp.square, lanczos(lambda v: 3.0 * v, jnp.ones(2), 1)).round(3))
    18.0
    """

    def one(matrix, norm):
        values, vectors = jnp.linalg.eigh(matrix)
        return norm**2 * jnp.sum(vectors[0] ** 2 * function(_reached(values, vectors[0])))

    if process.norm.ndim == 0:
        return one(process.tridiagonal(), process.norm)
    # one after the other: eigh of a batch waits for the threads that, on several host devices, wait for it
    return jax.lax.map(lambda column: one(*column), (process.tridiagonal(), process.norm))


def log_determinant(
    matvec: Callable[[PyTree], PyTree],
    key: PRNGKey,
    example: int | PyTree,
    *,
    num_samples: int = 16,
    steps: int = 50,
    batch_size: int | None = None,
) -> Estimate:
    """Returns an estimate of `log det A` for a symmetric positive definite A, and its standard error.

    Arguments, errors and derivative as in `slq`, with f = log; NaN says that A is not positive definite.

    >>> round(float(log_determinant(lambda v: 2.0 * v, jax.random.key(0), 3, num_samples=2).value), 3)
    2.079
    """
    return slq(jnp.log, matvec, key, example, num_samples=num_samples, steps=steps, batch_size=batch_size)


def _reached(values, first):
    """Returns the eigenvalues of T that count: a process that ended early has zeros in T which f may not like; nothing
    leads to them from e_1, and they are given the value that counts most."""
    return jnp.where(jnp.abs(first) > 0, values, values[jnp.argmax(jnp.abs(first))])


def mean_over_probes(
    sample: Callable[[PRNGKey], PyTree], key: PRNGKey, num_samples: int, batch_size: int | None
) -> Estimate:
    """Returns the mean of `sample(key)`, an array or a tree, over keys, and its standard error."""
    check_count("num_samples", num_samples, 2)
    values = jax.lax.map(sample, jax.random.split(key, num_samples), batch_size=batch_size)
    return Estimate(
        jax.tree.map(lambda a: a.mean(0), values), jax.tree.map(lambda a: a.std(0, ddof=1) / num_samples**0.5, values)
    )
