"""The spectrum of a curvature: its ends with error bounds, its density, and how much of it is negative.

The density of n eigenvalues, each seen through a Gaussian of width s, is estimated from Lanczos processes that begin at
random signs z (Ghorbani, Krishnan and Xiao 2019; Papyan 2018):

    phi(t) = 1/n sum_i N(t; lambda_i, s^2)  ~  mean over z of sum_j tau_j^2 N(t; theta_j, s^2)

with theta_j and tau_j the eigenvalues of the process's T and the first components of their vectors.
"""

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params
from jax.flatten_util import ravel_pytree

from aijax import linalg
from aijax.errors import choose
from aijax.landscape.operators import LossFn, hessian, linearize
from aijax.linalg import Eigenpairs, lanczos
from aijax.linalg.vectors import check_count, check_operator, dimension, dtype_of, like, random_vector
from aijax.typing import Any, Array, Callable, Float, Params, PRNGKey, PyTree

# products that look for repeated eigenvalues: such stand out of the bulk of a Hessian
_FRESH = 8


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["grid", "density", "standard_error", "width"], meta_fields=[]
)
@dataclass(frozen=True)
class SpectralDensity:
    """The density at each point of the grid, its standard error over probes, and the width of the Gaussian."""

    grid: Array
    density: Array
    standard_error: Array
    width: Array


def compute_hessian_eigenvalues(
    loss_fn: LossFn,
    params: Params,
    batches: Any,
    top_k: int = 10,
    *,
    key: PRNGKey | None = None,
    which: str = "largest",
    tolerance: float | None = None,
    subspace: int | None = None,
    loop: str = "auto",
) -> Eigenpairs:
    """Returns eigenvalues of the Hessian of the mean loss, with their vectors and a bound on the error of each.

    Args:
      loss_fn: `(params, batch)` to the mean loss of the batch.
      params: where.
      batches: one batch, or a list of batches.
      top_k: how many eigenvalues.
      key: for the first vector; default `jax.random.key(0)`, as the answer does not depend on it.
      which: "largest", "smallest", or "magnitude".
      tolerance: residual to reach, relative to the largest eigenvalue in magnitude; default 2e-5 in float32, 1e-9 in
        float64. A value is nearer by far: its error is at most the residual squared over the distance to the others.
      subspace: vectors held, and products in the first sweep; default `2 top_k + 32`, and eight more products look for
        repeated eigenvalues.
      loop: "compiled", one program; "host", its steps are called from Python; "auto": on a CPU "host" for losses with
        convolutions, which XLA makes slow in loops there, where nothing is traced.

    Raises:
      ConfigError: a loss that is no scalar or has no second derivative, more eigenvalues than parameters.

    >>> pairs = compute_hessian_eigenvalues(lambda w, x: jnp.mean(x @ w**2), jnp.ones(3), jnp.eye(3), 1)
    >>> round(float(pairs.values[0]), 4)
    0.6667
    """
    choose({"auto": None, "host": None, "compiled": None}, loop, "loop")
    matvec = hessian(loss_fn, params, batches)
    key = jax.random.key(0) if key is None else key
    if tolerance is None:
        tolerance = 1e-9 if dtype_of(params) == jnp.float64 else 2e-5
    subspace = 2 * top_k + 32 if subspace is None else subspace
    options = {"which": which, "tolerance": tolerance, "subspace": subspace, "fresh_products": _FRESH}
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((matvec, key)))
    if loop == "auto":
        slow = jax.default_backend() == "cpu" and not traced and _convolves(matvec, params)
        loop = "host" if slow else "compiled"
    # a tree of many arrays takes long to compile; one that is split over devices stays as it lies
    flat = not traced and all(jnp.asarray(leaf).sharding.is_fully_replicated for leaf in jax.tree.leaves(params))
    like(params)
    if loop == "host":
        linear = _linearized(matvec)
        example = jax.eval_shape(lambda params: _layout(flat, linear, params)[1], params)
        product = functools.partial(_product, flat, linear, params)
        return _laid_out(flat, params, linalg.eigsh(product, key, example, top_k, loop="host", **options))
    return _eigenpairs(flat, matvec, key, top_k, **options)


