"""Compiled for FSDP, a model moves its weights and their gradients, and no activations."""

import jax
import jax.numpy as jnp
import optax
import pytest

from aijax import hlo, models, parallel
from aijax.train import init_state, make_step
from aijax.trees import count_bytes


@pytest.mark.parametrize("scan", [False, True])
def test_fsdp_gathers_weights_and_scatters_gradients_only(scan):
    model = models.ViT(4, 64, 2, 2, 16, pool="gap", scan=scan)
    mesh = parallel.make_mesh(data=1, fsdp=8)
    optimizer = optax.sgd(0.1)
    x = jax.ShapeDtypeStruct((256, 32, 32, 3), jnp.float32, sharding=parallel.batch_sharding(mesh))
    params = jax.eval_shape(lambda key: models.init(key, model, x), jax.random.key(0))

    def loss_fn(params, batch, key):
        return jnp.mean(model.apply({"params": params}, batch, train=True) ** 2), {}

    state = jax.eval_shape(lambda params: init_state(params, optimizer), params)
    placed = parallel.state_shardings(mesh, state, params, parallel.parameter_shardings(mesh, params))
    state = jax.tree.map(lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), state, placed)
    step = parallel.on_mesh(make_step(loss_fn, optimizer), mesh)
    compiled = jax.jit(step, out_shardings=(placed, None)).lower(state, x, jax.random.key(0)).compile()
    moved = hlo.read_program(compiled.as_text()).collective_bytes
    unit = count_bytes(params) * 7 / 8
    assert moved["all-gather"] < (2.05 if scan else 1.05) * unit
    assert moved["reduce-scatter"] == pytest.approx(unit, rel=0.01)
    assert moved["all-reduce"] < 0.01 * unit
    assert set(moved) == {"all-gather", "reduce-scatter", "all-reduce"}
