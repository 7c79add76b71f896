"""Which edges a circuit keeps: pruning, the best by score, ACDC."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax.errors import ConfigError
from aijax.interp import acdc, contrast, outcomes, prune_edges, residual_graph, top_edges


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def graph(small_net):
    return residual_graph(small_net.apply_fn, small_net.params, small_net.clean)


@pytest.fixture(scope="module")
def pruned(graph):
    return jax.jit(lambda kept: prune_edges(graph, kept))


@settings(max_examples=25, deadline=None)
@given(kept=st.lists(st.booleans(), min_size=11, max_size=11))
def test_what_is_left_lies_on_paths(graph, pruned, kept):
    names = [edge for edge, one in zip(graph.edges, kept, strict=True) if one]
    ends = [(edge.split("->")[0], edge.split("->")[1].split("<")[0]) for edge in names]

    def paths(to, seen=()):
        if to == "input":
            yield ()
        for number, (writer, reader) in enumerate(ends):
            if reader == to:
                yield from ((number, *path) for path in paths(writer))

    on_paths = {names[number] for path in paths("output") for number in path}
    left = {edge for edge, one in zip(graph.edges, pruned(jnp.asarray(kept)), strict=True) if one}
    assert left == on_paths


def test_the_best_are_the_largest(graph):
    scores = jnp.asarray([3.0, -1, 0, 0, 2, 0, 0, -9, 0, 5, 4])
    best = jax.jit(lambda number: top_edges(graph, scores, number))
    names = lambda number: [edge for edge, one in zip(graph.edges, best(number), strict=True) if one]  # noqa: E731
    assert names(1) == ["input->output"]
    assert names(3) == ["input->output"]  # edges from what is not reached dangle
    assert names(5) == ["input->m", "input->output", "m->output"]  # nor does what is not used


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scored"), [("eap_gpt2", "ig5"), ("eap_trained_a", "ig10"), ("eap_trained_a", "eap")])
def test_behaviour_of_the_best_is_that_of_the_reference(edge_case, name, scored):
    case = edge_case(name)
    key = "topn_performance" if name == "eap_gpt2" else f"topn_{scored.removesuffix('10')}"
    scores = case["edge_eap" if scored == "eap" else f"edge_eap_{scored}"]
    count = len(scores)
    kept = jax.vmap(lambda number: top_edges(case.run.graph, scores, number))(case[key][:, 0])
    np.testing.assert_allclose(outcomes(case.run, 1.0 - kept), case[key][:, 2], **case.tolerance)
    few = case[key][:, 0] <= np.sum(np.asarray(scores) != 0)  # then none of the MLPs that are not there is among them
    np.testing.assert_array_equal(kept.sum(-1)[few], case[key][few, 1])
    assert kept[-1].sum() == count


def test_acdc_drops_what_changes_little_from_the_output_on(small_net):
    last = lambda y: y[:, -1]  # noqa: E731
    run = contrast(small_net.apply_fn, small_net.params, small_net.clean, last, corrupted=small_net.corrupted)
    _, others = small_net.by_hand(small_net.corrupted)
    by_hand = lambda patched: small_net.by_hand(small_net.clean, others, patched)[0][:, -1]  # noqa: E731
    whole, patched, now, wanted = by_hand(()), set(), 0.0, {}
    for edge in reversed(run.graph.edges):
        then = np.abs(by_hand(patched | {edge}) - whole).mean()
        wanted[edge] = then - now
        if then - now < 1.5:
            patched, now = patched | {edge}, then
    kept, growth = acdc(run, 1.5)
    np.testing.assert_allclose(growth, [wanted[edge] for edge in run.graph.edges], atol=1e-12)
    left = prune_edges(run.graph, jnp.asarray([edge not in patched for edge in run.graph.edges]))
    np.testing.assert_array_equal(kept, left)
    assert 0 < kept.sum() < 11
    with pytest.raises(ConfigError, match="divergence: expected a number, got"):
        acdc(run, 1.5, divergence=lambda y, whole: y - whole)
    squares = acdc(run, 1e9, divergence=lambda y, whole: jnp.mean((y - whole)[:, -1] ** 2))[1]
    assert squares[-1] == pytest.approx(np.mean((by_hand({run.graph.edges[-1]}) - whole) ** 2))
