"""Scores of attention patterns against references, and on patterns made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import DataError
from aijax.interp.attention_patterns import attention_pattern_analysis, induction_positions, named_heads

analysis = jax.jit(attention_pattern_analysis)


def one_hot(targets):
    """A pattern `[1, 1, t, t]` whose position j looks at `targets[j]` alone."""
    return jnp.eye(len(targets))[jnp.asarray(targets)][None, None]


@pytest.mark.parametrize("name", ["attn_only", "gemma2", "llama", "neox", "shortctx3l"])
def test_scores_are_those_of_the_reference(golden, name):
    with np.load(golden / f"science/interp/tl_forward_{name}.npz") as stored:
        case = dict(stored)
    layers = range(len(case["prev_token_score"]))
    with jax.enable_x64(True):
        weights = jnp.stack([case[f"act.blocks.{i}.attn.hook_pattern"] for i in layers])
        scores = analysis(weights)
    for found, key in ((scores.previous_token, "prev_token_score"), (scores.first_token, "first_token_score")):
        np.testing.assert_allclose(found, case[key], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(scores.entropy, case["pattern_entropy"], rtol=1e-7, atol=1e-9)


def test_heads_made_by_hand_are_told_apart():
    tokens = jnp.array([[9, 3, 5, 7, 3, 5]])
    targets = {
        "previous_token": [0, 0, 1, 2, 3, 4],
        "duplicate_token": [0, 1, 2, 3, 1, 2],
        "induction": [0, 1, 2, 3, 2, 5],
    }
    weights = jnp.concatenate([one_hot(each) for each in targets.values()], 1)
    scores = analysis(weights, tokens)
    assert scores.previous_token.tolist() == pytest.approx([1, 0, 0]) and scores.duplicate_token[1] == 1
    assert scores.induction.tolist() == [0, 0, 1] and scores.entropy.tolist() == [0, 0, 0]
    assert float(scores.mean_distance[0]) == pytest.approx(5 / 6) and scores.positional.tolist() == [1, 1, 1]
    assert induction_positions(tokens)[0, 4].tolist() == [False, False, True, False, False, False]
    assert named_heads(scores)["induction"] == [(2,)]


def test_without_tokens_the_second_half_repeats_the_first():
    weights = jnp.stack([one_hot([0, 1, 2, 1, 2, 3])[0, 0], one_hot([0, 1, 2, 0, 1, 2])[0, 0]])[None]
    scores = analysis(weights)
    assert scores.induction.tolist() == [1, 0] and scores.duplicate_token.tolist() == [0, 1]
    tokens = jnp.array([[4, 5, 6, 4, 5, 6]])
    assert analysis(weights, tokens).duplicate_token.tolist() == [0, 1]


def test_what_depends_on_the_example_is_not_positional():
    weights = jnp.concatenate([one_hot([0, 0, 0]), one_hot([0, 1, 2])])
    assert float(analysis(weights).positional[0]) == pytest.approx(1 - 1 / 3)


def test_scores_are_mapped_and_differentiated():
    weights = jax.nn.softmax(jax.random.normal(jax.random.key(0), (3, 2, 4, 5, 5)))
    tokens = jax.random.randint(jax.random.key(1), (3, 2, 5), 0, 3)
    mapped = jax.jit(jax.vmap(attention_pattern_analysis))(weights, tokens)
    alone = analysis(weights[1], tokens[1])
    jax.tree.map(lambda all_of, one: np.testing.assert_allclose(all_of[1], one, rtol=1e-5), mapped, alone)
    slope = jax.jit(jax.grad(lambda w: attention_pattern_analysis(w).entropy.sum()))(weights[0])
    assert bool(jnp.isfinite(slope).all())


def test_bad_input_is_told():
    with pytest.raises(
        DataError, match=r"attention_weights: expected \[batch, heads, length, length\], got \[2, 3, 4\]"
    ):
        attention_pattern_analysis(jnp.ones((2, 3, 4)))
    with pytest.raises(DataError, match="attention_weights: expected rows that sum to 1, got one that is off by 3"):
        attention_pattern_analysis(jnp.ones((1, 1, 4, 4)))
    with pytest.raises(DataError, match=r"tokens: expected \[1, 4\] as the attention_weights have, got \[1, 3\]"):
        attention_pattern_analysis(jnp.eye(4)[None, None], jnp.zeros((1, 3), int))
    with pytest.raises(DataError, match="first: expected a position from 0 to 3, got 4"):
        attention_pattern_analysis(jnp.eye(4)[None, None], first=4)
