"""Random features of gradients: their statistics, and that sizes, ways and devices do not change them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from aijax import parallel
from aijax.errors import ConfigError
from aijax.ntk.projection import cheapest, directions, projected_gradients

KEY = jax.random.key(0)


def mlp(params, x):
    return jax.nn.relu(x @ params["w"] + params["b"]) @ params["v"]


@pytest.fixture(scope="module")
def case():
    """A network, its parameters, 9 examples, and their gradients [9, 3, p]."""
    keys = jax.random.split(jax.random.key(1), 4)
    params = {
        "w": jax.random.normal(keys[0], (5, 12)),
        "b": jax.random.normal(keys[1], (12,)),
        "v": jax.random.normal(keys[2], (12, 3)),
    }
    x = jax.random.normal(keys[3], (9, 5))
    jacobian = jax.jacobian(mlp)(params, x)
    gradients = jnp.concatenate([leaf.reshape(9, 3, -1) for leaf in jax.tree.leaves(jacobian)], -1)
    return params, x, gradients


@pytest.mark.parametrize("method", ["jvp", "vjp"])
def test_features_are_projections_on_the_directions_whatever_the_sizes(case, method):
    params, x, gradients = case
    signs = jax.vmap(lambda tree: ravel_pytree(tree)[0])(directions(KEY, params, 0, 20))
    assert set(np.unique(signs)) == {-1.0, 1.0}
    expected = np.einsum("nop,kp->nok", gradients, signs) / 20**0.5
    for sizes in ({}, {"batch_size": 4, "block_size": 7}):
        features = projected_gradients(KEY, mlp, params, np.asarray(x), 20, method=method, **sizes)
        assert features.dtype == jnp.float32
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


def test_signs_are_independent_and_even(case):
    params, _, _ = case
    signs = np.asarray(
        jax.vmap(lambda tree: ravel_pytree(tree)[0])(jax.jit(directions, static_argnums=3)(KEY, params, 5, 2000))
    )
    p = signs.shape[1]
    correlation = signs.T @ signs / 2000
    assert np.abs(signs.mean(0)).max() < 5 / 2000**0.5
    assert np.abs(correlation - np.eye(p)).max() < 5.5 / 2000**0.5
    later = jax.vmap(lambda tree: ravel_pytree(tree)[0])(directions(KEY, params, 105, 3))
    np.testing.assert_array_equal(signs[100:103], later)


@pytest.mark.parametrize("dim", [64, 1024])
def test_the_error_of_the_kernel_is_that_of_the_bound(case, dim):
    """Over keys, the mean estimate is the kernel, and the error of an entry within 1.5 sqrt(2 / k) |g| |g'|."""
    params, x, gradients = case
    flat = gradients.reshape(27, -1)
    kernel = flat @ flat.T
    scale = jnp.outer(jnp.linalg.norm(flat, axis=1), jnp.linalg.norm(flat, axis=1))
    estimates = []
    for seed in range(12):
        phi = projected_gradients(jax.random.key(seed), mlp, params, x, dim, method="jvp").reshape(27, dim)
        estimates.append(phi @ phi.T)
    errors = np.stack([(estimate - kernel) / scale for estimate in estimates])
    assert np.sqrt((errors**2).mean()) < (2 / dim) ** 0.5
    assert max(np.sqrt((error**2).mean()) for error in errors) < 1.5 * (2 / dim) ** 0.5
    assert np.abs(errors.mean(0)).max() < 4.5 * (2 / dim / 12) ** 0.5


def test_scalar_outputs_trees_and_half_precision(case):
    params, x, _ = case

    def f(params, x):
        y = mlp(params, x)
        return {"first": y[:, 0], "square": y[:, None, 1:] ** 2}

    features = projected_gradients(KEY, f, params, x, 16, method="vjp", batch_size=5)
    assert features["first"].shape == (9, 16) and features["square"].shape == (9, 1, 2, 16)
    whole = projected_gradients(KEY, mlp, params, x, 16, method="jvp")
    np.testing.assert_allclose(features["first"], whole[:, 0], rtol=1e-4, atol=1e-4)
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    assert projected_gradients(KEY, mlp, half, x.astype(jnp.bfloat16), 16, method="vjp").dtype == jnp.float32


def test_a_mesh_gives_what_one_device_gives(case):
    params, x, _ = case
    for method in ("jvp", "vjp"):
        alone = projected_gradients(KEY, mlp, params, x, 8, method=method)
        split = projected_gradients(KEY, mlp, params, x, 8, method=method, batch_size=8, mesh=parallel.make_mesh())
        np.testing.assert_allclose(split, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["jvp", "vjp"])
def test_it_can_be_compiled_as_a_part_of_something(case, method):
    params, x, _ = case
    compiled = jax.jit(lambda key, x: projected_gradients(key, mlp, params, x, 8, method=method, batch_size=4))
    expected = projected_gradients(KEY, mlp, params, x, 8, method=method)
    np.testing.assert_allclose(compiled(KEY, x), expected, rtol=1e-4, atol=1e-4)


def test_the_cheaper_way_is_chosen_by_count():
    x = jnp.ones((4, 8, 8, 3))

    def cnn(params, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, params[0], (1, 1), "SAME", dimension_numbers=numbers)
        return x.mean((1, 2)) @ params[1]

    weights = [jnp.ones((3, 3, 3, 8)), jnp.ones((8, 1))]
    assert cheapest(cnn, weights, x, 256) == "vjp"  # each weight is used 64 times in a forward pass
    many = {"w": jnp.ones((5, 12)), "b": jnp.ones(12), "v": jnp.ones((12, 10))}
    assert cheapest(mlp, many, jnp.ones((4, 5)), 256) == "jvp"  # once, for ten gradients


def test_refusals(case):
    params, x, _ = case
    for change in ({"dim": 0}, {"block_size": 0}, {"batch_size": -1}, {"method": "jpv"}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            projected_gradients(KEY, mlp, params, x, **{"dim": 4, **change})


def test_examples_that_interact_are_pushed_forward_together(case):
    params, x, _ = case

    def centred(params, x):
        return mlp(params, x - x.mean(0))

    features = projected_gradients(KEY, centred, params, x, 4)
    signs = directions(KEY, params, 0, 4)
    expected = jax.vmap(lambda r: jax.jvp(lambda p: centred(p, x), (params,), (r,))[1], out_axes=-1)(signs) / 2
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="interact"):
        projected_gradients(KEY, centred, params, x, 4, method="vjp")
