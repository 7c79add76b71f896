"""Trace, diagonal and Frobenius norm of an operator from a number of products with it, with standard errors.

All three are sums over an orthonormal basis, or means over random vectors z of covariance I, of one form of z and A z:

    tr A = E[z . A z],        diag A = E[z * A z],        |A|_F^2 = E[|A z|^2]

hutchinson    the mean over m random vectors (Hutchinson 1990; Bekas, Kokiopoulou and Saad 2007 for the diagonal)
hutch++       with P = Q Q^T onto the range of A times m/3 random vectors: the form summed over the columns of Q, which
              takes m/3 products, and its mean over (1 - P) z for m/3 others (Meyer, Musco, Musco and Woodruff 2021)
xtrace        the same, with all m/2 random vectors but one for P and that one for z, averaged over which one it is
              (Epperly, Tropp and Webber 2024, section 2.1); P without vector i is Q (I - s_i s_i^T) Q^T, s_i along
              the i-th row of R^-1 of the factors Q R = A Z. Gaussian vectors (1 - P) z get the length that is expected

The first falls as m^-1/2 for every A; the others also with the tail of the spectrum that the sketch leaves, and are
exact where the rank of A is below the size of the sketch. All are unbiased.
"""

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.linalg.trace import Estimate, mean_over_probes
from aijax.linalg.vectors import (
    check_count,
    check_operator,
    combine,
    components,
    dimension,
    inner,
    like,
    orthonormal_basis,
    random_vector,
)
from aijax.typing import Callable, PRNGKey, PyTree


def estimate_trace(
    matvec: Callable[[PyTree], PyTree],
    key: PRNGKey,
    example: int | PyTree,
    num_products: int,
    *,
    method: str = "xtrace",
    batch_size: int | None = None,
) -> Estimate:
    """Returns an unbiased estimate of `tr A` and its standard error.

    Its derivative by what `matvec` closes over is an unbiased estimate of that of the trace.

    Args:
      matvec: `v -> A v`; A need not be symmetric.
      key: for the random vectors.
      example: the dimension n, or an array or tree of arrays (or of shapes) like a vector.
      num_products: m, products with A in all; at least 2 for "hutchinson", 4 for the others. Memory is one vector for
        "hutchinson", m for the others.
      method: "hutchinson", "hutch++" or "xtrace"; see above.
      batch_size: products taken together (by `jax.vmap` of `matvec`); default one after the other.

    Raises:
      ConfigError: too few products, more than n of them in a sketch, an unknown method, a `matvec` that changes the
        shape.

    >>> float(estimate_trace(lambda v: 3.0 * v, jax.random.key(0), 4, 2, method="hutchinson").value)
    12.0
    """
    return _estimate(inner, matvec, key, example, num_products, method, batch_size)


def estimate_diagonal(
    matvec: Callable[[PyTree], PyTree],
    key: PRNGKey,
    example: int | PyTree,
    num_products: int,
    *,
    method: str = "xtrace",
    batch_size: int | None = None,
) -> Estimate:
    """Returns an unbiased estimate of the diagonal of A, a tree like a vector, and the standard error of each entry.

    Arguments and errors as in `estimate_trace`.

    >>> estimate_diagonal(lambda v: 3.0 * v, jax.random.key(0), 2, 2, method="hutchinson").value.tolist()
    [3.0, 3.0]
    """
    multiply = lambda u, v: jax.tree.map(jnp.multiply, u, v)  # noqa: E731
    return _estimate(multiply, matvec, key, example, num_products, method, batch_size)


def estimate_frobenius_norm(
    matvec: Callable[[PyTree], PyTree],
    key: PRNGKey,
    example: int | PyTree,
    num_products: int,
    *,
    method: str = "xtrace",
    batch_size: int | None = None,
) -> Estimate:
    """Returns an estimate of `|A|_F`, the root of an unbiased one of its square, and its standard error to first order.

    Arguments and errors as in `estimate_trace`.

    >>> float(estimate_frobenius_norm(lambda v: 3.0 * v, jax.random.key(0), 4, 2, method="hutchinson").value)
    6.0
    """
    square = _estimate(lambda u, v: inner(v, v), matvec, key, example, num_products, method, batch_size)
    norm = jnp.sqrt(jnp.maximum(square.value, 0))
    return Estimate(norm, square.standard_error / (2 * jnp.where(norm > 0, norm, 1)))


