"""Toeplitz matrices against dense ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import toeplitz

from aijax.errors import ConfigError
from aijax.linalg import cg, durbin_levinson, toeplitz_log_density, toeplitz_matvec, toeplitz_solve

COLUMN = np.exp(-0.4 * np.arange(7)) * np.cos(0.7 * np.arange(7)) + 0.2 * (np.arange(7) == 0)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def test_products_and_conjugate_gradients():
    v = np.random.default_rng(0).normal(size=(7, 3))
    column = jnp.asarray(COLUMN)
    np.testing.assert_allclose(toeplitz_matvec(column, jnp.asarray(v)), toeplitz(COLUMN) @ v, rtol=1e-12, atol=1e-13)
    result = cg(lambda v: toeplitz_matvec(column, v), jnp.asarray(v[:, 0]), tolerance=1e-12)
    np.testing.assert_allclose(result.solution, np.linalg.solve(toeplitz(COLUMN), v[:, 0]), rtol=1e-9)
    with pytest.raises(ConfigError, match=r"v: expected 7 rows for a column of 7, got \(6,\)"):
        toeplitz_matvec(column, jnp.zeros(6))


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 3.0), st.floats(0.0, 3.0), st.floats(1e-3, 1.0))
def test_determinant_and_solution(decay, frequency, noise):
    lags = np.arange(7)
    column = np.exp(-decay * lags) * np.cos(frequency * lags) + noise * (lags == 0)
    b = np.random.default_rng(0).normal(size=(7, 2))
    predictor, variances = durbin_levinson(jnp.asarray(column))
    np.testing.assert_allclose(np.log(variances).sum(), np.linalg.slogdet(toeplitz(column))[1], rtol=1e-9, atol=1e-10)
    solution = toeplitz_solve(jnp.asarray(column), predictor, variances[-1], jnp.asarray(b))
    np.testing.assert_allclose(toeplitz(column) @ solution, b, atol=1e-11 / noise)


def test_the_density_and_its_derivatives():
    residual = jnp.asarray(np.random.default_rng(1).normal(size=(7, 2)))
    index = np.abs(np.arange(7)[:, None] - np.arange(7))

    def dense(column, residual):
        matrix = column[index]
        quadratic = jnp.sum(residual * jnp.linalg.solve(matrix, residual))
        return -(quadratic + 2 * jnp.linalg.slogdet(matrix)[1] + 14 * math.log(2 * math.pi)) / 2

    def both(function):
        return jax.jit(jax.value_and_grad(function, (0, 1)))(jnp.asarray(COLUMN), residual)

    (value, slopes), (expected, others) = both(toeplitz_log_density), both(dense)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for slope, other in zip(slopes, others, strict=True):
        np.testing.assert_allclose(slope, other, rtol=1e-10, atol=1e-11)


def test_one_point_and_a_matrix_that_is_not_positive():
    np.testing.assert_allclose(
        toeplitz_log_density(jnp.array([2.0]), jnp.array([[1.0]])), -0.25 - math.log(4 * math.pi) / 2
    )
    assert np.isnan(toeplitz_log_density(jnp.array([1.0, 2.0, 0.0]), jnp.ones((3, 1))))
