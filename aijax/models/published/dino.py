"""DINOv2, with and without registers, and DINOv3 as transformers has them.

(Oquab et al. 2024; Darcet et al. 2024; Simeoni et al. 2025.)
"""

from collections.abc import Mapping

from aijax.errors import ConfigError
from aijax.models.layout import Entry, Layout, prefixed, with_ones
from aijax.models.published.architecture import Architecture, Fields
from aijax.models.published.vision import (
    BLOCK,
    biases,
    image_of,
    labels,
    positions_entry,
    read_blocks,
    read_images,
    write_labels,
    write_vit,
)  # fmt: skip
from aijax.models.vit import ViT
from aijax.typing import Any

LAYER = "encoder.layer.{i}."
BACKBONE = (
    "apply_layernorm", "out_features", "out_indices", "reshape_hidden_states", "stage_names", "return_class_token",
)  # fmt: skip
"""Fields of a backbone, which are about what else it returns."""


def _common(layer):
    return (
        Entry(layer + "norm1.*", BLOCK + "norm_attention/*"),
        Entry(layer + "norm2.*", BLOCK + "norm_mlp/*"),
        Entry(layer + "layer_scale1.lambda1", BLOCK + "layer_scale_attention"),
        Entry(layer + "layer_scale2.lambda1", BLOCK + "layer_scale_mlp"),
    )


DINO2 = (
    Entry("embeddings.cls_token", "class_token", with_ones(1)),
    Entry("embeddings.mask_token", "mask_token"),
    Entry("embeddings.register_tokens", "registers", with_ones(1)),
    positions_entry("embeddings.position_embeddings"),
    Entry("embeddings.patch_embeddings.projection.*", "embedding/*"),
    *_common(LAYER),
    Entry(LAYER + "attention.output.dense.*", BLOCK + "attention/out/*"),
    Entry(LAYER + "attention.attention.{part}.*", BLOCK + "attention/{part}/*"),
    Entry("layernorm.*", "encoder/norm/*"),
)
PLAIN_MLP = (
    Entry(LAYER + "mlp.fc1.*", BLOCK + "mlp/up/*"),
    Entry(LAYER + "mlp.fc2.*", BLOCK + "mlp/down/*"),
)
GATED_MLP = (
    Entry(LAYER + "mlp.weights_in.*", (BLOCK + "mlp/gate/*", BLOCK + "mlp/up/*")),
    Entry(LAYER + "mlp.weights_out.*", BLOCK + "mlp/down/*"),
)
DINO3 = (
    Entry("embeddings.cls_token", "class_token", with_ones(1)),
    Entry("embeddings.mask_token", "mask_token", with_ones(1)),
    Entry("embeddings.register_tokens", "registers", with_ones(1)),
    Entry("embeddings.patch_embeddings.*", "embedding/*"),
    *_common("layer.{i}."),
    Entry("layer.{i}.attention.q_proj.*", BLOCK + "attention/query/*"),
    Entry("layer.{i}.attention.k_proj.*", BLOCK + "attention/key/*"),
    Entry("layer.{i}.attention.v_proj.*", BLOCK + "attention/value/*"),
    Entry("layer.{i}.attention.o_proj.*", BLOCK + "attention/out/*"),
    Entry("layer.{i}.mlp.{part}_proj.*", BLOCK + "mlp/{part}/*"),
    Entry("norm.*", "encoder/norm/*"),
)
DINO3_LAYOUT = Layout(DINO3, ignored=(r"rope_embeddings\.inv_freq",))


def _read_dino2(config, where, registers, name, classes):
    fields = Fields(config, where)
    blocks = read_blocks(fields, width=768, eps=1e-6, attention_dropout="attention_probs_dropout_prob")
    qkv, gated = fields.take("qkv_bias", bool, True), fields.take("use_swiglu_ffn", bool, False)
    width = blocks["embed_dim"]
    hidden = int(width * fields.take("mlp_ratio", float, 4))
    if gated:  # two thirds of it, as a multiple of 8
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        blocks["activation"] = "silu"
    given = {"num_classes": labels(fields), "pool": "cls_gap"} if classes else {}
    model = ViT(
        **read_images(fields, patch_size=14), **blocks, **given, mlp_ratio=hidden / width, gated=gated,
        biases=biases(query=qkv, key=qkv, value=qkv), class_token=True, token_positions="class",
        dropout_rate=float(fields.take("hidden_dropout_prob", float, 0.0)),
        layer_scale=float(fields.take("layerscale_value", float, 1.0)),
        stochastic_depth_rate=float(fields.take("drop_path_rate", float, 0.0)),
        num_registers=fields.take("num_register_tokens", int, 4) if registers else 0,
        mask_token=fields.take("use_mask_token", bool, True) or registers,
        position_resize="bicubic_antialias" if registers else "bicubic", published_as=name,
    )  # fmt: skip
    fields.skip(*BACKBONE)
    fields.done()
    return model


