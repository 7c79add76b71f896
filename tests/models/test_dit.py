"""Diffusion transformers told a class, against a published network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.models.dit import DiT, FeedForward, from_patches


def test_matches_the_reference(x64, published_network):
    network = published_network("dit-b")
    inputs = [jnp.asarray(network[f"in_{name}"]) for name in ("sample", "timestep", "class_labels")]
    got = jax.jit(network.module.apply)({"params": network.params}, *inputs)
    # the reference tells the time in float32
    np.testing.assert_allclose(got, network["out_out"], atol=2e-6)


@pytest.fixture(scope="module")
def small(random_params):
    model = DiT(2, 4, in_channels=2, out_channels=4, num_layers=1, sample_size=4, num_embeds_ada_norm=3)
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 2)).astype(np.float32)
    return model, {"params": random_params(model, x, 1.0, jnp.array([0, 3]))}, x


def test_one_time_serves_all_and_labels_found_out_of_range_give_nan(small):
    model, variables, x = small
    out = jax.jit(model.apply)(variables, x, 1.0, np.array([0, 9]))
    assert out.shape == (2, 4, 6, 4)
    assert np.isfinite(out[0]).all()
    assert np.isnan(out[1]).all()


@pytest.mark.parametrize(
    ("name", "act", "gated"),
    [
        ("geglu-approximate", lambda h: h / (1 + np.exp(-1.702 * h)), False),
        ("linear-silu", lambda h: h / (1 + np.exp(-h)), False),
        ("swiglu", lambda h: h / (1 + np.exp(-h)), True),
    ],
)
def test_published_activations_and_gates(random_params, name, act, gated):
    layer, x = FeedForward(name), np.random.default_rng(1).normal(size=(1, 2, 3)).astype(np.float32)
    params = random_params(layer, x)
    first, last = params["net_0"]["proj"], params["net_2"]
    h = x @ first["kernel"] + first["bias"]
    h = h[..., :12] * act(h[..., 12:]) if gated else act(h)
    np.testing.assert_allclose(layer.apply({"params": params}, x), h @ last["kernel"] + last["bias"], rtol=1e-5)


def test_patches_are_put_back_where_they_were():
    image = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
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
