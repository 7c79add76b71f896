"""Leave-one-out against refits, with several outputs, and as an objective (reference values: test_exact)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import gp, kernels


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@jax.jit
def refit(model, x, y, z):
    return gp.predict(gp.condition(model, x, y), z, include_noise=True)


def test_is_what_refits_give():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(7, 2))
    model = gp.GP(kernels.RBF(), mean=0.5, noise_variance=0.3)
    found = jax.jit(gp.leave_one_out)(model, x, y)
    for i in range(7):
        others = np.arange(7) != i
        mean, std = refit(model, x[others], y[others], x[i : i + 1])
        np.testing.assert_allclose(found.mean[i], mean[0], rtol=1e-9)
        np.testing.assert_allclose(found.variance[i], std[0] ** 2, rtol=1e-9)
        density = jax.scipy.stats.norm.logpdf(y[i], mean[0], std[0])
        np.testing.assert_allclose(found.log_density[i], density, rtol=1e-9)


def test_derivative():
    x = np.linspace(0, 3, 8)

    @jax.jit
    def score(lengthscale):
        return gp.leave_one_out(gp.GP(kernels.RBF(lengthscale)), x, jnp.sin(x)).log_density.sum()

    slope = jax.grad(score)(0.7)
    np.testing.assert_allclose(slope, (score(0.7 + 1e-5) - score(0.7 - 1e-5)) / 2e-5, rtol=1e-6)
