"""The language model against published weights, and generation."""

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


def test_generation_slides_its_window_and_is_a_pure_function(quick_jit, small_lm):
    model, params = small_lm

    def apply(params, tokens):
        return model.apply({"params": params}, tokens)

    prompt = jnp.array([[1, 2, 3], [4, 5, 6]])
    make = quick_jit(lambda key: models.generate(key, apply, params, prompt, 9, window=8, temperature=0))
    made = make(jax.random.key(0))
    assert made.shape == (2, 12)
    logits = quick_jit(apply)
    tokens = np.asarray(prompt)
    for _ in range(9):
        window = tokens[:, -8:]
        padded = np.pad(window, ((0, 0), (0, 8 - window.shape[1])))
        token = np.asarray(logits(params, padded))[:, window.shape[1] - 1].argmax(-1)
        tokens = np.concatenate([tokens, token[:, None]], axis=1)
    np.testing.assert_array_equal(made, tokens)


def test_drawing_follows_the_temperature_and_top_k(quick_jit, small_lm):
    model, params = small_lm

    def apply(params, tokens):
        return model.apply({"params": params}, tokens)

    prompt = jnp.ones((64, 1), jnp.int32)

    @quick_jit
    def first(key):
        def draw(**how):
            return models.generate(key, apply, params, prompt, 1, window=8, **how)[:, 1]

        return draw(), draw(top_k=2), draw(top_k=1), draw(temperature=0), draw(temperature=1e-4)

    free, two, one, greedy, cold = first(jax.random.key(3))
    best = np.argsort(np.asarray(quick_jit(apply)(params, prompt[:1]))[0, 0])
    assert len(np.unique(free)) > 2
    assert set(np.unique(two)) <= set(best[-2:])
    for same in (one, greedy, cold):
        np.testing.assert_array_equal(same, np.full(64, best[-1]))


@pytest.mark.parametrize(
    ("how", "said"),
    [({"temperature": -1.0}, "temperature"), ({"top_k": 0}, "top_k"), ({"empty": True}, "prompt")],
)
def test_generation_refuses_what_it_cannot_do(small_lm, how, said):
    model, params = small_lm
    prompt = jnp.ones((1, 0 if how.pop("empty", False) else 2), jnp.int32)
    with pytest.raises(ConfigError, match=f"^{said}: "):
        models.generate(jax.random.key(0), model.apply, params, prompt, 1, window=8, **how)


def test_a_text_longer_than_the_context_is_refused(small_lm):
    model, params = small_lm
    with pytest.raises(ConfigError, match="reads 8 tokens at once, got 9"):
        model.apply({"params": params}, jnp.ones((1, 9), jnp.int32))


def test_rotary_and_untied_have_their_own_parameters():
    model = models.LanguageModel(11, 8, 16, 1, 2, positions="rotary", tied=False)
    tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    shapes = jax.eval_shape(lambda key: models.init(key, model, tokens), jax.random.key(0))
    assert set(shapes) == {"embedding", "decoder", "head"}
    assert set(shapes["head"]) == {"kernel"}
