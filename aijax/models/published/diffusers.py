"""Published classes of diffusers, and the text encoders that their pipelines have."""

import jax.numpy as jnp

from aijax.models.autoencoder import AutoencoderKL, VQModel
from aijax.models.dit import DiT
from aijax.models.layout import Entry, Layout
from aijax.models.mmdit import MMDiT
from aijax.models.published.architecture import TRANSFORMERS, Architecture, same_fields, shape_of
from aijax.models.published.text_towers import CLIP_TEXT as CLIP_TEXT_NAMES
from aijax.models.published.text_towers import PLACES
from aijax.models.text import CLIPText, CLIPTextWithProjection
from aijax.models.unet import UNet
from aijax.models.unet_config import unet_from_config

FILE = "diffusion_pytorch_model.safetensors"


def _image(model, config):
    side = 2 ** (len(model.block_out_channels) - 1)
    return {"x": shape_of(1, side, side, model.in_channels)}


def _class_latents(model, config):
    latents = shape_of(1, model.patch_size, model.patch_size, model.in_channels)
    return {"x": latents, "t": shape_of(1), "labels": shape_of(1, dtype=jnp.int32)}


def _text_latents(model, config):
    latents = shape_of(1, model.patch_size, model.patch_size, model.in_channels)
    text, pooled = shape_of(1, 1, model.joint_attention_dim), shape_of(1, model.pooled_projection_dim)
    return {"x": latents, "t": shape_of(1), "text": text, "pooled": pooled}


def _tokens(model, config):
    return {"tokens": shape_of(1, 1, dtype=jnp.int32)}


def _unet(model, config):
    side, told = 2 ** len(model.down), model.conditions
    width = config.get("projection_class_embeddings_input_dim")
    inputs = {"x": shape_of(1, side, side, model.in_channels), "t": shape_of(1)}
    if told.class_labels in ("label", "timestep"):
        inputs["class_labels"] = shape_of(1, dtype=jnp.int32)
    elif told.class_labels != "none":
        inputs["class_labels"] = shape_of(1, told.time_width if told.class_labels == "identity" else width)
    if model.context_width is not None:
        inputs["context"] = shape_of(1, 1, model.context_width)
    if told.size_features is not None:
        sizes = 6
        inputs["text_embeds"] = shape_of(1, width - sizes * told.size_features)
        inputs["time_ids"] = shape_of(1, sizes)
    if config.get("time_cond_proj_dim") is not None:
        inputs["time_condition"] = shape_of(1, config["time_cond_proj_dim"])
    return inputs


OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The names of attention over pixels in what was published before 2023."""


def _new_attention(name):
    *path, part, leaf = name.split(".") if name.count(".") > 1 else ("", name, "")
    if len(path) > 1 and path[-2] == "attentions" and part in OLD_ATTENTION:
        return ".".join([*path, OLD_ATTENTION[part], leaf])
    return name


def _without_positions(name):
    """Positions that are no parameters of a DiT are in some files."""
    return None if name == "pos_embed.pos_embed" else name


DIT = same_fields(
    DiT,
    _class_latents,
    name="DiTTransformer2DModel",
    ignored=("attention_type", "upcast_attention"),
    rename=_without_positions,
    file=FILE,
)


def _without_prefix(name):
    """CLIP's text encoder with its module's name before each tensor, as most files have it, or without."""
    return name.removeprefix("text_model.")


def _text_model(name):
    return name if name.startswith("text_projection.") else f"text_model.{name}"


def _clip_layout(model, config):
    return Layout((*CLIP_TEXT_NAMES, Entry("text_projection.*", "projection/*")), ignored=(PLACES,))


CLIP_TEXT, CLIP_TEXT_WITH_PROJECTION = (
    same_fields(
        module, _tokens, ignored=(*TRANSFORMERS, "projection_dim"), rename=_without_prefix, publish=_text_model,
        layout=_clip_layout,
        constant={"architectures": [name], "model_type": "clip_text_model"},
    )
    for module, name in ((CLIPText, "CLIPTextModel"), (CLIPTextWithProjection, "CLIPTextModelWithProjection"))
)  # fmt: skip

UNET = Architecture(UNet, lambda config, where: unet_from_config(config), None, _unet, rename=_new_attention, file=FILE)

ARCHITECTURES = {
    "AutoencoderKL": same_fields(AutoencoderKL, _image, ignored=("force_upcast",), rename=_new_attention, file=FILE),
    "CLIPTextModel": CLIP_TEXT,
    "CLIPTextModelWithProjection": CLIP_TEXT_WITH_PROJECTION,
    "DiTTransformer2DModel": DIT,
    "SD3Transformer2DModel": same_fields(MMDiT, _text_latents, name="SD3Transformer2DModel", file=FILE),
    "Transformer2DModel": DIT,
    "UNet2DConditionModel": UNET,
    "UNet2DModel": UNET,
    "VQModel": same_fields(
        VQModel,
        _image,
        ignored=("force_upcast", "lookup_from_codebook"),
        unpublished=("commitment",),
        rename=_new_attention,
        file=FILE,
    ),
    "clip_text_model": CLIP_TEXT,
}
"""Published class or model type: what is to be known of it."""
