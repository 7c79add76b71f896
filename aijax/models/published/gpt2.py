"""GPT-2 (Radford et al. 2019): its linear layers are published [inputs, outputs], and query, key and value as one."""

from collections.abc import Mapping

from aijax.errors import UnsupportedError
from aijax.models.layout import SAME, Entry, Layout
from aijax.models.lm import LanguageModel
from aijax.models.published.architecture import Architecture, Fields, headless
from aijax.models.published.transformers import PUBLISHED, take_activation, tokens_of
from aijax.typing import Any

BLOCK = "decoder/block_{i}/"
ENTRIES = (
    Entry("wte.*", "embedding/*"),
    Entry("wpe.weight", "positions"),
    Entry("h.{i}.ln_1.*", BLOCK + "norm_attention/*"),
    Entry("h.{i}.ln_2.*", BLOCK + "norm_mlp/*"),
    Entry(
        "h.{i}.attn.c_attn.*",
        tuple(f"{BLOCK}attention/{part}/*" for part in ("query", "key", "value")),
        form=SAME,
        axis=-1,
    ),
    Entry("h.{i}.attn.c_proj.*", BLOCK + "attention/out/*", form=SAME),
    Entry("h.{i}.mlp.c_fc.*", BLOCK + "mlp/up/*", form=SAME),
    Entry("h.{i}.mlp.c_proj.*", BLOCK + "mlp/down/*", form=SAME),
    Entry("ln_f.*", "decoder/norm/*"),
    Entry("lm_head.weight", "head/kernel"),
)
MASKS = (r"h\.\d+\.attn\.bias", r"h\.\d+\.attn\.masked_bias")
"""Causal masks, which old files have as tensors."""


def read(config: Mapping[str, Any], where: str) -> LanguageModel:
    """Returns the model of a config."""
    fields = Fields(config, where)
    fields.expect("add_cross_attention", False)
    rates = [fields.take(name, float, 0.1) for name in ("embd_pdrop", "resid_pdrop")]
    if rates[0] != rates[1]:
        raise UnsupportedError(f"{where}.embd_pdrop: expected that of resid_pdrop {rates[1]}, got {rates[0]}")
    width, inner = fields.take("n_embd", int, 768), fields.take("n_inner", int, None)
    model = LanguageModel(
        vocab_size=fields.take("vocab_size", int, 50257),
        context_length=fields.take("n_positions", int, 1024),
        width=width,
        depth=fields.take("n_layer", int, 12),
        num_heads=fields.take("n_head", int, 12),
        mlp_width=None if inner == 4 * width else inner,
        activation=take_activation(fields, "activation_function", "gelu_new"),
        norm_epsilon=fields.take("layer_norm_epsilon", float, 1e-5),
        tied=fields.take("tie_word_embeddings", bool, True),
        attention_scale=None if fields.take("scale_attn_weights", bool, True) else 1.0,
        scale_by_depth=fields.take("scale_attn_by_inverse_layer_idx", bool, False),
        dropout_rate=float(rates[1]),
        attention_dropout_rate=float(fields.take("attn_pdrop", float, 0.1)),
    )
    # a softmax of 32 bits, or of one order of operations: ours is of 32 bits at least
    fields.skip("reorder_and_upcast_attn", "n_ctx", "bos_token_id", "eos_token_id", "pad_token_id")
    fields.skip(*(f"summary_{name}" for name in ("type", "use_proj", "activation", "proj_to_labels", "first_dropout")))
    fields.done()
    return model


def write(model: LanguageModel) -> dict[str, Any]:
    """Returns the config of a model."""
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": model.vocab_size,
        "n_positions": model.context_length, "n_embd": model.width, "n_layer": model.depth, "n_head": model.num_heads,
        "n_inner": model.mlp_width, "activation_function": PUBLISHED[model.activation],
        "layer_norm_epsilon": model.norm_epsilon, "tie_word_embeddings": model.tied,
        "scale_attn_weights": model.attention_scale is None, "scale_attn_by_inverse_layer_idx": model.scale_by_depth,
        "embd_pdrop": model.dropout_rate, "resid_pdrop": model.dropout_rate, "attn_pdrop": model.attention_dropout_rate,
        "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def layout(model: LanguageModel, config: Mapping[str, Any]) -> Layout:
    """Returns the names of its tensors."""
    return Layout(ENTRIES, ignored=MASKS, tied={"lm_head.weight": "wte.weight"} if model.tied else {})


def _rename(name):
    return name.removeprefix("transformer.")


def _publish(name):
    return name if name.startswith("lm_head.") else f"transformer.{name}"


GPT2 = Architecture(LanguageModel, read, write, tokens_of, layout, _rename, _publish)
HEADLESS = headless(GPT2, "GPT2Model", rename=_rename, publish=lambda name: name)

ARCHITECTURES = {"GPT2LMHeadModel": GPT2, "GPT2Model": HEADLESS, "gpt2": GPT2}
