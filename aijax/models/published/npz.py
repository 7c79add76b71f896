"""ViT and pairs of towers in the `.npz` files of Google: of two generations, with any prefix, looped or scanned.

    2020 (Dosovitskiy et al. 2021; Steiner et al. 2022)    MultiHeadDotProductAttention_1, LayerNorm_2, MlpBlock_3
    big_vision (Beyer et al. 2022; Zhai et al. 2023)       MultiHeadDotProductAttention_0, LayerNorm_1, MlpBlock_0

Heads are an axis of their own: [inputs, heads, width]. Such files have no config: `config_of` reads one off the names
and shapes of their arrays. GELU is its tanh approximation and norms add 1e-6, as in both code bases.
"""

import math
import re
from collections.abc import Mapping

from aijax.errors import ConfigError, DataError
from aijax.models.clip import CLIP
from aijax.models.layout import SAME, Entry, Form, Layout, prefixed, with_ones
from aijax.models.published.architecture import Architecture, Fields, shape_of
from aijax.models.published.vision import BLOCK, positions_entry
from aijax.models.text import TextEncoder
from aijax.models.vit import ViT
from aijax.typing import Any

OLD, NEW, TOWERS = "google_npz", "big_vision", "big_vision_towers"
FILE = "weights.npz"
STYLE = {"activation": "gelu_tanh", "norm_epsilon": 1e-6}
GENERATIONS = {
    OLD: ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3"),
    NEW: ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0"),
}
"""The names of attention, second norm and MLP in a block."""


