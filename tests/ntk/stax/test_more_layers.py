"""Attention, normalisation, dropout, graphs, resizing, indexing, fixed products: infinite against wide finite networks.

Layers that are linear and act alike on all channels are checked exactly: their kernel is the mean over channels of the
products of their outputs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.ntk import stax

KEY = jax.random.key(0)
X1 = jax.random.normal(jax.random.key(1), (3, 3, 4, 6))
X2 = jax.random.normal(jax.random.key(2), (2, 3, 4, 6))
GRAPHS = jax.random.uniform(jax.random.key(3), (3, 4, 4)), jax.random.uniform(jax.random.key(4), (2, 4, 4))
TABLE = jax.random.normal(jax.random.key(5), (4, 3, 2))

LINEAR = {
    "linear": (stax.ImageResize((-1, 5, 2, -1), "linear"), {}),
    "cubic": (stax.ImageResize((-1, 2, 7, -1), "cubic"), {}),
    "nearest": (stax.ImageResize((-1, 5, 2, -1), "nearest"), {}),
    "examples": (stax.ImageResize((4, -1, 3, -1), "linear"), {}),
    "index": (stax.Index(stax.Slice[:, 1, ::-1]), {}),
    "ellipsis": (stax.Index(stax.Slice[..., 1:3, :]), {}),
    "scalar": (stax.DotGeneral(rhs=2.0), {}),
    "right": (stax.DotGeneral(rhs=TABLE[:, 0], dimension_numbers=(((2,), (0,)), ((), ()))), {}),
    "left": (stax.DotGeneral(lhs=TABLE[:, 0], dimension_numbers=(((0,), (2,)), ((), ()))), {}),
    "batched": (stax.DotGeneral(rhs=TABLE, dimension_numbers=(((2,), (0,)), ((1,), (1,)))), {}),
    "graph": (stax.Aggregate(2), {"pattern": GRAPHS}),
}


@pytest.mark.parametrize("name", list(LINEAR))
@pytest.mark.parametrize("symmetric", [False, True])
def test_linear_layers_have_the_covariance_of_their_outputs(name, symmetric):
    (init_fn, apply_fn, kernel_fn), kwargs = LINEAR[name]
    second = None if symmetric else X2
    pairs = {k: (v[0], v[0] if symmetric else v[1]) for k, v in kwargs.items()}
    kernel = kernel_fn(X1, second, **pairs)
    y1, y2 = (
        apply_fn((), x, **{k: v[i] for k, v in pairs.items()}) for i, x in enumerate((X1, X1 if symmetric else X2))
    )
    assert kernel.shape1 == y1.shape == init_fn(KEY, X1.shape)[0]
    y1, y2 = (jnp.moveaxis(y, (kernel.batch_axis, kernel.channel_axis), (0, -1)) for y in (y1, y2))
    products = jnp.tensordot(y1, y2, ((-1,), (-1,))) / X1.shape[-1]
    rank = y1.ndim - 1
    order = [i + rank * side for i in range(rank) for side in range(2)]
    np.testing.assert_allclose(kernel.nngp, jnp.transpose(products, order), rtol=1e-4, atol=1e-5)
    if symmetric:
        own = jnp.moveaxis(jnp.diagonal(kernel.nngp), -1, 0) if kernel.diagonal_batch else kernel.nngp
        np.testing.assert_allclose(own, kernel.cov1, rtol=1e-4, atol=1e-5)


DIAGONAL = {
    "nearest": stax.ImageResize((-1, 5, 2, -1), "nearest"),
    "examples": stax.ImageResize((4, -1, -1, -1), "linear"),
    "fanned out": stax.DotGeneral(rhs=TABLE[0], dimension_numbers=(((), ()), ((1,), (0,)))),
}


@pytest.mark.parametrize("name", list(DIAGONAL))
def test_maps_from_place_to_place_need_the_diagonal_alone(name):
    whole, diagonal = (DIAGONAL[name][2](X1, X2, diagonal_spatial=spatial) for spatial in (False, True))
    assert diagonal.diagonal_spatial and diagonal.shape1 == whole.shape1
    for found, full in ((diagonal.nngp, whole.nngp), (diagonal.cov1, whole.cov1)):
        first = found.ndim - (whole.nngp.ndim - 2) // 2
        for axis in range(first, found.ndim):
            full = jnp.moveaxis(jnp.diagonal(full, axis1=axis, axis2=axis + 1), -1, axis)
        np.testing.assert_allclose(found, full, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("diagonal_spatial", [False, True])
def test_a_product_may_sum_over_the_examples(diagonal_spatial):
    layer = stax.DotGeneral(rhs=TABLE[:3, 0], dimension_numbers=(((0,), (0,)), ((), ())))
    second = X1[::-1] ** 2
    kernel = layer[2](X1, second, diagonal_spatial=diagonal_spatial)
    y1, y2 = (layer[1]((), x) for x in (X1, second))
    assert kernel.shape1 == y1.shape == (3, 4, 6, 2) and kernel.channel_axis == 2
    spec = "hwcj,hwcj->hwj" if diagonal_spatial else "hwcj,HWcJ->hHwWjJ"
    np.testing.assert_allclose(kernel.nngp, jnp.einsum(spec, y1, y2) / 6, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kernel.cov2, jnp.einsum(spec, y2, y2) / 6, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="batch_axis=0, but the activations"):
        stax.serial(layer, stax.Dense(1))[2](X1)
    with pytest.raises(ConfigError, match="diagonal_batch=True"):
        layer[2](X1, diagonal_batch=True)


def test_sparse_and_dense_graphs_agree():
    edges = jnp.asarray([[[0, 1], [0, 1], [3, 2], [2, -1]]] * 3)
    dense = jnp.zeros((3, 4, 4)).at[:, 0, 1].set(2).at[:, 3, 2].set(1)
    sparse_layer, dense_layer = stax.Aggregate(2, implementation="SPARSE"), stax.Aggregate(2)
    np.testing.assert_allclose(
        sparse_layer[1]((), X1, pattern=edges), dense_layer[1]((), X1, pattern=dense), rtol=1e-5, atol=1e-6
    )
    a = sparse_layer[2](X1, None, "nngp", pattern=(edges, None))
    np.testing.assert_allclose(a, dense_layer[2](X1, None, "nngp", pattern=(dense, None)), rtol=1e-5, atol=1e-6)


def decay(distance):
    return jnp.exp(-distance)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "attention_mechanism": "RELU",
            "pos_emb_type": "SUM",
            "val_pos_emb": True,
            "pos_emb_decay_fn": lambda d: jnp.exp(-d),
        },
        {"attention_mechanism": "ABS", "pos_emb_type": "CONCAT", "n_chan_pos_emb": 256, "b_std": 0.3},
        {"attention_mechanism": "IDENTITY", "linear_scaling": False},
    ],
)
@pytest.mark.slow
def test_attention_of_a_wide_network_has_the_infinite_kernel(options):
    x = jax.random.normal(KEY, (2, 3, 4))
    mask = x.at[1, 2].set(100.0)
    width = 256
    layer = stax.GlobalSelfAttention(
        width, width, width, 16, W_key_std=1.2, W_query_std=0.9, W_pos_emb_std=0.7, **options
    )
    init_fn, apply_fn, kernel_fn = stax.serial(stax.Dense(width), layer)

    @jax.jit
    def sample(key):
        _, params = init_fn(key, mask.shape)
        y = apply_fn(params, mask, mask_constant=100.0)
        y = jnp.where(y.mask, 0, y.masked_value)
        return jnp.einsum("npc,mqc->nmpq", y, y) / width

    estimate = jnp.mean(jax.lax.map(sample, jax.random.split(KEY, 24)), 0)
    exact = kernel_fn(mask, None, "nngp", mask_constant=100.0)
    assert not exact[1, :, 2].any()
    np.testing.assert_allclose(estimate, exact, rtol=0, atol=0.12 * float(jnp.max(jnp.abs(exact))))


def test_dropout_touches_only_what_meets_itself():
    net = stax.serial(stax.Dense(1), stax.Dropout(0.5))
    plain = stax.Dense(1)[2](X1[:, 0], None)
    dropped = net[2](X1[:, 0], None)
    for a, b in ((dropped.nngp, plain.nngp), (dropped.ntk, plain.ntk)):
        same = np.eye(3)[:, :, None, None] * np.eye(4)
        np.testing.assert_allclose(a, np.where(same, 2 * b, b), rtol=1e-6)
    np.testing.assert_allclose(net[2](X1[:, 0], X1[:, 0] + 0).nngp, dropped.nngp, rtol=1e-6)
    kept = stax.Dropout(0.25)[1]((), jnp.ones((100, 100)), rng=KEY)
    assert set(np.unique(kept)) == {0, 4} and abs(kept.mean() - 1) < 0.1
    assert (stax.Dropout(0.5, "test")[1]((), X1) == X1).all()


def test_layer_norm_normalises_and_leaves_padding_out():
    net = stax.serial(stax.Dense(512, 2.0, 0.5), stax.LayerNorm((1, 2)))
    padded = X1[:, 0].at[0, 2:].set(9.0)
    kernel = net[2](padded, mask_constant=9.0)
    np.testing.assert_allclose(jnp.einsum("npp->n", kernel.cov1) / jnp.asarray([2, 4, 4]), 1, rtol=1e-5)
    _, params = net[0](KEY, padded.shape)
    y = net[1](params, padded, mask_constant=9.0)
    y = jnp.where(y.mask, 0, y.masked_value)
    np.testing.assert_allclose((y**2).sum((1, 2)) / 512 / jnp.asarray([2, 4, 4]), 1, rtol=1e-4)


def test_layer_norm_may_take_the_examples_too():
    net = stax.serial(stax.Dense(512, 2.0, 0.5), stax.LayerNorm((0, 1, 2)))
    kernel = net[2](X1[:, 0], 3 * X1[:2, 1])
    for cov in (kernel.cov1, kernel.cov2):
        np.testing.assert_allclose(jnp.mean(jnp.einsum("npp->np", cov)), 1, rtol=1e-5)


def test_aggregate_without_graphs_leaves_everything_as_it_is():
    """As neural-tangents has it, so that one network serves inputs with and without graphs."""
    _, apply_fn, kernel_fn = stax.serial(stax.Dense(1), stax.Aggregate(), stax.Flatten())
    _, plain_fn, plain_kernel_fn = stax.serial(stax.Dense(1), stax.Identity(), stax.Flatten())
    params = stax.serial(stax.Dense(3), stax.Aggregate(), stax.Flatten())[0](jax.random.key(0), X1.shape)[1]
    np.testing.assert_array_equal(apply_fn(params, X1), plain_fn(params, X1))
    for found, expected in zip(
        kernel_fn(X1, None, ("nngp", "ntk")), plain_kernel_fn(X1, None, ("nngp", "ntk")), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_does_not_fit_is_refused():
    dense = stax.Dense(1)
    for run, word in (
        (lambda: stax.Dropout(0.0), "rate"),
        (lambda: stax.Dropout(0.5, "eval"), "mode"),
        (lambda: stax.Dropout(0.5)[1]((), X1), "rng"),
        (lambda: stax.serial(dense, stax.LayerNorm(1))[2](X1), "channel axis"),
        (lambda: stax.serial(dense, stax.Relu(), stax.LayerNorm())[2](X1), "Gaussian"),
        (lambda: stax.ImageResize((-1, 2, 2, -1), "bilnear"), "bilnear"),
        (lambda: stax.ImageResize((-1, 2, 2, 1), "linear")[2](X1), "infinite channels, axis -1, a size"),
        (lambda: stax.Index(stax.Slice[:, :, :, 0])[2](X1), "channel"),
        (lambda: stax.Index(stax.Slice[0])[2](X1), "batch"),
        (lambda: stax.DotGeneral(lhs=1.0, rhs=1.0), "both"),
        (lambda: stax.DotGeneral(rhs=jnp.ones(6), dimension_numbers=(((3,), (0,)), ((), ())))[2](X1), "channel"),
        (lambda: stax.Aggregate(implementation="DENS"), "DENSE"),
        (lambda: stax.Aggregate(2)[1]((), X1, pattern=jnp.ones((3, 3, 3))), "pattern"),
        (lambda: stax.GlobalSelfAttention(1, 1, 0, 1), "n_chan_val"),
        (lambda: stax.GlobalSelfAttention(1, 1, 1, 1, W_key_std=-1.0), "W_key_std=-1.0"),
        (lambda: stax.GlobalSelfAttention(1, 1, 1, 1, attention_mechanism="SOFT"), "SOFTMAX"),
        (lambda: stax.GlobalSelfAttention(1, 1, 1, 1, linear_scaling=False)[2](X1), "closed form"),
        (lambda: stax.GlobalSelfAttention(1, 1, 1, 1, pos_emb_type="ADD"), "pos_emb_type"),
    ):
        with pytest.raises(ConfigError, match=word):
            run()


def test_axes_of_a_product_are_those_of_its_inputs_and_move():
    x = X1[:, 0]
    product = stax.DotGeneral(rhs=TABLE[:, 0], dimension_numbers=(((1,), (0,)), ((), ())))
    _, _, kernel_fn = stax.serial(product, stax.Dense(1, channel_axis=1))
    y = product[1]((), x)
    assert y.shape == (3, 6, 2)
    np.testing.assert_allclose(kernel_fn(x, None, "nngp"), jnp.einsum("acj,bcJ->abjJ", y, y) / 6, rtol=1e-4)
    swapped = product[2](x.swapaxes(0, 2), None, "nngp", batch_axis=2, channel_axis=0)
    np.testing.assert_allclose(swapped, product[2](x, None, "nngp"), rtol=1e-4)
