"""Smooth resampling against the sum that defines it, with zeros around the image."""

import jax.numpy as jnp
import numpy as np

from aijax.models.resampling import smooth_down, smooth_up

FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def test_filters_of_even_and_odd_images():
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3))
    around = np.pad(x, [(0, 0), (1, 2), (1, 2), (0, 0)])
    half = np.array([[np.einsum("ij,bijc->bc", FILTER, around[:, 2 * k : 2 * k + 4, 2 * m : 2 * m + 4])
                      for m in range(3)] for k in range(2)])  # fmt: skip
    np.testing.assert_allclose(smooth_down(jnp.asarray(x)), half.transpose(2, 0, 1, 3), atol=1e-6)

    sparse = np.zeros((2, 10 + 3, 12 + 3, 3))
    sparse[:, 2:12:2, 2:14:2] = x
    double = np.array([[4 * np.einsum("ij,bijc->bc", FILTER, sparse[:, k : k + 4, m : m + 4])
                        for m in range(12)] for k in range(10)])  # fmt: skip
    np.testing.assert_allclose(smooth_up(jnp.asarray(x)), double.transpose(2, 0, 1, 3), atol=1e-6)
