"""The edges of a residual stream are read off its taps."""

import json

import jax
import jax.numpy as jnp
import pytest

from aijax.errors import ConfigError
from aijax.interp import residual_graph, tap
from aijax.models import LanguageModel, ViT

TOKENS = jax.ShapeDtypeStruct((2, 5), jnp.int32)


def graph_of(model, x=TOKENS):
    apply_fn = lambda variables, x: model.apply(variables, x)  # noqa: E731
    return residual_graph(apply_fn, jax.eval_shape(model.init, jax.random.key(0), x), x)


def language_model(**fields):
    return LanguageModel(vocab_size=11, context_length=5, width=8, depth=2, num_heads=2, **fields)


def test_edges_are_those_of_the_reference(hooked, golden):
    model, params, case = hooked("eap_gpt2")
    graph = residual_graph(lambda params, x: model.apply({"params": params}, x), params, case["clean"])
    wanted = json.loads((golden / "science" / "interp" / "edges.json").read_text())["eap_gpt2"]
    assert sorted(edge.replace("output", "logits") for edge in graph.edges) == sorted(wanted)


def test_a_small_net(small_net):
    graph = residual_graph(small_net.apply_fn, small_net.params, small_net.clean)
    assert set(graph.edges) == set(small_net.EDGES)
    fed = {reader: [graph.writers[w] for w in fed] for reader, fed in zip(graph.readers, graph.feeds, strict=True)}
    assert fed["a.h1<q>"] == ["a.h1"] and fed["m"] == ["m"] and fed["output"] == []


def test_parallel_branches_do_not_read_each_other_and_attention_may_be_alone():
    parallel = graph_of(language_model(parallel=True))
    assert "a0.h0->m0" not in parallel.edges and "a0.h0->m1" in parallel.edges
    assert "m0" not in graph_of(language_model(mlp_width=0)).writers


def test_heads_that_share_keys_have_inputs_of_their_own():
    readers = graph_of(language_model(num_kv_heads=1)).readers
    assert {"a0.h0<k>", "a0.h1<k>", "a0.h0<v>", "a0.h1<v>"} <= set(readers)


def test_blocks_in_a_scan_and_checkpoints_are_as_others():
    assert graph_of(language_model(scan=True, remat="block")).edges == graph_of(language_model()).edges


def test_a_vision_transformer_has_a_graph_too():
    model = ViT(num_classes=3, patch_size=4, embed_dim=8, depth=1, num_heads=2)
    assert "a0.h1->output" in graph_of(model, jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)).edges


def test_a_second_stream_begins_anew():
    def stream(x):
        x = tap("writes_input", x)
        return tap("reads_output", x + tap("writes_m", jnp.tanh(tap("reads_m", x))))

    graph = residual_graph(lambda x: stream(2 * stream(x)), jnp.ones((2, 3)))
    assert graph.edges == (
        "input0->m0", "input0->output0", "m0->output0", "input1->m1", "input1->output1", "m1->output1",
    )  # fmt: skip
    assert graph.roots == (0,)


def test_what_has_no_edges_is_told():
    with pytest.raises(ConfigError, match=r"apply_fn: expected taps writes_\* and reads_\* .* got none"):
        residual_graph(lambda x: 2 * x, jnp.ones(3))
    with pytest.raises(ConfigError, match="target_behavior: it does not depend on any edge"):
        residual_graph(lambda x: 0 * x + jnp.zeros_like(tap("reads_output", tap("writes_input", x))), jnp.ones(3))

    def two_widths(x):
        x = tap("writes_input", x)
        return tap("reads_output", jnp.concatenate([x, x], -1))

    with pytest.raises(ConfigError, match=r"reads_output: it reads \[2, 6\] of a stream to which writes_input writes"):
        residual_graph(two_widths, jnp.ones((2, 3)))
    with pytest.raises(ConfigError, match=r"reads_m: expected a tap writes_\* before it"):
        residual_graph(lambda x: tap("writes_m", tap("reads_m", x)), jnp.ones((2, 3)))
