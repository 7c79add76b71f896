"""Attention a few images at a time against attention at once, in float64."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from aijax import hlo, parallel
from aijax.models import attend
from aijax.models.attention import attend as reference


def test_values_and_derivatives_one_image_at_a_time(x64, monkeypatch):
    monkeypatch.setattr(attend, "CHUNK_BYTES", 1)
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(3, n, 2, 4))) for n in (5, 6, 6))

    def all_of(f):
        def loss(*arrays):
            return jnp.sum(jnp.sin(f(*arrays)))

        tangents = query, key, value
        return f(query, key, value), jax.grad(loss, (0, 1, 2))(*tangents), jax.jvp(f, tangents, tangents)[1]

    def on_one_device(f):
        return parallel.on_mesh(f, parallel.make_mesh(devices=jax.devices()[:1]))

    assert "scan" in str(jax.make_jaxpr(on_one_device(attend.attend_to_many))(query, key, value))
    got, want = (
        jax.jit(on_one_device(lambda f=f: all_of(f)))()
        for f in (attend.attend_to_many, lambda *arrays: reference(*arrays, causal=False))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), got, want)


def test_scores_beyond_the_range_of_exponentials_and_half_precision():
    query = jnp.array([[[[300.0]], [[-300.0]]]])
    value = jnp.array([[[[1.0]], [[2.0]]]])
    np.testing.assert_allclose(attend.attend_to_many(query, query, value), value)
    half = attend.attend_to_many(*(a.astype(jnp.bfloat16) for a in (query, query, value)))
    assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_images_split_over_devices_stay_where_they_are(monkeypatch, kind):
    monkeypatch.setattr(attend, "CHUNK_BYTES", 1)
    mesh = jax.make_mesh((2, 4), parallel.BATCH_AXES, axis_types=(kind, kind))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6, 2, 4)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(attend.attend_to_many(x, 2 * x, x)))))
    with jax.set_mesh(mesh) if kind == AxisType.Explicit else contextlib.nullcontext():
        placed = jax.device_put(x, parallel.batch_sharding(mesh))
        compiled = gradient.lower(placed).compile()
    np.testing.assert_allclose(compiled(placed), gradient(x), rtol=1e-5, atol=1e-6)
    program = hlo.read_program(compiled.as_text())
    assert not program.collectives
    assert program.product_flops == 6 * 2 * 2 * 6 * 6 * 4  # six products for two heads of one image
