"""Factors and inverses by panels against LAPACK, at sizes that panels divide and that they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.linalg import blocked


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def positive(n, dtype=np.float64):
    x = np.random.default_rng(n).normal(size=(n, 4))
    distances = ((x[:, None] - x[None]) ** 2).sum(-1)
    return jnp.asarray(np.exp(-distances / 2), dtype), jnp.full(n, 0.1, dtype)


@pytest.mark.parametrize("n", [300, 512])
def test_factor_by_panels(n, monkeypatch):
    monkeypatch.setattr(blocked, "SMALL", 256)
    a, noise = positive(n)
    factor = jax.jit(blocked.cholesky)(a, noise)
    np.testing.assert_allclose(factor, np.linalg.cholesky(a + np.diag(noise)), atol=1e-12)


@pytest.mark.parametrize("n", [3, 256, 300])
def test_folded_inverse(n):
    a, noise = positive(n)
    inverse = np.linalg.inv(a + np.diag(noise))
    folded = jax.jit(blocked.folded_inverse)(np.linalg.cholesky(a + np.diag(noise)))
    np.testing.assert_allclose((folded + folded.T) / 2, inverse, atol=1e-12)


def test_folded_inverse_of_a_batch_and_in_single_precision():
    a, noise = positive(140, np.float32)
    factors = jnp.linalg.cholesky(jnp.stack([a, 2 * a]) + jnp.diag(noise))
    folded = jax.jit(jax.vmap(blocked.folded_inverse))(factors)
    assert folded.dtype == jnp.float32
    inverse = np.linalg.inv(np.asarray(jnp.stack([a, 2 * a]) + jnp.diag(noise), np.float64))
    np.testing.assert_allclose((folded + jnp.swapaxes(folded, 1, 2)) / 2, inverse, atol=1e-5 * inverse.max())


def test_an_indefinite_matrix_leaves_nan_on_the_diagonal(monkeypatch):
    monkeypatch.setattr(blocked, "SMALL", 256)
    a, noise = positive(300)
    factor = jax.jit(blocked.cholesky)(a.at[200, 200].set(-1.0), noise)
    assert not jnp.isfinite(jnp.diagonal(factor)).all()


def test_triangular_solves():
    lower = jnp.asarray(np.tril(np.random.default_rng(0).normal(size=(2, 5, 5))) + 3 * np.eye(5))
    b = jnp.ones((2, 5, 3))
    np.testing.assert_allclose(lower @ blocked.solve_lower(lower, b), b, atol=1e-12)
    np.testing.assert_allclose(jnp.swapaxes(lower, 1, 2) @ blocked.solve_lower(lower, b, transpose=True), b, atol=1e-12)
