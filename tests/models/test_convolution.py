"""Convolutions against XLA's own, whose derivatives are those of `lax.conv_general_dilated`; float64."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from aijax import hlo, parallel
from aijax.errors import ConfigError
from aijax.models import convolution
from aijax.models.convolution import Conv, convolve

CASES = {
    "same": ((3, 3), 1, 1),
    "stride": ((3, 3), 2, 1),
    "end": ((3, 3), 2, ((0, 1), (0, 1))),
    "oblong": ((2, 5), (1, 3), ((0, 2), (4, 1))),
    "wide padding": ((2, 2), 2, 3),
    "pixel": ((1, 1), 1, 0),
    "every third": ((1, 1), 3, 0),
}


def reference(x, kernel, *, stride, padding):
    stride = (stride, stride) if isinstance(stride, int) else stride
    padding = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    return jax.lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def arrays(size, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(3, 7, 8, 2))), jnp.asarray(rng.normal(size=(*size, 2, 4)))


@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_of_any_order(x64, case):
    size, stride, padding = CASES[case]
    (x, kernel), (dx, dk) = arrays(size), arrays(size, 1)

    def all_of(convolution):
        def f(x, kernel):
            return convolution(x, kernel, stride=stride, padding=padding)

        def loss(x, kernel):
            return jnp.sum(jnp.sin(f(x, kernel)))

        gradient = jax.grad(loss, (0, 1))
        return [
            f(x, kernel),
            jax.jvp(f, (x, kernel), (dx, dk))[1],
            gradient(x, kernel),
            jax.jvp(gradient, (x, kernel), (dx, dk))[1],
            jax.grad(lambda x, k: sum(jnp.sum(g**2) for g in gradient(x, k)), (0, 1))(x, kernel),
            jax.grad(lambda x, k: jnp.sum(jax.jvp(f, (x, k), (dx, dk))[1] ** 3), (0, 1))(x, kernel),
        ]

    got, want = (jax.jit(lambda c=c: all_of(c))() for c in (convolve, reference))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), got, want)


def on_one_device(function):
    """The function, which here knows that it is compiled for one of the devices that there are."""
    return parallel.on_mesh(function, parallel.make_mesh(devices=jax.devices()[:1]))


@pytest.mark.parametrize(("axes", "where"), [
    ((0, None), on_one_device), ((None, 2), on_one_device), ((3, 0), on_one_device), ((3, 0), lambda f: f),
])  # fmt: skip
def test_copies_of_images_of_kernels_and_of_both(x64, axes, where):
    (x, kernel), (dx, dk) = arrays((3, 3)), arrays((3, 3), 1)
    x = jnp.stack([x, dx], axes[0]) if axes[0] is not None else x
    kernel = jnp.stack([kernel, dk], axes[1]) if axes[1] is not None else kernel

    def all_of(convolution):
        def gradients(x, kernel):
            return jax.grad(lambda x, k: jnp.sum(convolution(x, k, stride=2, padding=1) ** 3), (0, 1))(x, kernel)

        mapped = jax.vmap(gradients, axes)
        return mapped(x, kernel), jax.grad(lambda x, k: sum(jnp.sum(g) for g in mapped(x, k)), (0, 1))(x, kernel)

    got, want = (jax.jit(where(lambda c=c: all_of(c)))() for c in (convolve, reference))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), got, want)


def test_inside_of_shard_map():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    x, kernel = jnp.arange(4 * 4 * 4 * 2.0).reshape(4, 4, 4, 2), jnp.ones((3, 3, 2, 2)) / 9

    def loss(x, kernel):
        return jnp.mean(convolve(x, kernel, padding=1) ** 2)

    def on_part(x, kernel):
        return jax.lax.pmean(loss(x, kernel), "data")

    parts = jax.shard_map(on_part, mesh=mesh, in_specs=(P("data"), P()), out_specs=P())
    got, want = (jax.jit(jax.value_and_grad(f, 1))(x, kernel) for f in (parts, loss))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_images_split_over_devices_stay_where_they_are(monkeypatch, kind):
    monkeypatch.setattr(convolution, "CHUNK_BYTES", 1)  # on one device, one image at a time
    mesh = jax.make_mesh((2, 4), parallel.BATCH_AXES, axis_types=(kind, kind))
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=n), jnp.float32) for n in ((16, 8, 8, 4), (3, 3, 4, 4)))

    def loss(kernel, x):
        def again(x, _):
            return jnp.tanh(convolve(x, kernel, padding=1)), None

        return jnp.mean(jax.lax.scan(jax.checkpoint(again), x, length=2)[0] ** 2)

    gradient = jax.jit(jax.value_and_grad(loss))
    want = jax.jit(on_one_device(jax.value_and_grad(loss)))(kernel, x)
    with jax.set_mesh(mesh) if kind == AxisType.Explicit else contextlib.nullcontext():
        placed = jax.device_put((kernel, x), (NamedSharding(mesh, P()), parallel.batch_sharding(mesh)))
        compiled = gradient.lower(*placed).compile()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), compiled(*placed), want)
    program = hlo.read_program(compiled.as_text())
    assert set(program.collectives) == {"all-reduce"}
    assert program.collective_bytes["all-reduce"] < 2 * 2 * (kernel.nbytes + 8)  # a sum of kernels for each convolution
    assert program.product_flops == 2 * 4 * 16 // 8 * 2 * 22**2 * 4 * 4  # two of 2 pixels x taps: there, again, dx, dk


def test_chunks_of_images_add_up_and_half_precision_sums_in_single(monkeypatch):
    monkeypatch.setattr(convolution, "CHUNK_BYTES", 2 * 36 * 2 * 4)
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.normal(size=(6, 6, 6, 2)), jnp.float32) for _ in range(2))

    def gradient(x, g):
        return jax.linear_transpose(lambda k: convolve(x, k, padding=1), jnp.zeros((3, 3, 2, 2), x.dtype))(g)[0]

    def plain(x, g):
        return jax.linear_transpose(lambda k: reference(x, k, stride=1, padding=1), jnp.zeros((3, 3, 2, 2), x.dtype))(
            g
        )[0]

    want = plain(x, g)
    assert "length=3" in str(jax.make_jaxpr(lambda: convolution._kernel_gradient_by_chunks(
        x, g, size=(3, 3), stride=(1, 1), dilation=(1, 1), padding=((1, 1), (1, 1)), cut=True))())  # fmt: skip
    gradient = jax.jit(on_one_device(gradient))
    np.testing.assert_allclose(gradient(x, g), want, rtol=1e-4, atol=1e-4)
    half = gradient(x.astype(jnp.bfloat16), g.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), want, rtol=0.1, atol=0.5)


def test_module_has_published_parameters():
    variables = Conv(4, (3, 2), zero=True).init(jax.random.key(0), jnp.ones((1, 5, 5, 2)))
    assert jax.tree.map(jnp.shape, variables["params"]) == {"kernel": (3, 2, 2, 4), "bias": (4,)}
    assert not variables["params"]["kernel"].any()


@pytest.mark.parametrize(
    ("kernel", "options", "told"),
    [
        (np.ones((3, 3, 3, 4)), {}, "kernel: expected"),
        (np.ones((3, 3, 2, 4), np.float16), {}, "kernel: expected"),
        (np.ones((9, 3, 2, 4)), {"padding": ((0, 1), (0, 0))}, "kernel: expected one no larger than"),
        (np.ones((3, 3, 2, 4)), {"stride": 0}, "stride"),
    ],
)
def test_what_cannot_be_used_is_named(kernel, options, told):
    with pytest.raises(ConfigError, match=told):
        convolve(np.ones((3, 7, 8, 2)), kernel, **options)
