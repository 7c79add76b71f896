"""ViT and DeiT as transformers has them (Dosovitskiy et al. 2021; Touvron et al. 2021)."""

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
BLOCKS = (
    Entry(LAYER + "attention.output.dense.*", BLOCK + "attention/out/*"),
    Entry(LAYER + "attention.attention.{part}.*", BLOCK + "attention/{part}/*"),
    Entry(LAYER + "layernorm_before.*", BLOCK + "norm_attention/*"),
    Entry(LAYER + "layernorm_after.*", BLOCK + "norm_mlp/*"),
    Entry(LAYER + "intermediate.dense.*", BLOCK + "mlp/up/*"),
    Entry(LAYER + "output.dense.*", BLOCK + "mlp/down/*"),
)
ENCODER = (
    Entry("embeddings.cls_token", "class_token", with_ones(1)),
    Entry("embeddings.distillation_token", "distillation_token", with_ones(1)),
    positions_entry("embeddings.position_embeddings"),
    Entry("embeddings.patch_embeddings.projection.*", "embedding/*"),
    *BLOCKS,
    Entry("layernorm.*", "encoder/norm/*"),
    Entry("pooler.dense.*", "pre_logits/*"),
)
HEADS = (
    Entry("classifier.*", "head/*"),
    Entry("cls_classifier.*", "head/*"),
    Entry("distillation_classifier.*", "head_distillation/*"),
)


def read_vit(fields: Fields, **more: Any) -> ViT:
    """Returns the encoder of a config, with more fields of its module."""
    blocks = read_blocks(
        fields, width=768, mlp=3072, eps=1e-12, attention_dropout="attention_probs_dropout_prob"
    )  # fmt: skip
    qkv = fields.take("qkv_bias", bool, True)
    dropout = float(fields.take("hidden_dropout_prob", float, 0.0))
    model = ViT(
        **read_images(fields), **blocks, biases=biases(query=qkv, key=qkv, value=qkv), dropout_rate=dropout,
        class_token=True, token_positions="class", position_resize="bicubic", **more,
    )  # fmt: skip
    fields.skip("encoder_stride")
    return model


def write_encoder(model: ViT) -> dict[str, Any]:
    """Returns the fields of the config of an encoder."""
    return write_vit(model) | {
        "qkv_bias": "query" in model.biases, "hidden_dropout_prob": model.dropout_rate,
        "attention_probs_dropout_prob": model.attention_dropout_rate,
    }  # fmt: skip


def _classifier(name, kind, distillation):
    heads = HEADS[1:] if distillation == "head" else HEADS[:1]
    layout = Layout((*prefixed(ENCODER, f"{kind}.", ""), *heads))

    def read(config: Mapping[str, Any], where: str) -> ViT:
        fields = Fields(config, where)
        fields.skip("pooler_output_size", "pooler_act")
        model = read_vit(fields, num_classes=labels(fields), distillation=distillation, published_as=name)
        fields.done()
        return model

    def write(model: ViT) -> dict[str, Any]:
        named = {"architectures": [name], "model_type": kind}
        return named | write_encoder(model) | write_labels(model.num_classes)

    return Architecture(ViT, read, write, image_of, lambda model, config: layout)


def _encoder(name, kind, distillation):
    """The encoder whose pooled feature has passed a layer; files that other tasks wrote have none."""
    layout = Layout(ENCODER, ignored=(r"classifier\..*",))

    def read(config: Mapping[str, Any], where: str) -> ViT:
        fields = Fields(config, where)
        width = fields.take("hidden_size", int, 768)
        fields.expect("pooler_act", "tanh")
        pooled = fields.take("pooler_output_size", int, width)
        model = read_vit(fields, pre_logits=pooled, distillation=distillation, published_as=name)
        fields.done()
        return model

    def write(model: ViT) -> dict[str, Any]:
        if model.pre_logits is None:
            raise ConfigError(f"pre_logits: {name} has such a layer, got None")
        named = {"architectures": [name], "model_type": kind}
        return named | write_encoder(model) | {"pooler_output_size": model.pre_logits, "pooler_act": "tanh"}

    return Architecture(ViT, read, write, image_of, lambda model, config: layout)


VIT = _classifier("ViTForImageClassification", "vit", "none")
DEIT = _classifier("DeiTForImageClassificationWithTeacher", "deit", "head")
ARCHITECTURES = {
    "ViTForImageClassification": VIT,
    "ViTModel": _encoder("ViTModel", "vit", "none"),
    "DeiTForImageClassificationWithTeacher": DEIT,
    "DeiTForImageClassification": _classifier("DeiTForImageClassification", "deit", "token"),
    "DeiTModel": _encoder("DeiTModel", "deit", "token"),
    "deit": DEIT,
    "vit": VIT,
}
