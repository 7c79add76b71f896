"""CLIP's text encoder against a published one, and where a text ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.models.text import CLIPText, CLIPTextWithProjection, find_ends


@pytest.fixture(scope="module")
def small(random_params):
    model = CLIPTextWithProjection(9, 8, 16, 5, 1, 2, 6, eos_token_id=8)
    tokens = np.array([[0, 3, 8, 8, 1], [0, 8, 4, 2, 8]])
    return jax.jit(model.apply), {"params": random_params(model, tokens)}, tokens


def test_matches_the_reference(x64, published_network):
    network = published_network("clip-text-b")
    params = jax.tree.map(lambda leaf: leaf.astype(float), network.params)
    features = jax.jit(network.module.apply)({"params": params}, jnp.asarray(network["in_input_ids"]))
    np.testing.assert_allclose(features.last, network["out_last_hidden_state"], atol=1e-10)
    np.testing.assert_allclose(features.pooled, network["out_pooled"], atol=1e-10)


def test_a_token_sees_those_before_it_and_the_pooled_feature_is_projected(small):
    apply, variables, tokens = small
    features = jax.tree.map(np.asarray, apply(variables, tokens))
    later = apply(variables, np.concatenate([tokens[:, :3], tokens[:, 3:] * 0 + 7], axis=1))
    np.testing.assert_allclose(features.last[:, :3], later.last[:, :3], atol=1e-6)
    ends = features.last[[0, 1], [2, 1]]
    np.testing.assert_allclose(
        features.pooled, ends @ variables["params"]["text_projection"]["kernel"], rtol=1e-5, atol=1e-6
    )
    assert len(features.hidden) == 2


def test_with_the_old_mistake_the_end_is_the_largest_token():
    tokens = jnp.array([[5, 9, 7, 9]])
    assert find_ends(tokens, 7).tolist() == [2]
    assert find_ends(tokens, 2).tolist() == [1]


@pytest.mark.parametrize(
    ("fields", "tokens", "told"),
    [
        ({}, [[0] * 7], "tokens: expected \\[b, t\\] with at most 6"),
        ({}, [[9]], "tokens: expected numbers from 0 to 8, got 9"),
        ({"num_attention_heads": 3}, [[1]], "num_attention_heads"),
        ({"hidden_act": "gelu_fast"}, [[1]], "hidden_act"),
    ],
)
def test_what_cannot_be_used_is_named(fields, tokens, told):
    given = {
        "vocab_size": 9, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 6,
    }  # fmt: skip
    model = CLIPText(**given | fields)
    with pytest.raises(ConfigError, match=told):
        jax.eval_shape(lambda: model.init(jax.random.key(0), np.array(tokens)))
