"""Attention of pixels to a context beside themselves, and of a context's mean to it, against plain sums."""

import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.models.image_attention import ContextAttentionBlock
from aijax.models.unet_conditions import PooledContext


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def normal(params, x, axes=-1):
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    return y * params["scale"] + params["bias"]


def attention(query, key, value, width):
    parts = []
    for i in range(0, query.shape[-1], width):
        q, k, v = (x[..., i : i + width] for x in (query, key, value))
        weights = np.exp(q @ np.swapaxes(k, 1, 2) / np.sqrt(width))
        parts.append(weights / weights.sum(-1, keepdims=True) @ v)
    return np.concatenate(parts, -1)


@pytest.mark.parametrize("only_cross", [False, True])
def test_pixels_attend_to_context_and_pixels(random_params, quick_jit, only_cross):
    rng = np.random.default_rng(0)
    x, context = rng.normal(size=(2, 2, 3, 8)).astype(np.float32), rng.normal(size=(2, 4, 32)).astype(np.float32)
    block = ContextAttentionBlock(4, 1, only_cross, "group_norm")
    params = random_params(block, x, context)
    pixels = normal(params["group_norm"], x, (1, 2, 3)).reshape(2, 6, 8)
    told = normal(params["norm_cross"], context, 1)
    key, value = dense(params["add_k_proj"], told), dense(params["add_v_proj"], told)
    if not only_cross:
        key = np.concatenate([key, dense(params["to_k"], pixels)], 1)
        value = np.concatenate([value, dense(params["to_v"], pixels)], 1)
    y = dense(params["to_out_0"], attention(dense(params["to_q"], pixels), key, value, 4))
    got = quick_jit(block.apply)({"params": params}, x, context)
    np.testing.assert_allclose(got, x + y.reshape(x.shape), atol=1e-5)


def test_the_mean_of_a_context_attends_to_it(random_params, quick_jit):
    context = np.random.default_rng(1).normal(size=(2, 5, 6)).astype(np.float32)
    layer = PooledContext(4, 3)
    params = random_params(layer, context)
    pool, x = params["pool"], normal(params["norm1"], context)
    mean = x.mean(1, keepdims=True) + pool["positional_embedding"]
    x = np.concatenate([mean, x], 1)
    y = attention(dense(pool["q_proj"], mean), dense(pool["k_proj"], x), dense(pool["v_proj"], x), 2)[:, 0]
    expected = normal(params["norm2"], dense(params["proj"], y))
    np.testing.assert_allclose(quick_jit(layer.apply)({"params": params}, context), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "told"), [({"head_width": 3}, "attention_head_dim"), ({"context_norm": "rms"}, "cross_attention_norm")]
)
def test_what_cannot_be_used_is_named(random_params, fields, told):
    block = ContextAttentionBlock(**{"head_width": 4, "groups": 1} | fields)
    with pytest.raises(ConfigError, match=told):
        random_params(block, np.zeros((1, 2, 2, 8)), np.zeros((1, 3, 5)))
