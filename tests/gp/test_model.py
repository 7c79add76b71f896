"""The prior as a pytree: what it takes for a kernel, a mean and a noise variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import gp, kernels
from aijax.errors import ConfigError
from aijax.gp.model import prior_mean
from aijax.parameters import noun, parameter


@noun
class Slope:
    weight: object = parameter(2.0)

    def __call__(self, x):
        return self.weight * x[:, 0]


X = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
Y = X[:, 0]


def test_plain_functions_pass_through_jit_and_grad():
    model = gp.GP(lambda a, b: jnp.exp(-jnp.sum((a - b) ** 2) / 2), mean=lambda x: jnp.sin(x[:, 0]))
    found = jax.jit(gp.log_marginal_likelihood)(model, X, Y)
    expected = jax.jit(gp.log_marginal_likelihood)(gp.GP(kernels.RBF()), X, Y - jnp.sin(Y))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    slope = jax.jit(jax.grad(gp.log_marginal_likelihood))(model, X, Y)
    assert jnp.isfinite(slope.noise_variance)


@pytest.mark.parametrize(
    ("mean", "expected"),
    [(None, 0 * Y), (1.5, 0 * Y + 1.5), (2, 0 * Y + 2), (Slope(), 2 * Y), (lambda x: x[:, 0] ** 2, Y**2)],
)
def test_means(mean, expected):
    model = gp.GP(kernels.RBF(), mean=mean)
    np.testing.assert_allclose(jax.jit(prior_mean, static_argnums=2)(model, X, 5), expected, rtol=1e-6)


def test_parameters_of_a_mean_have_gradients():
    score = jax.jit(gp.log_marginal_likelihood)
    slope = jax.jit(jax.grad(gp.log_marginal_likelihood))(gp.GP(kernels.RBF(), mean=Slope()), X, Y).mean.weight
    by_hand = [score(gp.GP(kernels.RBF(), mean=Slope(w)), X, Y) for w in (1.95, 2.05)]
    np.testing.assert_allclose(slope, (by_hand[1] - by_hand[0]) / 0.1, rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: gp.GP(3.0), "kernel: expected a kernel"),
        (
            lambda: gp.GP(kernels.RBF(), noise_variance=-0.1),
            "noise_variance: expected a number of at least 0",
        ),
        (lambda: gp.GP(kernels.RBF(), noise_variance=[0.1, -2.0]), "noise_variance.*-2.0"),
        (lambda: gp.GP(kernels.RBF(lengthscale=0.0)), "lengthscale: expected a positive number"),
        (lambda: gp.GP(kernels.RBF(), mean="zero"), "mean: expected"),
        (lambda: gp.GP(kernels.RBF(), mean=[1.0, 2.0]), "mean: expected None, a number or a function"),
    ],
)
def test_mistakes(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
