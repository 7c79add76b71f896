"""Kronecker products against the matrices they stand for."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.linalg import cg, kronecker_log_density, kronecker_matvec


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def positive(rng, n):
    half = rng.normal(size=(n, n))
    return half @ half.T / n


def test_products():
    rng = np.random.default_rng(0)
    factors = [rng.normal(size=shape) for shape in ((2, 3), (4, 1), (3, 3))]
    v = rng.normal(size=(9, 2))
    dense = functools.reduce(np.kron, factors)
    np.testing.assert_allclose(kronecker_matvec(factors, jnp.asarray(v)), dense @ v, rtol=1e-12)
    np.testing.assert_allclose(kronecker_matvec(factors, jnp.asarray(v[:, 0])), dense @ v[:, 0], rtol=1e-12)
    with pytest.raises(ConfigError, match=r"v: expected 9 rows for factors of \[3, 1, 3\] columns, got \(8,\)"):
        kronecker_matvec(factors, jnp.zeros(8))


def test_it_is_an_operator_of_conjugate_gradients():
    rng = np.random.default_rng(1)
    factors = [jnp.asarray(positive(rng, n)) for n in (3, 4)]
    b = jnp.asarray(rng.normal(size=12))
    result = cg(lambda v: kronecker_matvec(factors, v) + 0.1 * v, b, tolerance=1e-12)
    np.testing.assert_allclose(result.solution, np.linalg.solve(np.kron(*factors) + 0.1 * np.eye(12), b), rtol=1e-9)


@pytest.mark.parametrize("repeated", [False, True])
def test_the_density_and_all_its_derivatives(repeated):
    rng = np.random.default_rng(2)
    factors = tuple(jnp.asarray(np.eye(n) if repeated else positive(rng, n)) for n in (2, 3, 2))
    residual = jnp.asarray(rng.normal(size=(12, 2)))

    def dense(factors, noise, residual):
        matrix = functools.reduce(jnp.kron, factors) + noise * jnp.eye(12)
        quadratic = jnp.sum(residual * jnp.linalg.solve(matrix, residual))
        return -(quadratic + 2 * jnp.linalg.slogdet(matrix)[1] + 24 * math.log(2 * math.pi)) / 2

    def both(function):
        return jax.jit(jax.value_and_grad(function, (0, 1, 2)))(factors, jnp.array(0.3), residual)

    (value, slopes), (expected, others) = both(kronecker_log_density), both(dense)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for slope, other in zip(jax.tree.leaves(slopes), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(slope, other, rtol=1e-10, atol=1e-11)


def test_a_matrix_that_is_not_positive_is_told_by_nan():
    factors = (-jnp.eye(2), jnp.eye(2))
    assert np.isnan(kronecker_log_density(factors, jnp.array(0.1), jnp.ones((4, 1))))
