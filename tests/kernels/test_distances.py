"""Squared distances: accuracy where points are close, both forms, and derivatives of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.kernels import squared_distances
from aijax.kernels.distances import MANY


def points(n, d, seed=0, scale=1.0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, d)) * scale)


def brute_force(x, z, precision=1.0):
    difference = np.asarray(x, np.longdouble)[:, None] - np.asarray(z, np.longdouble)
    return (precision * difference**2).sum(-1).astype(float)


@pytest.mark.parametrize("d", [1, 3, 16, 17, 40, MANY + 1])
def test_values(d):
    x, z, precision = points(6, d), points(4, d, 1), np.linspace(0, 2, d)
    np.testing.assert_allclose(squared_distances(x, z, precision), brute_force(x, z, precision), rtol=1e-14)
    np.testing.assert_allclose(squared_distances(x), brute_force(x, x), rtol=1e-14)


@pytest.mark.parametrize("d", [2, MANY + 72])
def test_close_points_far_from_the_origin_keep_their_digits(d):
    x = 1e3 + points(5, d)
    z = x + 1e-7 * points(5, d, 1)
    np.testing.assert_allclose(squared_distances(x, z), brute_force(x, z), rtol=1e-11)
    assert (jnp.diagonal(squared_distances(x)) == 0).all() and (jnp.diagonal(squared_distances(x, x)) == 0).all()


def test_products_are_as_accurate_as_said_in_float32():
    x = np.asarray(points(20, 500), np.float32)
    result = squared_distances(jnp.asarray(x))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, brute_force(x, x), rtol=1e-5)


@pytest.mark.parametrize("d", [3, MANY + 1])
@pytest.mark.parametrize("same", [True, False])
def test_derivatives_are_those_of_the_formula(d, same):
    x, z, precision = points(4, d), points(3, d, 1), jnp.linspace(0.5, 2, d)
    cotangent = points(4, 4 if same else 3, 2)

    def plain(x, z, precision):
        return jnp.sum(precision * (x[:, None] - (x if same else z)[None]) ** 2, -1)

    def ours(x, z, precision):
        return squared_distances(x, None if same else z, precision)

    def loss(distances):
        return lambda *args: jnp.sum(jnp.sin(distances(*args)) * cotangent)

    for reverse in (True, False):
        derivative = jax.grad if reverse else jax.jacfwd
        got, expected = (jax.jit(derivative(loss(f), (0, 1, 2)))(x, z, precision) for f in (ours, plain))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-10, 1e-11), got, expected)
    if d == 3:
        got, expected = (jax.jit(jax.hessian(loss(f), (0, 2)))(x, z, precision) for f in (ours, plain))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-10, 1e-11), got, expected)


def test_second_derivative_between_two_points():
    x = points(1, 3)
    cross = jax.jit(jax.jacfwd(jax.jacfwd(lambda a, b: squared_distances(a, b)[0, 0], 0), 1))(x, x)
    np.testing.assert_array_equal(cross.reshape(3, 3), -2 * np.eye(3))


def test_vmap_and_jit():
    x, precisions = points(3, 2), jnp.array([[1.0, 2.0], [3.0, 4.0]])
    got = jax.jit(jax.vmap(lambda p: squared_distances(x, None, p)))(precisions)
    np.testing.assert_allclose(got, [brute_force(x, x, p) for p in np.asarray(precisions)], rtol=1e-14)


def test_reverse_mode_holds_one_matrix_only():
    n = 512
    x, cotangent = points(n, 8), points(n, n, 1)

    def gradient(x, precision, cotangent):
        return jax.vjp(lambda x, p: squared_distances(x, None, p), x, precision)[1](cotangent)

    memory = jax.jit(gradient).lower(x, jnp.ones(8), cotangent).compile().memory_analysis()
    assert memory is None or memory.temp_size_in_bytes < 1.5 * 8 * n * n
