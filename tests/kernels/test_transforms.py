"""Kernels of transformed points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import kernels
from aijax.errors import ConfigError
from aijax.parameters import noun, parameter

X = np.random.default_rng(0).normal(size=(5, 3))


def test_a_diagonal_map_is_ard():
    lengthscale = np.array([0.5, 1.0, 3.0])
    mapped = kernels.LinearMap(kernels.Matern52(), np.diag(1 / lengthscale))
    np.testing.assert_allclose(mapped(X, X[:2]), kernels.Matern52(lengthscale)(X, X[:2]), rtol=1e-12)


def test_columns():
    np.testing.assert_array_equal(kernels.Columns(kernels.RBF(), (2, 0))(X), kernels.RBF()(X[:, [2, 0]]))
    assert kernels.Columns(kernels.RBF(), 1).columns == kernels.Columns(kernels.RBF(), [1]).columns == (1,)


def test_deep_kernel_has_gradients_in_every_parameter():
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    kernel = kernels.Warped(kernels.RBF(), lambda p, x: jnp.tanh(x @ p["w"] + p["b"]), params)
    gradient = jax.jit(jax.grad(lambda kernel: jnp.sum(kernel(X) * X[:, :1])))(kernel)
    assert (
        jnp.any(gradient.params["w"] != 0) and jnp.any(gradient.params["b"] != 0) and gradient.kernel.lengthscale != 0
    )
    np.testing.assert_allclose(kernel(X), kernels.RBF()(np.tanh(X @ np.ones((3, 2)))), rtol=1e-12)


def test_warping_takes_points_that_are_no_vectors():
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 1))
    kernel = kernels.Warped(kernels.RBF(), lambda x: x.reshape(len(x), -1))
    np.testing.assert_array_equal(kernel(images), kernels.RBF()(images.reshape(3, 16)))
    np.testing.assert_array_equal(kernel.diagonal(images), 1)


def test_warping_by_a_noun_with_constrained_parameters():
    @noun
    class Bend:
        power: float = parameter(1.0, "positive")

    kernel = kernels.Warped(kernels.RBF(), lambda bend, x: jnp.abs(x) ** bend.power, Bend(2.0))
    np.testing.assert_allclose(kernel(X), kernels.RBF()(X**2), rtol=1e-12)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: kernels.LinearMap(kernels.RBF(), np.ones((2, 4)))(X), r"matrix: expected \[e, 3\] .* got \(2, 4\)"),
        (lambda: kernels.Columns(kernels.RBF(), (0, 3))(X), r"columns: .* the 3 coordinates .* got \(0, 3\)"),
        (lambda: kernels.Columns(kernels.RBF(), (-1,)), r"columns: expected distinct indices from 0 on, got \(-1,\)"),
        (lambda: kernels.Columns(kernels.RBF(), (1, 1)), "columns: expected distinct indices"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
