import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import losses, parallel
from aijax.errors import ConfigError

SOFTMAX = (losses.softmax_contrastive_loss, losses.ring_softmax_contrastive_loss)
SIGMOID = (losses.sigmoid_contrastive_loss, losses.ring_sigmoid_contrastive_loss)


def mesh_of(count):
    return parallel.make_mesh(data=count, devices=jax.devices()[:count])


@pytest.mark.parametrize("name", ["contrastive_loss/c0", pytest.param("contrastive_loss/c2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_values_and_gradients_are_the_references_on_any_mesh(case, name, kind):
    about, arrays = case(name)
    scalars = (about["scale"],) if kind == "clip" else (about["scale"], about["bias"])
    dense, ring = SOFTMAX if kind == "clip" else SIGMOID
    with jax.enable_x64(True):
        image, text = jnp.asarray(arrays["image"]), jnp.asarray(arrays["text"])
        meshes = [None] + [mesh_of(count) for count in (2, 8)]
        losses_of = [dense] + [functools.partial(ring, mesh=mesh, block_rows=2) for mesh in meshes]
        for loss in losses_of:

            def of_raw(x, y, loss=loss):
                return loss(losses.normalize(x), losses.normalize(y), *scalars)

            value, grads = jax.jit(jax.value_and_grad(of_raw, argnums=(0, 1)))(image, text)
            np.testing.assert_allclose(value, arrays[f"{kind}_loss"], atol=1e-12)
            np.testing.assert_allclose(grads[0], arrays[f"{kind}_grad_image"], atol=1e-12)
            np.testing.assert_allclose(grads[1], arrays[f"{kind}_grad_text"], atol=1e-12)


@pytest.mark.parametrize("pair", [SOFTMAX, SIGMOID])
def test_scale_and_bias_learn_alike_with_blocks_that_do_not_divide(pair):
    dense, ring = pair
    image, text = losses.normalize(jax.random.normal(jax.random.key(0), (2, 20, 6)))
    scalars = (jnp.float32(7.0),) if pair is SOFTMAX else (jnp.float32(7.0), jnp.float32(-3.0))
    mesh = parallel.make_mesh(data=2, fsdp=2, devices=jax.devices()[:4])
    want = jax.value_and_grad(dense, argnums=range(2, 2 + len(scalars)))(image, text, *scalars)

    def in_program(*arguments):  # the mesh of the program is taken where none is given
        return ring(*arguments, block_rows=3)

    program = parallel.on_mesh(jax.value_and_grad(in_program, argnums=range(2, 2 + len(scalars))), mesh)
    sharding = parallel.batch_sharding(mesh)
    got = jax.jit(program)(jax.device_put(image, sharding), jax.device_put(text, sharding), *scalars)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


def test_second_derivatives_pass_the_ring():
    image, text = losses.normalize(jax.random.normal(jax.random.key(0), (2, 8, 3)))
    mesh = mesh_of(2)

    def curvature(loss, **options):
        gradient = jax.grad(lambda x: loss(x, text, 5.0, **options))
        return jax.jit(lambda x: jax.jvp(gradient, (x,), (text,))[1])(image)

    for dense, ring in (SOFTMAX, SIGMOID):
        np.testing.assert_allclose(curvature(ring, mesh=mesh, block_rows=2), curvature(dense), atol=1e-5)


def test_normalize_has_no_nan_at_zero():
    grad = jax.grad(lambda x: losses.normalize(x).sum())(jnp.zeros((2, 3)))
    assert not np.any(grad)


@pytest.mark.parametrize("ring", [SOFTMAX[1], SIGMOID[1]])
def test_what_cannot_be_compared_is_refused(ring):
    with pytest.raises(ConfigError, match=r"features: expected pairs of shape \[b, d\], got \[4, 2\] and \[4, 3\]"):
        ring(jnp.ones((4, 2)), jnp.ones((4, 3)))
    with pytest.raises(ConfigError, match="6 pairs cannot be split over data x fsdp = 4 devices"):
        ring(jnp.ones((6, 2)), jnp.ones((6, 2)), mesh=mesh_of(4))
    with pytest.raises(ConfigError, match="block_rows: expected a number of rows"):
        ring(jnp.ones((6, 2)), jnp.ones((6, 2)), block_rows=0)


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "scalars"), [(SOFTMAX, (14.3,)), (SIGMOID, (10.0, -10.0))])
def test_a_batch_of_8192_on_eight_devices_takes_little_memory(pair, scalars):
    """With the whole matrix 71 MB a device; here the value and the gradients of the dense loss in less than half."""
    image, text = losses.normalize(jax.random.normal(jax.random.key(0), (2, 8192, 128)))
    mesh = mesh_of(8)
    dense, ring = (jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnames="mesh") for loss in pair)
    placed = jax.device_put((image, text), parallel.batch_sharding(mesh))
    compiled = ring.lower(*placed, *scalars, mesh=mesh).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 30e6
    (value, grads), (whole, whole_grads) = compiled(*placed, *scalars), dense(image, text, *scalars)
    np.testing.assert_allclose(value, whole, rtol=3e-7)
    for got, want in zip(grads, whole_grads, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-8, rtol=0)
