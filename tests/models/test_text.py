"""Text encoders against a published one, and where a text ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.models.text import CLIPText, CLIPTextWithProjection, MaskedLanguageModel, TextEncoder


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
        features.pooled, ends @ variables["params"]["projection"]["kernel"], rtol=1e-5, atol=1e-6
    )
    assert len(features.hidden) == 2


@pytest.fixture(scope="module")
def encoder(random_params):
    """`(model, params)`: an encoder of tokens of two types, without a projection."""
    model = TextEncoder(9, 6, 8, 1, 2, pool="first", num_token_types=2, embedding_norm=True, post_norm=True)
    return model, random_params(model, np.ones((1, 4), int))


def test_each_pool_takes_its_place(quick_jit, encoder):
    model, params = encoder
    tokens, pools = jnp.array([[5, 8, 7, 8]]), {"end": 2, "argmax": 1, "first": 0, "last": 3}

    @quick_jit
    def run(params):
        return {pool: model.clone(pool=pool, end_token=7).apply({"params": params}, tokens) for pool in pools}

    for pool, features in run(params).items():
        np.testing.assert_array_equal(features.pooled, features.last[:, pools[pool]])
    none = jax.eval_shape(lambda: model.clone(pool="none").apply({"params": params}, tokens))
    assert none.pooled is None


def test_types_and_padding_count(quick_jit, encoder):
    model, params = encoder
    tokens, mask = jnp.array([[5, 8, 7, 8]]), jnp.array([[1, 1, 0, 0]])

    @quick_jit
    def run(types, tokens):
        return model.apply({"params": params}, tokens, mask=mask, token_types=types).pooled

    plain = run(jnp.zeros_like(tokens), tokens)
    np.testing.assert_array_equal(run(jnp.zeros_like(tokens), tokens.at[:, 2:].set(1)), plain)
    assert np.abs(run(jnp.ones_like(tokens), tokens) - plain).max() > 0.01


def test_guessing_with_a_matrix_of_its_own_and_from_a_scanned_encoder(encoder):
    model = MaskedLanguageModel(encoder[0].clone(pool="none", scan=True), tied=False)
    logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 4), int))
    assert logits.shape == (2, 4, 9)
    assert variables["params"]["head"]["kernel"].shape == (8, 9)
    assert variables["params"]["encoder"]["encoder"]["blocks"]["mlp"]["up"]["kernel"].shape == (1, 8, 32)


@pytest.mark.parametrize(
    ("fields", "told", "said"),
    [
        ({"pool": "cls"}, {}, "pool: unknown value 'cls'"),
        ({"pool": "end"}, {}, "end_token: the pool 'end' needs one"),
        ({}, {"token_types": np.full((1, 4), 2)}, "token_types: expected numbers from 0 to 1, got 2"),
        ({"num_token_types": 0}, {"token_types": np.ones((1, 4), int)}, "token_types: the model has none"),
    ],
)
def test_what_an_encoder_cannot_do_is_named(encoder, fields, told, said):
    model = encoder[0].clone(**fields)
    with pytest.raises(ConfigError, match=said):
        jax.eval_shape(lambda: model.init(jax.random.key(0), np.ones((1, 4), int), **told))


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
