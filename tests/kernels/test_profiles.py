"""Radial profiles against their closed forms in long precision, and their ladders against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.kernels.profiles import matern, wendland

U = np.array([1e-4, 0.01, 0.3, 0.8])


@pytest.mark.parametrize("order", [0, 1, 2])
def test_matern_derivatives(order):
    check_ladder(lambda u: matern(order, u), lambda s: [1, 1 + s, 1 + s + s * s / 3][order] * np.exp(-s))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_wendland_derivatives(order):
    j = 2 + order

    def closed(r):
        squared = (j * j + 4 * j + 3) / 3
        cubed = (6 * j * j + 36 * j + 45) / 15 * r * r + (j**3 + 9 * j * j + 23 * j + 15) / 15 * r**3
        polynomial = [1, 1 + (j + 1) * r, 1 + (j + 2) * r + squared * r * r, 1 + (j + 3) * r + cubed][order]
        return (1 - r) ** (j + order) * polynomial

    check_ladder(lambda u: wendland(order, j, u), closed)


def check_ladder(profile, closed):
    """Values, slopes by a step along the imaginary axis, which cancels nothing, and curvatures by differences."""
    slope = jax.jit(jax.vmap(jax.grad(profile)))
    np.testing.assert_allclose(profile(jnp.asarray(U)), closed(np.sqrt(U)), rtol=1e-12)
    np.testing.assert_allclose(slope(U), closed(np.sqrt(U + 1e-30j * U)).imag / (1e-30 * U), rtol=1e-10)
    h = 1e-3 * U
    differences = (8 * (slope(U + h) - slope(U - h)) - (slope(U + 2 * h) - slope(U - 2 * h))) / (12 * h)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(jax.grad(profile))))(U), differences, rtol=1e-7)


def test_derivatives_at_zero_are_finite_and_right():
    for order, slope, curvature in [(1, -1 / 2, 0.0), (2, -1 / 6, 1 / 12)]:
        assert jax.grad(lambda u, order=order: matern(order, u))(0.0) == pytest.approx(slope, abs=1e-15)
        assert jax.grad(jax.grad(lambda u, order=order: matern(order, u)))(0.0) == pytest.approx(curvature, abs=1e-15)
    assert jax.grad(lambda u: matern(0, u))(0.0) == 0
    assert jax.grad(lambda u: wendland(0, 1, u))(0.0) == 0
    assert jax.grad(lambda u: wendland(1, 2, u))(0.0) == -6


def test_wendland_is_zero_from_its_support_on():
    for order in range(4):
        beyond = jnp.array([1.0, 1.5, 400.0])
        assert (wendland(order, 3, beyond) == 0).all()
        assert (jax.vmap(jax.grad(lambda u, order=order: wendland(order, 3, u)))(beyond) == 0).all()


def test_no_overflow_far_away():
    far = jnp.array([1e8, 1e300])
    for order in range(3):
        assert (matern(order, far) == 0).all()
        assert jnp.isfinite(jax.vmap(jax.grad(lambda u, order=order: matern(order, u)))(far)).all()
