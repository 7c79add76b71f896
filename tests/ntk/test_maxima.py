"""Maxima in functions that are compiled with every optimisation: with fusion, jax itself may lose their cotangents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.ntk import empirical_ntk, kernel_vector_product, linearize, projected_gradients, taylor_expand
from aijax.ntk.maxima import with_exact_maxima

CONTRACTIONS = ("auto", "jacobian", "autodiff", "vector_products", "structured")


def normalised(p, x):
    """What is fused into a maximum and, with other rounding, into the comparison that finds its place."""
    return (x - x.mean(-1, keepdims=True)) * p["s"] + p["b"]


def over_positions(p, x):
    return normalised(p, x).max(1)


def in_branches(p, x):
    return jax.lax.cond(x.shape[0] > p["b"].sum(), over_positions, lambda p, x: x[:, 0] * p["s"], p, x)


def in_a_checkpoint(p, x):
    return jax.checkpoint(lambda x: jax.jit(over_positions)(p, x))(x) @ p["w"]


def in_a_scan(p, x):
    def turn(h, x):
        return h + jnp.tanh(normalised(p, x).min(1)), None

    return jax.lax.scan(turn, jnp.zeros((x.shape[0], 3)), jnp.stack([x, 2 * x]))[0]


def over_two_axes(p, x):
    return normalised(p, x[:, :, None] * jnp.array([[1.0], [-0.7]])).max((1, 2))


FUNCTIONS = (over_positions, in_branches, in_a_checkpoint, in_a_scan, over_two_axes)


@pytest.fixture(scope="module")
def data():
    """`(params, x1, x2)` in 64 bits."""
    keys = jax.random.split(jax.random.key(0), 5)
    with jax.enable_x64(True):
        draw = functools.partial(jax.random.normal, dtype=jnp.float64)
        params = {"s": 1 + 0.1 * draw(keys[0], (3,)), "b": 0.1 * draw(keys[1], (3,)), "w": draw(keys[2], (3, 2))}
        return params, draw(keys[3], (3, 5, 3)), draw(keys[4], (2, 5, 3))


def jacobian(function, params, x):
    """Rows of the Jacobian [n, outputs, p], computed operation by operation."""
    with jax.disable_jit():
        leaves = jax.tree.leaves(jax.jacrev(function)(params, x))
    return np.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], -1)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_compiled_kernels_are_the_jacobian_of_what_is_not_compiled(function, data):
    with jax.enable_x64(True):
        params, x1, x2 = data
        expected = np.einsum("iov,jpv->ijop", jacobian(function, params, x1), jacobian(function, params, x2))
        kernels = jax.jit(
            lambda *args: [empirical_ntk(function, *args, contraction=contraction) for contraction in CONTRACTIONS]
        )(params, x1, x2)
        for contraction, kernel in zip(CONTRACTIONS, kernels, strict=True):
            np.testing.assert_allclose(kernel, expected, rtol=1e-12, atol=1e-13, err_msg=contraction)


def test_products_and_expansions_are_right_compiled(data):
    with jax.enable_x64(True):
        params, x, _ = data
        rows = jacobian(over_positions, params, x)
        v = jnp.ones((3, 3))
        product = jax.jit(kernel_vector_product(over_positions, params, x))(v)
        np.testing.assert_allclose(product, np.einsum("iov,jpv,jp->io", rows, rows, v), rtol=1e-12)
        moved = jax.tree.map(lambda leaf: leaf + 0.1, params)
        linear = jax.jit(linearize(over_positions, params))(moved, x)
        np.testing.assert_allclose(linear, over_positions(params, x) + 0.1 * rows.sum(-1), rtol=1e-12)
        kernels = []
        for method in ("vjp", "jvp"):
            features = projected_gradients(jax.random.key(1), over_positions, params, x, dim=64, method=method)
            kernels.append(np.einsum("iok,jpk->ijop", features, features))
        np.testing.assert_allclose(*kernels, rtol=1e-12, atol=1e-13)


def test_entries_that_tie_share_as_in_jax_and_second_derivatives_are_right(data):
    x = jnp.array([[1.0, 3.0, 3.0], [-jnp.inf, 2.0, 2.0]])
    for largest in (jnp.max, jnp.min):
        program = with_exact_maxima(jax.make_jaxpr(largest)(x))
        ours = jax.grad(lambda x, p=program: jax.core.eval_jaxpr(p.jaxpr, p.consts, x)[0])(x)
        np.testing.assert_array_equal(ours, jax.grad(largest)(x))
    with jax.enable_x64(True):
        params, x, _ = data
        squared = lambda p, x: over_positions(p, x) ** 2  # noqa: E731
        moved = jax.tree.map(lambda leaf: leaf + 1e-3, params)  # too little for another entry to be the largest
        np.testing.assert_allclose(jax.jit(taylor_expand(squared, params, 2))(moved, x), squared(moved, x), rtol=1e-12)


def test_functions_without_a_maximum_or_with_an_empty_one_stay_as_they_are():
    program = jax.make_jaxpr(lambda x: (jnp.sin(x), x.max(0), jnp.arange(3).max()))(jnp.zeros((2, 0)))
    assert str(with_exact_maxima(program)) == str(program)
