"""Recursions in blocks give what they give in one piece, whatever the cut; small matrices in lanes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.linalg.block_scan import lanes_first, lanes_last, prefixes, run, summarise
from aijax.linalg.lanes import cholesky_semidefinite, multiply, multiply_transposed, transpose_multiply


def affine(matrices, offsets, block_length, parallel, reverse):
    """`x <- A x + b`, all x."""

    def step(state, x):
        # a step filled up with zeros leaves the state as it is
        a, b, real = x
        following = jnp.where(real > 0, multiply(a, state[:, None])[:, 0] + b, state)
        return following, following

    def absorb(element, x):
        return jnp.where(x[2] > 0, multiply(x[0], element[0]), element[0]), step(element[1], x)[0]

    def combine(first, second):
        (a1, b1), (a2, b2) = first, second
        return a2 @ a1, (a2 @ b1[..., None])[..., 0] + b2

    xs = matrices, offsets, jnp.ones(len(offsets))
    start = jnp.eye(2), jnp.array([1.0, -1.0])
    elements = lanes_first(summarise(absorb, (jnp.eye(2), jnp.zeros(2)), xs, block_length, reverse=reverse))
    before, total = prefixes(combine, start, elements, parallel=parallel, reverse=reverse)
    return run(step, lanes_last(before[1]), xs, block_length, reverse=reverse), total[1]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("block_length, parallel", [(1, True), (3, True), (4, False), (11, False)])
def test_any_cut_gives_the_plain_recursion(block_length, parallel, reverse):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        matrices, offsets = rng.normal(size=(11, 2, 2)), rng.normal(size=(11, 2))
        state, expected = np.array([1.0, -1.0]), np.zeros((11, 2))
        for i in reversed(range(11)) if reverse else range(11):
            state = expected[i] = matrices[i] @ state + offsets[i]
        got, last = affine(jnp.asarray(matrices), jnp.asarray(offsets), block_length, parallel, reverse)
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        np.testing.assert_allclose(last, state, rtol=1e-12)


def test_products_in_lanes():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 3, 5)).astype(np.float32)
    np.testing.assert_allclose(multiply(a, b), np.einsum("ikl,kjl->ijl", a, b), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(multiply_transposed(a, b), np.einsum("ikl,jkl->ijl", a, b), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(transpose_multiply(a, b), np.einsum("kil,kjl->ijl", a, b), rtol=1e-5, atol=1e-6)


def test_semidefinite_factors_of_any_rank_and_scale():
    with jax.enable_x64(True):
        half = np.random.default_rng(0).normal(size=(4, 4, 3))
        half[:, 2:, 1] = 0
        half[:, :, 2] = 0
        half *= np.array([1.0, 1e-3, 1e-9, 10.0])[:, None, None]
        a = np.einsum("ikl,jkl->ijl", half, half)
        factor = cholesky_semidefinite(jnp.asarray(a))
        scale = np.sqrt(np.einsum("iil,jjl->ijl", a, a))
        np.testing.assert_allclose(np.einsum("ikl,jkl->ijl", factor, factor), a, atol=1e-14 * scale.max())
        assert (np.triu(np.moveaxis(factor, -1, 0), 1) == 0).all()
        assert (np.asarray(factor)[..., 2] == 0).all()