def spectral_density(
    matvec: Callable[[PyTree], PyTree],
    key: PRNGKey | None,
    example: int | PyTree,
    *,
    num_samples: int = 10,
    steps: int = 80,
    grid: Float[Array, " g"] | int = 512,
    width: float | None = None,
    probes: PyTree | None = None,
    batch_size: int | None = None,
) -> SpectralDensity:
    """Returns the density of the eigenvalues, an average over random probes, with its standard error.

    Args:
      matvec: `v -> A v`, symmetric.
      key: for the probes; None where they are given.
      example: the dimension, or a tree like a vector.
      num_samples: probes, at least 2.
      steps: Lanczos steps of each; memory is this many vectors for each probe of a batch.
      grid: points, or how many: evenly over the Ritz values with a margin of five widths.
      width: of the Gaussian; default a hundredth of the range of the Ritz values.
      probes: vectors in place of random ones, with a first axis that counts them.
      batch_size: probes taken together, by `jax.vmap` of `matvec`; default one after the other.

    Raises:
      ConfigError: fewer than 2 probes, a `matvec` that changes the shape.

    Source: Ghorbani, Krishnan and Xiao 2019, algorithm 2.

    >>> found = spectral_density(lambda v: 2.0 * v, jax.random.key(0), 3, grid=jnp.array([2.0]), width=0.5)
    >>> round(float(found.density[0]), 4)
    0.7979
    """
    shape = like(example)
    check_operator(matvec, shape)
    check_count("num_samples", num_samples, 2)
    matvec = linearize(matvec)
    steps = min(steps, dimension(shape))
    if probes is None:
        draw = lambda key: random_vector(key, shape, jax.random.rademacher)  # noqa: E731
        probes = jax.vmap(draw)(jax.random.split(key, num_samples))

    def process(probe):
        values, vectors = jnp.linalg.eigh(lanczos(matvec, probe, steps).tridiagonal())
        return values, vectors[0] ** 2

    values, weights = jax.lax.map(process, probes, batch_size=batch_size)
    reached = weights > 0
    low, high = jnp.min(values, where=reached, initial=jnp.inf), jnp.max(values, where=reached, initial=-jnp.inf)
    width = jnp.asarray(0.01 * (high - low) if width is None else width, values.dtype)
    if isinstance(grid, int):
        grid = jnp.linspace(low - 5 * width, high + 5 * width, grid)
    bumps = jnp.exp(-(((grid - values[..., None]) / width) ** 2) / 2) / (width * (2 * jnp.pi) ** 0.5)
    densities = jnp.einsum("nj,njg->ng", weights, bumps)
    error = densities.std(0, ddof=1) / len(densities) ** 0.5
    return SpectralDensity(grid, densities.mean(0), error, width)


def negative_share(
    matvec: Callable[[PyTree], PyTree],
    key: PRNGKey,
    example: int | PyTree,
    *,
    threshold: float = 0.0,
    num_samples: int = 16,
    steps: int = 80,
    batch_size: int | None = None,
) -> linalg.Estimate:
    """Returns which share of the eigenvalues is below `-threshold`: the index of a saddle over the dimension.

    Args: as `spectral_density`; threshold: what counts as 0.

    >>> share = negative_share(lambda v: jnp.array([-1.0, 1.0]) * v, jax.random.key(0), 2)
    >>> float(share.value.round(3))
    0.5
    """
    found = linalg.slq(
        lambda value: jnp.where(value < -threshold, 1.0, 0.0),
        linearize(matvec),
        key,
        example,
        num_samples=num_samples,
        steps=steps,
        batch_size=batch_size,
    )
    size = dimension(like(example))
    return linalg.Estimate(found.value / size, found.standard_error / size)


def escape_direction(
    matvec: Callable[[PyTree], PyTree], key: PRNGKey, example: int | PyTree, **options: Any
) -> Eigenpairs:
    """Returns the smallest eigenvalue with its vector: at a saddle, where the loss falls fastest.

    Args: as `linalg.eigsh`.
    """
    return linalg.eigsh(linearize(matvec), key, example, 1, which="smallest", **options)


@functools.partial(jax.jit, static_argnames=("flat", "k", "which", "tolerance", "subspace", "fresh_products"))
def _eigenpairs(flat, matvec, key, k, **options):
    product, example, _ = _layout(flat, linearize(matvec), matvec.params)
    return _laid_out(flat, matvec.params, linalg.eigsh(product, key, example, k, **options))


def _layout(flat, matvec, params):
    """Returns the product as the solver sees it, an example of its vectors, and what makes trees of these."""
    if not flat:
        return matvec, params, lambda v: v
    example, whole = ravel_pytree(params)
    return lambda v: ravel_pytree(matvec(whole(v)))[0], example, whole


@functools.partial(jax.jit, static_argnums=0)
def _laid_out(flat, params, pairs):
    return replace(pairs, vectors=jax.vmap(_layout(flat, None, params)[2])(pairs.vectors))


@functools.partial(jax.jit, static_argnums=0)
def _product(flat, linear, params, v):
    return _layout(flat, linear, params)[0](v)


_linearized = jax.jit(linearize)
_traced = jax.jit(lambda matvec, v: matvec(v))


def _convolves(matvec, params):
    return _has_convolution(_traced.trace(matvec, params).jaxpr.jaxpr)


def _has_convolution(jaxpr):
    return any(
        equation.primitive.name == "conv_general_dilated"
        or any(map(_has_convolution, jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )
