"""Curves of circuits by size: each number by hand; areas; the chance that a wanted edge comes first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax.errors import ConfigError, DataError
from aijax.interp import circuit_curves, contrast, edge_effects, prune_edges, recovery_auc

RECOVERY = jax.jit(recovery_auc)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def run(small_net):
    with jax.enable_x64(True):
        last = lambda y: y[:, -1]  # noqa: E731
        return contrast(small_net.apply_fn, small_net.params, small_net.clean, last, corrupted=small_net.corrupted)


def test_each_number_is_as_by_hand(run, small_net):
    scores = edge_effects(run)
    curves = circuit_curves(jax.random.key(0), run, scores, sizes=(2, 5, 11), draws=2, probes=11)
    _, others = small_net.by_hand(small_net.corrupted)

    def behaviour(kept):
        patched = {edge for edge, one in zip(run.graph.edges, kept, strict=True) if not one}
        return small_net.by_hand(small_net.clean, others, patched)[0][:, -1].mean()

    whole, none = behaviour(np.ones(11)), behaviour(np.zeros(11))
    f = lambda kept: (behaviour(kept) - none) / (whole - none)  # noqa: E731
    assert curves.whole == pytest.approx(whole) and curves.none == pytest.approx(none)
    order = np.argsort(-np.abs(scores), kind="stable")
    for place, size in enumerate((2, 5, 11)):
        kept = np.asarray(prune_edges(run.graph, jnp.zeros(11, bool).at[order[:size]].set(True)))
        assert curves.best.kept[place] == kept.sum()
        assert curves.best.faithfulness[place] == pytest.approx(f(kept))
        assert curves.best.completeness[place] == pytest.approx(1 - f(~kept))
        without = [abs(f(kept) - f(kept & (np.arange(11) != edge))) for edge in np.flatnonzero(kept)]
        assert curves.best.minimality[place] == pytest.approx(np.mean(without) if without else 0.0)
    share, values = np.array([0, 2, 5, 11]) / 11, np.concatenate([[0], curves.best.faithfulness])
    assert curves.cpr == pytest.approx(np.trapezoid(values, share))
    assert curves.cmd == pytest.approx(np.trapezoid(np.abs(1 - values), share))
    assert curves.random.faithfulness.shape == (2, 3)
    np.testing.assert_allclose(curves.random.faithfulness[:, -1], 1.0)


@settings(max_examples=20, deadline=None)
@given(
    scores=st.lists(st.integers(-4, 4), min_size=9, max_size=9),
    wanted=st.lists(st.booleans(), min_size=9, max_size=9).filter(lambda rows: 0 < sum(rows) < 9),
)
def test_the_chance_is_that_of_all_pairs(scores, wanted):
    ours = RECOVERY(np.asarray(scores, float), np.asarray(wanted))
    pairs = np.subtract.outer(np.abs(scores)[wanted], np.abs(scores)[np.logical_not(wanted)])
    assert ours == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def test_what_has_no_curve_is_told(run, small_net):
    key, scores = jax.random.key(0), jnp.arange(11.0)
    with pytest.raises(ConfigError, match=r"sizes: expected ascending numbers of edges from 1 to 11, got \[3, 2\]"):
        circuit_curves(key, run, scores, sizes=(3, 2))
    with pytest.raises(ConfigError, match="draws: expected at least 1, got 0"):
        circuit_curves(key, run, scores, draws=0)
    same = contrast(
        small_net.apply_fn, small_net.params, small_net.clean, lambda y: y[:, -1], corrupted=small_net.clean
    )
    with pytest.raises(DataError, match=r"target_behavior: it is .* with all edges patched and with none"):
        circuit_curves(key, same, scores, sizes=(2, 5, 11), draws=2, probes=11)
