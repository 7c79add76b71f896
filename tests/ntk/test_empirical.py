"""Empirical kernels: against reference values, and every way against the Jacobian by brute force in 64 bits."""

import functools

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from aijax.errors import ConfigError
from aijax.ntk import empirical_nngp, empirical_ntk

OPTIONS = ({}, {"diagonal": True}, {"trace_outputs": True}, {"diagonal": True, "trace_outputs": True})
CONTRACTIONS = ("auto", "jacobian", "autodiff", "vector_products", "structured")


def close(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    assert np.abs(np.asarray(ours) - theirs).max() <= tolerance * np.abs(theirs).max()


def brute(apply_fn, params, x1, x2):
    """The kernel [n1, n2, o, p] from the whole Jacobians."""
    vector, unravel = ravel_pytree(params)
    jacobian = jax.jacrev(lambda v, x: apply_fn(unravel(v), x))
    one, two = jacobian(vector, x1), jacobian(vector, x2)
    return jnp.einsum("i...v,j...v->ij...", one, two) if one.ndim == 2 else jnp.einsum("iov,jpv->ijop", one, two)


def test_reference_values(empirical_case, quick):
    apply_fn, params, _, arrays, tolerance = empirical_case
    with jax.enable_x64(True):
        x1, x2 = arrays["x1"], arrays["x2"]
        ours = quick(lambda p, x1, x2: empirical_ntk(apply_fn, p, x1, x2), params, x1, x2)
        close(ours, arrays["ntk_full_12"], tolerance)
        kernel = functools.partial(empirical_ntk, apply_fn)
        full, diagonal, traced, both = quick(lambda p, x: [kernel(p, x, **options) for options in OPTIONS], params, x1)
        close(full, arrays["ntk_full_11"], tolerance)
        close(diagonal, np.einsum("ii...->i...", arrays["ntk_full_11"]), tolerance)
        close(empirical_nngp(apply_fn, params, x1, x2), arrays["nngp_full_12"], tolerance)
        if arrays["f1"].ndim == 2:
            close(traced, arrays["ntk_trace_11"], tolerance)
            close(both, arrays["ntk_diagbatch_11"], tolerance)
            close(empirical_nngp(apply_fn, params, x1, x2, trace_outputs=True), arrays["nngp_trace_12"], tolerance)


@pytest.mark.parametrize("contraction", CONTRACTIONS[1:])
@pytest.mark.parametrize("empirical_case", ["empirical_spatial_output", "empirical_mlp_ntkparam"], indirect=True)
def test_reference_values_each_way(empirical_case, contraction, quick):
    apply_fn, params, _, arrays, tolerance = empirical_case
    with jax.enable_x64(True):
        x1, x2 = arrays["x1"], arrays["x2"]
        ours = quick(lambda p, *x: empirical_ntk(apply_fn, p, *x, contraction=contraction), params, x1, x2)
        close(ours, arrays["ntk_full_12"], tolerance)


@jax.custom_jvp
def cubed(x):
    return x**3


@cubed.defjvp
def _(primals, tangents):
    return primals[0] ** 3, 3 * primals[0] ** 2 * tangents[0]


@jax.custom_vjp
def scaled_product(x, w):
    return 0.5 * x @ w


scaled_product.defvjp(
    lambda x, w: (scaled_product(x, w), (x, w)), lambda kept, g: (0.5 * g @ kept[1].T, 0.5 * kept[0].T @ g)
)

WIDTH, TOKENS = 4, 3


def _dense(p, h):
    return jnp.tanh(h @ p["a"] + p["b"])


def _transposed(p, h):
    return h @ (0.7 * p["a"]).T / 1.5 - p["b"]


def _attention(p, h):
    q, k = h @ p["a"], h @ p["c"]
    return jax.nn.softmax(q @ k.swapaxes(-1, -2)) @ h


def _convolution(p, h):
    w = p["c"].reshape(1, WIDTH, WIDTH)
    w = jnp.concatenate([w, p["a"][None]])
    return jax.lax.conv_general_dilated(h, w, (1,), [(1, 0)], dimension_numbers=("NWC", "WIO", "NWC"))


def _depthwise(p, h):
    w = p["a"][:2, None]  # [2, 1, width]
    numbers = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(h, w, (1,), [(0, 1)], dimension_numbers=numbers, feature_group_count=WIDTH)


def _recurrent(p, h):
    def step(carry, x):
        carry = jnp.tanh(carry @ p["a"] + x @ p["c"] + p["b"])
        return carry, carry

    return jax.lax.scan(step, h[:, 0], h.swapaxes(0, 1), reverse=True)[1].swapaxes(0, 1)


def _layers(p, h):
    layers = {"w": jnp.stack([p["a"], p["c"]]), "b": p["b"] * jnp.ones((2, 1))}
    step = jax.checkpoint(lambda h, layer: h + jnp.tanh(h @ layer["w"] + layer["b"]))
    return jax.lax.scan(lambda h, layer: (step(h, layer), None), h, layers)[0]


def _normalised(p, h):
    h = h - h.mean(-1, keepdims=True)
    return h / jnp.sqrt((h**2).mean(-1, keepdims=True) + 1e-3) * p["b"] + p["a"][0]


def _shared(p, h):
    return _dense(p, _dense(p, h)) @ p["a"]


def _custom(p, h):
    return jax.vmap(scaled_product, in_axes=(0, None))(0.3 * cubed(h), p["a"])


def _unruly(p, h):
    return (h @ jnp.linalg.inv(p["a"] + 5 * jnp.eye(WIDTH))) * jnp.exp(p["b"]) + jnp.where(h > 0, p["c"][0], p["c"][1])


LAYERS = (
    _dense, _transposed, _attention, _convolution, _depthwise, _recurrent, _layers, _normalised, _shared, _custom,
    _unruly,
)  # fmt: skip


def network(layers):
    """`apply_fn(params, tokens)`: an embedding, the layers, a readout."""

    def apply_fn(params, tokens):
        h = jnp.take(params["embedding"], tokens, axis=0) + params["positions"]
        for layer, p in zip(layers, params["layers"], strict=True):
            h = layer(p, h)
        return h.mean(1) @ params["readout"]

    return apply_fn


def draw_params(seed, depth):
    random = np.random.default_rng(seed)
    layer = lambda: {  # noqa: E731
        "a": random.normal(size=(WIDTH, WIDTH)),
        "b": random.normal(size=(WIDTH,)),
        "c": random.normal(size=(WIDTH, WIDTH)),
    }
    return {
        "embedding": random.normal(size=(6, WIDTH)),
        "positions": random.normal(size=(TOKENS, WIDTH)),
        "layers": [layer() for _ in range(depth)],
        "readout": random.normal(size=(WIDTH, 2)),
    }


def check_every_way(layers, seed, quick):
    with jax.enable_x64(True):
        apply_fn, params = network(layers), draw_params(seed, len(layers))
        tokens = jnp.asarray(np.random.default_rng(seed).integers(0, 6, size=(4, TOKENS)))
        x1, x2 = tokens[:3], tokens[1:]

        def kernels(params, x1, x2):
            ways = [empirical_ntk(apply_fn, params, x1, x2, contraction=way) for way in CONTRACTIONS]
            return brute(apply_fn, params, x1, x2), ways

        expected, ways = quick(kernels, params, x1, x2)
        for kernel in ways:
            close(kernel, np.asarray(expected), 1e-11)


@pytest.mark.parametrize("first", range(0, len(LAYERS), 2), ids=lambda first: LAYERS[first].__name__.strip("_"))
def test_every_way_is_the_jacobian(first, quick):
    check_every_way((LAYERS + LAYERS[:1])[first : first + 2], first, quick)


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__.strip("_"))
@hypothesis.given(other=st.sampled_from(LAYERS), seed=st.integers(0, 99))
@hypothesis.settings(max_examples=1, deadline=None, database=None, phases=[hypothesis.Phase.generate])
def test_every_way_is_the_jacobian_after_and_before_any_layer(layer, other, seed, quick):
    check_every_way([layer, other], seed, quick)


