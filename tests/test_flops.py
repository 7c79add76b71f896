"""Counts by hand, and what must count alike: scanned and unrolled, a convolution and its gradients."""

import functools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from aijax import flops, models
from aijax.models.convolution import convolve


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def vit_ti(**fields):
    model = models.vit("Ti/16", num_classes=1000, **fields)
    x = shape(1, 224, 224, 3)
    params = jax.eval_shape(lambda key: models.init(key, model, x), jax.random.key(0))

    def loss(params, x):
        return (model.apply({"params": params}, x) ** 2).sum()

    return flops.count(loss, params, x), flops.count(jax.grad(loss), params, x)


@pytest.fixture(scope="module")
def looped():
    return vit_ti(pool="gap", scan=False)


def test_vit_ti_by_hand():
    tokens, width, hidden, depth = 197, 192, 768, 12
    keys_and_values = 2 * tokens * width**2

    def block(wanted):
        return keys_and_values + wanted * (2 * width**2 + 2 * tokens * width + 2 * width * hidden)

    products = 196 * 768 * width + (depth - 1) * block(tokens) + block(1) + width * 1000
    forward, backward = vit_ti(scan=False)
    assert forward.model == 2 * products
    assert vit_ti(scan=True)[0].model == 2 * (products + block(tokens) - block(1))
    assert forward.model == pytest.approx(2.33e9, rel=2e-3)
    assert backward.model == 3 * forward.model - 2 * 196 * 768 * width  # images need no gradient
    assert 1 < forward.total / forward.model < 1.02


def test_scanned_is_unrolled(looped):
    assert vit_ti(pool="gap", scan=True) == looped


def test_remat_counts_what_it_computes_again(looped):
    forward, backward = looped
    _, again = vit_ti(pool="gap", scan=True, remat="block")
    assert backward.model < again.model < backward.model + forward.model
    assert vit_ti(pool="gap", scan=False, remat="block")[1].model == again.model


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=4, max_size=4))
def test_products_of_matrices(sizes):
    b, m, k, n = sizes
    counted = flops.count(lambda x, y: jnp.einsum("bmk,bkn->bmn", x, y), shape(b, m, k), shape(b, k, n))
    assert counted.by_primitive == {"dot_general": 2 * b * m * k * n}


def test_elementwise_reductions_and_integers():
    x = shape(3, 5)
    assert flops.count(lambda x: jnp.exp(x) + 1, x).total == 30
    assert flops.count(lambda x: x.sum(0), x).total == 10
    assert flops.count(lambda x: x.reshape(5, 3).T[1:], x).total == 0
    assert flops.count(lambda x: x * 2 + x.sum(), shape(3, 5, dtype=jnp.int32)).total == 0
    assert flops.count(lambda x: jnp.cumsum(x, 0), x).total == 15
    assert flops.count(lambda x: x @ x.T, shape(3, 5, dtype=jnp.complex64)).total == 8 * 3 * 5 * 3


def test_what_is_not_used_is_not_counted():
    def function(x):
        jnp.exp(x)
        return jax.jit(lambda x: (x * 2, x @ x.T))(x)[0]

    assert flops.count(function, shape(3, 5)).by_primitive == {"mul": 15}


def test_control_flow():
    x = shape(4, 4)
    branches = flops.count(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x + 1, x), x)
    assert branches.model == 2 * 2 * 64
    unknown = flops.count(lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, x), x)
    assert (unknown.model, unknown.uncounted) == (128, ("while",))
    known = flops.count(lambda x: jax.lax.fori_loop(0, 7, lambda i, x: x @ x, x), x)
    assert (known.model, known.uncounted) == (7 * 128, ())


def test_custom_derivatives_and_factorisations():
    @jax.custom_vjp
    def square(x):
        return x @ x

    square.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))
    x = shape(4, 4)
    assert flops.count(square, x).model == 128
    assert flops.count(jax.grad(lambda x: square(x).sum()), x).model == 2 * 128
    assert flops.count(jnp.linalg.cholesky, shape(6, 6)).by_primitive["cholesky"] == 72
    assert flops.count(jnp.linalg.eigh, x).uncounted == ("eigh",)


def test_shard_map_counts_each_device():
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    function = jax.shard_map(
        lambda x, w: x @ w, mesh=mesh, in_specs=(P(("data", "fsdp")), P()), out_specs=P(("data", "fsdp"))
    )
    assert flops.count(function, shape(16, 3), shape(3, 5)).model == 2 * 16 * 3 * 5


def test_convolutions_by_hand():
    def count(x, kernel, **how):
        numbers = ("NHWC", "HWIO", "NHWC")
        convolve = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=numbers, **how)
        return flops.count(convolve, x, kernel).model

    same = {"window_strides": (1, 1), "padding": "SAME"}
    assert count(shape(2, 8, 8, 4), shape(3, 3, 4, 6), window_strides=(1, 1), padding="VALID") == 2 * 2 * 36 * 9 * 4 * 6
    assert count(shape(2, 8, 8, 4), shape(3, 3, 4, 6), **same) == 2 * 2 * 22**2 * 4 * 6
    assert count(shape(2, 8, 8, 4), shape(3, 3, 2, 6), feature_group_count=2, **same) == 2 * 2 * 22**2 * 2 * 6


@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(5, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.sampled_from(("SAME", "VALID")),
    groups=st.sampled_from((1, 2)),
)
def test_a_convolution_and_its_gradients_count_alike(size, kernel, stride, padding, groups):
    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (stride,), padding, dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=groups
        )

    x, w = shape(2, size, 4), shape(kernel, 4 // groups, 6)
    forward = flops.count(convolve, x, w).model
    for argument in (0, 1):
        gradient = flops.count(jax.grad(lambda x, w: convolve(x, w).sum(), argument), x, w)
        assert gradient.by_primitive["conv_general_dilated"] == forward


def test_convolutions_of_models_count_as_those_of_jax():
    def count(convolve):
        return flops.count(jax.grad(lambda x, w: convolve(x, w).sum(), (0, 1)), shape(2, 7, 8, 3), shape(3, 3, 3, 5))

    assert count(lambda x, w: convolve(x, w, stride=2, padding=1)) == count(
        lambda x, w: jax.lax.conv_general_dilated(
            x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )
