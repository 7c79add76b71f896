"""Convolutions and pooling: the infinite layer is what the finite one does to covariances, exactly."""

import itertools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax.ntk import stax

sys.path.insert(0, str(Path(__file__).parent))

from build import compiled


@pytest.fixture(autouse=True)
def double():
    """Float64 in this file."""
    with jax.enable_x64(True):
        yield


def covariance(shape, seed=0) -> np.ndarray:
    """Inputs of one channel per feature and their positions' covariance `(P, P')`, by example."""
    return np.random.RandomState(seed).randn(*shape)


def linear_map(apply_fn, params, spatial) -> np.ndarray:
    """The matrix of a layer with one input and one output channel, positions flattened."""
    basis = np.eye(int(np.prod(spatial))).reshape(-1, *spatial, 1)
    return np.asarray(apply_fn(params, basis)).reshape(len(basis), -1).T


def flat(covariances, spatial: int) -> np.ndarray:
    """`(n1, n2, H, H', W, W')` as `(n1, n2, HW, H'W')`."""
    order = (0, 1, *(2 + 2 * i for i in range(spatial)), *(3 + 2 * i for i in range(spatial)))
    c = np.transpose(covariances, order)
    return c.reshape(*c.shape[:2], int(np.prod(c.shape[2 : 2 + spatial])), -1)


def single_taps(shape):
    """The filters that have one tap, as `(*shape, 1, 1)`."""
    for index in itertools.product(*map(range, shape)):
        w = np.zeros((*shape, 1, 1))
        w[index] = 1
        yield w


def check_shared(make, size, filter_shape, strides, padding):
    init_fn, apply_fn, kernel_fn = compiled(make(1, filter_shape, strides, padding))
    x = covariance((2, *size, 3))
    before = flat(stax.Identity()[2](x, get="nngp"), len(size))
    expected = 0
    for w in single_taps(filter_shape):
        a = linear_map(apply_fn, (w, None), size)
        expected = expected + a @ before @ a.T
    kernel = kernel_fn(x)
    assert kernel.shape1 == init_fn(jax.random.key(0), x.shape)[0]
    np.testing.assert_allclose(flat(kernel.nngp, len(size)), expected, atol=1e-12)
    diagonal = kernel_fn(x, get="nngp", diagonal_spatial=True)
    own = np.diagonal(expected, axis1=2, axis2=3)
    np.testing.assert_allclose(diagonal.reshape(own.shape), own, atol=1e-12)
    np.testing.assert_allclose(kernel.cov1, kernel.nngp[np.arange(2), np.arange(2)], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "size", "filter_shape", "strides", "padding"),
    [
        ("Conv", (5, 4), (3, 2), (2, 1), "SAME"),
        ("Conv", (5,), (2,), (3,), "VALID"),
        ("Conv", (4, 5), (3, 4), (1, 3), "CIRCULAR"),
        ("ConvTranspose", (3, 2), (2, 3), (3, 2), "SAME"),
        ("ConvTranspose", (4,), (3,), (2,), "VALID"),
        ("ConvTranspose", (3, 2), (3, 5), (2, 1), "CIRCULAR"),
    ],
)
def test_convolution_of_covariances_is_the_mean_over_its_taps(name, size, filter_shape, strides, padding):
    check_shared(getattr(stax, name), size, filter_shape, strides, padding)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["Conv", "ConvTranspose"]),
    st.sampled_from(["SAME", "VALID", "CIRCULAR"]),
    st.lists(st.tuples(st.integers(3, 6), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3),
)
def test_convolution_of_covariances_of_any_shape(name, padding, axes):
    size, filter_shape, strides = zip(*axes, strict=True)
    with jax.enable_x64(True):
        check_shared(getattr(stax, name), size, filter_shape, strides, padding)


@pytest.mark.parametrize("padding", ["SAME", "VALID", "CIRCULAR"])
def test_unshared_weights_leave_positions_independent(padding):
    init_fn, apply_fn, kernel_fn = compiled(stax.ConvLocal(1, (2, 3), (1, 2), padding))
    x = covariance((2, 4, 5, 3))
    shape, (w, _) = init_fn(jax.random.key(0), (1, 4, 5, 1))
    before = flat(stax.Identity()[2](x, get="nngp"), 2)
    expected = 0
    for tap in range(6):
        one = np.zeros(w.shape)
        one[:, :, tap] = 1
        a = linear_map(apply_fn, (one, None), (4, 5))
        expected = expected + np.diagonal(a @ before @ a.T, axis1=2, axis2=3)
    np.testing.assert_allclose(kernel_fn(x, get="nngp").reshape(expected.shape), expected, atol=1e-12)
    full = flat(kernel_fn(x, get="nngp", diagonal_spatial=False), 2)
    np.testing.assert_allclose(full, expected[..., None] * np.eye(expected.shape[-1]), atol=1e-12)
    assert shape[1:3] == init_fn(jax.random.key(0), x.shape)[0][1:3]


@pytest.mark.parametrize(
    ("kind", "size", "window", "strides", "padding"),
    [
        ("mean", (5, 4), (3, 2), (2, 1), "SAME"),
        ("edges", (5, 4), (3, 2), (2, 1), "SAME"),
        ("mean", (5,), (2,), (2,), "VALID"),
        ("sum", (4, 5), (3, 2), (1, 3), "CIRCULAR"),
    ],
)
def test_pooling_maps_both_copies_of_each_axis(kind, size, window, strides, padding):
    if kind == "sum":
        layer = stax.SumPool(window, strides, padding)
    else:
        layer = stax.AvgPool(window, strides, padding, normalize_edges=kind == "edges")
    x = covariance((2, *size, 3))
    a = linear_map(layer[1], (), size)
    expected = a @ flat(stax.Identity()[2](x, get="nngp"), len(size)) @ a.T
    np.testing.assert_allclose(flat(layer[2](x, get="nngp"), len(size)), expected, atol=1e-12)


def test_pooling_after_unshared_weights_needs_the_diagonal_only():
    x = covariance((2, 6, 5, 3))
    for pool in (stax.AvgPool((2, 2), padding="SAME", normalize_edges=True), stax.GlobalSumPool()):
        layers = [stax.ConvLocal(1, (2, 2)), pool, stax.Flatten()]
        kernel_fn = compiled(stax.serial(*layers))[2]
        full = kernel_fn(x, diagonal_spatial=False)
        np.testing.assert_allclose(kernel_fn(x).nngp, full.nngp, atol=1e-12)


@pytest.mark.parametrize("spec", [("NCHW", "OIHW", "NCHW"), ("HWNC", "HWIO", "CNHW"), ("NHWC", "WHIO", "NHWC")])
def test_axes_of_activations_may_be_in_any_order(spec):
    def net(spec):
        at = [spec[2].index(c) for c in "NC"]
        filter_shape = {"H": 2, "W": 3}
        strides = {"H": 1, "W": 2}
        letters = [c for c in spec[1] if c in "HW"]
        return stax.serial(
            stax.Conv(4, [filter_shape[c] for c in letters], [strides[c] for c in letters], "SAME", 1.3, 0.1, spec),
            stax.Relu(),
            stax.AvgPool((2, 1), batch_axis=at[0], channel_axis=at[1]),
        )

    x = covariance((2, 4, 5, 3))
    standard = ("NHWC", "HWIO", "NHWC")
    expected = compiled(net(standard))[2](x)
    layers = compiled(net(spec))
    y = np.transpose(x, ["NHWC".index(c) for c in spec[0]])
    kernel = layers[2](y)
    assert kernel.shape1 == layers[0](jax.random.key(0), y.shape)[0]
    np.testing.assert_allclose(kernel.ntk, expected.ntk, atol=1e-12)
    np.testing.assert_allclose(kernel.cov1, expected.cov1, atol=1e-12)


def test_spatial_axes_that_the_output_permutes_are_permuted_in_the_kernel():
    x = covariance((2, 4, 5, 3))
    as_is = stax.Conv(1, (2, 3), None, "SAME")[2](x, get="nngp")
    turned = stax.Conv(1, (2, 3), None, "SAME", dimension_numbers=("NHWC", "HWIO", "NWHC"))[2](x, get="nngp")
    np.testing.assert_allclose(turned, jnp.transpose(as_is, (0, 1, 4, 5, 2, 3)), atol=1e-12)


