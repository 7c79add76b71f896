"""Norms of channels are Flax's, bit by bit, and what they divide by can be looked at and held."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.interp import capture, intervene
from aijax.models.norms import LayerNorm, NoNorm, RMSNorm


class Within(nn.Module):
    """A norm that has a name."""

    norm: type

    @nn.compact
    def __call__(self, x):
        return self.norm(epsilon=1e-5, name="norm")(x)


@pytest.mark.parametrize(("ours", "theirs"), [(LayerNorm, nn.LayerNorm), (RMSNorm, nn.RMSNorm)])
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
@pytest.mark.parametrize("kind", [jnp.float32, jnp.bfloat16])
def test_values_are_those_of_flax(ours, theirs, dtype, kind):
    x = (3 * jax.random.normal(jax.random.key(0), (2, 5, 16)) + 1).astype(kind)
    params = theirs().init(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jnp.arange(16), params)
    assert jax.tree.structure(ours().init(jax.random.key(0), x)) == jax.tree.structure(params)
    found, wanted = (module(epsilon=1e-5, dtype=dtype).apply(params, x) for module in (ours, theirs))
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found.astype(jnp.float32), wanted.astype(jnp.float32))


@pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
def test_the_divisor_can_be_held(norm):
    x, model = jax.random.normal(jax.random.key(0), (3, 4)), Within(norm)
    params = model.init(jax.random.key(1), x)
    y, values = capture(model.apply, ["norm/divisor", "norm/normalized"])(params, x)
    centred = x - x.mean(-1, keepdims=True) if norm is LayerNorm else x
    np.testing.assert_allclose(values["norm/divisor"] ** 2, (centred**2).mean(-1, keepdims=True) + 1e-5, rtol=1e-5)
    np.testing.assert_allclose(values["norm/normalized"], y, rtol=1e-6)
    held = intervene(model.apply, {"norm/divisor": jnp.ones_like})(params, x)
    np.testing.assert_allclose(held, centred, rtol=1e-5, atol=1e-6)


def test_no_norm_is_the_identity():
    assert NoNorm().apply({}, 3.0) == 3.0


@pytest.mark.parametrize(("ours", "theirs"), [(LayerNorm, nn.LayerNorm), (RMSNorm, nn.RMSNorm)])
def test_derivatives_of_both_modes_are_those_of_flax(ours, theirs):
    with jax.enable_x64(True):
        x, dx = jax.random.normal(jax.random.key(0), (2, 3, 5, 16))
        params = theirs().init(jax.random.key(0), x)
        params = jax.tree.map(lambda leaf: leaf + 0.3 * jnp.arange(16), params)

        def curvature(module):
            def slope(x):
                return jax.grad(lambda p, x: (module(epsilon=1e-5).apply(p, x) ** 3).sum(), (0, 1))(params, x)

            return jax.jvp(slope, (x,), (dx,))

        found, wanted = curvature(ours), curvature(theirs)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, wanted)
