"""The layers that blocks are made of."""

import jax
import numpy as np

from aijax.models.block_spec import Linear


def test_groups_of_outputs_read_inputs_of_their_own():
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(4, 6)), "bias": rng.normal(size=6)}
    x = rng.normal(size=(2, 5, 4, 4))  # four inputs for two groups of outputs
    with jax.enable_x64(True):
        whole = Linear(6).apply({"params": params}, x)
        found = Linear(6).apply({"params": params}, x, 2)
        assert found.shape == (2, 5, 4, 3)
        np.testing.assert_allclose(found[:, :, :2], whole[:, :, :2, :3], atol=1e-12)
        np.testing.assert_allclose(found[:, :, 2:], whole[:, :, 2:, 3:], atol=1e-12)
