"""Norms: what parts of a sum are of its norm."""

import jax
import numpy as np
import pytest

from aijax.models.norms import LayerNorm, NoNorm, RMSNorm, shares


@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm, NoNorm])
def test_shares_sum_to_the_norm_but_for_its_bias(kind):
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(2, 5, 3, 8))
    x = parts.sum(-2) + rng.normal(size=8)  # a bias that is of no part
    scale, bias = rng.normal(size=(2, 8))
    params = {LayerNorm: {"scale": scale, "bias": bias}, RMSNorm: {"scale": scale}, NoNorm: {}}[kind]
    with jax.enable_x64(True):
        whole, each = kind().apply(
            {"params": params}, x, parts, method=lambda layer, x, y: (layer(x), shares(layer, x, y))
        )
        assert each.shape == parts.shape
        np.testing.assert_allclose(each.sum(-2), whole - params.get("bias", 0.0), atol=1e-12)
