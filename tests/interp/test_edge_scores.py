"""Scores of edges by gradients: values of the reference, by hand, and where they are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from aijax.errors import ConfigError, UnsupportedError
from aijax.interp import (
    activation_gradients,
    attention_rescored,
    capture,
    contrast,
    edge_attribution,
    edge_effects,
    integrated_activations,
    integrated_inputs,
    intervene,
    recovery_auc,
    tap,
    writer_scores,
)

CASES = ["eap_attn_only", *(pytest.param(name, marks=pytest.mark.slow) for name in ("eap_gpt2", "eap_trained_a"))]
RNG = np.random.default_rng(0)
X, OTHER = RNG.normal(size=(2, 8, 4, 3))
W = {name: RNG.normal(size=(2, 3, 3)) for name in ("query", "key", "value")} | {"out": RNG.normal(size=3)}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def attend(w, x):
    """Two heads of attention on a stream of 3, [b, t, 3] -> [b, t]."""
    x = tap("writes_input", x)
    each = jnp.stack([x, x], axis=2)
    heads = {
        name: jnp.einsum("bthd,hde->bhte", tap(f"reads_attention_{name}", each), w[name])
        for name in ("query", "key", "value")
    }
    weights = tap("attention/weights", jax.nn.softmax(heads["query"] @ jnp.swapaxes(heads["key"], 2, 3)))
    x = x + tap("writes_attention", jnp.swapaxes(weights @ heads["value"], 1, 2)).sum(2)
    return tap("reads_output", x) @ w["out"]


def last(y):
    return y[:, -1]


def loss(w, x):
    return last(attend(w, x)).mean()


@pytest.fixture(scope="module")
def attending():
    with jax.enable_x64(True):
        return contrast(attend, W, X, last, corrupted=OTHER)


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_the_reference(edge_case, name):
    case = edge_case(name)
    np.testing.assert_allclose(edge_attribution(case.run), case["edge_eap"], **case.tolerance)
    (integrated,) = (key for key in case.arrays if key.startswith("edge_eap_ig"))
    steps = int(integrated.removeprefix("edge_eap_ig"))
    np.testing.assert_allclose(integrated_inputs(case.run, steps=steps), case[integrated], **case.tolerance)


@pytest.mark.slow
def test_saturated_attention_is_found_where_it_is_computed_anew(edge_case):
    case = edge_case("eap_trained_a")
    names = list(case.run.graph.edges)

    def auc(scores):  # of all edges of the reference: those of the MLPs that are not there have no score
        whole = np.zeros(len(case.names))
        whole[case.order] = scores
        return float(recovery_auc(jnp.asarray(whole), case.arrays["true_edges"]))

    rescored = attention_rescored(case.run)
    assert auc(edge_attribution(case.run)) == pytest.approx(float(case["auc_eap"]), abs=1e-9)
    assert auc(integrated_inputs(case.run)) == pytest.approx(float(case["auc_ig"]), abs=1e-9)
    assert auc(edge_effects(case.run)) == 1.0
    assert auc(rescored) > 0.984
    composed = names.index("a0.h0->a1.h0<k>")
    assert abs(edge_attribution(case.run)[composed]) < 0.05 and rescored[composed] < -0.5


def test_rescored_queries_and_keys_are_weights_of_patched_inputs(attending):
    edges, scores = list(attending.graph.edges), attention_rescored(attending)
    _, slopes = activation_gradients(loss, "attention/weights")(W, X)
    weights = jax.jit(capture(attend, "attention/weights"))
    for head, use in ((0, "query"), (1, "key")):
        change = lambda value, head=head: value.at[:, :, head].add(OTHER - X)  # noqa: E731
        run = jax.jit(capture(intervene(attend, {f"reads_attention_{use}": change}), "attention/weights"))
        moved = run(W, X)[1]["attention/weights"] - weights(W, X)[1]["attention/weights"]
        wanted = np.sum(moved * slopes["attention/weights"])
        assert scores[edges.index(f"input->attention.h{head}<{use[0]}>")] == pytest.approx(float(wanted), abs=1e-12)
    value = edges.index("input->attention.h0<v>")
    assert scores[value] == pytest.approx(float(edge_attribution(attending)[value]))


def test_values_and_the_output_are_linear_and_so_exact(attending):
    exact = dict(zip(attending.graph.edges, edge_effects(attending), strict=True))
    for scores in (edge_attribution(attending), integrated_activations(attending, steps=3)):
        found = dict(zip(attending.graph.edges, scores, strict=True))
        for edge in ("input->output", "attention.h0->output", "attention.h1->output"):
            assert found[edge] == pytest.approx(float(exact[edge]), abs=1e-12)
    assert edge_attribution(attending)[0] != pytest.approx(float(edge_effects(attending)[0]), rel=1e-3)


@pytest.mark.slow
def test_integrated_activations_are_means_over_sites_and_steps(attending):
    sites, uses, steps = ("writes_input", "writes_attention"), ("query", "key", "value"), 2
    written = jax.jit(capture(attend, [*sites]))
    now, other = written(W, X)[1], written(W, OTHER)[1]
    slope = dict.fromkeys(uses, 0.0)
    for site in sites:
        for step in (1, 2):
            between = other[site] + step / steps * (now[site] - other[site])
            changed = intervene(loss, {site: lambda value, between=between: between})
            _, found = activation_gradients(changed, "reads_attention_.*")(W, X)
            slope = {use: slope[use] + found[f"reads_attention_{use}"] / (steps * len(sites)) for use in uses}
    ours = dict(zip(attending.graph.edges, integrated_activations(attending, steps=steps), strict=True))
    for use in uses:
        for head in (0, 1):
            wanted = np.sum((OTHER - X) * slope[use][:, :, head])
            assert ours[f"input->attention.h{head}<{use[0]}>"] == pytest.approx(float(wanted), abs=1e-12)


@pytest.mark.slow
def test_dropped_gradients_are_means_of_absolute_scores(attending):
    # one block: without its gradients only the way from the input to the output is left
    scores = dict(zip(attending.graph.edges, attention_rescored(attending, grad_drop=True), strict=True))
    _, slopes = activation_gradients(loss, "reads_output")(W, X)
    wanted = np.abs(np.einsum("btd,btd->b", OTHER - X, slopes["reads_output"])).sum()
    assert scores["input->output"] == pytest.approx(wanted, abs=1e-12)
    assert scores["input->attention.h0<k>"] == 0


@pytest.mark.slow
def test_edges_of_a_writer_sum_to_its_attribution(small_net):
    run = contrast(small_net.apply_fn, small_net.params, small_net.clean, last, corrupted=small_net.corrupted)
    loss = lambda params, x: last(small_net.apply_fn(params, x)).mean()  # noqa: E731
    _, slopes = activation_gradients(loss, "writes_.*")(small_net.params, small_net.clean)
    written = [small_net.by_hand(x)[1] for x in (small_net.corrupted, small_net.clean)]
    totals = dict(zip(run.graph.writers, writer_scores(run.graph, edge_attribution(run)), strict=True))
    change = {name: written[0][name] - written[1][name] for name in written[0]}
    assert totals["m"] == pytest.approx(float(np.sum(change["m"] * slopes["writes_m"])), abs=1e-12)
    assert totals["a.h1"] == pytest.approx(float(np.sum(change["a.h1"] * slopes["writes_a"][:, :, 1])), abs=1e-12)


@pytest.mark.slow
def test_eight_devices_give_the_same(attending):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.device_put((X, OTHER), NamedSharding(mesh, PartitionSpec("data")))
    eight = contrast(attend, W, split[0], last, corrupted=split[1])
    np.testing.assert_allclose(attention_rescored(eight), attention_rescored(attending), atol=1e-12)


def test_what_cannot_be_scored_is_told(small_net, attending):
    run = contrast(small_net.apply_fn, small_net.params, small_net.clean, last, corrupted=small_net.corrupted)
    with pytest.raises(UnsupportedError, match="AtP\\* needs the tap a/weights, which the function has not"):
        attention_rescored(run)
    with pytest.raises(ConfigError, match="steps: expected at least 1, got 0"):
        integrated_inputs(attending, steps=0)
