"""Group norm against Flax's, with derivatives, and in half precision."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.models.group_norm import GroupNorm, normalize_groups


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (2, 5, 6)])
def test_matches_flax(x64, shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(3 + rng.normal(size=shape))
    variables = {"params": {"scale": jnp.asarray(rng.normal(size=6)), "bias": jnp.asarray(rng.normal(size=6))}}

    def all_of(layer):
        def loss(variables, x):
            return jnp.sum(jnp.sin(layer.apply(variables, x)))

        return layer.apply(variables, x), jax.grad(loss, (0, 1))(variables, x)

    ours, theirs = GroupNorm(3, 1e-5), nn.GroupNorm(3, epsilon=1e-5, use_fast_variance=False)
    got, want = (jax.jit(lambda layer=layer: all_of(layer))() for layer in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), got, want)


def test_activated_and_told_a_scale_and_a_shift_with_second_derivatives(x64):
    rng = np.random.default_rng(1)
    x, tangent = jnp.asarray(rng.normal(size=(2, 2, 3, 4, 6)))
    variables = {"params": {"scale": jnp.asarray(rng.normal(size=6)), "bias": jnp.asarray(rng.normal(size=6))}}
    scale, shift = jnp.asarray(rng.normal(size=(2, 2, 6)))

    def ours(x, scale, shift):
        return GroupNorm(3, 1e-5, nn.silu).apply(variables, x, (scale, shift))

    def theirs(x, scale, shift):
        y = nn.GroupNorm(3, epsilon=1e-5, use_fast_variance=False).apply(variables, x)
        return nn.silu(y * (1 + scale[:, None, None]) + shift[:, None, None])

    def all_of(f):
        gradient = jax.grad(lambda *arrays: jnp.sum(jnp.sin(f(*arrays))), (0, 1, 2))
        return f(x, scale, shift), jax.jvp(lambda x: gradient(x, scale, shift), (x,), (tangent,))

    got, want = (jax.jit(lambda f=f: all_of(f))() for f in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), got, want)


def test_a_large_mean_costs_no_digits():
    x = 1e3 + jax.random.normal(jax.random.key(0), (1, 64, 4))
    y = normalize_groups(x, jnp.ones(4), jnp.zeros(4), 2, 0.0)
    np.testing.assert_allclose(y.reshape(64, 2, 2).std((0, 2)), 1.0, rtol=1e-4)


def test_half_precision_in_and_out():
    x = jnp.ones((1, 2, 4), jnp.bfloat16)
    y, variables = GroupNorm(2, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    assert variables["params"]["scale"].dtype == jnp.float32


def test_groups_that_do_not_divide_the_channels():
    with pytest.raises(ConfigError, match="norm_num_groups: expected a divisor of 4 channels, got 3"):
        normalize_groups(jnp.ones((1, 2, 4)), jnp.ones(4), jnp.zeros(4), 3, 0.0)