def _estimate(form, matvec, key, example, num_products, method, batch_size):
    shape = like(example)
    check_operator(matvec, shape)
    run = choose(_METHODS, method, "method")
    check_count("num_products", num_products, 2 if method == "hutchinson" else 4)
    sketched = {"hutchinson": 0, "hutch++": num_products // 3, "xtrace": num_products // 2}[method]
    if sketched > dimension(shape):
        raise ConfigError(
            f"num_products: of {num_products} products {method} would sketch with {sketched} vectors, more than the "
            f"dimension {dimension(shape)}"
        )
    return run(form, matvec, key, shape, num_products, batch_size)


def _hutchinson(form, matvec, key, shape, num_products, batch_size):
    def sample(key):
        z = random_vector(key, shape, jax.random.rademacher)
        return form(z, matvec(z))

    return mean_over_probes(sample, key, num_products, batch_size)


def _hutch_plus_plus(form, matvec, key, shape, num_products, batch_size):
    sketch_key, key = jax.random.split(key)
    size = num_products // 3
    sketch = _random_rows(sketch_key, shape, size, jax.random.rademacher)
    basis, _ = orthonormal_basis(jax.lax.stop_gradient(_products(matvec, sketch, batch_size)))

    def sample(key):
        z = random_vector(key, shape, jax.random.rademacher)
        u = jax.tree.map(jnp.subtract, z, combine(components(basis, z), basis))
        return form(u, matvec(u))

    inside = _summed(form, basis, _products(matvec, basis, batch_size))
    outside = mean_over_probes(sample, key, num_products - 2 * size, batch_size)
    return Estimate(jax.tree.map(jnp.add, inside, outside.value), outside.standard_error)


def _leave_one_out(form, matvec, key, shape, num_products, batch_size):
    probes = _random_rows(key, shape, num_products // 2, jax.random.normal)
    images = _products(matvec, probes, batch_size)
    basis, upper = orthonormal_basis(jax.lax.stop_gradient(images))
    basis_images = _products(matvec, basis, batch_size)
    there = jnp.diag(upper) > 0
    # where A Z has not the full rank, what one vector gives the others give too: none is left out of the basis
    rows = jax.scipy.linalg.solve_triangular(upper + jnp.diag(jnp.where(there, 0, 1)), jnp.eye(len(upper)))
    rows = jnp.where(there.all(), rows / jnp.linalg.norm(rows, axis=1, keepdims=True), 0)
    free = dimension(shape) - there.sum() + there.all()
    inside = _summed(form, basis, basis_images)

    def sample(row):
        probe, image, s = row
        x = components(basis, probe)
        x = x - s * (s @ x)
        u, au = (jax.tree.map(jnp.subtract, v, combine(x, span)) for v, span in ((probe, basis), (image, basis_images)))
        left_out = form(combine(s, basis), combine(s, basis_images))
        weight = free / inner(u, u)
        return jax.tree.map(lambda a, b, c: a - b + weight * c, inside, left_out, form(u, au))

    samples = jax.lax.map(sample, (probes, images, rows))
    return Estimate(
        jax.tree.map(lambda a: a.mean(0), samples),
        jax.tree.map(lambda a: a.std(0, ddof=1) / len(a) ** 0.5, samples),
    )


_METHODS = {"hutchinson": _hutchinson, "hutch++": _hutch_plus_plus, "xtrace": _leave_one_out}


def _random_rows(key, shape, count, sampler):
    return jax.vmap(lambda key: random_vector(key, shape, sampler))(jax.random.split(key, count))


def _products(matvec, rows, batch_size):
    return jax.lax.map(matvec, rows, batch_size=batch_size)


def _summed(form, rows, images):
    return jax.tree.map(lambda a: a.sum(0), jax.lax.map(lambda pair: form(*pair), (rows, images)))
