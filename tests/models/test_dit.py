"""Diffusion transformers told a class, against a published network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.models.dit import DiT, from_patches


def test_matches_the_reference(x64, published_network):
    network = published_network("dit-b")
    inputs = [jnp.asarray(network[f"in_{name}"]) for name in ("sample", "timestep", "class_labels")]
    got = jax.jit(network.module.apply)({"params": network.params}, *inputs)
    # the reference tells the time in float32
    np.testing.assert_allclose(got, network["out_out"], atol=2e-6)


@pytest.fixture(scope="module")
def small(random_params):
    model = DiT(2, 4, in_channels=2, out_channels=4, num_layers=1, sample_size=4, num_embeds_ada_norm=3)
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 2))
    return model, {"params": random_params(model, x, 1.0, jnp.array([0, 3]))}, x


@pytest.fixture(scope="module")
def apply(small):
    return jax.jit(small[0].apply)


def test_one_time_for_all_is_that_time_for_each(small, apply):
    _, variables, x = small
    labels = jnp.array([1, 2])
    got = apply(variables, x, jnp.full(2, 3.0), labels)
    assert got.shape == (2, 4, 6, 4)
    np.testing.assert_allclose(jax.jit(small[0].apply)(variables, x, 3.0, labels), got, atol=1e-5)


def test_labels_that_compiled_code_finds_out_of_range_give_nan(small, apply):
    _, variables, x = small
    out = apply(variables, x, jnp.ones(2), jnp.array([0, 9]))
    assert np.isfinite(out[0]).all()
    assert np.isnan(out[1]).all()


def test_patches_are_put_back_where_they_were():
    image = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    patches = image.reshape(2, 2, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 12)
    np.testing.assert_array_equal(from_patches(patches, (2, 3), 2), image)


@pytest.mark.parametrize(
    ("shape", "labels", "told"),
    [
        ((2, 4, 4, 3), [0, 1], "in_channels"),
        ((2, 5, 4, 2), [0, 1], "patch_size"),
        ((2, 4, 4, 2), [0, 4], "labels: expected numbers from 0 to 3, got 4"),
        ((2, 4, 4, 2), [-1, 0], "labels"),
    ],
)
def test_what_cannot_be_used_is_named(small, shape, labels, told):
    model, variables, _ = small
    with pytest.raises(ConfigError, match=told):
        model.apply(variables, jnp.zeros(shape), 1.0, jnp.array(labels))
