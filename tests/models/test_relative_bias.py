"""Buckets of distances against those of a reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.models.relative_bias import RelativeBias, distance_bucket

DISTANCES = [-200, -128, -127, -64, -50, -20, -16, -9, -8, -7, -1, 0, 1, 7, 8, 9, 16, 20, 50, 64, 127, 128, 200]


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ((32, 128, True), [15, 15, 15, 14, 13, 10, 10, 8, 8, 7, 1, 0, 17, 23, 24, 24, 26, 26, 29, 30, 31, 31, 31]),
        ((32, 128, False), [31, 31, 31, 26, 24, 17, 16, 9, 8, 7, 1] + [0] * 12),
        ((8, 20, True), [3] * 10 + [1, 0, 5] + [7] * 10),
        ((6, 10, False), [5] * 10 + [1] + [0] * 12),
    ],
)
def test_buckets_are_those_of_the_reference(how, wanted):
    np.testing.assert_array_equal(
        jax.jit(distance_bucket, static_argnums=(1, 2, 3))(jnp.array(DISTANCES), *how), wanted
    )


def test_a_bias_depends_on_head_and_distance():
    model = RelativeBias(num_heads=2, num_buckets=8, max_distance=10)
    table = np.arange(16.0).reshape(8, 2)
    bias = model.apply({"params": {"embedding": table}}, jnp.arange(1, 3), jnp.arange(4))
    assert bias.shape == (2, 2, 4)
    for t in (1, 2):
        for s in range(4):
            bucket = int(distance_bucket(jnp.array(s - t), 8, 10))
            np.testing.assert_array_equal(bias[:, t - 1, s], table[bucket])
