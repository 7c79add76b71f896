"""Grids against exact inference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import gp, kernels
from aijax.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def anisotropic(theta):
    return kernels.RBF(jnp.exp(theta[:2]), jnp.exp(theta[2]))


def of_columns(theta):
    fast = kernels.Columns(kernels.Matern32(jnp.exp(theta[0])), (1,))
    slow = kernels.Columns(kernels.Periodic(jnp.exp(theta[1])), (0,))
    return jnp.exp(theta[2]) * fast * slow + kernels.White(0.1)


def stations(theta):
    return kernels.Columns(kernels.Matern52(jnp.exp(theta[:2])), (0, 2)) * kernels.Columns(kernels.Matern12(), (1,))


@pytest.mark.parametrize("kernel", [pytest.param(anisotropic, marks=pytest.mark.slow), of_columns, stations])
def test_it_is_exact_inference(kernel):
    rng = np.random.default_rng(0)
    if kernel is stations:
        x = gp.grid_points(jnp.asarray(rng.normal(size=(5, 2))), jnp.linspace(0, 1, 4))[:, jnp.array([0, 2, 1])]
        solver = gp.Grid((5, 4), ((0, 2), (1,)))
    else:
        x, solver = gp.grid_points(jnp.asarray(rng.normal(size=5)), jnp.linspace(0, 1, 4)), gp.Grid((5, 4))
    y, x_new = jnp.asarray(rng.normal(size=(20, 2))), jnp.asarray(rng.normal(size=(3, x.shape[1])))

    @jax.jit
    def values(theta):
        model = gp.GP(kernel(theta), 0.3, jnp.exp(theta[3]))

        def results(solver):
            posterior = gp.condition(model, x, y, solver=solver)
            return gp.predict(posterior, x_new), gp.predict(posterior, x_new, full_covariance=True)

        return results(solver), results(gp.Exact())

    def value(theta, solver):
        return gp.log_marginal_likelihood(gp.GP(kernel(theta), 0.3, jnp.exp(theta[3])), x, y, solver=solver)

    theta = jnp.array([-0.3, 0.2, -0.1, -1.5])
    for got, want in zip(*map(jax.tree.leaves, values(theta)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    got, slope = jax.jit(jax.value_and_grad(lambda theta: value(theta, solver)))(theta)
    want, other = jax.jit(jax.value_and_grad(lambda theta: value(theta, gp.Exact())))(theta)
    np.testing.assert_allclose(got, want, rtol=1e-11)
    np.testing.assert_allclose(slope, other, rtol=1e-8, atol=1e-9)


@pytest.mark.slow
def test_equal_eigenvalues_have_finite_derivatives_and_samples_a_shape():
    x = gp.grid_points(jnp.array([0.0, 50.0, 100.0]), jnp.array([0.0, 1.0]))
    y = jnp.arange(6.0)

    def value(lengthscale):
        return gp.log_marginal_likelihood(gp.GP(kernels.RBF(lengthscale)), x, y, solver=gp.Grid((3, 2)))

    assert jnp.isfinite(jax.grad(value)(1.0))
    posterior = gp.condition(gp.GP(kernels.RBF()), x, y, solver=gp.Grid((3, 2)))
    assert jax.eval_shape(lambda: gp.sample(jax.random.key(0), posterior, x[:4], 3)).shape == (3, 4)
    assert posterior.weights.shape == (3, 2)


def test_points_of_a_grid_may_be_known_late():
    axes = jnp.arange(3.0), jnp.arange(2.0)

    @jax.jit
    def converged(x):
        return gp.evidence(gp.GP(kernels.RBF()), x, jnp.ones(6), solver=gp.Grid((3, 2))).converged

    assert converged(gp.grid_points(*axes))
    assert not converged(gp.grid_points(*axes).at[3, 0].add(1e-3))


def test_mistakes_are_told():
    x, y = gp.grid_points(jnp.arange(3.0), jnp.arange(2.0)), jnp.ones(6)

    def evidence(kernel=kernels.RBF(), x=x, noise=0.1, shape=(3, 2), **options):  # noqa: B008
        return gp.evidence(gp.GP(kernel, noise_variance=noise), x, y, solver=gp.Grid(shape), **options)

    with pytest.raises(ConfigError, match="kernel: Matern32 of several coordinates is no product over the axes"):
        evidence(kernels.Matern32())
    with pytest.raises(DataError, match=r"x: not the grid of shape \(3, 2\) that its first rows say"):
        evidence(x=x[::-1].at[0, 0].set(7.0))
    with pytest.raises(DataError, match=r"x: expected the 4 points of a grid of shape \(2, 2\)"):
        evidence(shape=(2, 2))
    with pytest.raises(ConfigError, match=r"gp.noise_variance: Grid takes one number for all points, got \(6,\)"):
        evidence(noise=jnp.ones(6))
    with pytest.raises(ConfigError, match="observed: Grid takes no missing targets"):
        evidence(observed=jnp.ones(6, bool))
    with pytest.raises(DataError, match="the kernel matrix is not positive definite"):
        evidence(kernels.Columns(kernels.RBF(), (0,)), noise=0.0)
    with pytest.raises(DataError, match="x: axis 1 has a point twice and there is no noise"):
        evidence(x=gp.grid_points(jnp.arange(3.0), jnp.zeros(2)), noise=0.0)
    posterior = gp.condition(gp.GP(kernels.RBF()), x, y, solver=gp.Grid((3, 2)))
    with pytest.raises(DataError, match=r"x_new: expected points of 2 coordinates, got an array of shape \(4, 3\)"):
        gp.predict(posterior, jnp.zeros((4, 3)))
    with pytest.raises(ConfigError, match="shape: expected a whole number of at least 1, got 0"):
        gp.Grid((3, 0))
    with pytest.raises(ConfigError, match="columns: expected the coordinates from 0 on, each in one of 2 axes"):
        gp.Grid((3, 2), ((0,), (0,)))
    with pytest.raises(ConfigError, match="kernel: expected more than white noise"):
        evidence(kernels.White() + kernels.White())
