"""What compiled programs tell of products and collectives, against what was put into them."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from aijax import flops, hlo


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))


def shape(mesh, partition, *sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=NamedSharding(mesh, P(*partition)))


def read(function, *arguments, **how):
    return hlo.read_program(jax.jit(function, **how).lower(*arguments).compile().as_text())


def test_a_loop_counts_as_often_as_it_turns():
    x, weights = jnp.ones((16, 32)), jnp.ones((5, 32, 32))

    def loop(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    assert read(loop, x, weights).product_flops == 5 * 2 * 16 * 32 * 32


def test_convolutions_agree_with_the_count_on_the_jaxpr():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    x, kernel = jnp.ones((2, 9, 8, 3)), jnp.ones((3, 3, 3, 5))
    assert read(convolve, x, kernel).product_flops == flops.count(convolve, x, kernel).model


def test_fsdp_gathers_weights_and_scatters_gradients(mesh):
    def gradient(weights, x):
        def loss(weights):
            y = jnp.tanh(x @ weights)
            return jnp.sum(jax.lax.with_sharding_constraint(y, NamedSharding(mesh, P("fsdp"))) ** 2)

        return jax.grad(loss)(weights)

    weights, x = shape(mesh, ("fsdp",), 64, 128), shape(mesh, ("fsdp",), 512, 64)
    program = read(gradient, weights, x, out_shardings=weights.sharding)
    share = 64 * 128 * 4 * 7 // 8
    assert program.product_flops == 2 * 2 * 512 * 64 * 128 // 8
    assert program.collective_bytes == {"all-gather": share, "reduce-scatter": share}


def test_a_sum_that_is_kept_whole_is_an_all_reduce(mesh):
    program = read(lambda x: x.sum(0), shape(mesh, ("fsdp",), 8, 1000), out_shardings=NamedSharding(mesh, P()))
    assert program.collective_bytes == {"all-reduce": 2 * 4000 * 7 // 8}
    assert program.collectives == {"all-reduce": 1}


def test_groups_are_read_in_every_notation():
    head = "ENTRY %main (p: f32[2]) -> f32[8] {\n  %p = f32[2]{0} parameter(0)\n"
    for groups in (
        "replica_groups={{0,1,2,3},{4,5,6,7}}",
        "replica_groups=[2,4]<=[8]",
        "replica_groups=mesh['a'=2,'b'=4] {'b'}",
    ):
        assert hlo.read_program(f"{head}  ROOT %a = f32[8]{{0}} all-gather(%p), {groups}\n}}\n").collective_bytes == {
            "all-gather": 24
        }
