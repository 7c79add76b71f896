"""Rollout and the largest flow against references, and flow against the smallest cut of all."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax.errors import DataError
from aijax.interp.information_flow import attention_flow, attention_rollout


@pytest.mark.parametrize("number", [0, 2])
def test_rollout_and_flow_are_those_of_the_reference(golden, number):
    with np.load(golden / f"science/interp/attention_flow_{number}.npz") as stored:
        case = dict(stored)
    with jax.enable_x64(True):
        np.testing.assert_allclose(attention_rollout(case["patterns"]), case["rollout"], rtol=1e-8)
    np.testing.assert_allclose(attention_flow(case["patterns"]), case["flow"], rtol=1e-8)
    np.testing.assert_allclose(attention_flow(case["patterns"], positions=[1]), case["flow"][1:2], rtol=1e-8)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_the_largest_flow_is_the_smallest_cut(seed, layers):
    """Over all sets of nodes that hold the source and not the sink (Ford and Fulkerson 1956)."""
    rng, length = np.random.default_rng(seed), 2
    patterns = rng.dirichlet([0.4] * length, (layers, 1, length))
    capacities = (patterns[:, 0] + np.eye(length)) / 2
    for source, sink in itertools.product(range(length), repeat=2):
        best = np.inf
        free = [(l, i) for l in range(layers + 1) for i in range(length) if (l, i) not in ((layers, source), (0, sink))]
        for chosen in itertools.product([False, True], repeat=len(free)):
            side = dict(zip(free, chosen, strict=True)) | {(layers, source): True, (0, sink): False}
            cut = sum(
                capacities[l, i, j]
                for l in range(layers) for i in range(length) for j in range(length)
                if side[l + 1, i] and not side[l, j]
            )  # fmt: skip
            best = min(best, cut)
        assert attention_flow(patterns, positions=[source])[0, sink] == pytest.approx(best, abs=1e-12)


def test_rollout_goes_over_examples():
    weights = jax.nn.softmax(jax.random.normal(jax.random.key(0), (3, 2, 4, 5, 5)))
    rolled = attention_rollout(weights)
    np.testing.assert_allclose(rolled[:, 1], attention_rollout(weights[:, 1]), rtol=1e-5)
    np.testing.assert_allclose(rolled.sum(-1), 1, rtol=1e-5)


def test_bad_input_is_told():
    with pytest.raises(
        DataError, match=r"attention_weights: expected \[layers, heads, length, length\], got \[2, 3, 4\]"
    ):
        attention_rollout(np.ones((2, 3, 4)))
    with pytest.raises(DataError, match="residual: expected a share from 0 to 1, got 2"):
        attention_rollout(np.eye(2)[None, None], residual=2)
    with pytest.raises(DataError, match=r"positions: expected numbers from 0 to 1, got \[2\]"):
        attention_flow(np.eye(2)[None, None], positions=[2])
