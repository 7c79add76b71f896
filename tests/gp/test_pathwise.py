"""Functions drawn from posteriors: their mean and covariance, interpolation, transformations, what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import gp, kernels
from aijax.errors import ConfigError, RunError
from aijax.parallel import make_mesh

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 2))
Y = np.sin(X[:, 0]) + 0.1 * RNG.normal(size=12)
NEW = RNG.normal(size=(3, 2))
MODEL = gp.GP(kernels.Matern52([0.9, 1.4], 1.2) + kernels.White(0.05), mean=0.3, noise_variance=0.05)
OBSERVED = np.arange(12) % 5 > 0
INDUCING = X[::3]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def iterative():
    return POSTERIORS["iterative"]()


def variational():
    q = gp.prior_svgp(MODEL, INDUCING)
    return gp.natural_step(q, gp.Gaussian(0.05), X, Y, 1.0)[0]


POSTERIORS = {
    "exact": lambda: gp.condition(MODEL, X, np.where(OBSERVED, Y, np.nan), observed=OBSERVED),
    "iterative": lambda: gp.condition(MODEL, X, Y, solver=gp.Iterative(rank=5, tolerance=1e-8)),
    "sparse": lambda: gp.condition(MODEL, X, Y, solver=gp.SGPR(INDUCING)),
    "variational": variational,
}
SLOW = [name if name == "exact" else pytest.param(name, marks=pytest.mark.slow) for name in POSTERIORS]


@pytest.mark.parametrize("name", SLOW)
def test_over_keys_mean_and_covariance_are_those_of_the_posterior(name):
    # with features of its own each draw has the covariance of the posterior exactly, however few they are
    posterior, count = POSTERIORS[name](), 20_000

    @jax.jit
    @jax.vmap
    def draw(key):
        functions = gp.pathwise_sample(key, posterior, num_features=8)
        return functions(NEW)[0], functions.converged

    values, converged = jax.tree.map(np.asarray, draw(jax.random.split(KEY, count)))
    mean, covariance = map(np.asarray, posterior.predict(NEW, True))
    covariance = covariance - 0.05 * np.eye(3)  # white noise is of no function
    assert converged.all()
    np.testing.assert_array_less(abs(values.mean(0) - mean), 4.5 * np.sqrt(np.diagonal(covariance) / count))
    # few features make tails heavier than normal ones: the error of the covariance is told by the products' own spread
    centred = values - mean
    products = centred[:, :, None] * centred[:, None]
    np.testing.assert_array_less(abs(products.mean(0) - covariance), 4.5 * products.std(0) / count**0.5)


def test_without_noise_they_go_through_the_data_and_differ_elsewhere():
    y = np.stack([Y, Y**2], 1)
    functions = gp.pathwise_sample(KEY, gp.condition(gp.GP(kernels.Matern32(0.8), noise_variance=1e-10), X, y), 4)
    values = np.asarray(jax.jit(functions)(np.concatenate([X, NEW + 5])))
    np.testing.assert_allclose(values[:, :12], np.broadcast_to(y, (4, 12, 2)), atol=1e-3)
    assert values[:, 12:].std(0).min() > 0.2 and abs(values[:, 12:, 0] - values[:, 12:, 1]).min() > 1e-3


def test_it_may_be_compiled_mapped_and_differentiated(iterative):
    functions = jax.jit(functools.partial(gp.pathwise_sample, num_samples=2, num_features=16))(KEY, iterative)
    call = jax.jit(lambda f, x: f(x))
    values = call(functions, NEW)
    point_by_point = jax.jit(jax.vmap(lambda f, x: f(x[None])[:, 0], (None, 0), 1))(functions, NEW)
    np.testing.assert_allclose(point_by_point, values, rtol=1e-12)
    slope = jax.jit(jax.grad(lambda x, f: f(x)[0].sum()))(NEW, functions)
    step = 1e-6 * np.eye(2)[0]
    expected = (call(functions, NEW + step) - call(functions, NEW - step))[0] / 2e-6
    np.testing.assert_allclose(slope[:, 0], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_they_have_derivatives_in_the_parameters():
    @jax.jit
    def value(noise):
        model = gp.GP(kernels.RBF(), noise_variance=noise)
        posterior = gp.condition(model, X, Y, solver=gp.Iterative(rank=5, tolerance=1e-10))
        return gp.pathwise_sample(KEY, posterior, num_features=16)(NEW).sum()

    expected = (value(0.1 + 1e-5) - value(0.1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(value))(0.1), expected, rtol=1e-5)


@pytest.mark.slow
def test_eight_devices_give_the_same():
    one = gp.Iterative(rank=5, tolerance=1e-10, block_size=1)
    of = [gp.condition(MODEL, X, Y, solver=dataclasses.replace(one, mesh=mesh)) for mesh in (None, make_mesh())]
    found, expected = (gp.pathwise_sample(KEY, posterior, 2, num_features=16)(NEW) for posterior in of)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_what_cannot_be_drawn_is_refused(iterative):
    unknown = dataclasses.replace(iterative, gp=gp.GP(lambda a, b: jnp.exp(-jnp.sum((a - b) ** 2))))
    with pytest.raises(ConfigError, match="no features are known of FunctionKernel"):
        gp.pathwise_sample(KEY, unknown)
    with pytest.raises(ConfigError, match="num_features: expected an even number, got 3"):
        gp.pathwise_sample(KEY, iterative, num_features=3)
    with pytest.raises(ConfigError, match="num_samples: expected a whole number of at least 1, got 0"):
        gp.pathwise_sample(KEY, iterative, 0)
    with pytest.raises(ConfigError, match="posterior: expected one of Exact, Iterative or SGPR or an SVGP, got a GP"):
        gp.pathwise_sample(KEY, MODEL)
    slow = dataclasses.replace(iterative, solver=gp.Iterative(rank=5, max_iterations=1, tolerance=1e-12))
    with pytest.raises(RunError, match="pathwise_sample: the solves stopped at a relative residual"):
        gp.pathwise_sample(KEY, slow, num_samples=2, num_features=16)
    assert not jax.jit(lambda: gp.pathwise_sample(KEY, slow, 2, num_features=16).converged)()
