"""Runs with edges patched, against runs in which each reader's input is put together by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from aijax.interp import capture, contrast, edge_effects, intervene, outcome, patch_edges, residual_graph, writer_values
from aijax.models import LanguageModel, stack_blocks


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def small(small_net):
    """The graph of the small net, what is written in its other run, and `run(patched) -> output` of this one."""
    graph = residual_graph(small_net.apply_fn, small_net.params, small_net.clean)
    others = jax.jit(writer_values(small_net.apply_fn, graph))(small_net.params, small_net.corrupted)
    run = jax.jit(patch_edges(small_net.apply_fn, graph))
    return graph, others, lambda patched, others=others, x=small_net.clean: run(others, patched, small_net.params, x)


def test_any_edges_patched_are_as_by_hand(small_net, small):
    graph, _, run = small
    _, others = small_net.by_hand(small_net.corrupted)
    rng = np.random.default_rng(1)
    choices = np.concatenate([np.eye(len(graph.edges)), rng.random((12, len(graph.edges))) < 0.5])
    found = jax.jit(jax.vmap(run))(choices.astype(float))
    for patched, ours in zip(choices, found, strict=True):
        chosen = {edge for edge, one in zip(graph.edges, patched, strict=True) if one}
        np.testing.assert_allclose(ours, small_net.by_hand(small_net.clean, others, chosen)[0], atol=1e-12)


def test_none_patched_is_the_run_and_all_the_other_one(small_net, small):
    graph, _, run = small
    for share, x in ((0.0, small_net.clean), (1.0, small_net.corrupted)):
        wanted = small_net.apply_fn(small_net.params, x)
        np.testing.assert_allclose(run(jnp.full(len(graph.edges), share)), wanted, atol=1e-12)


def test_gradients_by_edges_are_those_of_small_changes(small):
    graph, _, run = small
    half = jnp.full(len(graph.edges), 0.5)
    slope = jax.jit(jax.grad(lambda patched: run(patched).sum()))(half)
    rise = run(half + 1e-6 * np.arange(11)).sum() - run(half - 1e-6 * np.arange(11)).sum()
    assert np.dot(slope, np.arange(11)) == pytest.approx(float(rise) / 2e-6, rel=1e-6)


def test_eight_devices_give_the_same(small_net, small):
    graph, others, run = small
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    patched = jnp.asarray(np.arange(len(graph.edges)) % 2, float)
    eight = jax.jit(run)(patched, *jax.device_put((others, small_net.clean), split))
    assert not eight.sharding.is_fully_replicated
    np.testing.assert_allclose(eight, run(patched), atol=1e-12)


@pytest.mark.slow
def test_edges_of_shared_keys_parallel_branches_and_normed_outputs_are_changes_of_what_is_read(random_params):
    model = LanguageModel(
        vocab_size=11, context_length=5, width=8, depth=2, num_heads=4, num_kv_heads=2, gated=True, norm="rms",
        output_norm=True, parallel=True, positions="rotary", mlp_width=8, attention_soft_cap=5.0,
    )  # fmt: skip
    clean, corrupted = np.random.default_rng(0).integers(0, 11, (2, 3, 5))
    params = jax.tree.map(lambda leaf: leaf.astype(float), random_params(model, clean))

    def apply_fn(params, tokens):
        return model.apply({"params": params}, tokens)

    run = contrast(apply_fn, params, clean, lambda y: y[:, -1, 0], corrupted=corrupted)
    effects = dict(zip(run.graph.edges, edge_effects(run), strict=True))
    everything = outcome(run, jnp.ones(len(effects)))
    assert everything == pytest.approx(float(apply_fn(params, corrupted)[:, -1, 0].mean()), abs=1e-12)
    written = jax.jit(capture(apply_fn, ".*/writes_.*"))
    (before, now), (_, other) = written(params, clean), written(params, corrupted)
    change = {name: other[name] - now[name] for name in now}
    heads, mlp = "decoder/block_0/writes_attention", "decoder/block_0/writes_mlp"
    for edge, name, head, added in (
        ("a0.h3->a1.h2<k>", "decoder/block_1/reads_attention_key", 2, change[heads][:, :, 3]),
        ("m0->a1.h1<q>", "decoder/block_1/reads_attention_query", 1, change[mlp]),
        ("input->m1", "decoder/block_1/reads_mlp", None, change["decoder/writes_input"]),
    ):
        by_hand = lambda x, head=head, added=added: x + added if head is None else x.at[:, :, head].add(added)  # noqa: E731
        y = jax.jit(intervene(apply_fn, {name: by_hand}))(params, clean)
        assert effects[edge] == pytest.approx(float((y - before)[:, -1, 0].mean()), abs=1e-12), edge


@pytest.mark.slow
def test_blocks_in_a_scan_are_patched_as_others(random_params):
    model = LanguageModel(vocab_size=11, context_length=5, width=8, depth=2, num_heads=2)
    scanned = model.clone(scan=True, remat="block")
    clean, corrupted = np.random.default_rng(0).integers(0, 11, (2, 3, 5))
    params = jax.tree.map(lambda leaf: leaf.astype(float), random_params(model, clean))
    stacked = params | {"decoder": stack_blocks(params["decoder"])}
    found = [
        edge_effects(contrast(apply_fn, params, clean, lambda y: y[:, -1, 0], corrupted=corrupted))
        for apply_fn, params in (
            (lambda params, x: model.apply({"params": params}, x), params),
            (lambda params, x: scanned.apply({"params": params}, x), stacked),
        )
    ]
    np.testing.assert_allclose(*found, atol=1e-12)
