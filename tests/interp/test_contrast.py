"""Behaviours and the exact effects of edges: values of the reference, by hand, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError, DataError
from aijax.interp import contrast, edge_effects, outcome, outcomes

CASES = ["eap_attn_only", *(pytest.param(name, marks=pytest.mark.slow) for name in ("eap_gpt2", "eap_trained_a"))]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def last(y):
    return y[:, -1]


@pytest.mark.parametrize("name", CASES)
def test_effects_are_those_of_the_reference(edge_case, name):
    case = edge_case(name)
    count = len(case.run.graph.edges)
    ends = outcomes(case.run, jnp.asarray([[0.0], [1.0]]) * jnp.ones(count))
    np.testing.assert_allclose(ends, [case["metric_clean"], case["metric_corrupted"]], **case.tolerance)
    np.testing.assert_allclose(edge_effects(case.run, batch_size=7), case["edge_exact"], **case.tolerance)


def test_within_a_circuit_only_its_edges_have_effects(small_net):
    run = contrast(small_net.apply_fn, small_net.params, small_net.clean, last, corrupted=small_net.corrupted)
    kept = np.arange(11) % 3 > 0
    _, others = small_net.by_hand(small_net.corrupted)

    def by_hand(kept):
        patched = {edge for edge, one in zip(run.graph.edges, kept, strict=True) if not one}
        return small_net.by_hand(small_net.clean, others, patched)[0][:, -1].mean()

    wanted = [by_hand(kept & (np.arange(11) != edge)) - by_hand(kept) for edge in range(11)]
    np.testing.assert_allclose(edge_effects(run, kept), wanted, atol=1e-12)


def test_without_corrupted_inputs_edges_carry_means_or_nothing(small_net):
    _, written = small_net.by_hand(small_net.clean)
    edges = ("input->m", "a.h1->output")
    for ablation, other in (("mean", lambda value: value.mean(0)), ("zero", np.zeros_like)):
        run = contrast(small_net.apply_fn, small_net.params, small_net.clean, last, ablation=ablation)
        patched = jnp.asarray([edge in edges for edge in run.graph.edges], float)
        others = {name: np.broadcast_to(other(value), value.shape) for name, value in written.items()}
        wanted = small_net.by_hand(small_net.clean, others, edges)[0][:, -1].mean()
        assert outcome(run, patched) == pytest.approx(wanted, abs=1e-12)


def test_a_target_may_be_one_number_and_the_function_compiled(small_net):
    args = small_net.params, small_net.clean
    one = contrast(jax.jit(small_net.apply_fn), *args, lambda y: y[:, -1].mean(), corrupted=small_net.corrupted)
    each = contrast(small_net.apply_fn, *args, last, corrupted=small_net.corrupted)
    patched = jnp.arange(11.0) / 10
    assert outcome(one, patched) == pytest.approx(float(outcome(each, patched)))


def test_what_cannot_be_contrasted_is_told(small_net):
    def made(target=last, **options):
        return contrast(small_net.apply_fn, small_net.params, small_net.clean, target, **options)

    with pytest.raises(DataError, match=r"corrupted: expected the shape of inputs, float64\[8, 4, 3\].*equal length"):
        made(corrupted=small_net.corrupted[:, :3])
    with pytest.raises(DataError, match="corrupted: expected the tree of inputs"):
        made(corrupted={"x": small_net.corrupted})
    with pytest.raises(
        ConfigError, match=r"target_behavior: expected a number, or one for each of 8 examples, got float64\[8, 4\]"
    ):
        made(lambda y: y)
    with pytest.raises(ConfigError, match=r"target_behavior: expected a number.*int"):
        made(lambda y: y[:, -1].argmax())
    with pytest.raises(ConfigError, match="target_behavior: it does not depend on any edge"):
        made(lambda y: jnp.ones(8))
    with pytest.raises(ConfigError, match="ablation: unknown value 'means'; did you mean 'mean'"):
        made(ablation="means")
    with pytest.raises(ConfigError, match="batch_size: expected at least 1, got 0"):
        edge_effects(made(ablation="zero"), batch_size=0)
    with pytest.raises(DataError, match="inputs: the mean over one example is the example"):
        contrast(small_net.apply_fn, small_net.params, small_net.clean[:1], last)
