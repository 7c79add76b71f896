import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import losses
from aijax.errors import ConfigError


def encode(params, batch, key):
    hidden = jnp.tanh(batch["image"] @ params["up"])
    for _ in range(4):
        hidden = jnp.tanh(hidden @ params["square"])
    return {"image": losses.normalize(hidden), "text": losses.normalize(batch["text"] @ params["text"])}


@pytest.fixture(scope="module")
def problem():
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = {"up": (6, 64), "square": (64, 64), "text": (5, 64)}
    params = {n: 0.3 * jax.random.normal(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=False)}
    batch = {"image": jax.random.normal(keys[3], (256, 6)), "text": jax.random.normal(keys[4], (256, 5))}
    return params, batch


def gradient(encode):
    def loss(params, batch):
        features = encode(params, batch, jax.random.key(1))
        return losses.softmax_contrastive_loss(features["image"], features["text"], 10.0)

    return jax.jit(jax.value_and_grad(loss))


def test_parts_give_the_gradient_of_the_whole_batch(problem):
    whole = gradient(encode)(*problem)
    for parts in (1, 4, 16):
        cached = gradient(losses.encode_in_parts(encode, parts))(*problem)
        for a, b in zip(jax.tree.leaves(cached), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_mean_over_micro_batches_is_another_loss(problem):
    params, batch = problem
    parts = [{name: rows[i::4] for name, rows in batch.items()} for i in range(4)]
    mean = np.mean([gradient(encode)(params, part)[0] for part in parts])
    assert abs(mean - gradient(encode)(params, batch)[0]) > 0.5


def test_parts_take_the_memory_of_one(problem):
    def bytes_of(parts):
        compiled = gradient(losses.encode_in_parts(encode, parts)).lower(*problem).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    logits = 4 * 256 * 256 * 3  # of the loss, in both
    assert bytes_of(16) - logits < 0.5 * (bytes_of(1) - logits)


def test_parts_that_do_not_divide_the_batch_are_refused(problem):
    with pytest.raises(ConfigError, match="256 examples cannot be cut into 3 parts"):
        losses.encode_in_parts(encode, 3)(*problem, jax.random.key(0))
    with pytest.raises(ConfigError, match="parts: expected 1 or more, got 0"):
        losses.encode_in_parts(encode, 0)
