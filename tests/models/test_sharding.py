"""Compiled for FSDP, a model moves its weights and their gradients, and no activations."""

import jax
import jax.numpy as jnp
import optax
import pytest

from aijax import flops, hlo, models, parallel
from aijax.train import init_state, make_step
from aijax.trees import count_bytes


def compiled_step(model, mesh, images, *inputs):
    """The program of a step of gradient descent, the parameters' shapes, and the FLOPs of its products."""
    optimizer = optax.sgd(0.1)
    x = jax.ShapeDtypeStruct(images, jnp.float32, sharding=parallel.batch_sharding(mesh))
    params = jax.eval_shape(lambda key: models.init(key, model, x, *inputs), jax.random.key(0))

    def loss_fn(params, batch, key):
        return jnp.mean(model.apply({"params": params}, batch, *inputs, train=True) ** 2), {}

    state = jax.eval_shape(lambda params: init_state(params, optimizer), params)
    placed = parallel.state_shardings(mesh, state, params, parallel.parameter_shardings(mesh, params))
    state = jax.tree.map(lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), state, placed)
    step = parallel.on_mesh(make_step(loss_fn, optimizer), mesh)
    lowered = jax.jit(step, out_shardings=(placed, None)).lower(state, x, jax.random.key(0))
    return hlo.read_program(lowered.compile().as_text()), params, flops.count(step, state, x, jax.random.key(0)).model


@pytest.mark.parametrize("scan", [False, True])
def test_fsdp_gathers_weights_and_scatters_gradients_only(scan):
    model = models.ViT(4, 64, 2, 2, 16, pool="gap", scan=scan)
    program, params, _ = compiled_step(model, parallel.make_mesh(data=1, fsdp=8), (256, 32, 32, 3))
    moved = program.collective_bytes
    unit = count_bytes(params) * 7 / 8
    assert moved["all-gather"] < (2.05 if scan else 1.05) * unit
    assert moved["reduce-scatter"] == pytest.approx(unit, rel=0.01)
    assert moved["all-reduce"] < 0.01 * unit
    assert set(moved) == {"all-gather", "reduce-scatter", "all-reduce"}


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 8])
def test_a_unet_does_an_even_share_and_moves_weights_only(fsdp):
    model = models.unet((16, 32), layers=1, attention_levels=(1,), head_width=16)
    mesh = parallel.make_mesh(data=-1, fsdp=fsdp)
    program, params, whole = compiled_step(model, mesh, (64, 16, 16, 3), jnp.float32(0.5))
    assert program.product_flops == pytest.approx(whole / 8, rel=0.02)
    # once forward and once backward, or a sum of gradients to all
    assert sum(program.collective_bytes.values()) < 3 * count_bytes(params) * 7 / 8
