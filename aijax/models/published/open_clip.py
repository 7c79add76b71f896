"""CLIP in the layout of open_clip and of OpenAI's first files (Ilharco et al. 2021; Radford et al. 2021)."""

import math
from collections.abc import Mapping

from aijax.errors import ConfigError, UnsupportedError
from aijax.models.clip import CLIP
from aijax.models.layout import SAME, VECTOR, Entry, Layout, prefixed
from aijax.models.published.architecture import Architecture, Fields, shape_of
from aijax.models.published.text_towers import (
    OPEN_CLIP_TOWER,
    mlp_ratio_of,
    open_clip_text_entries,
    read_open_clip_text,
    take_mlp_width,
    write_open_clip_text,
)  # fmt: skip
from aijax.models.published.vision import image_of, positions_entry, take_size
from aijax.models.vit import ViT
from aijax.typing import Any

NAME = "open_clip"
TEXT_APART = ":custom_text"
"""What `published_as` ends with where the text tower's tensors are named as those of a tower."""
POOLS = {"tok": "cls", "avg": "gap"}
VISION = (
    Entry("class_embedding", "class_token", VECTOR),
    Entry("conv1.*", "embedding/*"),
    positions_entry("positional_embedding", ones=0),
    Entry("ln_pre.*", "norm_embedding/*"),
    *OPEN_CLIP_TOWER,
    Entry("ln_post.*", "encoder/norm/*"),
    Entry("ln_post.*", "norm_pooled/*"),
)
BUFFERS = (r"(text\.)?attn_mask", "input_resolution", "context_length", "vocab_size")
"""Tensors of OpenAI's files that are no parameters."""


def read_vision(fields: Fields, *, quick_gelu: bool) -> ViT:
    """Returns the vision tower of a config; residual networks and towers of timm are refused."""
    for name in ("timm_model_name", "act_kwargs", "block_type"):
        fields.expect(name, None)
    for name in (
        "attentional_pool", "output_tokens", "qk_norm", "scale_attn", "scale_attn_inner", "scale_fc", "scale_heads",
        "scaled_cosine_attn",
    ):  # fmt: skip
        fields.expect(name, False)
    fields.skip("attn_pooler_heads", "attn_pooler_queries")
    fields.skip(*(f"timm_{n}" for n in ("drop", "drop_path", "model_pretrained", "pool", "proj", "proj_bias")))
    width, head = fields.take("width", int, 768), fields.take("head_width", int, 64)
    if width % head:
        raise ConfigError(f"{fields.where}.head_width: expected a divisor of the width {width}, got {head}")
    pool = fields.take("pool_type", str, "tok")
    if pool not in POOLS:
        raise UnsupportedError(f"{fields.where}.pool_type: {pool!r} is not offered, only {', '.join(POOLS)}")
    kind = fields.take("pos_embed_type", str, "learnable")
    if kind not in ("learnable", "sin_cos_2d"):
        raise UnsupportedError(f"{fields.where}.pos_embed_type: {kind!r} is not offered")
    norms = fields.section("norm_kwargs")
    epsilon = float(norms.take("eps", float, 1e-5))
    norms.done()
    image, patch = take_size(fields, "image_size", 224), take_size(fields, "patch_size", 16)
    model = ViT(
        patch, width, fields.take("layers", int, 12), width // head, img_size=image, in_channels=3,
        mlp_ratio=take_mlp_width(fields, width) / width, activation="gelu_quick" if quick_gelu else "gelu",
        norm_epsilon=epsilon, pool=POOLS[pool], class_token=True, token_positions="class",
        freeze_positions=kind == "sin_cos_2d", embedding_norm=not fields.take("no_ln_pre", bool, False),
        embedding_bias=False, layer_scale=fields.take("ls_init_value", float, None),
        final_norm="pooled" if fields.take("final_ln_after_pool", bool, False) else "tokens",
        token_dropout_rate=float(fields.take("patch_dropout", float, 0.0)), position_resize="bicubic_antialias",
    )  # fmt: skip
    fields.done()
    return model


def _write_vision(model):
    if model.img_size is None:
        raise ConfigError("img_size: a published vision transformer has it, got None")
    return {
        "image_size": model.img_size, "patch_size": model.patch_size, "width": model.embed_dim,
        "layers": model.depth, "head_width": model.embed_dim // model.num_heads,
        "mlp_ratio": mlp_ratio_of(round(model.mlp_ratio * model.embed_dim), model.embed_dim),
        "norm_kwargs": {"eps": model.norm_epsilon}, "no_ln_pre": not model.embedding_norm,
        "pool_type": {own: name for name, own in POOLS.items()}.get(model.pool),
        "pos_embed_type": "sin_cos_2d" if model.freeze_positions else "learnable", "ls_init_value": model.layer_scale,
        "final_ln_after_pool": model.final_norm == "pooled", "patch_dropout": model.token_dropout_rate,
    }  # fmt: skip


def _read(config: Mapping[str, Any], where: str) -> CLIP:
    fields = Fields(config, where)
    width, quick = fields.take("embed_dim", int), fields.take("quick_gelu", bool, False)
    vision, text = fields.section("vision_cfg"), fields.section("text_cfg")
    scale, bias = fields.take("init_logit_scale", float, None), fields.take("init_logit_bias", float, None)
    fields.expect("nonscalar_logit_scale", False)
    fields.expect("multimodal_cfg", None)
    fields.skip("cast_dtype", "output_dict", "architecture")
    named = NAME + (TEXT_APART if fields.take("custom_text", bool, False) else "")
    images, tower = read_vision(vision, quick_gelu=quick), read_open_clip_text(text, width, quick_gelu=quick)
    text.done()
    if tower.projection_width is None:  # then that of images is a part of their tower
        images, width = images.clone(num_classes=width, head_bias=False), None
    model = CLIP(
        images, tower, width, loss="softmax" if bias is None else "sigmoid",
        temperature=None if scale is None else math.exp(-scale), bias=-10.0 if bias is None else float(bias),
        published_as=named,
    )  # fmt: skip
    fields.done()
    return model


def _write(model: CLIP) -> dict[str, Any]:
    config = {
        "embed_dim": model.embed_dim or model.vision_encoder.num_classes,
        "quick_gelu": model.vision_encoder.activation == "gelu_quick",
        "vision_cfg": _write_vision(model.vision_encoder), "text_cfg": write_open_clip_text(model.text_encoder),
    }  # fmt: skip
    if (model.published_as or "").endswith(TEXT_APART):
        config["custom_text"] = True
    if model.temperature is not None:
        config["init_logit_scale"] = -math.log(model.temperature)
    return config | ({"init_logit_bias": model.bias} if model.loss == "sigmoid" else {})


def _layout(model: CLIP, config: Mapping[str, Any]) -> Layout:
    own = "text." if config.get("custom_text") else ""
    return Layout(
        (
            *prefixed(VISION, "visual.", "vision_encoder/"),
            Entry("visual.proj", "vision_projection/kernel", SAME),
            Entry("visual.proj", "vision_encoder/head/kernel", SAME),
            *prefixed(open_clip_text_entries(model.text_encoder), own, "text_encoder/"),
            Entry("logit_scale", "log_scale"),
            Entry("logit_bias", "logit_bias"),
        ),
        ignored=BUFFERS,
    )


def _pairs(model, config):
    tokens = shape_of(1, model.text_encoder.context_length, dtype="int32")
    return {"images": image_of(model.vision_encoder)["x"], "tokens": tokens}


ARCHITECTURES = {NAME: Architecture(CLIP, _read, _write, _pairs, _layout)}
