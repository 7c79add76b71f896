"""Kernels taken apart over the axes of a grid: their product is the kernel."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from aijax import kernels as k
from aijax.errors import ConfigError

PAIRS = ((0,), (1,), (2,))
CASES = {
    "rbf": (k.RBF([0.5, 1.0, 2.0], 1.7), PAIRS),
    "one lengthscale": (3.0 * k.RBF(0.5) ** 2, ((0, 2), (1,))),
    "periodic": (k.Periodic([0.5, 1.0, 2.0], 1.3, 0.4), ((2,), (1, 0))),
    "cosine": (k.Cosine([3.0, 1.0, 2.0], 0.4), PAIRS),
    "product": (k.RBF() * k.Constant(2.0) * k.Columns(k.Matern32(), (2,)), PAIRS),
    "columns of a group": (k.Columns(k.Matern52([0.7, 1.1]), (2, 0)) * k.Columns(k.Matern12(), (1,)), ((0, 2), (1,))),
    "columns of several groups": (k.Columns(k.RBF([0.7, 1.1]), (2, 0)), PAIRS),
    "one group": (k.Matern32([1.0, 2.0, 3.0]), ((0, 1, 2),)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_product_is_the_kernel(name):
    kernel, groups = CASES[name]
    x, z = np.random.default_rng(0).normal(size=(2, 5, 3))
    parts = k.separate(kernel, groups)
    assert len(parts) == len(groups)
    grams = [part(x[:, list(group)], z[:, list(group)]) for part, group in zip(parts, groups, strict=True)]
    np.testing.assert_allclose(functools.reduce(jnp.multiply, grams), kernel(x, z), rtol=1e-12)


def test_white_noise_is_a_product_of_white_noise():
    parts = k.separate(k.White(0.3), ((0,), (1,)))
    np.testing.assert_allclose(jnp.kron(parts[0](jnp.zeros((2, 1))), parts[1](jnp.zeros((3, 1)))), 0.3 * np.eye(6))


def test_a_kernel_that_is_no_product_is_named():
    with pytest.raises(ConfigError, match=r"kernel: Matern32 of several coordinates is no product over the axes"):
        k.separate(k.RBF() * k.Matern32(), ((0,), (1,)))
    with pytest.raises(ConfigError, match="kernel: Sum of several coordinates"):
        k.separate(k.RBF() + k.RBF(2.0), ((0,), (1,)))
