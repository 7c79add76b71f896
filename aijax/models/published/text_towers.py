"""Text towers of CLIP and SigLIP as transformers publishes them, and of CLIP as OpenAI and open_clip do.

Each is a `TextEncoder`: `read_clip_text` and its like make it of the fields of its section of a config, and the entries
name its tensors; a model of two towers puts what comes before them with `aijax.models.layout.prefixed`.
"""

import math
from collections.abc import Mapping

from aijax.errors import UnsupportedError, choose
from aijax.models.layout import SAME, Entry, Layout
from aijax.models.published.architecture import Architecture, Fields
from aijax.models.published.transformers import PUBLISHED, take_activation, tokens_of
from aijax.models.text import LEGACY_END, TextEncoder
from aijax.typing import Any

BLOCK = "encoder/block_{i}/"
LAYER = "encoder.layers.{i}."
TOWER = (
    Entry(LAYER + "self_attn.q_proj.*", BLOCK + "attention/query/*"),
    Entry(LAYER + "self_attn.k_proj.*", BLOCK + "attention/key/*"),
    Entry(LAYER + "self_attn.v_proj.*", BLOCK + "attention/value/*"),
    Entry(LAYER + "self_attn.out_proj.*", BLOCK + "attention/out/*"),
    Entry(LAYER + "layer_norm1.*", BLOCK + "norm_attention/*"),
    Entry(LAYER + "layer_norm2.*", BLOCK + "norm_mlp/*"),
    Entry(LAYER + "mlp.fc1.*", BLOCK + "mlp/up/*"),
    Entry(LAYER + "mlp.fc2.*", BLOCK + "mlp/down/*"),
)
"""The blocks of a tower, of text or of images."""
CLIP_TEXT = (
    Entry("embeddings.token_embedding.*", "embedding/*"),
    Entry("embeddings.position_embedding.weight", "positions"),
    *TOWER,
    Entry("final_layer_norm.*", "encoder/norm/*"),
)
"""After "text_model."; CLIP's projection is beside it, "text_projection.weight"."""
SIGLIP_TEXT = (*CLIP_TEXT, Entry("head.*", "projection/*"))
"""After "text_model."."""
RESBLOCK = "transformer.resblocks.{i}."
OPEN_CLIP_TOWER = (
    *(
        Entry(
            f"{RESBLOCK}attn.in_proj_{leaf}",
            tuple(f"{BLOCK}attention/{part}/{own}" for part in ("query", "key", "value")),
        )
        for leaf, own in (("weight", "kernel"), ("bias", "bias"))
    ),
    Entry(RESBLOCK + "attn.out_proj.*", BLOCK + "attention/out/*"),
    Entry(RESBLOCK + "ln_1.*", BLOCK + "norm_attention/*"),
    Entry(RESBLOCK + "ln_2.*", BLOCK + "norm_mlp/*"),
    Entry(RESBLOCK + "ls_1.gamma", BLOCK + "layer_scale_attention"),
    Entry(RESBLOCK + "ls_2.gamma", BLOCK + "layer_scale_mlp"),
    Entry(RESBLOCK + "mlp.c_fc.*", BLOCK + "mlp/up/*"),
    Entry(RESBLOCK + "mlp.c_proj.*", BLOCK + "mlp/down/*"),
)
"""The blocks of a tower of open_clip, of text or, after "visual.", of images."""
OPEN_CLIP_TEXT = (
    Entry("token_embedding.*", "embedding/*"),
    Entry("positional_embedding", "positions"),
    *OPEN_CLIP_TOWER,
    Entry("ln_final.*", "encoder/norm/*"),
)
OPEN_CLIP_PROJECTION = Entry("text_projection", "projection/kernel", form=SAME)
"""Of a projection without bias; one with a bias is an ordinary layer of this name."""
OPEN_CLIP_POOLS = {"argmax": "argmax", "eos": "end", "first": "first", "last": "last", "none": "none"}
PLACES = r".*position_ids"
"""Numbers of places, which old files have as tensors."""


