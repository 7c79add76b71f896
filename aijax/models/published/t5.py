"""T5 (Raffel et al. 2020), with its decoder or the encoder alone."""

from collections.abc import Mapping

from aijax.errors import UnsupportedError, did_you_mean
from aijax.models.encoder_decoder import EncoderDecoder
from aijax.models.layout import Entry, Layout
from aijax.models.published.architecture import Architecture, Fields, headless
from aijax.models.published.transformers import ACTIVATIONS, tokens_of
from aijax.models.published.transformers import PUBLISHED as ACTIVATION_NAMES
from aijax.typing import Any

PARTS = {"query": "q", "key": "k", "value": "v", "out": "o"}
MLP = {"gate": "wi_0", "up": "wi_1", "down": "wo"}


def _entries(side: str, *, gated: bool) -> tuple[Entry, ...]:
    """The names of one stack, whose blocks have their attentions and the MLP as numbered layers."""
    layer, block = f"{side}.block.{{i}}.layer.", f"{side}/block_{{i}}/"
    branches = {"attention": ("0", "SelfAttention"), "cross_attention": ("1", "EncDecAttention")}
    last = "2" if side == "decoder" else "1"
    bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.*"
    entries = [Entry(bias, f"{side}_bias/*"), Entry(f"{side}.final_layer_norm.*", f"{side}/norm/*")]
    for branch, (number, name) in branches.items():
        if branch == "attention" or side == "decoder":
            entries += [Entry(f"{layer}{number}.{name}.{p}.*", f"{block}{branch}/{own}/*") for own, p in PARTS.items()]
            entries.append(Entry(f"{layer}{number}.layer_norm.*", f"{block}norm_{branch}/*"))
    names = MLP if gated else {"up": "wi", "down": "wo"}
    entries += [Entry(f"{layer}{last}.DenseReluDense.{p}.*", f"{block}mlp/{own}/*") for own, p in names.items()]
    return (*entries, Entry(f"{layer}{last}.layer_norm.*", f"{block}norm_mlp/*"))


def read(config: Mapping[str, Any], where: str, *, decodes: bool = True) -> EncoderDecoder:
    """Returns the model of a config; without its decoder, where that is not wanted."""
    fields = Fields(config, where)
    fields.expect("is_decoder", False)
    depth = fields.take("num_layers", int, 6)
    decoder_depth = fields.take("num_decoder_layers", int, depth)
    gated, activation = _activation(fields)
    tied = fields.take("tie_word_embeddings", bool, True)
    model = EncoderDecoder(
        vocab_size=fields.take("vocab_size", int, 32128),
        width=fields.take("d_model", int, 512),
        depth=depth,
        decoder_depth=decoder_depth if decodes else 0,
        num_heads=fields.take("num_heads", int, 8),
        head_width=fields.take("d_kv", int, 64),
        mlp_width=fields.take("d_ff", int, 2048),
        gated=gated,
        activation=activation,
        num_buckets=fields.take("relative_attention_num_buckets", int, 32),
        max_distance=fields.take("relative_attention_max_distance", int, 128),
        tied=tied,
        scale_output=fields.take("scale_decoder_outputs", bool, tied),
        dropout_rate=float(fields.take("dropout_rate", float, 0.1)),
        attention_dropout_rate=float(fields.take("dropout_rate", float, 0.1)),
        norm_epsilon=fields.take("layer_norm_epsilon", float, 1e-6),
    )
    fields.skip(
        "is_encoder_decoder", "classifier_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "n_positions"
    )
    fields.done()
    return model


def _activation(fields):
    """Whether the MLP is gated, and its activation; newer configs say so beside "feed_forward_proj"."""
    kind = fields.take("feed_forward_proj", str, "relu")
    gate, _, name = kind.rpartition("-")
    if gate not in ("", "gated") or name not in ACTIVATIONS:
        raise UnsupportedError(
            f"{fields.where}.feed_forward_proj: {kind!r} is not offered{did_you_mean(name, ACTIVATIONS)}"
        )
    name = "gelu_new" if kind == "gated-gelu" else name
    fields.expect("is_gated_act", gate == "gated")
    fields.expect("dense_act_fn", name)
    return gate == "gated", ACTIVATIONS[name]


def write(model: EncoderDecoder) -> dict[str, Any]:
    """Returns the config of a model."""
    name = ACTIVATION_NAMES[model.activation]
    gated = "gated-" if model.gated else ""
    kind = "T5ForConditionalGeneration" if model.decoder_depth else "T5EncoderModel"
    return {
        "architectures": [kind], "model_type": "t5", "vocab_size": model.vocab_size, "d_model": model.width,
        "num_layers": model.depth, "num_decoder_layers": model.decoder_depth or model.depth,
        "num_heads": model.num_heads, "d_kv": model.head_width, "d_ff": model.mlp_width,
        "feed_forward_proj": gated + ("gelu" if gated and name == "gelu_new" else name),
        "relative_attention_num_buckets": model.num_buckets, "relative_attention_max_distance": model.max_distance,
        "tie_word_embeddings": model.tied, "scale_decoder_outputs": model.scale_output,
        "dropout_rate": model.dropout_rate, "layer_norm_epsilon": model.norm_epsilon, "is_encoder_decoder": True,
        "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip


def layout(model: EncoderDecoder, config: Mapping[str, Any]) -> Layout:
    """Returns the names of its tensors."""
    entries = [Entry("shared.*", "embedding/*"), Entry("lm_head.weight", "head/kernel")]
    entries += _entries("encoder", gated=model.gated)
    entries += _entries("decoder", gated=model.gated) if model.decoder_depth else ()
    copies = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] + ["lm_head.weight"] * model.tied
    # old files have it; no model uses it
    ignored = (r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",)
    if not model.decoder_depth:
        ignored = (r"decoder\..*", r"lm_head\.weight")
    return Layout(tuple(entries), ignored=ignored, tied=dict.fromkeys(copies, "shared.weight"))


def _inputs(model, config):
    tokens = tokens_of(model, config)["tokens"]
    return {"tokens": tokens, "decoder_tokens": tokens} if model.decoder_depth else {"tokens": tokens}


T5 = Architecture(EncoderDecoder, read, write, _inputs, layout)
T5_ENCODER = Architecture(
    EncoderDecoder, lambda config, where: read(config, where, decodes=False), write, _inputs, layout
)

HEADLESS = headless(T5, "T5Model", rename=T5.rename, publish=T5.publish)

ARCHITECTURES = {"T5EncoderModel": T5_ENCODER, "T5ForConditionalGeneration": T5, "T5Model": HEADLESS, "t5": T5}