def test_a_convolution_without_spatial_axes_is_a_dense_layer():
    x = covariance((3, 4))
    for param in ("ntk", "standard"):
        conv = stax.Conv(5, (), W_std=1.3, b_std=0.2, parameterization=param)
        dense = stax.Dense(5, 1.3, 0.2, parameterization=param)
        np.testing.assert_allclose(conv[2](x, get="ntk"), dense[2](x, get="ntk"), rtol=1e-12)
        shape, params = conv[0](jax.random.PRNGKey(0), x.shape)
        assert shape == conv[1](params, x).shape == (3, 5)


@pytest.mark.parametrize("b_std", [None, 0.0, 0.3])
def test_standard_parameterization_scales_gradients_with_the_true_fan_in(b_std):
    x = covariance((2, 6))
    net = stax.serial(
        stax.Dense(4, 1.3, b_std, parameterization="standard", s=(1, 3)),
        stax.Dense(5, 1.1, b_std, parameterization="standard", s=(3, 1)),
    )
    k0 = x @ x.T / 6
    b, bias = (0, 0) if b_std is None else (b_std, 1)
    k1, t1 = 1.3**2 * k0 + b**2, 6 * k0 + bias
    kernel = net[2](x)
    np.testing.assert_allclose(kernel.nngp, 1.1**2 * k1 + b**2, rtol=1e-12)
    np.testing.assert_allclose(kernel.ntk, 4 * k1 + 1.1**2 * t1 + bias, rtol=1e-12)
    assert jax.tree.map(jnp.shape, net[0](jax.random.key(0), (2, 6))[1][0])[0] == (6, 12)


@pytest.mark.parametrize(
    "layer",
    [
        stax.Dense(3, 1.3, 0.4),
        stax.Conv(3, (2, 2), (1, 2), "SAME", 1.3, 0.4, parameterization="standard"),
        stax.ConvTranspose(3, (2, 2), (1, 2), "CIRCULAR", 1.3, 0.4),
        stax.ConvLocal(3, (2, 2), None, "VALID", 1.3, 0.4, parameterization="standard"),
    ],
    ids=lambda layer: layer[0].__name__,
)
def test_the_tangent_kernel_of_one_layer_is_that_of_the_finite_one(layer):
    """Without a nonlinearity it does not depend on the weights."""
    x = covariance((2, 3, 4, 2))
    init_fn, apply_fn, kernel_fn = compiled(layer)
    params = init_fn(jax.random.key(0), x.shape)[1]
    jacobian = jax.jit(jax.jacrev(lambda params: apply_fn(params, x)[..., 0]))(params)
    rows = np.concatenate([np.reshape(j, (*j.shape[:3], -1)) for j in jax.tree.leaves(jacobian)], -1)
    empirical = np.einsum("ahwp,bgvp->abhgwv", rows, rows)
    np.testing.assert_allclose(kernel_fn(x, get="ntk", diagonal_spatial=False), empirical, atol=1e-12)


@pytest.mark.parametrize("size, filter_shape, stride", [(2, 4, 1), (3, 4, 2), (4, 3, 1), (2, 2, 3)])
def test_a_circular_transposed_convolution_is_the_transpose(size, filter_shape, stride):
    fields = {
        "filter_shape": (filter_shape,),
        "strides": (stride,),
        "padding": "CIRCULAR",
        "parameterization": "standard",
    }
    _, transposed, _ = stax.ConvTranspose(4, **fields)
    _, convolution, _ = stax.Conv(3, **fields)
    w, y = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(filter_shape, 3, 4), (2, size, 3)]))
    backwards = jnp.flip(jnp.swapaxes(w, 1, 2), 0)
    _, transpose = jax.vjp(lambda x: convolution((backwards, 0.0), x), jnp.zeros((2, size * stride, 4)))
    np.testing.assert_allclose(transposed((w, 0.0), y), transpose(y)[0], rtol=1e-5, atol=1e-5)


def test_axes_of_the_inputs_may_be_said_on_a_call():
    x = jax.random.normal(jax.random.key(0), (3, 2, 5))
    other = jax.random.normal(jax.random.key(1), (2, 4))
    _, _, kernel_fn = stax.DotGeneral(rhs=other, dimension_numbers=(((1,), (0,)), ((), ())), batch_axis=2)
    found = kernel_fn(x, None, "nngp", batch_axis=2, channel_axis=0)
    products = jnp.einsum("cdn,de->cne", x, other)
    np.testing.assert_allclose(found, jnp.einsum("cne,cmf->nmef", products, products) / 3, rtol=1e-5)