def read_clip_text(fields: Fields, projection_width: int | None) -> TextEncoder:
    """Returns CLIP's text tower, with its projection where it has a width."""
    end = fields.take("eos_token_id", int, 49407)
    fields.skip("bos_token_id", "pad_token_id", "projection_dim", "dropout")
    return TextEncoder(
        **_sizes(fields, vocab_size=49408, hidden_size=512, heads=8, intermediate_size=2048, context_length=77),
        causal=True,
        pool="argmax" if end == LEGACY_END else "end",
        end_token=end,
        projection_width=projection_width,
        norm_epsilon=fields.take("layer_norm_eps", float, 1e-5),
        activation=take_activation(fields, "hidden_act", "quick_gelu"),
        attention_dropout_rate=float(fields.take("attention_dropout", float, 0.0)),
    )


def write_clip_text(tower: TextEncoder) -> dict[str, Any]:
    """Returns the section of a config that describes CLIP's text tower."""
    return {
        "model_type": "clip_text_model", **_write_sizes(tower), "hidden_act": PUBLISHED[tower.activation],
        "layer_norm_eps": tower.norm_epsilon, "attention_dropout": tower.attention_dropout_rate,
        "eos_token_id": tower.end_token, "projection_dim": tower.projection_width,
    }  # fmt: skip


def read_siglip_text(fields: Fields) -> TextEncoder:
    """Returns SigLIP's text tower."""
    fields.skip("bos_token_id", "eos_token_id", "pad_token_id")
    sizes = _sizes(fields, vocab_size=32000, hidden_size=768, heads=12, intermediate_size=3072, context_length=64)
    return TextEncoder(
        **sizes,
        pool="last",
        projection_width=fields.take("projection_size", int, sizes["width"]),
        projection_bias=True,
        norm_epsilon=fields.take("layer_norm_eps", float, 1e-6),
        activation=take_activation(fields, "hidden_act", "gelu_pytorch_tanh"),
        attention_dropout_rate=float(fields.take("attention_dropout", float, 0.0)),
    )


def write_siglip_text(tower: TextEncoder) -> dict[str, Any]:
    """Returns the section of a config that describes SigLIP's text tower."""
    return {
        "model_type": "siglip_text_model", **_write_sizes(tower), "projection_size": tower.projection_width,
        "hidden_act": "gelu_pytorch_tanh" if tower.activation == "gelu_tanh" else PUBLISHED[tower.activation],
        "layer_norm_eps": tower.norm_epsilon, "attention_dropout": tower.attention_dropout_rate,
    }  # fmt: skip


def read_open_clip_text(fields: Fields, projection_width: int, *, quick_gelu: bool) -> TextEncoder:
    """Returns the text tower of a config of open_clip."""
    for name in ("hf_model_name", "block_type", "act_kwargs"):
        fields.expect(name, None)
    for name in (
        "embed_cls", "output_tokens", "qk_norm", "scale_attn", "scale_attn_inner", "scale_fc", "scale_heads",
        "scaled_cosine_attn",
    ):  # fmt: skip
        fields.expect(name, False)
    # of towers of Hugging Face, of tokenizers, and of a class token, which is refused
    fields.skip("hf_model_pretrained", "hf_pooler_type", "hf_proj_type", "hf_tokenizer_name", "tokenizer_kwargs")
    fields.skip("tokenizer_mode", "pad_id", "final_ln_after_pool")
    pool = choose(OPEN_CLIP_POOLS, fields.take("pool_type", str, "argmax"), f"{fields.where}.pool_type")
    projected = fields.take("proj_type", str, "linear")
    if projected not in ("linear", "none"):
        raise UnsupportedError(f"{fields.where}.proj_type: {projected!r} is not offered, only 'linear' and 'none'")
    norms = fields.section("norm_kwargs")
    epsilon = norms.take("eps", float, 1e-5)
    norms.done()
    width = fields.take("width", int, 512)
    inner = take_mlp_width(fields, width)
    return TextEncoder(
        vocab_size=fields.take("vocab_size", int, 49408),
        context_length=fields.take("context_length", int, 77),
        width=width,
        depth=fields.take("layers", int, 12),
        num_heads=fields.take("heads", int, 8),
        mlp_width=None if inner == 4 * width else inner,
        causal=not fields.take("no_causal_mask", bool, False),
        pool=pool,
        end_token=fields.take("eos_id", int, 2),
        projection_width=projection_width if projected == "linear" else None,
        projection_bias=fields.take("proj_bias", bool, False),
        norm_epsilon=epsilon,
        activation="gelu_quick" if quick_gelu else "gelu",
        layer_scale=fields.take("ls_init_value", float, None),
    )


