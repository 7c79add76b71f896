"""Tokens by gradient search: exact optima by enumeration, a language model, and what is refused."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import models
from aijax.errors import ConfigError
from aijax.interp import maximize_tokens, neuron_activation
from aijax.taps import tap

TABLE = jax.random.normal(jax.random.key(3), (6, 4))
READ = jax.random.normal(jax.random.key(4), (3, 4))


def activation(tokens):
    hidden = jnp.tanh(tap("embedding", TABLE[tokens]) * READ)
    return jnp.sum(hidden) + hidden[0, 0] * hidden[2, 1]


@pytest.mark.parametrize("method", ["gcg", pytest.param("hotflip", marks=pytest.mark.slow)])
def test_it_finds_the_best_of_all_texts(method):
    search = functools.partial(maximize_tokens, method=method, candidates=12, per_position=4, steps=8, restarts=3)
    found = jax.jit(lambda key: search(key, activation, jnp.array([0, 1, 2]), TABLE))(jax.random.key(0))
    texts = jnp.array(list(itertools.product(range(6), repeat=3)))
    values = jax.vmap(activation)(texts)
    assert found.value[0] == pytest.approx(float(values.max()), rel=1e-6)
    np.testing.assert_array_equal(found.tokens[0], texts[values.argmax()])
    assert (np.diff(found.history, axis=1) >= 0).all() and (np.diff(found.value) <= 0).all()
    np.testing.assert_allclose(found.history[:, -1], found.value)
    assert float(activation(jnp.array([0, 1, 2]))) in [pytest.approx(float(first)) for first in found.history[:, 0]]


@pytest.mark.slow
def test_of_a_language_model_only_free_positions_change_to_allowed_tokens(random_params):
    model = models.LanguageModel(vocab_size=9, context_length=5, width=8, depth=1, num_heads=2)
    tokens = jnp.array([1, 2, 3, 4, 5])
    params = random_params(model, tokens[None])

    def logit(tokens):
        return model.apply({"params": params}, tokens[None])[0, -1, 7]

    free, allowed = np.array([True, True, False, True, False]), np.arange(9) % 2 == 0
    found = jax.jit(
        lambda key: maximize_tokens(
            key, logit, tokens, params["embedding"]["embedding"], free=free, allowed=allowed, steps=6, restarts=2,
            candidates=8, per_position=16, batch_size=4,
        )
    )(jax.random.key(0))  # fmt: skip
    assert (found.tokens[:, ~free] == tokens[~free]).all()
    changed = found.tokens[:, free][found.tokens[:, free] != tokens[free]]
    assert len(changed) and (changed % 2 == 0).all()
    assert found.value[0] == pytest.approx(float(logit(found.tokens[0])), rel=1e-5) and found.value[0] > logit(tokens)


@pytest.mark.slow
def test_of_a_neuron_of_a_language_model(random_params):
    model = models.LanguageModel(vocab_size=9, context_length=4, width=8, depth=1, num_heads=2)
    tokens = jnp.array([1, 2, 3, 4])
    params = random_params(model, tokens[None])

    def apply_fn(params, tokens):
        return model.apply({"params": params}, tokens)

    neuron = neuron_activation(apply_fn, params, "decoder/block_0/mlp/hidden", 5)
    table, options = params["embedding"]["embedding"], {"candidates": 8, "steps": 4, "restarts": 1}
    found = maximize_tokens(jax.random.key(0), neuron, tokens, table, **options)
    assert found.value[0] > neuron(tokens)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"method": "gcd"}, "method: unknown value 'gcd'; did you mean 'gcg'"),
        ({"steps": 0}, "steps: expected 1 or more, got 0"),
        ({"free": [False] * 3}, "free: expected 3 booleans, not all false"),
        ({"allowed": [True]}, r"allowed: expected 6 booleans, not all false, got \[1\]"),
        ({"method": "hotflip", "candidates": 19}, "candidates: expected at most 18 exchanges, got 19"),
        ({"embedding": "embeddings"}, "'embeddings' matches no value.*'embedding'"),
        ({"table": TABLE[:, :2]}, r"embedding: expected one value of 3 rows of 2.* got embedding \(3, 4\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(how, told):
    with pytest.raises(ConfigError, match=told):
        maximize_tokens(jax.random.key(0), activation, jnp.arange(3), **({"table": TABLE} | how))
