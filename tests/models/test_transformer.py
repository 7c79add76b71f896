"""Positions, causality, layouts and the norm of the shared block."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from aijax import models, parallel
from aijax.errors import ConfigError
from aijax.interp import capture
from aijax.models.attention import Attention, attend, attention_weights
from aijax.models.rotary import rotate
from aijax.models.transformer import TENSOR_RULES, Mlp, empty_cache


def test_rotary_scores_depend_on_distance_only():
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 8))
    places = 6
    q, k = (rotate(jnp.broadcast_to(x, (places, 1, 8)))[:, 0] for x in (query, key))
    scores = q @ k.T
    for distance in range(-3, 4):
        diagonal = jnp.diagonal(scores, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(q, axis=-1), jnp.linalg.norm(query), rtol=1e-5)


def test_rotary_needs_even_heads():
    with pytest.raises(ConfigError, match="even width"):
        rotate(jnp.ones((2, 1, 3)))


@pytest.mark.parametrize("rotary", [False, True])
def test_a_causal_block_does_not_look_ahead(quick_jit, rotary):
    spec = models.BlockSpec(num_heads=2, causal=True, rotary=rotary, norm="rms", activation="silu")
    model = models.Transformer(depth=1, spec=spec)
    x = jax.random.normal(jax.random.key(0), (1, 5, 8))
    params = quick_jit(model.init)(jax.random.key(1), x)
    jacobian = quick_jit(jax.jacobian(lambda x: model.apply(params, x)[0].sum(-1)))(x)
    reach = jnp.abs(jacobian[:, 0]).sum(-1)
    assert jnp.all(reach[jnp.triu_indices(5, 1)] == 0)
    assert jnp.all(reach[jnp.tril_indices(5)] > 0)


@settings(max_examples=10, deadline=None)
@given(depth=st.integers(1, 4), extra=st.booleans())
def test_stacking_and_unstacking_are_inverse(depth, extra):
    blocks = {f"block_{i}": {"w": np.full(2, i), "deep": {"b": np.array(i)}} for i in range(depth)}
    params = {"encoder": blocks | {"norm": np.zeros(3)}} | ({"head": np.ones(2)} if extra else {})
    stacked = models.stack_blocks(params)
    assert stacked["encoder"]["blocks"]["w"].shape == (depth, 2)
    chex.assert_trees_all_equal(models.unstack_blocks(stacked), params)


def test_every_intermediate_is_captured_by_name(small_vit, small_params, images):
    def capture(model, params):
        run = functools.partial(model.apply, capture_intermediates=True)
        return jax.eval_shape(run, {"params": params}, images)[1]["intermediates"]["encoder"]

    block = capture(small_vit(), small_params)["block_1"]
    for name, width in (("attention", 16), ("mlp", 16), ("norm_mlp", 16)):
        assert block[name]["__call__"][0].shape == (3, 5, width)
    assert block["mlp"]["up"]["__call__"][0].shape == (3, 5, 64)
    scanned = capture(small_vit(scan=True), models.stack_blocks(small_params))
    assert scanned["blocks"]["mlp"]["up"]["__call__"][0].shape == (2, 3, 5, 64)


RICH = models.BlockSpec(
    num_heads=4, num_kv_heads=2, head_width=6, norm="rms", gated=True, mlp_width=20, activation="silu", causal=True,
    rotary=True, qk_norm=True, layer_scale=0.5, cross_attention=True, biases=("query", "down"), scale_by_depth=True,
)  # fmt: skip
"""A block with everything."""


@pytest.fixture(scope="module")
def rich(random_params):
    """`(make, params, inputs)`: a decoder with everything, its parameters, and what it reads."""
    model = models.Transformer(2, RICH, scan=False)
    keys = jax.random.split(jax.random.key(0), 2)
    inputs = {"x": jax.random.normal(keys[0], (4, 5, 16)), "memory": jax.random.normal(keys[1], (4, 3, 12))}
    inputs["memory_mask"] = jnp.arange(3) < jnp.array([[3], [2], [1], [3]])
    return model, random_params(model, **inputs), inputs


@pytest.mark.parametrize(
    "how",
    [
        {"scan": True, "remat": "dots"},
        pytest.param({"scan": True}, marks=pytest.mark.slow),
        pytest.param({"remat": "block"}, marks=pytest.mark.slow),
    ],
)
def test_every_way_to_stack_gives_the_same_values_and_gradients(quick_jit, rich, how):
    model, params, inputs = rich

    def loss(params, model):
        return jnp.sum(model.apply({"params": params}, **inputs) ** 2)

    value, grads = quick_jit(lambda params: jax.value_and_grad(loss)(params, model))(params)
    other = model.clone(**how)
    stacked = models.stack_blocks(params) if other.scan else params
    found, found_grads = quick_jit(lambda params: jax.value_and_grad(loss)(params, other))(stacked)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    found_grads = models.unstack_blocks(found_grads) if other.scan else found_grads
    chex.assert_trees_all_close(found_grads, grads, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scan", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_with_a_cache_tokens_may_come_one_by_one(quick_jit, rich, scan):
    model, params, inputs = rich
    model, params = (model.clone(scan=True), models.stack_blocks(params)) if scan else (model, params)
    whole, hidden = quick_jit(lambda params: model.apply({"params": params}, **inputs, with_hidden=True))(params)
    assert len(hidden) == 3

    @quick_jit
    def run(params):
        x, memory, mask = (inputs[name] for name in ("x", "memory", "memory_mask"))
        cache = empty_cache(model, 16, batch=4, size=7, memory=3)
        y, cache = model.apply({"params": params}, x[:, :2], memory=memory, memory_mask=mask, cache=cache)
        z, cache = model.apply({"params": params}, x[:, 2:3], cache=cache)
        rest, cache = model.apply({"params": params}, x[:, 3:], cache=cache)
        return jnp.concatenate([y, z, rest], axis=1), cache.length

    found, length = run(params)
    np.testing.assert_allclose(found, whole, atol=2e-5)
    assert length == 5


def test_cut_over_all_axes_of_a_mesh_it_gives_the_same(quick_jit, rich):
    model, params, inputs = rich
    mesh = parallel.make_mesh(data=2, fsdp=2, tensor=2)
    shardings = parallel.parameter_shardings(mesh, params, rules=TENSOR_RULES)
    assert shardings["block_0"]["mlp"]["up"]["kernel"].spec == P("fsdp", "tensor")
    placed = jax.device_put(params, shardings)
    batch = jax.device_put(inputs, parallel.batch_sharding(mesh))
    apply = lambda params, inputs: model.apply({"params": params}, **inputs)  # noqa: E731
    found = quick_jit(parallel.on_mesh(apply, mesh))(placed, batch)
    np.testing.assert_allclose(found, quick_jit(apply)(params, inputs), atol=2e-5)


def test_heads_that_share_keys_are_heads_with_the_same_keys(quick_jit, x64):
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(2, 3, heads, 4)) for heads in (4, 2, 2))
    alike = [np.repeat(x, 2, axis=2) for x in (key, value)]
    how = {
        "bias": rng.normal(size=(4, 3, 3)),
        "mask": np.array([[[[True, False, True]]]]),
        "causal": True,
        "scale": 0.3,
    }

    @quick_jit
    def run(query, key, value):
        low = [x.astype("float32") for x in (query, key, value)]
        return (
            attend(query, key, value, **how), attend(query, *alike, **how), attend(*low, **how),
            attention_weights(query, key, **how),
        )  # fmt: skip

    shared, same, low, weights = run(query, key, value)
    scores = 0.3 * np.einsum("bthk,bshk->bhts", query, alike[0]) + how["bias"]
    scores = np.exp(np.where(how["mask"] & np.tri(3, dtype=bool), scores, -np.inf))
    np.testing.assert_allclose(weights, scores / scores.sum(-1, keepdims=True), atol=1e-12)
    np.testing.assert_allclose(shared, np.einsum("bhts,bshk->bthk", weights, alike[1]), atol=1e-12)
    np.testing.assert_allclose(same, shared, atol=1e-12)
    np.testing.assert_allclose(low, shared, atol=1e-5)


def test_padding_is_not_attended_to_and_weights_can_be_captured(quick_jit, random_params):
    model = models.Transformer(1, models.BlockSpec(2, post_norm=True, mlp_ratio=1.0))
    x = jax.random.normal(jax.random.key(0), (2, 4, 8))
    params, mask = {"params": random_params(model, x)}, jnp.arange(4) < jnp.array([[4], [2]])

    run = quick_jit(capture(lambda x: model.apply(params, x, mask=mask), ".*/weights"))
    y, captured = run(x)
    weights = captured["block_0/attention/weights"]
    assert weights.shape == (2, 2, 4, 4)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert np.all(weights[1, :, :, 2:] == 0)
    other = run(x.at[1, 2:].add(1.0))[0]
    np.testing.assert_allclose(other[1, :2], y[1, :2], atol=1e-6)
    plain = quick_jit(lambda x: model.apply(params, x, mask=mask))(x)
    np.testing.assert_allclose(plain, y, atol=1e-5)
    assert set(params["params"]) == {"block_0"}  # without a norm at the end


def test_dropped_attention_weights_keep_their_mean(quick_jit, random_params):
    spec = models.BlockSpec(2, attention_dropout_rate=0.5)
    x = jax.random.normal(jax.random.key(0), (1, 4, 8))
    params = {"params": random_params(models.Block(spec), x)["attention"]}

    @quick_jit
    def run(keys):
        trained = Attention(spec, deterministic=False)
        return jax.vmap(lambda key: trained.apply(params, x, rngs={"dropout": key}))(keys), Attention(spec).apply(
            params, x
        )

    drawn, mean = run(jax.random.split(jax.random.key(1), 2000))
    assert np.std(drawn, axis=0).max() > 0.01
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * np.std(drawn, axis=0).max() / 2000**0.5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"biases": ("query", "keys")}, "did you mean 'key'"), ({"num_kv_heads": 3}, "expected a divisor of num_heads 4")],
)
def test_a_block_that_cannot_be_is_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        models.BlockSpec(num_heads=4, **fields)


def test_cross_attention_needs_a_memory(rich):
    model, params, inputs = rich
    with pytest.raises(ConfigError, match="memory: cross-attention needs one"):
        jax.eval_shape(lambda params: model.apply({"params": params}, inputs["x"]), params)


def test_what_enters_the_second_layer_of_the_mlp_may_be_dropped():
    spec = models.BlockSpec(1, mlp_ratio=1.0, activation="relu", mlp_dropout_rate=0.5, biases=())
    params = {name: {"kernel": jnp.eye(64)} for name in ("up", "down")}
    x = jnp.ones((1, 4, 64))
    kept = Mlp(spec, deterministic=False).apply({"params": params}, x, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(kept)) == {0.0, 2.0}
    np.testing.assert_array_equal(Mlp(spec).apply({"params": params}, x), x)


@pytest.mark.parametrize("place", [4, jnp.array([3, 0])])
@pytest.mark.parametrize("kind", [{"causal": True}, {"post_norm": True}, {"parallel": True, "num_kv_heads": 2}])
def test_one_token_alone_is_that_of_all(kind, place):
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, 5, 8))
        mask = jnp.ones((2, 5), bool).at[1, 4].set(False)
        model = models.Transformer(2, models.BlockSpec(4, param_dtype="float64", **kind))
        params = model.init(jax.random.key(1), x)

        def read(params, alone):
            y = model.apply(params, x, mask=mask, place=place if alone else None)
            return y if alone else y[jnp.arange(2), place]

        wanted, found = (jax.value_and_grad(lambda p, a=a: (read(p, a) ** 3).sum())(params) for a in (False, True))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), found, wanted)
