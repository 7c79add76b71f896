"""Llama (Touvron et al. 2023): RMSNorm, rotary positions, gated MLPs, heads that share keys and values."""

from collections.abc import Mapping

from aijax.errors import ConfigError, UnsupportedError, did_you_mean
from aijax.models.layout import Entry, Layout
from aijax.models.lm import LanguageModel
from aijax.models.published.architecture import Architecture, Fields, headless
from aijax.models.published.transformers import PUBLISHED, take_activation, tokens_of
from aijax.models.rotary import BASE
from aijax.typing import Any

BLOCK = "decoder/block_{i}/"
ENTRIES = (
    Entry("model.embed_tokens.*", "embedding/*"),
    Entry("model.layers.{i}.input_layernorm.*", BLOCK + "norm_attention/*"),
    Entry("model.layers.{i}.post_attention_layernorm.*", BLOCK + "norm_mlp/*"),
    Entry("model.layers.{i}.self_attn.q_proj.*", BLOCK + "attention/query/*"),
    Entry("model.layers.{i}.self_attn.k_proj.*", BLOCK + "attention/key/*"),
    Entry("model.layers.{i}.self_attn.v_proj.*", BLOCK + "attention/value/*"),
    Entry("model.layers.{i}.self_attn.o_proj.*", BLOCK + "attention/out/*"),
    Entry("model.layers.{i}.mlp.{part}_proj.*", BLOCK + "mlp/{part}/*"),
    Entry("model.norm.*", "decoder/norm/*"),
    Entry("lm_head.weight", "head/kernel"),
)
ATTENTION, MLP = ("query", "key", "value", "out"), ("gate", "up", "down")
SCALING = (
    "attention_factor", "beta_fast", "beta_slow", "factor", "high_freq_factor", "long_factor", "low_freq_factor",
    "mscale", "mscale_all_dim", "original_max_position_embeddings", "rope_type", "short_factor", "truncate",
)  # fmt: skip


def read(config: Mapping[str, Any], where: str) -> LanguageModel:
    """Returns the model of a config."""
    fields = Fields(config, where)
    width, heads = fields.take("hidden_size", int, 4096), fields.take("num_attention_heads", int, 32)
    head_width, kv_heads = fields.take("head_dim", int, None), fields.take("num_key_value_heads", int, None)
    base, scaling = take_rotary(fields)
    model = LanguageModel(
        vocab_size=fields.take("vocab_size", int, 32000),
        context_length=fields.take("max_position_embeddings", int, 2048),
        width=width,
        depth=fields.take("num_hidden_layers", int, 32),
        num_heads=heads,
        mlp_width=fields.take("intermediate_size", int, 11008),
        positions="rotary",
        tied=fields.take("tie_word_embeddings", bool, False),
        norm="rms",
        norm_epsilon=fields.take("rms_norm_eps", float, 1e-6),
        activation=take_activation(fields, "hidden_act", "silu"),
        gated=True,
        biases=(ATTENTION if fields.take("attention_bias", bool, False) else ())
        + (MLP if fields.take("mlp_bias", bool, False) else ()),
        head_width=None if head_width == width // heads else head_width,
        num_kv_heads=None if kv_heads == heads else kv_heads,
        attention_dropout_rate=float(fields.take("attention_dropout", float, 0.0)),
        rotary_base=base,
        rotary_scaling=scaling,
    )
    # slices in which products were once computed
    fields.skip("pretraining_tp", "bos_token_id", "eos_token_id", "pad_token_id")
    fields.done()
    return model


def take_rotary(fields: Fields) -> tuple[float, dict[str, Any] | None]:
    """Returns the base of rotary positions and their scaling, from the fields of new configs or of old ones."""
    new, old = fields.take("rope_parameters", dict, None), fields.take("rope_scaling", dict, None)
    base = fields.take("rope_theta", float, None)
    name, scaling = ("rope_scaling", old) if new is None else ("rope_parameters", new)
    scaling = dict(scaling or {})
    base = float(scaling.pop("rope_theta", None) or base or BASE)
    kind = scaling.pop("type", "default")
    scaling.setdefault("rope_type", kind)
    if scaling.pop("partial_rotary_factor", 1.0) not in (None, 1.0):
        raise UnsupportedError(f"{fields.where}.{name}.partial_rotary_factor: only 1 is offered")
    original = fields.take("original_max_position_embeddings", int, None)
    if original is not None and scaling["rope_type"] in ("llama3", "longrope", "yarn"):
        scaling["original_max_position_embeddings"] = original
    for key in scaling:
        if key not in SCALING:
            raise ConfigError(f"{fields.where}.{name}.{key}: unknown field{did_you_mean(key, SCALING)}")
    return base, None if scaling == {"rope_type": "default"} else scaling


def write(model: LanguageModel) -> dict[str, Any]:
    """Returns the config of a model."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": model.vocab_size,
        "hidden_size": model.width, "intermediate_size": model.mlp_width, "num_hidden_layers": model.depth,
        "num_attention_heads": model.num_heads, "num_key_value_heads": model.num_kv_heads or model.num_heads,
        "head_dim": model.head_width or model.width // model.num_heads,
        "hidden_act": PUBLISHED[model.activation], "max_position_embeddings": model.context_length,
        "rms_norm_eps": model.norm_epsilon, "attention_bias": "query" in model.biases,
        "mlp_bias": "gate" in model.biases, "attention_dropout": model.attention_dropout_rate,
        "rope_parameters": {"rope_type": "default", **(model.rotary_scaling or {}), "rope_theta": model.rotary_base},
        "tie_word_embeddings": model.tied, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def layout(model: LanguageModel, config: Mapping[str, Any]) -> Layout:
    """Returns the names of its tensors."""
    tied = {"lm_head.weight": "model.embed_tokens.weight"} if model.tied else {}
    return Layout(ENTRIES, ignored=(r".*\.rotary_emb\.inv_freq",), tied=tied)


LLAMA = Architecture(LanguageModel, read, write, tokens_of, layout)
HEADLESS = headless(
    LLAMA,
    "LlamaModel",
    rename=lambda name: name if name.startswith(("model.", "lm_head.")) else f"model.{name}",
    publish=lambda name: name.removeprefix("model."),
)

ARCHITECTURES = {"LlamaForCausalLM": LLAMA, "LlamaModel": HEADLESS, "llama": LLAMA}
