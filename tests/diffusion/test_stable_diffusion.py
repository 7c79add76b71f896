"""Pipelines from folders of the published layout, and folders that are not what they should be."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import PNDM, generate, image_to_image, latent_model, load_pipeline
from aijax.diffusion.published import scheduler
from aijax.diffusion.text_conditions import as_joint_text
from aijax.errors import DataError, UnsupportedError
from aijax.models import pretrained
from aijax.models.autoencoder import AutoencoderKL, VQModel
from aijax.models.mmdit import MMDiT
from aijax.models.text import CLIPText, CLIPTextWithProjection
from aijax.models.unet import unet

CONFIGS = {
    "unet": {
        "_class_name": "UNet2DConditionModel", "block_out_channels": [4], "down_block_types": ["CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D"], "layers_per_block": 1, "norm_num_groups": 2, "sample_size": 8,
        "attention_head_dim": 2, "cross_attention_dim": 12,
    },
    "vae": {"_class_name": "AutoencoderKL", "block_out_channels": [4], "norm_num_groups": 2, "latent_channels": 4},
    "text_encoder": {
        "architectures": ["CLIPTextModel"], "vocab_size": 99, "hidden_size": 12, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 7, "eos_token_id": 98,
    },
}  # fmt: skip
INPUTS = {
    "unet": (jnp.ones((1, 8, 8, 4)), 1.0, None, jnp.ones((1, 7, 12))),
    "vae": (jnp.ones((1, 8, 8, 3)),),
    "text_encoder": (jnp.ones((1, 7), int),),
}
SCHEDULER = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False,
}  # fmt: skip
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "safety_checker": [None, None],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "PNDMScheduler"],
}


@pytest.fixture(scope="module")
def params(random_params):
    return {part: random_params(pretrained.from_config(CONFIGS[part]), *inputs) for part, inputs in INPUTS.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, params):
    tmp_path = tmp_path_factory.mktemp("published")
    for part, config in CONFIGS.items():
        pretrained.save(tmp_path / part, pretrained.from_config(config), params[part], config)
    for part, content in (("scheduler/scheduler_config.json", SCHEDULER), ("model_index.json", INDEX)):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / part).write_text(json.dumps(content))
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 98, **{f"{c}</w>": i for i, c in enumerate("abc", 2)}}
    vocabulary |= {c: i for i, c in enumerate("abc", 5)}
    tokenizer = {"vocab.json": vocabulary, "tokenizer_config.json": {"model_max_length": 7}}
    (tmp_path / "tokenizer").mkdir()
    for name, content in tokenizer.items():
        (tmp_path / "tokenizer" / name).write_text(json.dumps(content))
    (tmp_path / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    return tmp_path


@pytest.fixture
def folder(tmp_path, whole):
    return shutil.copytree(whole, tmp_path / "copy")


def test_a_published_folder_becomes_functions(whole, params):
    pipeline = load_pipeline(whole, dtype=jnp.float16)
    model, loaded = pipeline.model, pipeline.params
    for part, name in (("text", "text_encoder"), ("denoiser", "unet"), ("encoder", "vae"), ("decoder", "vae")):
        pairs = zip(jax.tree.leaves(loaded[part]), jax.tree.leaves(params[name]), strict=True)
        assert all(np.array_equal(one, other.astype(np.float16)) for one, other in pairs)
    assert (model.scaling, model.shift, model.latent_shape) == (0.18215, 0.0, (8, 8, 4))
    assert isinstance(scheduler(*model.scheduler, 3).sampler, PNDM)
    tokens = pipeline.tokenize(["a cab", ""])
    assert tokens.tolist() == [[0, 2, 7, 5, 3, 98, 98], [0, *[98] * 6]]
    # in half precision latents and images keep their own
    condition = jax.eval_shape(model.text, loaded["text"], tokens)
    assert condition["context"].shape == (2, 7, 12) and condition["context"].dtype == jnp.float16
    z = jnp.ones((2, 8, 8, 4))
    assert jax.eval_shape(model.denoiser, loaded["denoiser"], z, 1.0, condition).dtype == jnp.float32
    assert jax.eval_shape(model.decoder, loaded["decoder"], z).shape == (2, 8, 8, 3)


@pytest.mark.slow
def test_two_text_encoders_tell_the_network_their_features_and_the_sizes(folder, random_params):
    second = {**CONFIGS["text_encoder"], "architectures": ["CLIPTextModelWithProjection"], "projection_dim": 5}
    unet = CONFIGS["unet"] | {
        "cross_attention_dim": 24, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 29,
    }  # fmt: skip
    inputs = {"context": jnp.ones((1, 7, 24)), "text_embeds": jnp.ones((1, 5)), "time_ids": jnp.ones((1, 6))}
    for part, config, given in (("unet", unet, inputs), ("text_encoder_2", second, {})):
        module = pretrained.from_config(config)
        params = random_params(module, *INPUTS[part.removesuffix("_2")][:2], **given)
        pretrained.save(folder / part, module, params, config)
    shutil.copytree(folder / "tokenizer", folder / "tokenizer_2")
    index = INDEX | {"text_encoder_2": ["transformers", "Text"], "tokenizer_2": ["transformers", "CLIPTokenizer"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    pipeline = load_pipeline(folder)
    tokens = pipeline.tokenize(["cab", ""])
    np.testing.assert_array_equal(tokens[:, :7], tokens[:, 7:])
    condition = jax.jit(pipeline.model.text)(pipeline.params["text"], tokens)
    assert {name: value.shape for name, value in condition.items()} == {
        "context": (2, 7, 24), "text_embeds": (2, 5), "time_ids": (2, 6)
    }  # fmt: skip
    assert np.all(condition["context"][0] != 0) and not np.any(condition["context"][1])
    assert condition["time_ids"][0].tolist() == [8, 8, 0, 0, 8, 8]
    # before the last, and here only, block the features are the embeddings
    first = pipeline.params["text"]["first"]
    embedded = np.asarray(first["embedding"]["embedding"])[tokens[0, :7]] + np.asarray(first["positions"])
    np.testing.assert_allclose(condition["context"][0, :, :12], embedded, atol=1e-6)
    z = jnp.ones((2, 8, 8, 4))
    predicted = jax.eval_shape(pipeline.model.denoiser, pipeline.params["denoiser"], z, 1.0, condition)
    assert predicted.shape == z.shape


@pytest.fixture
def third(tmp_path, root):
    return shutil.copytree(root / "tests/golden/diffusion/stable_diffusion_3", tmp_path / "third")


@pytest.mark.slow
@pytest.mark.parametrize("long", [True, False])
def test_three_text_encoders_give_the_images_of_diffusers(third, long):
    if not long:
        index = json.loads((third / "model_index.json").read_text())
        absent = {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
        (third / "model_index.json").write_text(json.dumps(index | absent))
    pipeline, want = load_pipeline(third), np.load(third / "reference.npz")
    tokens = np.concatenate([want["clips"], want["clips"], *([want["long"]] if long else [])], axis=1)
    images = generate(
        jax.random.key(0), pipeline.params, tokens[:1], pipeline.model, null_tokens=tokens[1:], guidance=5.0, steps=4,
        init=want["z"].transpose(0, 2, 3, 1),
    )  # fmt: skip
    np.testing.assert_allclose(images, want["image" if long else "without"], atol=2e-4)


def test_tokens_of_three_encoders_lie_side_by_side(third):
    tokenize = load_pipeline(third).tokenize
    row = [0, 7, 5, 3, 5, 3, 98] * 2 + [3, 4, 5, 6, 1]
    np.testing.assert_array_equal(tokenize("cab ab"), [row + [0] * 251])
    with pytest.raises(DataError, match="texts: expected at most 256 tokens, got 3"):
        tokenize.parts[2]("cab " * 300)
    assert tokenize.parts[2]("cab " * 300, truncate=True)[0, -2:].tolist() == [3, 1]


def test_the_same_networks_are_the_same_functions():
    make = lambda: latent_model(CLIPText(), unet((8, 8), context_levels=(1,)), VQModel(), (8, 8))  # noqa: E731
    one, other = make(), make()
    # so that what was compiled for one is used for the other
    for name in ("text", "denoiser", "encoder", "decoder"):
        assert getattr(one, name) == getattr(other, name) and hash(getattr(one, name)) == hash(getattr(other, name))


@pytest.mark.slow
def test_networks_at_hand_become_one_function(random_params):
    autoencoder, channels = VQModel(block_out_channels=(4,), norm_num_groups=2, latent_channels=4), 4
    text = CLIPTextWithProjection(9, 8, 16, 5, 1, 2, 6)
    denoiser = MMDiT(8, 2, channels, 1, 4, 2, 8, 8, 5, channels, 4)
    flow = ("FlowMatchEulerDiscrete", {})
    model = latent_model(
        text, denoiser, autoencoder, (8, 8), condition=as_joint_text, time_scale=1000.0, scheduler=flow
    )
    assert model.latent_shape == (8, 8, channels)
    tokens, images = jnp.ones((2, 6), int), jnp.ones((2, 8, 8, 3))
    code = random_params(autoencoder, images)
    params = {
        "text": random_params(text, tokens), "encoder": code, "decoder": code,
        "denoiser": random_params(
            denoiser, jnp.ones((2, 8, 8, channels)), 1.0, jnp.ones((2, 6, 8)), jnp.ones((2, 5))
        ),
    }  # fmt: skip
    changed = functools.partial(image_to_image, model=model, guidance=1.0, steps=2)
    assert jax.eval_shape(changed, jax.random.key(0), params, images, tokens).shape == images.shape


def test_latents_are_standardised_by_what_is_published_of_each_channel():
    published = {"latents_mean": (1.0, 2.0), "latents_std": (2.0, 4.0), "scaling_factor": 0.5, "latent_channels": 2}
    model = latent_model(None, None, AutoencoderKL(**published), (2, 2))
    np.testing.assert_allclose((np.array([3.0, 3.0]) - model.shift) * model.scaling, [0.5, 0.125])


def test_codes_have_no_variance(random_params):
    autoencoder = VQModel(block_out_channels=(2,), norm_num_groups=1, mid_block_add_attention=False)
    x = jnp.ones((1, 2, 2, 3))
    params = random_params(autoencoder, x)
    latents = jax.jit(latent_model(None, None, autoencoder, (2, 2)).encoder)(params, x)
    assert not np.any(np.exp(latents.log_variance))


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("model_index.json", r"model_index.json: expected a file of a published pipeline"),
        ("scheduler/scheduler_config.json", r"scheduler_config.json"),
        ("unet/config.json", r"unet/config.json"),
        ("vae/diffusion_pytorch_model.safetensors", "vae: expected one safetensors file"),
        ("tokenizer/vocab.json", r"tokenizer.json"),
    ],
)
def test_what_is_not_there_is_told(folder, part, told):
    (folder / part).unlink()
    with pytest.raises(DataError, match=told):
        load_pipeline(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"vae": [None, None]}, "got one without vae"),
        ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "got one without tokenizer_2"),
        ({"transformer": ["diffusers", "SD3Transformer2DModel"]}, "got one without text_encoder_2, tokenizer_2"),
        ({"text_encoder_3": ["transformers", "T5EncoderModel"]}, "got one with text_encoder_3"),
    ],
)
def test_other_pipelines_are_told(folder, change, told):
    (folder / "model_index.json").write_text(json.dumps(INDEX | change))
    with pytest.raises(UnsupportedError, match=told):
        load_pipeline(folder)
