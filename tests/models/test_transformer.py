"""Positions, causality, layouts and the norm of the shared block."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax import models
from aijax.errors import ConfigError
from aijax.models.rotary import rotate


def test_rotary_scores_depend_on_distance_only():
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 8))
    places = 6
    q, k = (rotate(jnp.broadcast_to(x, (places, 1, 8)))[:, 0] for x in (query, key))
    scores = q @ k.T
    for distance in range(-3, 4):
        diagonal = jnp.diagonal(scores, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(q, axis=-1), jnp.linalg.norm(query), rtol=1e-5)


def test_rotary_needs_even_heads():
    with pytest.raises(ConfigError, match="even width"):
        rotate(jnp.ones((2, 1, 3)))


@pytest.mark.parametrize("rotary", [False, True])
def test_a_causal_block_does_not_look_ahead(quick_jit, rotary):
    spec = models.BlockSpec(num_heads=2, causal=True, rotary=rotary, norm="rms", activation="silu")
    model = models.Transformer(depth=1, spec=spec)
    x = jax.random.normal(jax.random.key(0), (1, 5, 8))
    params = quick_jit(model.init)(jax.random.key(1), x)
    jacobian = quick_jit(jax.jacobian(lambda x: model.apply(params, x)[0].sum(-1)))(x)
    reach = jnp.abs(jacobian[:, 0]).sum(-1)
    assert jnp.all(reach[jnp.triu_indices(5, 1)] == 0)
    assert jnp.all(reach[jnp.tril_indices(5)] > 0)


@settings(max_examples=10, deadline=None)
@given(depth=st.integers(1, 4), extra=st.booleans())
def test_stacking_and_unstacking_are_inverse(depth, extra):
    blocks = {f"block_{i}": {"w": np.full(2, i), "deep": {"b": np.array(i)}} for i in range(depth)}
    params = {"encoder": blocks | {"norm": np.zeros(3)}} | ({"head": np.ones(2)} if extra else {})
    stacked = models.stack_blocks(params)
    assert stacked["encoder"]["blocks"]["w"].shape == (depth, 2)
    chex.assert_trees_all_equal(models.unstack_blocks(stacked), params)


def test_every_intermediate_is_captured_by_name(small_vit, small_params, images):
    def capture(model, params):
        run = functools.partial(model.apply, capture_intermediates=True)
        return jax.eval_shape(run, {"params": params}, images)[1]["intermediates"]["encoder"]

    block = capture(small_vit(), small_params)["block_1"]
    for name, width in (("attention", 16), ("mlp", 16), ("norm_mlp", 16)):
        assert block[name]["__call__"][0].shape == (3, 5, width)
    assert block["mlp"]["up"]["__call__"][0].shape == (3, 5, 64)
    scanned = capture(small_vit(scan=True), models.stack_blocks(small_params))
    assert scanned["blocks"]["mlp"]["up"]["__call__"][0].shape == (2, 3, 5, 64)
