"""Pivoted Cholesky factors against the greedy choice in NumPy, and what blocks of candidates keep of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax import linalg
from aijax.errors import ConfigError
from aijax.linalg.low_rank import (
    apply_root,
    apply_root_transpose,
    low_rank_log_determinant,
    low_rank_root,
    solve_root,
    solve_root_transpose,
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def smooth(n, seed=0):
    """A kernel matrix of n points on a line: its eigenvalues fall fast."""
    x = np.random.default_rng(seed).uniform(size=n)
    return np.exp(-0.5 * (x[:, None] - x) ** 2 / 0.1**2)


def greedy(a, rank):
    """The factor and pivots, one column at a time."""
    left, columns, pivots = a.copy(), [], []
    for _ in range(rank):
        i = int(np.argmax(np.diag(left)))
        columns.append(left[:, i] / np.sqrt(left[i, i]))
        left = left - np.outer(columns[-1], columns[-1])
        pivots.append(i)
    return np.array(columns).T, pivots


def factorise(a, rank, **options):
    a = jnp.asarray(a)
    return jax.jit(lambda a: linalg.pivoted_cholesky(lambda i: a[:, i], jnp.diagonal(a), rank, **options))(a)


def test_every_pivot_is_the_greedy_one():
    a = smooth(40)
    result, (factor, pivots) = factorise(a, 8), greedy(a, 8)
    assert result.pivots.tolist() == pivots
    np.testing.assert_allclose(result.factor, factor, atol=1e-9)
    np.testing.assert_allclose(result.diagonal, np.diag(a - factor @ factor.T), atol=1e-12)


@pytest.mark.parametrize("block", [1, 4, 7])
def test_blocks_of_candidates_give_a_factor_as_good(block):
    a = smooth(200)
    result = factorise(a, 16, block=block)
    factor, pivots = np.asarray(result.factor), np.asarray(result.pivots)
    assert int(result.count) == 16 and len(set(pivots.tolist())) == 16
    np.testing.assert_allclose(np.triu(factor[pivots], 1), 0, atol=1e-12)
    np.testing.assert_allclose((factor @ factor.T)[pivots], a[pivots], atol=1e-9)
    left = a - factor @ factor.T
    assert np.linalg.eigvalsh(left).min() > -1e-10
    np.testing.assert_allclose(result.diagonal, np.diag(left), atol=1e-10)
    assert np.trace(left) < 3 * np.trace(a - np.matmul(*(lambda f: (f, f.T))(greedy(a, 16)[0]))) + 1e-9


def test_a_matrix_of_low_rank_ends_the_search():
    half = np.random.default_rng(1).normal(size=(30, 4))
    result = factorise(half @ half.T, 10, block=3)
    assert int(result.count) == 4
    np.testing.assert_allclose(result.factor @ result.factor.T, half @ half.T, atol=1e-9)
    assert not np.asarray(result.factor)[:, 4:].any()
    nothing = factorise(np.zeros((5, 5)), 3)
    assert int(nothing.count) == 0 and not np.asarray(nothing.factor).any()


def test_it_maps_over_batches_and_takes_float32():
    many = jnp.stack([jnp.asarray(smooth(20, seed), jnp.float32) for seed in range(3)])
    factors = jax.vmap(lambda a: linalg.pivoted_cholesky(lambda i: a[:, i], jnp.diagonal(a), 20, block=4).factor)(many)
    assert factors.dtype == jnp.float32
    np.testing.assert_allclose(factors @ jnp.swapaxes(factors, 1, 2), many, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6), st.integers(0, 100), st.floats(0.1, 1e3))
def test_the_root_of_the_identity_and_a_low_rank(rank, seed, size):
    rng = np.random.default_rng(seed)
    factor, v = size * rng.normal(size=(8, rank)), rng.normal(size=(8, 2))
    root = low_rank_root(jnp.asarray(factor))
    matrix = np.eye(8) + factor @ factor.T
    scale = np.abs(matrix).max()
    np.testing.assert_allclose(apply_root(root, apply_root_transpose(root, v)), matrix @ v, atol=1e-11 * scale)
    np.testing.assert_allclose(solve_root(root, apply_root(root, v)), v, atol=1e-11 * scale)
    np.testing.assert_allclose(solve_root_transpose(root, apply_root_transpose(root, v)), v, atol=1e-11 * scale)
    np.testing.assert_allclose(low_rank_log_determinant(root), np.linalg.slogdet(matrix)[1], rtol=1e-10)


def test_mistakes_are_told_in_a_sentence():
    a = jnp.eye(3)
    with pytest.raises(ConfigError, match="rank: expected at most the dimension 3, got 4"):
        linalg.pivoted_cholesky(lambda i: a[:, i], jnp.ones(3), 4)
    with pytest.raises(ConfigError, match="diagonal: expected floating numbers"):
        linalg.pivoted_cholesky(lambda i: a[:, i], jnp.ones(3, int), 2)
    with pytest.raises(ConfigError, match="block"):
        linalg.pivoted_cholesky(lambda i: a[:, i], jnp.ones(3), 2, block=0)
