"""Training in minibatches: it reaches the optimum that is known, from inducing points chosen in three ways."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aijax import gp, kernels
from aijax.errors import ConfigError


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def data():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0))
        x = jax.random.uniform(keys[0], (200,), minval=-3, maxval=3)
        return x, jnp.sin(2 * x) + 0.2 * jax.random.normal(keys[1], (200,))


@pytest.mark.slow
def test_it_reaches_the_bound_of_the_collapsed_fit(data):
    """Gaussian noise, all points: natural steps of size 1 keep q at its optimum, and adam finds the parameters."""
    x, y = data
    start = gp.prior_svgp(gp.GP(kernels.RBF()), gp.greedy_inducing(kernels.RBF(), x, 12))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 300))
    trained = gp.fit_variational(
        jax.random.key(0), start, gp.Gaussian(0.5), x, y, num_steps=300, natural_step_size=1.0, optimizer=optimizer
    )
    assert trained.converged and trained.indefinite == 0 and trained.history.shape == (300,)
    model = gp.GP(trained.gp.kernel, noise_variance=trained.likelihood.noise_variance)
    solver = gp.SGPR(trained.posterior.inducing)
    value, slope = jax.value_and_grad(lambda m: gp.log_marginal_likelihood(m, x, y, solver=solver))(model)
    np.testing.assert_allclose(value, trained.history[-1], atol=1e-2)
    assert jnp.abs(slope.kernel.lengthscale) < 1 and 0.03 < trained.likelihood.noise_variance < 0.05
    mean, std = gp.predict_targets(trained, x)
    assert 0.9 < jnp.mean(jnp.abs(y - mean) < 1.96 * std) < 0.99


@pytest.mark.slow
def test_minibatches_with_noise_of_each_point(data):
    x, y = data
    start = gp.prior_svgp(gp.GP(kernels.RBF(0.7)), gp.random_inducing(jax.random.key(1), x, 15))
    trained = gp.fit_variational(
        jax.random.key(0), start, gp.Gaussian(jnp.full(200, 0.04)), x, y,
        num_steps=200, batch_size=50, natural_step_size=optax.linear_schedule(0.5, 0.02, 200), trainable=(),
    )  # fmt: skip
    assert trained.gp.kernel.lengthscale == 0.7
    model = gp.GP(kernels.RBF(0.7), noise_variance=0.04)
    optimum = gp.log_marginal_likelihood(model, x, y, solver=gp.SGPR(start.inducing))
    whole = gp.elbo(trained.posterior, gp.Gaussian(0.04), x, y)
    assert optimum - 3 < whole <= optimum


def test_greedy_points_have_the_largest_conditional_variance(data):
    x, _ = data
    kernel = kernels.RBF(0.8)
    chosen = gp.greedy_inducing(kernel + kernels.White(0.5), x, 8)
    for count in (1, 4, 7):
        gram = kernel(chosen[:count])
        rest = kernel.diagonal(x) - jnp.sum(
            kernel(chosen[:count], x) * jnp.linalg.solve(gram, kernel(chosen[:count], x)), 0
        )
        np.testing.assert_allclose(x[jnp.argmax(rest)], chosen[count])
    few = gp.greedy_inducing(kernels.Linear(), x, 5)
    assert len(np.unique(few)) == 5


def test_clusters_and_random_points(data):
    x, _ = data
    points = jnp.concatenate([jnp.stack([x, x], 1) * 0.01 + 5, jnp.stack([x, -x], 1) * 0.01])
    centres = gp.cluster_inducing(jax.random.key(3), points, 2)
    np.testing.assert_allclose(centres[jnp.argsort(centres[:, 0])], [[0, 0], [5, 5]], atol=0.01)
    assert len(np.unique(gp.random_inducing(jax.random.key(0), x, 200))) == 200


def test_mistakes_are_told(data):
    x, y = data
    start = gp.prior_svgp(gp.GP(kernels.RBF()), x[:5])
    key = jax.random.key(0)
    with pytest.raises(ConfigError, match="num_points: expected at most the 200 points"):
        gp.random_inducing(key, x, 201)
    with pytest.raises(ConfigError, match=r"natural_step_size: expected a number in \(0, 1\]"):
        gp.fit_variational(key, start, gp.Gaussian(), x, y, natural_step_size=0.0)
    with pytest.raises(ConfigError, match="HeteroscedasticGaussian has 2 latents"):
        gp.fit_variational(key, start, gp.HeteroscedasticGaussian(), x, y)
    with pytest.raises(ConfigError, match=r"trainable: 'gp.kernel.scale' matches no parameter"):
        gp.fit_variational(key, start, gp.Gaussian(), x, y, trainable="gp.kernel.scale")