def write_open_clip_text(tower: TextEncoder) -> dict[str, Any]:
    """Returns the section of a config of open_clip that describes a text tower."""
    return {
        "context_length": tower.context_length, "vocab_size": tower.vocab_size, "width": tower.width,
        "layers": tower.depth, "heads": tower.num_heads,
        "mlp_ratio": mlp_ratio_of(tower.mlp_width or round(tower.mlp_ratio * tower.width), tower.width),
        "no_causal_mask": not tower.causal, "ls_init_value": tower.layer_scale,
        "pool_type": {own: name for name, own in OPEN_CLIP_POOLS.items()}[tower.pool], "eos_id": tower.end_token,
        "proj_type": "none" if tower.projection_width is None else "linear", "proj_bias": tower.projection_bias,
        "norm_kwargs": {"eps": tower.norm_epsilon},
    }  # fmt: skip


def take_mlp_width(fields: Fields, width: int) -> int:
    """Returns the width of the hidden layer, which configs of open_clip give as a ratio that is rounded down."""
    return int(width * fields.take("mlp_ratio", float, 4.0))


def mlp_ratio_of(hidden: int, width: int) -> float:
    """Returns a ratio to `width` that `take_mlp_width` reads as `hidden`.

    >>> int(22 * mlp_ratio_of(15, 22)), int(22 * (15 / 22))
    (15, 14)
    """
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def open_clip_text_entries(tower: TextEncoder) -> tuple[Entry, ...]:
    """Returns the names of the tensors of a text tower of open_clip."""
    projection = Entry("text_projection.*", "projection/*") if tower.projection_bias else OPEN_CLIP_PROJECTION
    return (*OPEN_CLIP_TEXT, projection)


def _sizes(fields, *, vocab_size, hidden_size, heads, intermediate_size, context_length):
    width = fields.take("hidden_size", int, hidden_size)
    inner = fields.take("intermediate_size", int, intermediate_size)
    return {
        "vocab_size": fields.take("vocab_size", int, vocab_size),
        "context_length": fields.take("max_position_embeddings", int, context_length),
        "width": width,
        "depth": fields.take("num_hidden_layers", int, 12),
        "num_heads": fields.take("num_attention_heads", int, heads),
        "mlp_width": None if inner == 4 * width else inner,
    }


def _write_sizes(tower):
    return {
        "vocab_size": tower.vocab_size, "hidden_size": tower.width, "num_hidden_layers": tower.depth,
        "num_attention_heads": tower.num_heads, "max_position_embeddings": tower.context_length,
        "intermediate_size": tower.mlp_width or round(tower.mlp_ratio * tower.width),
    }  # fmt: skip


def _read_siglip(config: Mapping[str, Any], where: str) -> TextEncoder:
    fields = Fields(config, where)
    tower = read_siglip_text(fields)
    fields.done()
    return tower


def _siglip_layout(tower: TextEncoder, config: Mapping[str, Any]) -> Layout:
    return Layout(SIGLIP_TEXT, ignored=(PLACES, "vision_model.*", "logit_.*"))


SIGLIP = Architecture(
    TextEncoder, _read_siglip,
    lambda tower: {"architectures": ["SiglipTextModel"], **write_siglip_text(tower)},
    tokens_of, _siglip_layout, lambda name: name.removeprefix("text_model."), lambda name: f"text_model.{name}",
)  # fmt: skip

ARCHITECTURES = {"SiglipTextModel": SIGLIP, "siglip_text_model": SIGLIP}
