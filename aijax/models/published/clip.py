"""CLIP, SigLIP and SigLIP 2 as transformers has them, and their vision towers alone.

(Radford et al. 2021; Zhai et al. 2023; Tschannen et al. 2025.)
"""

import math
from collections.abc import Mapping

from aijax.errors import ConfigError
from aijax.models.clip import CLIP
from aijax.models.layout import VECTOR, Entry, Form, Layout, prefixed, with_ones
from aijax.models.published.architecture import Architecture, Fields, shape_of
from aijax.models.published.text_towers import (
    CLIP_TEXT,
    PLACES,
    SIGLIP_TEXT,
    TOWER,
    read_clip_text,
    read_siglip_text,
    write_clip_text,
    write_siglip_text,
)  # fmt: skip
from aijax.models.published.vision import image_of, positions_entry, read_blocks, read_images, write_vit
from aijax.models.vit import ViT
from aijax.typing import Any

CLIP_VISION = (
    Entry("embeddings.class_embedding", "class_token", VECTOR),
    Entry("embeddings.patch_embedding.*", "embedding/*"),
    positions_entry("embeddings.position_embedding.weight", ones=0),
    Entry("pre_layrnorm.*", "norm_embedding/*"),
    *TOWER,
    Entry("post_layernorm.*", "norm_pooled/*"),
)
HEAD = "map_head/"
SIGLIP_VISION = (
    Entry("embeddings.patch_embedding.*", "embedding/*"),
    positions_entry("embeddings.position_embedding.weight", ones=0),
    *TOWER,
    Entry("post_layernorm.*", "encoder/norm/*"),
    Entry("head.probe", HEAD + "probe", with_ones(1)),
    *(
        Entry(f"head.attention.in_proj_{leaf}", tuple(f"{HEAD}attention/{p}/{own}" for p in ("query", "key", "value")))
        for leaf, own in (("weight", "kernel"), ("bias", "bias"))
    ),
    Entry("head.attention.out_proj.*", HEAD + "attention/out/*"),
    Entry("head.layernorm.*", HEAD + "norm/*"),
    Entry("head.mlp.fc1.*", HEAD + "mlp/up/*"),
    Entry("head.mlp.fc2.*", HEAD + "mlp/down/*"),
)
TOWER_PARTS = ("embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm.", "head.")
"""What the names of a vision tower's tensors begin with."""
LINEAR_PATCHES = Entry(
    "embeddings.patch_embedding.weight", "embedding/kernel",
    Form((3, 0, 1, 2), lambda shape: (shape[0], math.prod(shape[1:]))),
)  # fmt: skip
"""Patches that are cut before they are read: a matrix [outputs, rows x columns x channels]."""


def read_clip_vision(fields: Fields) -> ViT:
    """Returns CLIP's vision tower."""
    blocks = read_blocks(fields, width=768, mlp=3072, activation="quick_gelu", eps=1e-5)
    fields.skip("projection_dim", "dropout")
    return ViT(
        **read_images(fields, patch_size=32), **blocks, class_token=True, token_positions="class",
        embedding_norm=True, embedding_bias=False, final_norm="pooled", position_resize="bicubic",
    )  # fmt: skip


def read_clip_projection(fields: Fields) -> ViT:
    """Returns CLIP's vision tower and its projection into the space that texts share."""
    width = fields.take("projection_dim", int, 512)
    return read_clip_vision(fields).clone(num_classes=width, head_bias=False)


def read_siglip_vision(fields: Fields, *, flexible: bool) -> ViT:
    """Returns the vision tower of SigLIP, or of SigLIP 2 where images have shapes of their own."""
    blocks = read_blocks(fields, width=768, mlp=3072, activation="gelu_pytorch_tanh", eps=1e-6)
    if flexible:
        patch, count = fields.take("patch_size", int, 16), fields.take("num_patches", int, 256)
        side = math.isqrt(count)
        if side**2 != count:
            raise ConfigError(f"{fields.where}.num_patches: expected a square number, got {count}")
        images = {"patch_size": patch, "img_size": side * patch, "in_channels": fields.take("num_channels", int, 3)}
    else:
        images = read_images(fields)
    pool = "map" if fields.take("vision_use_head", bool, True) else "none"
    resize = "bilinear_antialias" if flexible else "bicubic"
    return ViT(**images, **blocks, pool=pool, position_resize=resize)


