"""Spectra of the tangent kernel of many points, from products alone.

Theta = J J^T acts on vectors like the outputs of all n examples, so that for outputs [n, o] it has n o eigenvalues
lambda. Of these, without the matrix (`operator.py` gives the products, `aijax.linalg` the solvers):

    largest eigenvalues       thick-restart Lanczos
    tr Theta                  the squared norms of all gradients, exactly; or E[z^T Theta z] over random signs z
    log det(Theta + c I)      stochastic Lanczos quadrature
    effective rank            sum_i lambda_i / (lambda_i + c), likewise; or (tr Theta)^2 / |Theta|_F^2

The effective rank at ridge c is the degrees of freedom of kernel regression with that ridge (Hastie and Tibshirani
1990, section 3.5); without a ridge it is the participation ratio of the spectrum, between 1 and n o.

J^T J, which acts on parameters, has the same eigenvalues but for zeros. Sums over all eigenvalues are estimated with
whichever of the two is smaller, so that the zeros of the other are exact. Rounding blurs the small eigenvalues of
either by about 1e-7 (of 64 bits 1e-16) of the largest, so that a ridge has to be well above that to be seen.
"""

import contextlib
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh

from aijax import linalg
from aijax.errors import ConfigError
from aijax.linalg import Eigenpairs, Estimate
from aijax.linalg.vectors import dimension
from aijax.ntk.checks import check_rows, output_shapes
from aijax.ntk.empirical import empirical_ntk
from aijax.ntk.operator import check_batches, gauss_newton_vector_product, kernel_vector_product, row_ranges, take
from aijax.typing import Array, Callable, Float, Params, PRNGKey, PyTree

HELD_ON_DEVICE = 1 << 30
"""Bytes of host data above which they stay on the host."""


def top_eigenvalues(
    key: PRNGKey,
    apply_fn: Callable[[Params, PyTree], PyTree],
    params: Params,
    x: PyTree,
    k: int = 10,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    tolerance: float = 1e-5,
    subspace: int | None = None,
) -> Eigenpairs:
    """Returns the k largest eigenvalues of the tangent kernel of x, with their vectors and error bounds.

    The vectors have the shape of `apply_fn(params, x)` after a first axis of k. Memory is `subspace` such vectors.

    Args:
      key: for the first vector.
      apply_fn, params, x, batch_size, mesh: as in `kernel_vector_product`.
      k: how many.
      tolerance: residual to reach, relative to the largest eigenvalue.
      subspace: vectors held; default 2 k + 20.

    Raises:
      ConfigError: as `kernel_vector_product` and `linalg.eigsh`.

    >>> f = lambda w, x: x @ w
    >>> top_eigenvalues(jax.random.key(0), f, jnp.ones(2), jnp.diag(jnp.array([1.0, 3.0])), 1).values.round(3).tolist()
    [9.0]
    """
    solve = functools.partial(linalg.eigsh, k=k, tolerance=tolerance, subspace=subspace)
    return _solved(solve, key, apply_fn, params, x, batch_size, mesh)


