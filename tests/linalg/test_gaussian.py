"""The log density of a Gaussian vector and its derivatives of every order, against those through a Cholesky factor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal

from aijax.linalg.gaussian import gaussian_log_density


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


X = np.random.default_rng(0).normal(size=(6, 2))
Y = np.random.default_rng(1).normal(size=(6, 2))


def ours(theta, y):
    matrix = theta[0] * jnp.exp(-((X[:, None] - X[None]) ** 2).sum(-1) / theta[1])
    return gaussian_log_density(matrix, theta[2] * jnp.arange(1.0, 7), y)[0]


def theirs(theta, y):
    matrix = theta[0] * jnp.exp(-((X[:, None] - X[None]) ** 2).sum(-1) / theta[1])
    covariance = matrix + jnp.diag(theta[2] * jnp.arange(1.0, 7))
    return sum(multivariate_normal.logpdf(column, jnp.zeros(6), covariance) for column in y.T)


@pytest.mark.parametrize(
    "derivative",
    [
        lambda f: f,
        lambda f: jax.grad(f, (0, 1)),
        lambda f: jax.jacfwd(f, (0, 1)),
        lambda f: jax.hessian(f, (0, 1)),
        lambda f: jax.jacrev(jax.jacrev(f)),
        lambda f: jax.grad(lambda theta, y: jax.hessian(f)(theta, y)[0, 1]),
    ],
)
def test_derivatives(derivative):
    theta = jnp.array([1.3, 0.8, 0.05])
    found, expected = (jax.jit(derivative(f))(theta, Y) for f in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, expected)


def test_derivative_in_the_matrix_alone_and_in_the_vectors_alone():
    matrix, noise = jnp.eye(6) + 0.1, jnp.full(6, 0.2)
    slope = jax.grad(lambda m: gaussian_log_density(m, noise, Y)[0])(matrix)
    inverse = np.linalg.inv(matrix + np.diag(noise))
    expected = (inverse @ Y @ Y.T @ inverse - 2 * inverse) / 2
    np.testing.assert_allclose((slope + slope.T) / 2, expected, atol=1e-12)
    slope = jax.grad(lambda y: gaussian_log_density(matrix, noise, y)[0])(jnp.asarray(Y))
    np.testing.assert_allclose(slope, -inverse @ Y, atol=1e-12)


def test_the_jitter_is_told_and_a_batch_has_its_own():
    matrices = jnp.stack([jnp.ones((3, 3)), jnp.eye(3), -jnp.eye(3)])
    value, jitter = jax.vmap(gaussian_log_density, (0, None, None))(matrices, jnp.zeros(3), jnp.zeros((3, 1)))
    assert jnp.isfinite(value[:2]).all() and jnp.isnan(value[2])
    assert jitter[0] > 0 and jitter[1] == 0
