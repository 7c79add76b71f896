"""Small models of both layouts, and published weights turned into ours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from aijax import models


@pytest.fixture(scope="session")
def quick_jit():
    """`jax.jit` for programs that run once: XLA takes less time over them."""
    return functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="session")
def images():
    """Three images of 8 x 8 pixels."""
    return jax.random.normal(jax.random.key(1), (3, 8, 8, 1))


@pytest.fixture(scope="session")
def small_vit():
    """`make(**fields)`: a ViT of two blocks."""

    def make(**fields):
        given = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5} | fields
        return models.ViT(**given)

    return make


@pytest.fixture(scope="session")
def small_params(quick_jit, small_vit, images):
    """Parameters of the looped small ViT."""
    return quick_jit(lambda key: models.init(key, small_vit(), images))(jax.random.key(0))


@pytest.fixture(scope="session")
def small_logits(quick_jit, small_vit, small_params, images):
    """What the small ViT makes of the images."""
    return quick_jit(small_vit().apply)({"params": small_params}, images)


@pytest.fixture
def x64():
    """Double precision, for comparison with float64 references."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def published(golden):
    """`read(case) -> (data, convert)`: a golden case, and what turns a tree of published arrays into our parameters."""

    def read(case):
        folder = golden / "vision_text" / case
        data = load_file(folder / "data.safetensors")
        convert = {"gpt2_hf": gpt2_from_hugging_face}[case.split("/")[0]]
        return data, {path.stem: convert(read_weights(path)) for path in folder.glob("*s.safetensors")}

    return read


def read_weights(path):
    return {name: np.float64(array) for name, array in load_file(path).items()}


def linear(weights, name, transpose=True):
    kernel = weights[f"{name}.weight"]
    return {"kernel": kernel.T if transpose else kernel, "bias": weights[f"{name}.bias"]}


def norm(weights, name):
    return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}


def gpt2_from_hugging_face(weights):
    """Returns our parameters; the fused projection is cut into query, key and value."""
    blocks, body = {}, "transformer.h"
    for i in range(sum(name.endswith("ln_1.weight") for name in weights)):
        kernel, bias = (np.split(weights[f"{body}.{i}.attn.c_attn.{part}"], 3, axis=-1) for part in ("weight", "bias"))
        attention = {name: {"kernel": kernel[j], "bias": bias[j]} for j, name in enumerate(("query", "key", "value"))}
        attention["out"] = linear(weights, f"{body}.{i}.attn.c_proj", transpose=False)
        blocks[f"block_{i}"] = {
            "attention": attention,
            "mlp": {
                "up": linear(weights, f"{body}.{i}.mlp.c_fc", transpose=False),
                "down": linear(weights, f"{body}.{i}.mlp.c_proj", transpose=False),
            },
            "norm_attention": norm(weights, f"{body}.{i}.ln_1"),
            "norm_mlp": norm(weights, f"{body}.{i}.ln_2"),
        }
    return {
        "embedding": {"embedding": weights["transformer.wte.weight"]},
        "positions": weights["transformer.wpe.weight"],
        "decoder": blocks | {"norm": norm(weights, "transformer.ln_f")},
    }


@pytest.fixture(scope="session")
def small_lm(quick_jit):
    """A language model of two blocks with its parameters."""
    model = models.LanguageModel(vocab_size=11, context_length=8, width=16, depth=2, num_heads=2)
    tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    return model, quick_jit(lambda key: models.init(key, model, tokens))(jax.random.key(0))
