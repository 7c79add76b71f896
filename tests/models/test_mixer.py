"""The mixer mixes places and channels, and refuses what it cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.models.mixer import Mixer


def test_each_half_of_a_block_mixes_one_axis(random_params):
    model, images = Mixer(2, 8, 1, pool="none"), jnp.ones((1, 4, 4, 1))
    params = random_params(model, images)
    apply = jax.jit(lambda params, images: model.apply({"params": params}, images))
    alone = params | {
        "block_0": params["block_0"] | {"mlp_tokens": jax.tree.map(np.zeros_like, params["block_0"]["mlp_tokens"])}
    }
    changed = images.at[0, 0, 0].set(3.0)
    moved = jnp.abs(apply(alone, changed) - apply(alone, images)).max(-1)[0]
    np.testing.assert_array_equal(moved > 1e-6, [True, False, False, False])
    assert (jnp.abs(apply(params, changed) - apply(params, images)).max(-1) > 1e-6).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="pool: unknown value 'map'"):
        jax.eval_shape(Mixer(2, 8, 1, pool="map").init, jax.random.key(0), jnp.ones((1, 4, 4, 1)))
