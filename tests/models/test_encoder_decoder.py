"""The encoder and decoder: step by step as at once, alone, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import models
from aijax.errors import ConfigError


@pytest.fixture(scope="module")
def small(random_params):
    """A model of one block each, with its parameters, and what it reads and writes."""
    model = models.EncoderDecoder(11, 8, 1, 1, num_heads=2, head_width=3, mlp_width=12, gated=True, tied=False)
    told = np.array([[1, 2, 3, 4], [5, 6, 0, 0]]), np.array([[0, 7, 8], [0, 9, 1]])
    return model, random_params(model, *told), *told


@pytest.mark.parametrize("scan", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_step_by_step_is_at_once(quick_jit, small, scan):
    model, params, tokens, written = small
    model, params = (model.clone(scan=True), models.stack_blocks(params)) if scan else (model, params)
    mask = jnp.array([[1, 1, 1, 1], [1, 1, 0, 0]])

    @quick_jit
    def run(params):
        variables = {"params": params}
        memory = model.apply(variables, tokens, mask=mask, method="encode")
        cache = model.apply(variables, memory, 3, memory_mask=mask, method="remember")
        steps = []
        for t in range(3):
            logits, cache = model.apply(variables, written[:, t : t + 1], None, cache=cache, method="decode")
            steps.append(logits)
        return model.apply(variables, tokens, written, mask=mask), jnp.concatenate(steps, axis=1)

    at_once, by_steps = run(params)
    np.testing.assert_allclose(by_steps, at_once, atol=1e-5)


def test_without_a_decoder_it_gives_the_memory(small):
    model, params, tokens, _ = small
    alone = model.clone(decoder_depth=0)
    kept = {name: params[name] for name in ("embedding", "encoder", "encoder_bias")}
    memory = jax.eval_shape(lambda: alone.apply({"params": kept}, tokens))
    assert memory.shape == (2, 4, 8)


@pytest.mark.parametrize(
    ("written", "said"), [(None, "decoder_tokens: expected what"), ([[0, 11]], "tokens: expected numbers from 0 to 10")]
)
def test_what_it_cannot_read_is_named(small, written, said):
    model, params, tokens, _ = small
    written = None if written is None else np.array(written)
    with pytest.raises(ConfigError, match=said):
        jax.eval_shape(lambda: model.apply({"params": params}, tokens[:1], written))