def _write_dino2(model, registers, name, classes):
    if model.layer_scale is None:
        raise ConfigError("layer_scale: DINOv2 has one, got None")
    hidden = round(model.mlp_ratio * model.embed_dim)
    ratio = hidden * 3 / 2 / model.embed_dim if model.gated else hidden / model.embed_dim
    config = {
        "architectures": [name], "model_type": "dinov2_with_registers" if registers else "dinov2",
        **write_vit(model, mlp=False), "mlp_ratio": int(ratio) if ratio == int(ratio) else ratio,
        "use_swiglu_ffn": model.gated, "qkv_bias": "query" in model.biases, "layerscale_value": model.layer_scale,
        "hidden_dropout_prob": model.dropout_rate, "attention_probs_dropout_prob": model.attention_dropout_rate,
        "drop_path_rate": model.stochastic_depth_rate,
    }  # fmt: skip
    config |= {"num_register_tokens": model.num_registers} if registers else {"use_mask_token": model.mask_token}
    return config | (write_labels(model.num_classes) if classes else {})


def _dino2(name, *, registers=False, classes=False):
    def read(config: Mapping[str, Any], where: str) -> ViT:
        return _read_dino2(config, where, registers, name, classes)

    def write(model: ViT) -> dict[str, Any]:
        return _write_dino2(model, registers, name, classes)

    def layout(model: ViT, config: Mapping[str, Any]) -> Layout:
        encoder = (*DINO2, *(GATED_MLP if model.gated else PLAIN_MLP))
        if not classes:
            return Layout(encoder)
        prefix = "dinov2_with_registers." if registers else "dinov2."
        return Layout((*prefixed(encoder, prefix, ""), Entry("classifier.*", "head/*")))

    return Architecture(ViT, read, write, image_of, layout)


def _read_dino3(config: Mapping[str, Any], where: str) -> ViT:
    fields = Fields(config, where)
    blocks = read_blocks(fields, width=384, heads=6, mlp=1536, eps=1e-5)
    mlp = fields.take("mlp_bias", bool, True)
    have = biases(
        query=fields.take("query_bias", bool, True), key=fields.take("key_bias", bool, False),
        value=fields.take("value_bias", bool, True), out=fields.take("proj_bias", bool, True), gate=mlp, up=mlp,
        down=mlp,
    )  # fmt: skip
    model = ViT(
        **read_images(fields), **blocks, biases=have, positions="rotary2d", class_token=True, mask_token=True,
        gated=fields.take("use_gated_mlp", bool, False), rotary_base=float(fields.take("rope_theta", float, 100.0)),
        layer_scale=float(fields.take("layerscale_value", float, 1.0)),
        stochastic_depth_rate=float(fields.take("drop_path_rate", float, 0.0)),
        num_registers=fields.take("num_register_tokens", int, 0), published_as="DINOv3ViTModel",
    )  # fmt: skip
    fields.skip(*BACKBONE, "pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale")
    fields.done()
    return model


def _write_dino3(model: ViT) -> dict[str, Any]:
    if model.layer_scale is None:
        raise ConfigError("layer_scale: DINOv3 has one, got None")
    return {
        "architectures": ["DINOv3ViTModel"], "model_type": "dinov3_vit", **write_vit(model),
        "query_bias": "query" in model.biases, "key_bias": "key" in model.biases,
        "value_bias": "value" in model.biases, "proj_bias": "out" in model.biases, "mlp_bias": "up" in model.biases,
        "use_gated_mlp": model.gated, "rope_theta": model.rotary_base, "layerscale_value": model.layer_scale,
        "num_register_tokens": model.num_registers, "drop_path_rate": model.stochastic_depth_rate,
        "attention_dropout": model.attention_dropout_rate,
    }  # fmt: skip


DINO2_MODEL, REGISTERS = _dino2("Dinov2Model"), _dino2("Dinov2WithRegistersModel", registers=True)
DINO3_MODEL = Architecture(ViT, _read_dino3, _write_dino3, image_of, lambda model, config: DINO3_LAYOUT)
ARCHITECTURES = {
    "Dinov2Model": DINO2_MODEL,
    "Dinov2ForImageClassification": _dino2("Dinov2ForImageClassification", classes=True),
    "Dinov2WithRegistersModel": REGISTERS,
    "Dinov2WithRegistersForImageClassification": _dino2(
        "Dinov2WithRegistersForImageClassification", registers=True, classes=True
    ),
    "DINOv3ViTModel": DINO3_MODEL,
    "dinov2": DINO2_MODEL,
    "dinov2_with_registers": REGISTERS,
    "dinov3_vit": DINO3_MODEL,
}