@pytest.mark.parametrize("contraction", ["jacobian", "structured"])
def test_symmetric_kernels_of_many_examples(contraction, quick):
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        params = {"w": random.normal(size=(3, 5)), "b": random.normal(size=5), "v": random.normal(size=(5, 2))}
        apply_fn = lambda p, x: jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]  # noqa: E731
        x = random.normal(size=(11, 3))
        kernel = quick(lambda p, x: empirical_ntk(apply_fn, p, x, contraction=contraction), params, x)
        close(kernel, np.asarray(brute(apply_fn, params, x, x)), 1e-12)
        assert (kernel == kernel.transpose(1, 0, 3, 2)).all()


def test_batch_statistics_are_exact_when_said_and_refused_when_not(quick):
    with jax.enable_x64(True):
        random = np.random.default_rng(1)
        params = {"w": random.normal(size=(3, 4)), "v": random.normal(size=(4, 2))}

        def apply_fn(p, x):
            h = x @ p["w"]
            return jnp.tanh((h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-3)) @ p["v"]

        x1, x2 = random.normal(size=(3, 3)), random.normal(size=(4, 3))
        whole = functools.partial(empirical_ntk, apply_fn, batch_independent=False)
        ways = quick(lambda p, *x: [whole(p, *x, contraction=way) for way in CONTRACTIONS], params, x1, x2)
        for kernel in ways:
            close(kernel, np.asarray(brute(apply_fn, params, x1, x2)), 1e-12)
        with pytest.raises(ConfigError, match="examples of a batch interact"):
            empirical_ntk(apply_fn, params, x1, x2)