def config_of(tensors: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the config of a `.npz` file, from the names and shapes of its arrays.

    Raises:
      DataError: arrays that are of no vision transformer of these layouts.
    """
    ends = [name for name in tensors if name.endswith("embedding/kernel") and "Transformer" not in name]
    if len(ends) != 1:
        raise DataError(f"{where}: expected the arrays of a ViT, one of them 'embedding/kernel'; got {len(ends)} such")
    prefix = ends[0].removesuffix("embedding/kernel")
    base = prefix.removesuffix("img/")
    if prefix.endswith("img/") and f"{base}txt/Embed_0/embedding" in tensors:
        told = {"model_type": TOWERS, "prefix": base, "sigmoid": f"{base}b" in tensors}
        return told | {"img": _vision_of(tensors, prefix, where), "txt": _text_of(tensors, f"{base}txt/", where)}
    return _vision_of(tensors, prefix, where)


def _blocks_of(tensors, prefix, encoder, where):
    """What the blocks of a tower are."""
    path = re.compile(re.escape(f"{prefix}{encoder}/encoderblock") + r"(?:_(\d+))?/(.+)")
    found = {match[2]: (match[1], tensors[name].shape) for name in tensors if (match := path.fullmatch(name))}
    old = any(name.startswith("MlpBlock_3") for name in found)
    attention, _, mlp = GENERATIONS[OLD if old else NEW]
    numbers = {int(match[1]) for name in tensors if (match := path.fullmatch(name)) and match[1] is not None}
    try:
        scanned = found[f"{attention}/query/kernel"][0] is None
        depth = found[f"{mlp}/Dense_0/kernel"][1][0] if scanned else len(numbers)
        heads, width = found[f"{attention}/query/kernel"][1][-2:]
        hidden = found[f"{mlp}/Dense_0/kernel"][1][-1]
    except KeyError as error:
        raise DataError(f"{where}: expected the arrays of a transformer; {prefix}{encoder} has no {error}") from None
    return {
        "model_type": OLD if old else NEW, "prefix": prefix, "num_hidden_layers": int(depth),
        "num_attention_heads": int(heads), "hidden_size": int(heads * width), "intermediate_size": int(hidden),
        "scanned": scanned,
    }  # fmt: skip


def _vision_of(tensors, prefix, where):
    config = _blocks_of(tensors, prefix, "Transformer", where)
    shapes = {name.removeprefix(prefix): tuple(tensors[name].shape) for name in tensors if name.startswith(prefix)}
    patch = shapes["embedding/kernel"]
    inside = "Transformer/posembed_input/pos_embedding" in shapes
    table = shapes.get("Transformer/posembed_input/pos_embedding" if inside else "pos_embedding")
    token = "cls" in shapes
    side = None
    if table is not None:
        count = table[-2] - (inside and token)
        side = math.isqrt(count)
        if side**2 != count:
            raise DataError(f"{where}: expected positions of a square image, got {count} of them")
    return config | {
        "patch_size": list(patch[:2]), "num_channels": patch[2], "positions_inside": inside, "class_token": token,
        "image_size": None if side is None else [side * patch[0], side * patch[1]],
        "pool": "map" if "MAPHead_0/probe" in shapes else ("cls" if token else "gap"),
        "representation_size": shapes.get("pre_logits/bias", (None,))[0],
        "num_classes": shapes.get("head/bias", (None,))[0],
    }  # fmt: skip


def _text_of(tensors, prefix, where):
    vocabulary, length = (tensors[prefix + name].shape[-2] for name in ("Embed_0/embedding", "pos_embedding"))
    config = _blocks_of(tensors, prefix, "Encoder_0", where)
    return config | {
        "vocab_size": int(vocabulary), "context_length": int(length),
        "projection_size": int(tensors[prefix + "head/bias"].shape[0]),
    }  # fmt: skip


def _read_vit(config: Mapping[str, Any], where: str) -> ViT:
    fields = Fields(config, where)
    width, size = fields.take("hidden_size", int), fields.take("image_size", default=None)
    inside, token = fields.take("positions_inside", bool, False), fields.take("class_token", bool, False)
    patch = fields.take("patch_size")
    prefix = fields.take("prefix", str, "")
    fields.skip("scanned")
    model = ViT(
        _side(patch), width, fields.take("num_hidden_layers", int), fields.take("num_attention_heads", int),
        fields.take("num_classes", int, None), fields.take("intermediate_size", int) / width,
        fields.take("pool", str), "sincos2d" if size is None else "learned", img_size=size and _side(size),
        position_resize="zoom", token_positions="class" if inside and token else "none", class_token=token,
        pre_logits=fields.take("representation_size", int, None), in_channels=fields.take("num_channels", int, 3),
        published_as=config["model_type"] + (f":{prefix}" if prefix else ""), **STYLE,
    )  # fmt: skip
    fields.done()
    return model


def _write_vit(model: ViT, old: bool) -> dict[str, Any]:
    inside = old if model.token_positions == "none" else True
    return {
        "model_type": OLD if old else NEW, "prefix": _prefix(model), "num_hidden_layers": model.depth,
        "num_attention_heads": model.num_heads, "hidden_size": model.embed_dim,
        "intermediate_size": round(model.mlp_ratio * model.embed_dim), "scanned": False,
        "patch_size": model.patch_size, "num_channels": 3 if model.in_channels is None else model.in_channels,
        "positions_inside": inside, "class_token": model.has_class_token, "pool": model.pool,
        "image_size": model.img_size if model.positions == "learned" else None,
        "representation_size": model.pre_logits, "num_classes": model.num_classes,
    }  # fmt: skip


def _read_towers(config: Mapping[str, Any], where: str) -> CLIP:
    fields = Fields(config, where)
    images, texts = fields.section("img"), fields.section("txt")
    texts.skip("scanned", "prefix", "model_type")
    width = texts.take("hidden_size", int)
    text = TextEncoder(
        texts.take("vocab_size", int), texts.take("context_length", int), width,
        texts.take("num_hidden_layers", int), texts.take("num_attention_heads", int),
        texts.take("intermediate_size", int) / width, projection_width=texts.take("projection_size", int),
        projection_bias=True, **STYLE,
    )  # fmt: skip
    texts.done()
    prefix, sigmoid = fields.take("prefix", str, ""), fields.take("sigmoid", bool)
    model = CLIP(
        _read_vit(images.config, images.where).clone(published_as=None), text, None,
        "sigmoid" if sigmoid else "softmax", published_as=TOWERS + (f":{prefix}" if prefix else ""),
    )  # fmt: skip
    fields.done()
    return model


def _write_towers(model: CLIP) -> dict[str, Any]:
    text, prefix = model.text_encoder, _prefix(model)
    hidden = text.mlp_width or round(text.mlp_ratio * text.width)
    return {
        "model_type": TOWERS, "prefix": prefix, "sigmoid": model.loss == "sigmoid",
        "img": _write_vit(model.vision_encoder, False) | {"prefix": f"{prefix}img/"},
        "txt": {
            "model_type": NEW, "prefix": f"{prefix}txt/", "num_hidden_layers": text.depth,
            "num_attention_heads": text.num_heads, "hidden_size": text.width, "intermediate_size": hidden,
            "scanned": False, "vocab_size": text.vocab_size, "context_length": text.context_length,
            "projection_size": text.projection_width,
        },
    }  # fmt: skip


def _attention(name, own, heads):
    """Attention with heads as an axis."""

    def split(shape):
        return (*shape[:-1], heads, shape[-1] // heads)

    return (
        Entry(f"{name}/out/kernel", f"{own}/out/kernel", Form(shape=lambda s: (heads, s[0] // heads, s[1]))),
        Entry(f"{name}/out/bias", f"{own}/out/bias"),
        Entry(f"{name}/{{part}}/*", f"{own}/{{part}}/*", Form(shape=split)),
    )


def _mlp(name, own):
    return (
        Entry(f"{name}/Dense_0/*", f"{own}/up/*", SAME),
        Entry(f"{name}/Dense_1/*", f"{own}/down/*", SAME),
    )


def _tower(config, encoder):
    """The blocks and the norm of a tower."""
    attention, norm, mlp = GENERATIONS[config["model_type"]]
    scanned = config.get("scanned", False)
    block = f"{encoder}/encoderblock" + ("" if scanned else "_{i}")
    lines = (
        Entry(f"{block}/LayerNorm_0/*", BLOCK + "norm_attention/*"),
        Entry(f"{block}/{norm}/*", BLOCK + "norm_mlp/*"),
        *_attention(f"{block}/{attention}", BLOCK + "attention", config["num_attention_heads"]),
        *_mlp(f"{block}/{mlp}", BLOCK + "mlp"),
    )
    if scanned:
        lines = tuple(Entry(e.published, e.own, e.form or SAME, stacked=True) for e in lines)
    return (*lines, Entry(f"{encoder}/encoder_norm/*", "encoder/norm/*"))


def _vision_entries(config):
    table = "Transformer/posembed_input/pos_embedding" if config.get("positions_inside") else "pos_embedding"
    return (
        Entry("embedding/*", "embedding/*", SAME),
        Entry("cls", "class_token", with_ones(1)),
        positions_entry(table),
        *_tower(config, "Transformer"),
        Entry("MAPHead_0/probe", "map_head/probe", with_ones(1)),
        *_attention("MAPHead_0/MultiHeadDotProductAttention_0", "map_head/attention", config["num_attention_heads"]),
        Entry("MAPHead_0/LayerNorm_0/*", "map_head/norm/*"),
        *_mlp("MAPHead_0/MlpBlock_0", "map_head/mlp"),
        Entry("pre_logits/*", "pre_logits/*", SAME),
        Entry("head/*", "head/*", SAME),
    )


def _text_entries(config):
    return (
        Entry("Embed_0/embedding", "embedding/embedding"),
        Entry("pos_embedding", "positions", with_ones(1)),
        *_tower(config, "Encoder_0"),
        Entry("head/*", "projection/*", SAME),
    )


def _layout_vit(model: ViT, config: Mapping[str, Any]) -> Layout:
    return Layout(prefixed(_vision_entries(config), config.get("prefix", ""), ""), weight=None)


def _layout_towers(model: CLIP, config: Mapping[str, Any]) -> Layout:
    base = config.get("prefix", "")
    return Layout(
        (
            *prefixed(_vision_entries(config["img"]), f"{base}img/", "vision_encoder/"),
            *prefixed(_text_entries(config["txt"]), f"{base}txt/", "text_encoder/"),
            Entry(f"{base}t", "log_scale", with_ones(1)),
            Entry(f"{base}b", "logit_bias", with_ones(1)),
        ),
        weight=None,
    )


def _image(model, config=None):
    sides = (model.patch_size,) * 2 if isinstance(model.patch_size, int) else model.patch_size
    size = model.img_size or sides
    sides = (size, size) if isinstance(size, int) else size
    return {"x": shape_of(1, *sides, 3 if model.in_channels is None else model.in_channels)}


def _pairs(model, config):
    tokens = shape_of(1, model.text_encoder.context_length, dtype="int32")
    return {"images": _image(model.vision_encoder)["x"], "tokens": tokens}


def _prefix(model):
    return (model.published_as or "").partition(":")[2]


def _side(size):
    if isinstance(size, int):
        return size
    if not (isinstance(size, (list, tuple)) and len(size) == 2):
        raise ConfigError(f"patch_size, image_size: expected a size or a pair of them, got {size!r}")
    return size[0] if size[0] == size[1] else tuple(size)


ARCHITECTURES = {
    OLD: Architecture(ViT, _read_vit, lambda model: _write_vit(model, True), _image, _layout_vit, file=FILE),
    NEW: Architecture(ViT, _read_vit, lambda model: _write_vit(model, False), _image, _layout_vit, file=FILE),
    TOWERS: Architecture(CLIP, _read_towers, _write_towers, _pairs, _layout_towers, file=FILE),
}