def _write_vision(model, kind):
    config = {"model_type": kind, **write_vit(model), "attention_dropout": model.attention_dropout_rate}
    if kind == "clip_vision_model":
        return config | ({"projection_dim": model.num_classes} if model.num_classes else {})
    config["vision_use_head"] = model.pool == "map"
    config["hidden_act"] = config["hidden_act"].replace("gelu_new", "gelu_pytorch_tanh")
    if kind == "siglip2_vision_model":
        config["num_patches"] = (config.pop("image_size") // model.patch_size) ** 2
    return config


def _siglip_entries(flexible):
    return (LINEAR_PATCHES, *SIGLIP_VISION) if flexible else SIGLIP_VISION


def _read_clip(config: Mapping[str, Any], where: str) -> CLIP:
    fields = Fields(config, where)
    width = fields.take("projection_dim", int, 512)
    scale = float(fields.take("logit_scale_init_value", float, 2.6592))
    fields.skip("text_config_dict", "vision_config_dict")
    vision, text = fields.section("vision_config"), fields.section("text_config")
    model = CLIP(
        read_clip_vision(vision), read_clip_text(text, width), width, temperature=math.exp(-scale),
        published_as="CLIPModel",
    )  # fmt: skip
    for part in (vision, text, fields):
        part.done()
    return model


def _write_clip(model: CLIP) -> dict[str, Any]:
    return {
        "architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": model.embed_dim,
        "logit_scale_init_value": -math.log(model.temperature or 0.07),
        "text_config": write_clip_text(model.text_encoder),
        "vision_config": _write_vision(model.vision_encoder, "clip_vision_model"),
    }  # fmt: skip


CLIP_LAYOUT = Layout(
    (
        *prefixed(CLIP_VISION, "vision_model.", "vision_encoder/"),
        Entry("text_projection.*", "text_encoder/projection/*"),
        *prefixed(CLIP_TEXT, "text_model.", "text_encoder/"),
        Entry("visual_projection.*", "vision_projection/*"),
        Entry("logit_scale", "log_scale"),
    ),
    ignored=(PLACES,),
)


def _siglip(name, kind, flexible):
    layout = Layout(
        (
            *prefixed(_siglip_entries(flexible), "vision_model.", "vision_encoder/"),
            *prefixed(SIGLIP_TEXT, "text_model.", "text_encoder/"),
            Entry("logit_scale", "log_scale", with_ones(1)),
            Entry("logit_bias", "logit_bias", with_ones(1)),
        ),
        ignored=(PLACES,),
    )

    def read(config: Mapping[str, Any], where: str) -> CLIP:
        fields = Fields(config, where)
        vision, text = fields.section("vision_config"), fields.section("text_config")
        tower = read_siglip_vision(vision, flexible=flexible)
        if tower.pool == "none":
            raise ConfigError(f"{where}.vision_config.vision_use_head: a dual encoder needs the head, got False")
        model = CLIP(tower, read_siglip_text(text), None, loss="sigmoid", published_as=name)
        for part in (vision, text, fields):
            part.done()
        return model

    def write(model: CLIP) -> dict[str, Any]:
        text = write_siglip_text(model.text_encoder) | {"model_type": f"{kind}_text_model"}
        vision = _write_vision(model.vision_encoder, f"{kind}_vision_model")
        return {"architectures": [name], "model_type": kind, "text_config": text, "vision_config": vision}

    return Architecture(CLIP, read, write, _pairs, lambda model, config: layout)


def _vision(name, kind, entries, read_tower, head=()):
    layout = Layout((*prefixed(entries, "vision_model.", ""), *head), ignored=(PLACES, r"text_model\..*", r"logit_.*"))

    def read(config: Mapping[str, Any], where: str) -> ViT:
        fields = Fields(config, where)
        model = read_tower(fields).clone(published_as=name)
        fields.done()
        return model

    def write(model: ViT) -> dict[str, Any]:
        return {"architectures": [name], **_write_vision(model, kind)}

    return Architecture(ViT, read, write, image_of, lambda model, config: layout, _in_tower)


def _in_tower(name):
    """The name of a tensor with that of its tower before it, which files of a tower alone have or have not."""
    return f"vision_model.{name}" if name.startswith(TOWER_PARTS) else name


def _pairs(model, config):
    return {
        "images": image_of(model.vision_encoder)["x"],
        "tokens": shape_of(1, model.text_encoder.context_length, dtype="int32"),
    }  # fmt: skip


CLIP_MODEL = Architecture(CLIP, _read_clip, _write_clip, _pairs, lambda model, config: CLIP_LAYOUT)
CLIP_TOWER = _vision("CLIPVisionModel", "clip_vision_model", CLIP_VISION, read_clip_vision)
CLIP_PROJECTION = _vision(
    "CLIPVisionModelWithProjection", "clip_vision_model", CLIP_VISION, read_clip_projection,
    (Entry("visual_projection.*", "head/*"),),
)  # fmt: skip
SIGLIP_MODEL, SIGLIP2_MODEL = _siglip("SiglipModel", "siglip", False), _siglip("Siglip2Model", "siglip2", True)
SIGLIP_TOWER = _vision(
    "SiglipVisionModel", "siglip_vision_model", SIGLIP_VISION, lambda fields: read_siglip_vision(fields, flexible=False)
)
SIGLIP2_TOWER = _vision(
    "Siglip2VisionModel", "siglip2_vision_model", _siglip_entries(True),
    lambda fields: read_siglip_vision(fields, flexible=True),
)  # fmt: skip
ARCHITECTURES = {
    "CLIPModel": CLIP_MODEL,
    "CLIPVisionModel": CLIP_TOWER,
    "CLIPVisionModelWithProjection": CLIP_PROJECTION,
    "SiglipModel": SIGLIP_MODEL,
    "SiglipVisionModel": SIGLIP_TOWER,
    "Siglip2Model": SIGLIP2_MODEL,
    "Siglip2VisionModel": SIGLIP2_TOWER,
    "clip": CLIP_MODEL,
    "clip_vision_model": CLIP_TOWER,
    "siglip": SIGLIP_MODEL,
    "siglip2": SIGLIP2_MODEL,
    "siglip2_vision_model": SIGLIP2_TOWER,
    "siglip_vision_model": SIGLIP_TOWER,
}
