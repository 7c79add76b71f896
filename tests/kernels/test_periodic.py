"""Periodic kernels against reference values; all are positive semidefinite in the plane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import kernels
from aijax.errors import ConfigError


@pytest.mark.parametrize("name", ["s0d1", "s1d3"])
def test_golden(case, name):
    periodic = case(f"kernel_periodic_{name}")
    kernel = kernels.Periodic(**periodic.params)
    periodic.check(kernel(periodic.x), "k_xx")
    periodic.check(kernel(periodic.x, periodic.z), "k_xz")


@pytest.mark.parametrize("name", ["s1d1", "s1d3"])
def test_golden_spectral_mixture(case, name):
    mixture = case(f"kernel_spectral_mixture_{name}")
    kernel = kernels.SpectralMixture(**mixture.params)
    mixture.check(kernel(mixture.x), "k_xx")
    mixture.check(kernel(mixture.x, mixture.z), "k_xz")


def test_spectral_mixture_sums_outside_and_multiplies_inside():
    """Two mixtures in the plane: the product over coordinates of sums over mixtures is another function."""
    w, m, s = np.array([0.3, 0.7]), np.array([[0.5, 0.1], [0.2, 0.9]]), np.array([[0.2, 0.4], [0.3, 0.1]])
    difference = np.array([0.4, -0.7])
    factors = np.exp(-2 * (np.pi * difference * s) ** 2) * np.cos(2 * np.pi * difference * m)
    kernel = kernels.SpectralMixture(w, m, s)(difference[None], np.zeros((1, 2)))
    np.testing.assert_allclose(kernel, np.sum(w * factors.prod(1)), rtol=1e-12)
    assert abs(kernel[0, 0] - (w[:, None] * factors).sum(0).prod()) > 1e-2


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("kernel", [kernels.Periodic(0.7, 1.3), kernels.Cosine(1.3)])
def test_positive_semidefinite_in_every_dimension(kernel, d):
    """A function of a Euclidean distance gives eigenvalues of -18 and -47 here for d = 2."""
    x = np.random.default_rng(d).normal(size=(300, d)) * 2
    assert np.linalg.eigvalsh(kernel(x))[0] > -1e-10


def test_cosine_is_the_product_over_coordinates():
    period = np.array([1.0, 3.0])
    x, z = np.array([[0.2, 0.5]]), np.array([[1.0, -0.3]])
    expected = 2.0 * np.prod(np.cos(2 * np.pi * (x - z) / period))
    np.testing.assert_allclose(kernels.Cosine(period, 2.0)(x, z), expected, rtol=1e-13)


def test_periodic_repeats():
    x = jnp.array([[0.1, 0.4], [0.5, 0.2]])
    kernel = kernels.Periodic(lengthscale=[0.5, 2.0], period=[2.0, 3.0])
    np.testing.assert_allclose(kernel(x, x + jnp.array([2.0, -6.0])), kernel(x), rtol=1e-12)


def test_gradients_against_the_formula():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))

    def plain(lengthscale, period, x):
        sines = jnp.sin(jnp.pi * (x[:, None] - x) / period) ** 2
        return jnp.sum(jnp.cos(x[:, :1]) * jnp.exp(-2 * jnp.sum(sines / lengthscale**2, -1)))

    def ours(lengthscale, period, x):
        return jnp.sum(jnp.cos(x[:, :1]) * kernels.Periodic(lengthscale, period)(x))

    arguments = jnp.array([0.8, 1.7]), jnp.array([2.0, 1.5]), x
    got, expected = (jax.jit(jax.grad(f, (0, 1, 2)))(*arguments) for f in (ours, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-10, 1e-12), got, expected)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: kernels.Periodic(period=-1.0), "period: expected a positive number, got -1.0"),
        (lambda: kernels.Periodic(period=[1.0, 1.0])(jnp.zeros((2, 3))), "period: .* each of the 3 coordinates"),
        (
            lambda: kernels.SpectralMixture([1.0], [[0.1]], [[-0.1]]),
            "scales: expected a number of at least 0, got -0.1",
        ),
        (
            lambda: kernels.SpectralMixture([1.0], [[0.1]], [[0.1]])(jnp.zeros((2, 2))),
            r"means: .*\(1, 2\), got \(1, 1\)",
        ),
        (lambda: kernels.SpectralMixture(1.0, 0.1, 0.1)(jnp.zeros(2)), "weights: expected one for each mixture"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
