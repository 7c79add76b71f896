"""Predictions from products with kernels agree with those from the kernels, or say that they did not converge."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError, RunError
from aijax.ntk import predict

RNG = np.random.default_rng(0)
X, X_TEST, Y = RNG.normal(size=(30, 2)), RNG.normal(size=(5, 2)), RNG.normal(size=(30, 3))


class Kernels(NamedTuple):
    nngp: object
    ntk: object


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def rbf(x1, x2):
    return jnp.exp(-jnp.sum((jnp.asarray(x1)[:, None] - jnp.asarray(x2)[None]) ** 2, -1))


def product(matrix):
    return lambda v: matrix @ v


def test_products_give_what_matrices_give():
    k, cross, y = rbf(X, X), rbf(X_TEST, X), jnp.asarray(Y)
    dense = predict.gradient_descent_mse(k, y, 0.5, 0.05, True)
    free = predict.gradient_descent_mse(product(k), y, 0.5, 0.05, True)
    ts = jnp.array([[0.0, 3.0], [1e3, jnp.inf]])
    for t, test_kernel in ((None, cross), (None, product(cross)), (ts, product(cross))):
        for ours, exact in zip(free(t, 0.2, 0.1, test_kernel), dense(t, 0.2, 0.1, cross), strict=True):
            assert ours.shape == exact.shape
            np.testing.assert_allclose(ours, exact, atol=1e-6)
    inside = jax.jit(lambda t: free(t, 0.2, 0.1, product(cross)))(3.0)
    np.testing.assert_allclose(inside[1], dense(3.0, 0.2, 0.1, cross)[1], atol=1e-6)


@pytest.mark.slow
def test_products_act_on_outputs_with_all_their_axes():
    factor = RNG.normal(size=(6, 2, 12))
    full = jnp.einsum("aik,bjk->abij", factor, factor)
    y = jnp.asarray(RNG.normal(size=(6, 2, 3)))

    def apply(v):
        assert v.shape == y.shape
        return jnp.einsum("abij,bjc->aic", full, v)

    dense = predict.gradient_descent_mse(full, y, diag_reg=0.1, diag_reg_absolute_scale=True, trace_axes=2)
    free = predict.gradient_descent_mse(apply, y, diag_reg=0.1, diag_reg_absolute_scale=True, trace_axes=2)
    for t in (None, 5.0):
        np.testing.assert_allclose(free(t, 0.0, 0.0, apply)[1], dense(t, 0.0, 0.0, full)[1], atol=1e-6)


@pytest.mark.slow
def test_posteriors_from_products():
    k, cross, prior, y = rbf(X, X), rbf(X_TEST, X), rbf(X_TEST, X_TEST), jnp.asarray(Y)
    dense = predict.gp_inference(k, y, 0.1, True)("nngp", cross, prior)
    free_fn = predict.gp_inference(Kernels(product(k), product(k)), y, 0.1, True)
    free = free_fn("nngp", cross, prior)
    np.testing.assert_allclose(free.mean, dense.mean, atol=1e-6)
    np.testing.assert_allclose(free.covariance, dense.covariance, atol=1e-6)
    np.testing.assert_allclose(free_fn("ntk", product(cross)), dense.mean, atol=1e-6)
    np.testing.assert_array_equal(free_fn("nngp", None, True).covariance, 0)
    with pytest.raises(ConfigError, match="a product serves means only"):
        free_fn("nngp", product(cross), prior)
    with pytest.raises(ConfigError, match="get='ntk' with a covariance needs"):
        free_fn("ntk", cross, prior)


@pytest.mark.slow
def test_ode_from_products():
    k, cross, y = rbf(X, X), rbf(X_TEST, X), jnp.asarray(Y)
    loss = lambda f, y: 0.5 * jnp.mean((f - y) ** 2)  # noqa: E731
    dense = predict.gradient_descent_mse(k, y)(5.0, 0.0, 0.0, cross)
    free = predict.gradient_descent(loss, product(k), y)(5.0, 0.0, 0.0, product(cross))
    np.testing.assert_allclose(free[1], dense[1], atol=1e-6)


def test_derivatives_of_the_end_of_training_pass_through_the_solver():
    k, y = rbf(X, X), jnp.asarray(Y)

    def score(kind, reg, y):
        kernel = product(k) if kind == "product" else k
        return jnp.sum(predict.gradient_descent_mse(kernel, y, 1.0, reg, True)(None, 0.0, 0.0, rbf(X_TEST, X))[1] ** 2)

    ours, exact = (jax.jit(jax.grad(score, (1, 2)), static_argnums=0)(kind, 0.1, y) for kind in ("product", "matrix"))
    for a, b in zip(ours, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_what_does_not_converge_is_told():
    k, y = rbf(X, X), jnp.asarray(Y)
    few = predict.gradient_descent_mse(product(k), y, max_iterations=3)
    with pytest.raises(
        RunError, match=r"conjugate gradients stopped at a relative error of .* raise diag_reg or max_it"
    ):
        few(None)
    with pytest.raises(RunError, match=r"the Lanczos process stopped .* raise max_iterations"):
        few(1e5)
    assert jnp.isnan(jax.jit(few)(None, 0.0, 0.0, k)[1]).all() and jnp.isnan(jax.jit(few)(1e5)).all()
    loose = predict.gradient_descent_mse(product(k), y, max_iterations=3, tolerance=10.0)
    assert jnp.isfinite(loose(1e5)).all()


def test_many_points_without_a_matrix():
    with jax.enable_x64(False):
        x = jnp.asarray(np.random.default_rng(1).normal(size=(20_000, 8)), jnp.float32)
        targets = jnp.sin(x[:, :1])

        def apply(v):
            return jnp.matmul(x, jnp.matmul(x.T, v, precision="highest"), precision="highest")

        predict_fn = predict.gradient_descent_mse(apply, targets, diag_reg=100.0, diag_reg_absolute_scale=True)
        ended = predict_fn(None, None, 0.0, lambda v: x[:10] @ (x.T @ v))
        ridge = np.linalg.solve(x.T @ x + 100 * np.eye(8), x.T @ targets)
        np.testing.assert_allclose(ended, x[:10] @ ridge, atol=2e-3)
