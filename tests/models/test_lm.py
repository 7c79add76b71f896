"""The language model: published weights, positions, caches, and what it refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import models
from aijax.errors import ConfigError


def test_it_is_the_published_gpt2_and_continues_as_it_does(quick_jit, x64, published, golden):
    data, trees = published("gpt2_hf/base")
    model = models.LanguageModel(67, 24, 32, 2, 4, norm_epsilon=1e-5, activation="gelu_tanh")

    def apply(params, tokens):
        return model.apply({"params": params}, tokens)

    tokens = data["in.input_ids"]
    np.testing.assert_allclose(quick_jit(apply)(trees["weights"], tokens), data["out.logits"], atol=1e-10)
    case = json.loads((golden / "vision_text/gpt2_hf/base/case.json").read_text())
    greedy = np.asarray(find(case, "greedy_from_first5_max_new8")).reshape(-1, 13)
    prompt = jnp.asarray(tokens[: len(greedy), :5])
    make = quick_jit(lambda key: models.generate(key, apply, trees["weights"], prompt, 8, window=24, temperature=0))
    made = make(jax.random.key(0))
    np.testing.assert_array_equal(made, greedy)


def find(tree, name):
    if isinstance(tree, dict):
        return (
            tree[name]
            if name in tree
            else next((v for v in (find(t, name) for t in tree.values()) if v is not None), None)
        )
    return None


def test_a_text_longer_than_the_context_is_refused(small_lm):
    model, params = small_lm
    with pytest.raises(ConfigError, match="reads 8 tokens at once, got 9"):
        model.apply({"params": params}, jnp.ones((1, 9), jnp.int32))


@pytest.mark.parametrize("place", [2, jnp.array([0, 7])])
def test_one_token_alone_gets_the_logits_that_it_has_among_all(quick_jit, small_lm, place):
    model, params = small_lm
    tokens = jax.random.randint(jax.random.key(3), (2, 8), 0, 11)
    alone, among = quick_jit(
        lambda tokens: [model.apply({"params": params}, tokens, **given) for given in ({"place": place}, {})]
    )(tokens)
    np.testing.assert_allclose(alone, among[np.arange(2), np.broadcast_to(place, 2)], atol=2e-6)
    with pytest.raises(ConfigError, match="place: logits of one token alone are for calls without a cache"):
        model.apply({"params": params}, tokens, cache=model.empty_cache(2, 8), place=2)


def test_rotary_and_untied_have_their_own_parameters():
    model = models.LanguageModel(11, 8, 16, 1, 2, positions="rotary", tied=False)
    tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    shapes = jax.eval_shape(lambda key: models.init(key, model, tokens), jax.random.key(0))
    assert set(shapes) == {"embedding", "decoder", "head"}
    assert set(shapes["head"]) == {"kernel"}


def test_tokens_that_are_not_in_the_vocabulary_are_never_another_token(quick_jit, small_lm):
    model, params = small_lm
    for token in (-1, 11):
        with pytest.raises(ConfigError, match=f"tokens: expected numbers from 0 to 10, got {token}"):
            model.apply({"params": params}, jnp.array([[1, token]]))
    logits = quick_jit(lambda tokens: model.apply({"params": params}, tokens))(jnp.array([[1, -1], [1, 11], [1, 2]]))
    assert np.isnan(logits[:2]).all()
    assert not np.isnan(logits[2]).any()


def test_a_cache_counts_towards_the_context(small_lm):
    model, params = small_lm
    with pytest.raises(ConfigError, match="reads 8 tokens at once, got 9"):
        model.apply({"params": params}, jnp.ones((1, 2), jnp.int32), cache=model.empty_cache(1, 9))


def test_frequencies_that_change_with_the_length_may_exceed_the_context():
    dynamic = {"rope_type": "dynamic", "factor": 2.0}
    model = models.LanguageModel(11, 4, 16, 1, 2, positions="rotary", rotary_scaling=dynamic)
    shape = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((1, 6), jnp.int32))[0].shape
    assert shape == (1, 6, 11)
