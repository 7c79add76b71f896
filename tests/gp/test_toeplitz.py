"""Equally spaced points against exact inference."""

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


def test_it_is_exact_inference():
    rng = np.random.default_rng(0)
    x, y, x_new = jnp.linspace(3, -2, 25), jnp.asarray(rng.normal(size=(25, 2))), jnp.array([-3.0, 0.1, 4.0])

    def model(theta):
        kernel = kernels.RBF(jnp.exp(theta[0]), jnp.exp(theta[1])) + kernels.Periodic(1.3) + kernels.White(0.05)
        return gp.GP(kernel, lambda x: 0.1 * x, jnp.exp(theta[2]))

    def value(theta, solver):
        return gp.log_marginal_likelihood(model(theta), x, y, solver=solver)

    @jax.jit
    def everything(theta):
        def results(solver):
            posterior = gp.condition(model(theta), x, y, solver=solver)
            joint = gp.predict(posterior, x_new, full_covariance=True)
            return gp.predict(posterior, x_new), joint, jax.value_and_grad(value)(theta, solver)

        return results(gp.Toeplitz()), results(gp.Exact())

    for got, want in zip(*map(jax.tree.leaves, everything(jnp.array([-0.5, 0.3, -1.0]))), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9)


def test_float32_and_samples():
    x, y = jnp.linspace(0, 5, 40, dtype=jnp.float32), jnp.asarray(np.sin(np.arange(40)), jnp.float32)
    model = gp.GP(kernels.Matern32(), noise_variance=0.1)
    value = gp.log_marginal_likelihood(model, x, y, solver=gp.Toeplitz())
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, gp.log_marginal_likelihood(model, x, y), rtol=2e-5)
    posterior = gp.condition(model, x, y, solver=gp.Toeplitz())
    assert jax.eval_shape(lambda: gp.sample(jax.random.key(0), posterior, x[:3], 2)).shape == (2, 3)


def test_mistakes_are_told():
    x, y = jnp.linspace(-1, 1, 6), jnp.ones(6)

    def evidence(kernel=kernels.RBF(), x=x, noise=0.1, **options):  # noqa: B008
        return gp.evidence(gp.GP(kernel, noise_variance=noise), x, y, solver=gp.Toeplitz(), **options)

    for kernel in (kernels.Linear(), kernels.ChangePoint(kernels.RBF(), kernels.RBF(2.0)), kernels.Polynomial()):
        with pytest.raises(ConfigError, match=f"kernel: {type(kernel).__name__} is not stationary at these points"):
            evidence(kernel)
    with pytest.raises(DataError, match="x: not equally spaced, as Toeplitz needs"):
        evidence(x=x**3)
    with pytest.raises(ConfigError, match=r"x: Toeplitz takes floating points of one coordinate.*got \(6, 2\)"):
        evidence(x=jnp.zeros((6, 2)))
    with pytest.raises(ConfigError, match=r"gp.noise_variance: Toeplitz takes one number for all points, got \(6,\)"):
        evidence(noise=jnp.ones(6))
    with pytest.raises(ConfigError, match="observed: Toeplitz takes no missing targets"):
        evidence(observed=jnp.ones(6, bool))
    with pytest.raises(DataError, match="the kernel matrix is not positive definite"):
        evidence(kernels.Constant(), noise=0.0)
    converged = jax.jit(lambda x: evidence(x=x).converged)
    assert converged(x) and not converged(x**3)