def test_flax_models_trees_and_half_precision(quick):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            h = nn.Dense(6, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)(inputs["a"])
            h = nn.LayerNorm(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)(nn.gelu(h) * inputs["gate"])
            return {"first": nn.Dense(2)(h), "second": h.astype(jnp.float32)[:, 0]}

    inputs = {"a": jnp.ones((3, 4)) * jnp.arange(3.0)[:, None], "gate": jnp.arange(1.0, 4.0)[:, None]}
    params = Net().init(jax.random.key(0), inputs)
    kernel = quick(functools.partial(empirical_ntk, Net().apply), params, inputs)
    assert kernel["first"].shape == (3, 3, 2, 2) and kernel["second"].shape == (3, 3)
    jacobian = jax.jacrev(lambda p: Net().apply(p, inputs)["first"])(params)
    rows = np.concatenate([np.asarray(j, np.float64).reshape(3, 2, -1) for j in jax.tree.leaves(jacobian)], -1)
    close(kernel["first"], np.einsum("iop,jqp->ijoq", rows, rows), 2e-2)
    assert kernel["first"].dtype == jnp.float32


def test_transformations():
    params, x = {"w": jnp.ones((2, 3)), "v": jnp.ones((3, 1))}, jnp.arange(8.0).reshape(4, 2) / 8
    apply_fn = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"]  # noqa: E731
    kernel = functools.partial(empirical_ntk, apply_fn, trace_outputs=True)
    several = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
    stacked = jax.vmap(lambda p: kernel(p, x))(several)
    np.testing.assert_allclose(stacked[1], kernel(jax.tree.map(lambda p: 2 * p, params), x), rtol=1e-6)
    slope = jax.grad(lambda s: kernel(jax.tree.map(lambda p: s * p, params), x)[0, 1])(1.0)
    step = 1e-2
    ends = [kernel(jax.tree.map(lambda p, s=s: s * p, params), x)[0, 1] for s in (1 + step, 1 - step)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=2e-3)


def test_on_eight_devices():
    params, x = {"w": jnp.ones((2, 3)), "v": jnp.ones((3, 2))}, jnp.arange(32.0).reshape(16, 2) / 32
    apply_fn = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"]  # noqa: E731
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    kernel = jax.jit(functools.partial(empirical_ntk, apply_fn, trace_outputs=True))
    np.testing.assert_allclose(kernel(params, split, split), kernel(params, x, x), rtol=1e-6)


RANDOM = np.random.default_rng()
LINEAR = {"w": jnp.ones((3, 2))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x2": jnp.ones((2, 4))}, r"x2: expected examples of shape \(3,\) as x1 has, got \(4,\)"),
        ({"x2": {"a": jnp.ones((2, 3))}}, "x2: expected a tree like x1's"),
        ({"x1": jnp.ones((0, 3))}, "x1: expected at least one example"),
        ({"params": {"w": jnp.ones((3, 2), int)}}, "params: expected real floating-point arrays, but 'w' is int32"),
        ({"params": {"v": jnp.ones((3, 2))}}, r"apply_fn: cannot be traced with these parameters .*KeyError"),
        ({"apply_fn": lambda p, x: (x @ p["w"]).argmax(-1)}, r"expected real floating-point outputs, got int32\[2\]"),
        ({"apply_fn": lambda p, x: (x @ p["w"]).sum()}, "expected outputs with 2 examples"),
        ({"apply_fn": lambda p, x: x @ p["w"] * RANDOM.normal()}, "expected a pure function, but it computes"),
        ({"contraction": "structure"}, "contraction: unknown value 'structure'; did you mean 'structured'"),
        ({"x2": jnp.ones((3, 3)), "diagonal": True}, "x2: expected 2 along an axis"),
        ({"apply_fn": lambda p, x: None}, "apply_fn: expected an array or a tree of arrays, got none"),
        ({"trace_outputs": "no"}, "trace_outputs: expected true or false, got 'no'"),
    ],
)
def test_mistakes_are_told(change, message):
    arguments = {"apply_fn": lambda p, x: x @ p["w"], "params": LINEAR, "x1": jnp.ones((2, 3))} | change
    with pytest.raises(ConfigError, match=message):
        empirical_ntk(**arguments)


def test_side_effects_are_refused():
    def apply_fn(params, x):
        jax.debug.print("seen")
        return x @ params["w"]

    with pytest.raises(ConfigError, match="expected a pure function, but it has effects"):
        empirical_ntk(apply_fn, LINEAR, jnp.ones((2, 3)))


def test_products_of_outputs_take_no_more_than_the_outputs():
    x = jnp.ones((2, 3))
    compiled = jax.jit(empirical_nngp, static_argnums=0, static_argnames="trace_outputs")
    lowered = compiled.lower(lambda w, x: x @ w, jnp.ones((3, 4000)), x, trace_outputs=True)
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 10 * 2 * 4000 * 4
