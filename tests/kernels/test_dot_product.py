"""Kernels of the inner product: reference values, and arc-cosine against the integral that defines it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import kernels
from aijax.errors import ConfigError


@pytest.mark.parametrize("name", ["s0d1", "s1d3"])
def test_golden_linear_with_bias(case, name):
    linear = case(f"kernel_linear_bias_{name}")
    theta = jnp.log(linear.params["bias"])

    def kernel(theta):
        return kernels.Linear() + kernels.Constant(jnp.exp(2 * theta))

    linear.check(kernel(theta)(linear.x), "k_xx")
    linear.check(kernel(theta)(linear.x, linear.z), "k_xz")
    linear.check(jax.jacfwd(lambda theta: kernel(theta)(linear.x))(theta)[..., None], "dk_dlogtheta")


@pytest.mark.parametrize("name", ["2_s0d3", "2_s1d1", "2_s1d3", "3_s0d3", "3_s1d1"])
def test_golden_polynomial(case, name):
    polynomial = case(f"kernel_polynomial{name}")
    kernel = kernels.Polynomial(**polynomial.params)
    polynomial.check(kernel(polynomial.x), "k_xx")
    polynomial.check(kernel(polynomial.x, polynomial.z), "k_xz")


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_arc_cosine_is_its_integral(degree):
    """`2 E[step(w.u) step(w.u') (w.u w.u')^n]` over normal weights, by quadrature over the plane of u and u'."""
    x, z = np.array([[0.3, -1.0]]), np.array([[2.0, 0.5]])
    u, v = np.append(x, 1.0) * [1.1, 0.7, 0.8], np.append(z, 1.0) * [1.1, 0.7, 0.8]
    angle = np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    # in polar coordinates of that plane both units are on for angles from angle - pi/2 to pi/2
    nodes, weights = np.polynomial.legendre.leggauss(60)
    half = (np.pi - angle) / 2
    at = half * nodes + angle / 2
    product = (np.cos(at) * np.cos(at - angle)) ** degree * np.linalg.norm(u) ** degree * np.linalg.norm(v) ** degree
    radial = [1.0, 2.0, 8.0][degree]  # the integral of r^(2n+1) exp(-r^2/2)
    integral = 2 * radial * half * np.sum(weights * product) / (2 * np.pi)
    at_zero = [1.0, 1.0, 3.0][degree]
    kernel = kernels.ArcCosine(degree, [1.1**2, 0.7**2], 0.8**2, variance=1.5)
    np.testing.assert_allclose(kernel(x, z), 1.5 * integral / at_zero, rtol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_arc_cosine_where_points_coincide(degree):
    x = jnp.array([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [1.0 + 1e-9, 2.0]])
    kernel = kernels.ArcCosine(degree, weight_variance=0.7)
    gram = kernel(x)
    np.testing.assert_allclose(gram[0, 1], gram[0, 0], rtol=1e-14)
    np.testing.assert_allclose(jnp.diagonal(gram), (0.7 * jnp.sum(x**2, 1) + 1) ** degree, rtol=1e-14)
    assert gram[0, 0] - gram[0, 3] < 1e-7
    gradient = jax.jit(jax.grad(lambda kernel, x: kernel(x).sum(), (0, 1)))(kernel, x)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    if degree:
        plain = jax.grad(lambda x: jnp.sum((0.7 * jnp.sum(x**2, 1) + 1) ** degree))(x[:1])
        ours = jax.jit(jax.grad(lambda x: kernel(x).sum()))(x[:1])
        np.testing.assert_allclose(ours, plain, rtol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_arc_cosine_gradient(degree):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    theta = jnp.array([0.3, -0.2, 0.1])

    @jax.jit
    def value(theta, x):
        return jnp.sum(jnp.sin(kernels.ArcCosine(degree, *jnp.exp(theta))(x)))

    for argument in (0, 1):
        got = jax.jit(jax.grad(value, argument))(theta, x).ravel()
        for i in range(got.size):
            step = jnp.zeros(got.size).at[i].set(1e-5)
            moved = [
                (theta + s * step, x) if argument == 0 else (theta, x + s * step.reshape(x.shape)) for s in (1, -1)
            ]
            np.testing.assert_allclose(got[i], (value(*moved[0]) - value(*moved[1])) / 2e-5, 1e-6, 1e-8)


def test_arc_cosine_without_bias_at_the_origin_and_opposite():
    x = jnp.array([[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0]])
    for degree in (1, 2):
        gram = kernels.ArcCosine(degree, bias_variance=0.0)(x)
        np.testing.assert_allclose(gram[0], 0, atol=1e-15)
        np.testing.assert_allclose(gram[1, 2], 0, atol=1e-15)
    np.testing.assert_allclose(kernels.ArcCosine(0, bias_variance=0.0)(x)[1, 2], 0, atol=1e-15)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: kernels.Polynomial(degree=1.5), "degree: expected a positive integer, got 1.5"),
        (lambda: kernels.Polynomial(coef0=-1.0), "coef0: expected a number of at least 0, got -1.0"),
        (lambda: kernels.ArcCosine(3), "degree: expected 0, 1 or 2, got 3"),
        (lambda: kernels.Linear([1.0, 2.0])(jnp.zeros((2, 3))), "variance: .* each of the 3 coordinates"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
