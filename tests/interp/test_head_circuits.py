"""Circuits, copying and composition of heads against transformer-lens'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.interp.head_circuits import composition_scores, copying_scores, head_weights, ov_circuits, qk_circuits
from aijax.models import stack_blocks

TOLERANCE = {"rtol": 1e-7, "atol": 1e-9}


@pytest.mark.parametrize(
    "name",
    ["gemma2", "neox", *(pytest.param(name, marks=pytest.mark.slow) for name in ("attn_only", "llama", "shortctx3l"))],
)
def test_heads_are_those_of_the_reference(hooked, name):
    with jax.enable_x64(True):
        model, params, case = hooked(f"tl_forward_{name}")

        def read(params):
            heads = head_weights(params["decoder"], model.num_heads)
            found = {"OV": ov_circuits(heads), "QK": qk_circuits(heads)}
            found |= {f"composition_{x}": part for x, part in zip("QKV", composition_scores(heads), strict=True)}
            if "copying_score" in case:
                embedding, head = params["embedding"]["embedding"], params["head"]["kernel"]
                found["copying_score"] = copying_scores(heads, embedding, head)
            return found

        found = jax.jit(read)(params)
    for key, value in found.items():
        np.testing.assert_allclose(value, case[key], **TOLERANCE, err_msg=key)


def test_scanned_blocks_have_the_heads_of_looped_ones(hooked):
    model, params, _ = hooked("tl_forward_llama")
    looped = head_weights(params["decoder"], model.num_heads)
    scanned = head_weights(stack_blocks(params["decoder"]), model.num_heads)
    jax.tree.map(np.testing.assert_array_equal, looped, scanned)


def test_what_cannot_be_read_is_told():
    with pytest.raises(ConfigError, match="blocks: expected the parameters of a stack of blocks, got none"):
        head_weights({}, 2)
    kernels = {name: {"kernel": jnp.ones((4, 6))} for name in ("query", "key", "value")}
    params = {"block_0": {"attention": kernels | {"out": {"kernel": jnp.ones((6, 4))}}}}
    with pytest.raises(ConfigError, match="num_heads: expected a divisor of the width of all queries 6, got 4"):
        head_weights(params, 4)
    with pytest.raises(ConfigError, match="unembedding: expected logits of the 5 tokens of the embedding, got 3"):
        copying_scores(head_weights(params, 2), jnp.ones((5, 4)), jnp.ones((4, 3)))