def trace(
    apply_fn: Callable[[Params, PyTree], PyTree],
    params: Params,
    x: PyTree,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Float[Array, ""]:
    """Returns the exact trace of the tangent kernel of x, the sum of the squared norms of all gradients.

        tr Theta = sum_(i, o) |grad f_o(x_i)|^2

    One backward pass for each output of an example; for very many outputs `estimate_trace` costs less.

    Args:
      apply_fn, params, x, batch_size, mesh: as in `kernel_vector_product`.

    Raises:
      ConfigError: as `empirical_ntk`; examples that interact.

    >>> float(trace(lambda w, x: x @ w, jnp.ones(2), jnp.array([[1.0, 2.0], [3.0, 4.0]])))
    30.0
    """
    n = check_rows("x", x)
    check_batches(apply_fn, params, x, batch_size, mesh)
    parts = [_batch_trace(apply_fn, params, take(x, rows, mesh)) for rows in row_ranges(n, batch_size)]
    return sum(parts[1:], start=parts[0])


def estimate_trace(
    key: PRNGKey,
    apply_fn: Callable[[Params, PyTree], PyTree],
    params: Params,
    x: PyTree,
    num_samples: int = 16,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Estimate:
    """Returns an unbiased estimate of the trace from `num_samples` products, and its standard error.

    Args:
      key: for the probes.
      apply_fn, params, x, batch_size, mesh: as in `kernel_vector_product`.
      num_samples: probes, at least 2.

    Raises:
      ConfigError: as `kernel_vector_product` and `linalg.hutchinson_trace`.

    Source: Hutchinson 1990, Commun. Stat. Simul. Comput. 19.
    """
    solve = functools.partial(linalg.hutchinson_trace, num_samples=num_samples)
    return _solved(solve, key, apply_fn, params, x, batch_size, mesh)


def log_determinant(
    key: PRNGKey,
    apply_fn: Callable[[Params, PyTree], PyTree],
    params: Params,
    x: PyTree,
    ridge: float,
    *,
    num_samples: int = 16,
    steps: int = 50,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Estimate:
    """Returns an estimate of `log det(Theta + ridge I)` over all outputs of all examples, and its standard error.

    Args:
      key: for the probes.
      apply_fn, params, x, batch_size, mesh: as in `kernel_vector_product`.
      ridge: what is added to each eigenvalue, positive.
      num_samples: probes, at least 2.
      steps: products for each probe; more for a smaller ridge.

    Raises:
      ConfigError: a ridge that is not positive; as `kernel_vector_product` and `linalg.log_determinant`.

    Source: Ubaru, Chen and Saad 2017, SIAM J. Matrix Anal. Appl. 38.
    """
    _check_ridge(ridge)
    operator = (apply_fn, params, x, batch_size, mesh)
    return _sum_over_spectrum(
        lambda value: jnp.log(value + ridge), key, *operator, num_samples=num_samples, steps=steps
    )


def effective_rank(
    key: PRNGKey,
    apply_fn: Callable[[Params, PyTree], PyTree],
    params: Params,
    x: PyTree,
    ridge: float | None = None,
    *,
    num_samples: int = 16,
    steps: int = 50,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Estimate:
    """Returns an estimate of the number of directions of output space that the kernel fills, and its standard error.

        with a ridge c:  sum_i lambda_i / (lambda_i + c)          without:  (sum_i lambda_i)^2 / sum_i lambda_i^2

    Args:
      key: for the probes.
      apply_fn, params, x, batch_size, mesh: as in `kernel_vector_product`.
      ridge: c, positive; None for the participation ratio, whose numerator is exact.
      num_samples: probes, at least 2; without a ridge, vectors held, and two products are made for each.
      steps: products for each probe, where there is a ridge.

    Raises:
      ConfigError: a ridge that is not positive; as `kernel_vector_product`, `linalg.slq` and, without a ridge,
        `linalg.estimate_frobenius_norm`.

    Source: Hastie and Tibshirani 1990, Generalized Additive Models, section 3.5, for the ridge; Epperly, Tropp and
    Webber 2024, SIAM J. Matrix Anal. Appl. 45, for the norm.
    """
    operator = (apply_fn, params, x, batch_size, mesh)
    if ridge is not None:
        _check_ridge(ridge)
        filling = lambda value: value / (value + ridge)  # noqa: E731
        return _sum_over_spectrum(filling, key, *operator, num_samples=num_samples, steps=steps)

    def solve(matvec, key, example):
        products = 2 * min(num_samples, dimension(example))
        return linalg.estimate_frobenius_norm(matvec, key, example, products)

    norm, _ = _solved_on_smaller(solve, key, *operator)
    total = trace(apply_fn, params, x, batch_size=batch_size, mesh=mesh)
    rank = (total / norm.value) ** 2
    return Estimate(rank, 2 * rank * norm.standard_error / norm.value)


@functools.partial(jax.jit, static_argnums=0)
def _batch_trace(apply_fn, params, x):
    means = empirical_ntk(apply_fn, params, x, trace_outputs=True, diagonal=True)
    outputs = output_shapes(apply_fn, params, x)
    totals = jax.tree.map(lambda mean, out: mean.sum() * math.prod(out.shape[1:]), means, outputs)
    return sum(jax.tree.leaves(totals))


def _sum_over_spectrum(function, key, *operator, num_samples, steps):
    """Returns an estimate of the sum of `function` over the eigenvalues of the kernel."""
    solve = functools.partial(linalg.slq, function, num_samples=num_samples, steps=steps)
    found, zeros = _solved_on_smaller(solve, key, *operator)
    return Estimate(found.value + zeros * function(jnp.zeros_like(found.value)), found.standard_error)


def _solved_on_smaller(solve, key, apply_fn, params, x, batch_size, mesh):
    """Returns `solve(matvec, key, example)` of Theta or J^T J, and how many zeros more Theta has for eigenvalues."""
    zeros = dimension(output_shapes(apply_fn, params, x)) - dimension(params)
    if zeros <= 0:
        return _solved(solve, key, apply_fn, params, x, batch_size, mesh), 0
    return _solved(solve, key, apply_fn, params, x, batch_size, mesh, gauss_newton_vector_product, params), zeros


def _solved(solve, key, apply_fn, params, x, batch_size, mesh, product=kernel_vector_product, example=None):
    """Returns `solve(matvec, key, example)` of products, by default the kernel's, run where it is to run."""
    example = output_shapes(apply_fn, params, x) if example is None else example
    outside = _runs_outside_loops(apply_fn, params, x)
    if not outside:
        x = jax.tree.map(jnp.asarray, x)
    matvec = product(apply_fn, params, x, batch_size=batch_size, mesh=mesh)
    with jax.disable_jit() if outside else contextlib.nullcontext():
        return solve(matvec, key, example)


def _runs_outside_loops(apply_fn, params, x):
    """Returns whether solvers are to make their steps from Python: for data that stay on the host, and convolutions
    on CPU (see `kernel_vector_product`)."""
    leaves = jax.tree.leaves(x)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in (*leaves, *jax.tree.leaves(params))):
        return False
    if any(type(leaf) is not np.ndarray and not isinstance(leaf, jax.Array) for leaf in leaves):
        return True
    host = sum(leaf.nbytes for leaf in leaves if not isinstance(leaf, jax.Array))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.result_type(leaf)), x)
    return host > HELD_ON_DEVICE or (
        jax.default_backend() == "cpu" and _convolves(jax.make_jaxpr(apply_fn)(params, shapes).jaxpr)
    )


def _convolves(jaxpr):
    return any(
        equation.primitive.name == "conv_general_dilated" or any(map(_convolves, jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )


def _check_ridge(ridge):
    if not ridge > 0:
        raise ConfigError(f"ridge: expected a positive number, got {ridge!r}")
