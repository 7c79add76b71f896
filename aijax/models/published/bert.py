"""BERT (Devlin et al. 2019): the encoder with its pooled feature, or with the head that guesses tokens."""

import re
from collections.abc import Mapping

from aijax.models.layout import Entry, Layout, prefixed
from aijax.models.published.architecture import Architecture, Fields
from aijax.models.published.transformers import PUBLISHED, take_activation, tokens_of
from aijax.models.text import MaskedLanguageModel, TextEncoder
from aijax.typing import Any

BLOCK = "encoder/block_{i}/"
LAYER = "encoder.layer.{i}."
ENCODER = (
    Entry("embeddings.word_embeddings.*", "embedding/*"),
    Entry("embeddings.position_embeddings.weight", "positions"),
    Entry("embeddings.token_type_embeddings.*", "token_types/*"),
    Entry("embeddings.LayerNorm.*", "embedding_norm/*"),
    Entry(LAYER + "attention.output.dense.*", BLOCK + "attention/out/*"),
    Entry(LAYER + "attention.self.{part}.*", BLOCK + "attention/{part}/*"),
    Entry(LAYER + "attention.output.LayerNorm.*", BLOCK + "norm_attention/*"),
    Entry(LAYER + "intermediate.dense.*", BLOCK + "mlp/up/*"),
    Entry(LAYER + "output.dense.*", BLOCK + "mlp/down/*"),
    Entry(LAYER + "output.LayerNorm.*", BLOCK + "norm_mlp/*"),
    Entry("pooler.dense.*", "projection/*"),
)
HEAD = (
    Entry("cls.predictions.transform.dense.*", "transform/*"),
    Entry("cls.predictions.transform.LayerNorm.*", "transform_norm/*"),
    Entry("cls.predictions.decoder.weight", "head/kernel"),
)
PLACES = r".*embeddings\.(position|token_type)_ids"
"""Numbers of places, which old files have as tensors."""
UNUSED = (PLACES, r"bert\.pooler\..*", r"cls\.seq_relationship\..*")
"""Of files with all that was pre-trained, what guessing tokens does not use."""
PREDICTIONS = r"cls\..*"


def read_encoder(fields: Fields, *, pooled: bool) -> TextEncoder:
    """Returns the encoder of a config."""
    fields.expect("is_decoder", False)
    fields.expect("add_cross_attention", False)
    fields.expect("position_embedding_type", "absolute")
    width = fields.take("hidden_size", int, 768)
    encoder = TextEncoder(
        vocab_size=fields.take("vocab_size", int, 30522),
        context_length=fields.take("max_position_embeddings", int, 512),
        width=width,
        depth=fields.take("num_hidden_layers", int, 12),
        num_heads=fields.take("num_attention_heads", int, 12),
        mlp_width=fields.take("intermediate_size", int, 3072),
        pool="first" if pooled else "none",
        projection_width=width if pooled else None,
        projection_bias=pooled,
        projection_activation="tanh" if pooled else None,
        num_token_types=fields.take("type_vocab_size", int, 2),
        embedding_norm=True,
        post_norm=True,
        norm_epsilon=fields.take("layer_norm_eps", float, 1e-12),
        activation=take_activation(fields, "hidden_act", "gelu"),
        dropout_rate=float(fields.take("hidden_dropout_prob", float, 0.1)),
        attention_dropout_rate=float(fields.take("attention_probs_dropout_prob", float, 0.1)),
    )
    fields.skip("classifier_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "gradient_checkpointing")
    return encoder


def _write_encoder(encoder):
    return {
        "model_type": "bert", "vocab_size": encoder.vocab_size, "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth, "num_attention_heads": encoder.num_heads,
        "intermediate_size": encoder.mlp_width, "hidden_act": PUBLISHED[encoder.activation],
        "hidden_dropout_prob": encoder.dropout_rate, "attention_probs_dropout_prob": encoder.attention_dropout_rate,
        "max_position_embeddings": encoder.context_length, "type_vocab_size": encoder.num_token_types,
        "layer_norm_eps": encoder.norm_epsilon,
    }  # fmt: skip


def _read_model(config: Mapping[str, Any], where: str) -> TextEncoder:
    fields = Fields(config, where)
    encoder = read_encoder(fields, pooled=True)
    fields.done()
    return encoder


def _read_masked(config: Mapping[str, Any], where: str) -> MaskedLanguageModel:
    fields = Fields(config, where)
    model = MaskedLanguageModel(read_encoder(fields, pooled=False), tied=fields.take("tie_word_embeddings", bool, True))
    fields.done()
    return model


def _write_model(encoder: TextEncoder) -> dict[str, Any]:
    return {"architectures": ["BertModel"], **_write_encoder(encoder)}


def _write_masked(model: MaskedLanguageModel) -> dict[str, Any]:
    return {
        "architectures": ["BertForMaskedLM"], **_write_encoder(model.encoder), "tie_word_embeddings": model.tied,
    }  # fmt: skip


def _layout_of_model(encoder: TextEncoder, config: Mapping[str, Any]) -> Layout:
    return Layout(ENCODER, ignored=(PLACES, PREDICTIONS))


def _layout_of_masked(model: MaskedLanguageModel, config: Mapping[str, Any]) -> Layout:
    entries = (*prefixed(ENCODER, "bert.", "encoder/"), *HEAD)
    name, copy = "cls.predictions.bias", "cls.predictions.decoder.bias"
    if not model.tied:  # then the copy is what counts
        return Layout((*entries, Entry(copy, "bias")), ignored=(*UNUSED, re.escape(name)))
    tied = {copy: name, "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"}
    return Layout((*entries, Entry(name, "bias")), ignored=UNUSED, tied=tied)


def _new_norms(name):
    """Norms by their names since 2019."""
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name))


MASKED = Architecture(MaskedLanguageModel, _read_masked, _write_masked, tokens_of, _layout_of_masked, _new_norms)
MODEL = Architecture(
    TextEncoder, _read_model, _write_model, tokens_of, _layout_of_model,
    lambda name: _new_norms(name).removeprefix("bert."),
)  # fmt: skip

ARCHITECTURES = {"BertForMaskedLM": MASKED, "BertForPreTraining": MASKED, "BertModel": MODEL, "bert": MASKED}
