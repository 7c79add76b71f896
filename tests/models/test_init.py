"""Initial parameters: one draw for both layouts, and the spread that the initialisers promise."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from aijax import models


def test_the_looped_and_the_scanned_begin_alike(quick_jit, small_vit, small_params, images):
    scanned = quick_jit(lambda key: models.init(key, small_vit(scan=True), images))(jax.random.key(0))
    chex.assert_trees_all_close(models.stack_blocks(small_params), scanned, atol=1e-6)


def test_blocks_are_drawn_apart_and_outputs_are_of_order_one(small_params, small_logits):
    kernels = [small_params["encoder"][f"block_{i}"]["mlp"]["up"]["kernel"] for i in range(2)]
    assert not np.allclose(*kernels)
    np.testing.assert_allclose(np.std(kernels[0]), (2 / (16 + 64)) ** 0.5, rtol=0.1)
    assert 0.05 < float(jnp.std(small_logits)) < 5


def test_it_serves_any_module(images):
    params = jax.eval_shape(lambda key: models.init(key, models.MLP((4,), num_classes=2), images), jax.random.key(0))
    assert params["head"]["kernel"].shape == (4, 2)
