"""The error of numerical duals that is told is the one there is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from aijax.errors import ConfigError
from aijax.ntk import stax


def runge(x):
    return 1 / (1 + 25 * x * x)


def test_a_function_of_kinks_has_none():
    with jax.enable_x64(True):
        assert max(stax.quadrature_error(lambda x: jnp.where(x > 0.3, 2 * x, x - 1), 0.7)) < 1e-12


def test_it_is_the_distance_from_the_integral():
    with jax.enable_x64(True):
        found = stax.quadrature_error(runge)
        _, _, kernel_fn = stax.serial(stax.Dense(1), stax.Elementwise(runge))
        value = float(kernel_fn(jnp.ones((1, 1)), None, "nngp")[0, 0])
    exact = quad(lambda z: runge(z) ** 2 * np.exp(-z * z / 2) / np.sqrt(2 * np.pi), -12, 12, epsabs=1e-14)[0]
    assert 1e-5 < found[0] < 1e-3 < found[1] < 0.1
    np.testing.assert_allclose(abs(value - exact) / exact, found[0], rtol=1e-3)


def test_a_variance_is_positive():
    with pytest.raises(ConfigError, match="variance: expected a positive number, got 0"):
        stax.quadrature_error(jnp.tanh, 0)
