"""Diffusion transformers that join text and image, against a published network and against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.models.mmdit import JointBlock, MMDiT, PositionedPatches

INPUTS = ("sample", "timestep", "encoder_hidden_states", "pooled_projections")


def test_matches_the_reference(x64, published_network):
    network = published_network("mmdit-a")
    inputs = [jnp.asarray(network[f"in_{name}"]) for name in INPUTS]
    got = jax.jit(network.module.apply)({"params": network.params}, *inputs)
    np.testing.assert_allclose(got, network["out_out"], atol=1e-8)


def random_like(tree, rng):
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * 0.5, tree)


def normal(x, eps=1e-6):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def rms(x, scale):
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * scale


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def read(part, x, norms, layers, heads):
    query, key, value = (dense(part[name], x).reshape(*x.shape[:2], heads, -1) for name in layers)
    return rms(query, part[norms[0]]["scale"]), rms(key, part[norms[1]]["scale"]), value


def softmax_attention(query, key, value):
    scores = np.einsum("bthk,bshk->bhts", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    y = np.einsum("bhts,bshk->bthk", weights / weights.sum(-1, keepdims=True), value)
    return y.reshape(*y.shape[:2], -1)


def test_block_with_normalised_queries_and_two_attentions_is_what_the_paper_says(x64):
    heads, width, rng = 2, 8, np.random.default_rng(0)
    x, text, told = rng.normal(size=(1, 3, width)), rng.normal(size=(1, 2, width)), rng.normal(size=(1, width))
    block = JointBlock(heads, width // heads, qk_norm=True, last=False, dual=True)
    p = random_like(jax.eval_shape(block.init, jax.random.key(0), x, text, told)["params"], rng)
    got = jax.jit(block.apply)({"params": p}, x, text, told)

    silu = told / (1 + np.exp(-told))
    shift, scale, gate, shift2, scale2, gate2, shift3, scale3, gate3 = np.split(dense(p["norm1"]["linear"], silu), 9, 1)
    context = np.split(dense(p["norm1_context"]["linear"], silu), 6, 1)
    u, v = normal(x) * (1 + scale) + shift, normal(text) * (1 + context[1]) + context[0]
    own = read(p["attn"], u, ("norm_q", "norm_k"), ("to_q", "to_k", "to_v"), heads)
    names = ("add_q_proj", "add_k_proj", "add_v_proj")
    theirs = read(p["attn"], v, ("norm_added_q", "norm_added_k"), names, heads)
    y = softmax_attention(*(np.concatenate(parts, 1) for parts in zip(own, theirs, strict=True)))
    w = normal(x) * (1 + scale3) + shift3
    alone = softmax_attention(*read(p["attn2"], w, ("norm_q", "norm_k"), ("to_q", "to_k", "to_v"), heads))
    z = x + gate * dense(p["attn"]["to_out_0"], y[:, :3]) + gate3 * dense(p["attn2"]["to_out_0"], alone)
    mlp = lambda part, h: dense(part["net_2"], gelu(dense(part["net_0"]["proj"], h)))  # noqa: E731
    np.testing.assert_allclose(got[0], z + gate2 * mlp(p["ff"], normal(z) * (1 + scale2) + shift2), atol=1e-10)
    r = text + context[2] * dense(p["attn"]["to_add_out"], y[:, 3:])
    want = r + context[5] * mlp(p["ff_context"], normal(r) * (1 + context[4]) + context[3])
    np.testing.assert_allclose(got[1], want, atol=1e-10)


def test_positions_are_the_middle_of_a_table_that_no_gradient_reaches(random_params):
    module, x = PositionedPatches(2, 4, 3, 2.0), jnp.ones((1, 4, 2, 1))
    params = random_params(module, x)
    apply = lambda params: module.apply({"params": params}, x)  # noqa: E731
    got, gradient = jax.jit(lambda p: (apply(p), jax.grad(lambda p: jnp.sum(apply(p)))(p)))(params)
    table = params["pos_embed"].reshape(3, 3, 4)[:2, 1:2].reshape(2, 4)
    patch = params["proj"]["kernel"].sum((0, 1, 2)) + params["proj"]["bias"]
    np.testing.assert_allclose(got[0], patch + table, atol=1e-5)
    assert not np.any(gradient["pos_embed"]) and np.all(gradient["proj"]["bias"] == 2)


@pytest.fixture(scope="module")
def small(random_params):
    model = MMDiT(4, 2, 2, 1, 4, 2, 6, 8, 5, 2, 4)
    inputs = jnp.ones((1, 4, 4, 2)), jnp.ones(()), jnp.ones((1, 3, 6)), jnp.ones((1, 5))
    return model, {"params": random_params(model, *inputs)}, inputs


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({0: jnp.ones((1, 4, 4, 3))}, "in_channels"),
        ({0: jnp.ones((1, 10, 4, 2))}, "pos_embed_max_size"),
        ({2: jnp.ones((1, 3, 5))}, "joint_attention_dim"),
        ({3: jnp.ones((1, 6))}, "pooled_projection_dim"),
    ],
)
def test_what_cannot_be_used_is_named(small, change, told):
    model, variables, inputs = small
    with pytest.raises(ConfigError, match=told):
        jax.eval_shape(model.apply, variables, *(change.get(i, array) for i, array in enumerate(inputs)))


@pytest.mark.parametrize(("field", "value"), [("qk_norm", "layer"), ("caption_projection_dim", 6)])
def test_fields_that_cannot_be_used_are_named(small, field, value):
    model, variables, inputs = small
    with pytest.raises(ConfigError, match=field):
        jax.eval_shape(model.clone(**{field: value}).apply, variables, *inputs)
