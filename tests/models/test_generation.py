"""Generation against a search of all texts, a published model, and what it refuses."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from aijax import models
from aijax.errors import ConfigError
from aijax.models.generation import draw_token


@pytest.fixture(scope="module")
def cached(small_lm):
    """`(read, params, empty)`: a model that reads with a cache, and an empty cache of a size."""
    model, params = small_lm

    def read(params, tokens, cache, **told):
        return model.apply({"params": params}, tokens, cache=cache, **told)

    return read, params, model.empty_cache


@pytest.mark.parametrize(
    ("name", "fields"),
    [("gpt2_hf/base", {}), pytest.param("llama_hf/gqa", {"scan": True}, marks=pytest.mark.slow)],
)
def test_greedy_texts_are_those_of_the_reference(quick_jit, golden, name, fields):
    folder = golden / "vision_text" / name
    wanted = np.asarray(json.loads((folder / "case.json").read_text())["greedy_from_first5_max_new8"])
    model, params = models.load(folder, **fields)

    def read(params, tokens, cache, **told):
        return model.apply({"params": params}, tokens, cache=cache, **told)

    prompt = jnp.asarray(load_file(folder / "data.safetensors")["in.input_ids"][:, :5])
    padded = jnp.pad(prompt, ((0, 0), (2, 0)))
    mask = jnp.broadcast_to(jnp.arange(7) >= 2, padded.shape)

    @quick_jit
    def run(params):
        rows = len(prompt)
        plain = models.generate(
            jax.random.key(0), read, params, prompt, 8, cache=model.empty_cache(rows, 13), temperature=0
        )
        shifted = models.generate(
            jax.random.key(0), read, params, padded, 8, cache=model.empty_cache(rows, 15), mask=mask, temperature=0
        )
        return plain, shifted[:, 2:]

    for made in run(params):
        np.testing.assert_array_equal(made, wanted)


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


def test_the_mass_top_p_keeps_the_fewest_likeliest_tokens():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    keys = jax.random.split(jax.random.key(0), 300)
    for top_p, kept in ((0.4, 1), (0.5, 1), (0.6, 2), (0.9, 3), (1.0, 4)):
        drawn = jax.vmap(lambda key, p=top_p: draw_token(key, logits, top_p=p)[0])(keys)
        assert set(np.unique(drawn)) == set(range(kept))


def test_a_finished_text_is_padded(quick_jit, cached):
    read, params, empty = cached
    prompt = jnp.arange(6, dtype=jnp.int32).reshape(6, 1)

    @quick_jit
    def run(params):
        how = {"cache": empty(6, 8), "temperature": 0}
        free = models.generate(jax.random.key(0), read, params, prompt, 7, **how)
        end = free[0, 3]
        return (
            free,
            end,
            models.generate(jax.random.key(0), read, params, prompt, 7, end_token=end, pad_token=10, **how),
        )

    free, end, made = map(np.asarray, run(params))
    for row, text in zip(free, made, strict=True):
        ends = np.flatnonzero(row[1:] == end)
        kept = ends[0] + 2 if len(ends) else 8
        np.testing.assert_array_equal(text, np.where(np.arange(8) < kept, row, 10))


@pytest.mark.parametrize("penalty", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_beams_that_are_wide_enough_find_the_best_text(quick_jit, x64, small_lm, penalty):
    model, params = small_lm
    params = jax.tree.map(lambda leaf: 4 * leaf.astype(float), params)
    prompt, end, new = jnp.array([[1, 2]]), 3, 3

    def read(params, tokens, cache):
        return model.apply({"params": params}, tokens, cache=cache)

    run = quick_jit(lambda params: models.beam_search(
        read, params, prompt, new, num_beams=121, cache=model.empty_cache(1, 5), length_penalty=penalty, end_token=end,
        pad_token=end,
    ))  # fmt: skip
    texts, scores = run(params)
    every = np.array([[1, 2, *rest] for rest in itertools.product(range(11), repeat=new)])
    logits = quick_jit(lambda tokens: model.apply({"params": params}, tokens))(every)
    chances = jax.nn.log_softmax(logits)[:, 1:-1]
    each = np.take_along_axis(np.asarray(chances), every[:, 2:, None], axis=-1)[..., 0]
    lengths = np.array([next((i + 1 for i, token in enumerate(text[2:]) if token == end), new) for text in every])
    found = np.where(np.arange(new) < lengths[:, None], each, 0).sum(1) / lengths**penalty
    best = every[found.argmax()]
    np.testing.assert_allclose(scores[0, 0], found.max(), rtol=1e-9)
    np.testing.assert_array_equal(texts[0, 0, : 2 + lengths[found.argmax()]], best[: 2 + lengths[found.argmax()]])


@pytest.mark.slow
def test_beams_with_and_without_a_cache_agree(quick_jit, small_lm, cached):
    (model, _), (read, params, empty) = small_lm, cached
    prompt = jnp.array([[1, 2], [4, 5]])

    @quick_jit
    def run(params):
        how = {"num_beams": 2, "end_token": 3}
        apply = lambda params, tokens: model.apply({"params": params}, tokens)  # noqa: E731
        return (
            models.beam_search(read, params, prompt, 4, cache=empty(2, 6), **how),
            models.beam_search(apply, params, prompt, 4, window=8, **how),
        )

    with_cache, without = run(params)
    np.testing.assert_array_equal(with_cache.tokens, without.tokens)
    np.testing.assert_allclose(with_cache.scores, without.scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"window": None}, "window"),
        ({"window": None, "size": 3}, "cache"),
        ({"mask": jnp.ones((1, 2), bool)}, "mask"),
        ({"top_p": 0.0}, "top_p"),
    ],
)
def test_generation_refuses_caches_and_masks_that_do_not_fit(cached, how, said):
    read, params, empty = cached
    size = how.pop("size", None)
    how = {"window": 8, **how} | ({"cache": empty(1, size)} if size else {})
    with pytest.raises(ConfigError, match=f"^{said}: "):
        models.generate(jax.random.key(0), read, params, jnp.ones((1, 2), jnp.int32), 4, **how)


@pytest.mark.parametrize(("how", "said"), [({"num_beams": 0}, "num_beams"), ({"length": 0}, "length")])
def test_a_search_needs_beams_and_a_length(cached, how, said):
    read, params, empty = cached
    how = {"num_beams": 2, "length": 2} | how
    with pytest.raises(ConfigError, match=f"^{said}: "):
        models.beam_search(read, params, jnp.ones((1, 2), jnp.int32), cache=empty(1, 6), **how)
