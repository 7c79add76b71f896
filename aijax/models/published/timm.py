"""ViT and MLP-Mixer in the layout of timm (Wightman 2019).

A config has the arguments with which timm makes the model, as in `{"img_size": 224, "patch_size": 16, "depth": 12}`.
Classes that are arguments are told by their names.
"""

import re
from collections.abc import Mapping

from aijax.errors import ConfigError, UnsupportedError, choose
from aijax.models.layout import Entry, Layout, with_ones
from aijax.models.mixer import Mixer
from aijax.models.published.architecture import Architecture, Fields
from aijax.models.published.vision import BLOCK, PACKED, biases, image_of, positions_entry, take_size
from aijax.models.vit import ViT
from aijax.typing import Any

VIT_NAME, MIXER_NAME = "timm_vit", "timm_mixer"
ACTIVATIONS = {
    "gelu": "gelu", "gelu_erf": "gelu", "gelu_tanh": "gelu_tanh", "gelutanh": "gelu_tanh", "quick_gelu": "gelu_quick",
    "quickgelu": "gelu_quick", "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh",
}  # fmt: skip
"""Our activations by what timm calls them, in small letters."""
PUBLISHED = {
    "gelu": "gelu", "gelu_tanh": "gelu_tanh", "gelu_quick": "quick_gelu", "relu": "relu", "silu": "silu",
    "tanh": "tanh",
}  # fmt: skip
NORMS = {"layernorm": "layer", "layer_norm": "layer", "rmsnorm": "rms"}
POOLS = {"token": "cls", "avg": "gap", "map": "map", "": "none"}
MLPS = {"mlp": "plain", "glumlp": "packed", "swiglupacked": "packed", "swiglu": "split"}
PACKED_MLP = "SwiGLUPacked"
EPSILON = 1e-6
HUB_NAME = re.compile(r"vit_(?P<size>[a-z]+)_patch(?P<patch>\d+)_(?P<image>\d+)")
HUB_EXAMPLE = "vit_base_patch16_224"
HUB_SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
"""Width, depth and heads by what the hub calls them."""
POOL = "map_head/"
ENTRIES = (
    Entry("cls_token", "class_token", with_ones(1)),
    Entry("reg_token", "registers", with_ones(1)),
    positions_entry("pos_embed"),
    Entry("patch_embed.proj.*", "embedding/*"),
    Entry("norm_pre.*", "norm_embedding/*"),
    Entry("blocks.{i}.attn.qkv.*", PACKED),
    Entry("blocks.{i}.attn.proj.*", BLOCK + "attention/out/*"),
    Entry("blocks.{i}.attn.q_norm.*", BLOCK + "attention/norm_query/*"),
    Entry("blocks.{i}.attn.k_norm.*", BLOCK + "attention/norm_key/*"),
    Entry("blocks.{i}.norm1.*", BLOCK + "norm_attention/*"),
    Entry("blocks.{i}.norm2.*", BLOCK + "norm_mlp/*"),
    Entry("blocks.{i}.ls1.gamma", BLOCK + "layer_scale_attention"),
    Entry("blocks.{i}.ls2.gamma", BLOCK + "layer_scale_mlp"),
    Entry("blocks.{i}.mlp.fc2.*", BLOCK + "mlp/down/*"),
    Entry("norm.*", "encoder/norm/*"),
    Entry("fc_norm.*", "norm_pooled/*"),
    Entry("attn_pool.latent", POOL + "probe", with_ones(1)),
    Entry("attn_pool.q.*", POOL + "attention/query/*"),
    Entry("attn_pool.kv.*", (POOL + "attention/key/*", POOL + "attention/value/*")),
    Entry("attn_pool.proj.*", POOL + "attention/out/*"),
    Entry("attn_pool.norm.*", POOL + "norm/*"),
    Entry("attn_pool.mlp.fc1.*", POOL + "mlp/up/*"),
    Entry("attn_pool.mlp.fc2.*", POOL + "mlp/down/*"),
    Entry("head.*", "head/*"),
)
PLAIN = (Entry("blocks.{i}.mlp.fc1.*", BLOCK + "mlp/up/*"),)
PACKED_GATE = (Entry("blocks.{i}.mlp.fc1.*", (BLOCK + "mlp/gate/*", BLOCK + "mlp/up/*")),)
PACKED_GATE_LAST = (Entry("blocks.{i}.mlp.fc1.*", (BLOCK + "mlp/up/*", BLOCK + "mlp/gate/*")),)
SPLIT_GATE = (
    Entry("blocks.{i}.mlp.fc1_g.*", BLOCK + "mlp/gate/*"),
    Entry("blocks.{i}.mlp.fc1_x.*", BLOCK + "mlp/up/*"),
)
MIXER = Layout(
    (
        Entry("stem.proj.*", "embedding/*"),
        Entry("blocks.{i}.norm1.*", "block_{i}/norm_tokens/*"),
        Entry("blocks.{i}.norm2.*", "block_{i}/norm_channels/*"),
        Entry("blocks.{i}.mlp_tokens.fc1.*", "block_{i}/mlp_tokens/up/*"),
        Entry("blocks.{i}.mlp_tokens.fc2.*", "block_{i}/mlp_tokens/down/*"),
        Entry("blocks.{i}.mlp_channels.fc1.*", "block_{i}/mlp_channels/up/*"),
        Entry("blocks.{i}.mlp_channels.fc2.*", "block_{i}/mlp_channels/down/*"),
        Entry("norm.*", "norm/*"),
        Entry("head.*", "head/*"),
    )
)


def class_name(value: str) -> str:
    """Returns the name of a class in small letters, however it is told.

    >>> class_name("functools.partial(<class 'timm.layers.mlp.GluMlp'>, gate_last=False)"), class_name("SiLU")
    ('glumlp', 'silu')
    """
    found = re.search(r"<(?:class|function) '?([\w.]+)", value)
    return (found.group(1) if found else value).rsplit(".", 1)[-1].lower()


def _take_class(fields, name, options, default):
    value = fields.take(name, str, default)
    if class_name(value) not in options:
        raise UnsupportedError(f"{fields.where}.{name}: {value!r} is not offered, only {', '.join(options)}")
    return options[class_name(value)], value


def _take_norm(fields):
    norm, told = _take_class(fields, "norm_layer", NORMS, "layernorm")
    given = re.search(r"eps=([\d.e+-]+)", told)
    torch = told in ("LayerNorm", "<class 'torch.nn.modules.normalization.LayerNorm'>")
    return norm, float(given.group(1)) if given else (1e-5 if torch else EPSILON)


def _written_norm(norm, epsilon):
    name = "LayerNorm" if norm == "layer" else "RmsNorm"
    return f"functools.partial(<class 'timm.layers.norm.{name}'>, eps={epsilon})"


def _take_mlp(fields):
    """Whether the MLP is gated, and how it is kept."""
    kind, told = _take_class(fields, "mlp_layer", MLPS, "Mlp")
    if kind == "packed" and class_name(told) == "glumlp":
        return "packed" if "gate_last=False" in told.replace(" ", "") else "packed_last"
    return kind


def _arguments(config, where):
    """The arguments of a model; a config of the hub has a name with sizes, and what differs in a section of its own."""
    if "architecture" not in config:
        return config
    name = str(config["architecture"]).split(".")[0]
    sizes = HUB_NAME.fullmatch(name)
    if sizes is None or sizes["size"] not in HUB_SIZES:
        raise UnsupportedError(
            f"{where}.architecture: {name!r} is not offered, only plain ViTs such as {HUB_EXAMPLE!r}"
        )
    width, depth, heads = HUB_SIZES[sizes["size"]]
    named = {"embed_dim": width, "depth": depth, "num_heads": heads}
    named |= {"patch_size": int(sizes["patch"]), "img_size": int(sizes["image"])}
    more = {name: config[name] for name in ("num_classes", "global_pool") if name in config}
    return {**named, **more, **config.get("model_args", {})}


def _read_vit(config: Mapping[str, Any], where: str) -> ViT:
    fields = Fields(_arguments(config, where), where)
    pool = choose(POOLS, fields.take("global_pool", str, "token"), f"{where}.global_pool")
    mlp, (norm, epsilon) = _take_mlp(fields), _take_norm(fields)
    # blocks hand their own activation to gated MLPs too
    activation, _ = _take_class(fields, "act_layer", ACTIVATIONS, "GELU")
    width, class_token = fields.take("embed_dim", int, 768), fields.take("class_token", bool, True)
    if pool == "cls" and not class_token:
        raise ConfigError(f"{where}.global_pool: 'token' needs a class token, got class_token=False")
    registers, pre_norm = fields.take("reg_tokens", int, 0), fields.take("pre_norm", bool, False)
    normed_pool = fields.take("fc_norm", bool, None)
    normed_pool = pool == "gap" if normed_pool is None else normed_pool
    final = "none" if not fields.take("final_norm", bool, True) else ("pooled" if normed_pool else "tokens")
    embedded = fields.take("pos_embed", str, "learn")
    if embedded not in ("learn", "", "none"):
        raise UnsupportedError(f"{where}.pos_embed: {embedded!r} is not offered, only 'learn' and 'none'")
    qkv, proj = fields.take("qkv_bias", bool, True), fields.take("proj_bias", bool, True)
    rows = "none" if fields.take("no_embed_class", bool, False) or not (class_token or registers) else "all"
    hidden = int(width * fields.take("mlp_ratio", float, 4.0))
    scale = fields.take("init_values", float, None)
    patch, image = take_size(fields, "patch_size", 16), take_size(fields, "img_size", 224)
    for name in (
        "dynamic_img_pad",
        "scale_attn_norm",
        "scale_mlp_norm",
        "scale_attn_inner_norm",
        "scale_mlp_inner_norm",
    ):
        fields.expect(name, False)
    for name in ("embed_layer", "embed_norm_layer", "attn_layer", "block_fn"):
        fields.expect(name, None)
    dropout = float(fields.take("proj_drop_rate", float, 0.0))
    fields.skip("weight_init", "fix_init", "dynamic_img_size", "drop_rate", "pos_drop_rate")
    model = ViT(
        patch, width, fields.take("depth", int, 12), fields.take("num_heads", int, 12),
        fields.take("num_classes", int, 1000) or None, (hidden // 2 if mlp.startswith("packed") else hidden) / width,
        pool, "none" if embedded in ("", "none") else "learned", dropout_rate=dropout, norm=norm,
        norm_epsilon=epsilon, activation=activation, img_size=image, in_channels=fields.take("in_chans", int, 3),
        token_positions=rows, class_token=class_token, num_registers=registers, embedding_norm=pre_norm,
        embedding_bias=not pre_norm, final_norm=final, pool_prefix=fields.take("pool_include_prefix", bool, False),
        biases=biases(query=qkv, key=qkv, value=qkv, out=proj, gate=proj, up=proj, down=proj),
        qk_norm=fields.take("qk_norm", bool, False), layer_scale=None if not scale else float(scale),
        gated=mlp != "plain", attention_dropout_rate=float(fields.take("attn_drop_rate", float, 0.0)),
        stochastic_depth_rate=float(fields.take("drop_path_rate", float, 0.0)),
        token_dropout_rate=float(fields.take("patch_drop_rate", float, 0.0)), position_resize="bicubic_antialias",
        published_as=VIT_NAME,
    )  # fmt: skip
    fields.done()
    return model


def _write_vit(model: ViT) -> dict[str, Any]:
    if model.img_size is None:
        raise ConfigError("img_size: a published vision transformer has it, got None")
    ratio = model.mlp_ratio * (2 if model.gated else 1)
    config = {
        "img_size": model.img_size, "patch_size": model.patch_size, "embed_dim": model.embed_dim, "depth": model.depth,
        "num_heads": model.num_heads, "num_classes": model.num_classes or 0, "mlp_ratio": ratio,
        "in_chans": 3 if model.in_channels is None else model.in_channels, "qkv_bias": "query" in model.biases,
        "proj_bias": "out" in model.biases, "qk_norm": model.qk_norm, "init_values": model.layer_scale,
        "class_token": model.has_class_token, "reg_tokens": model.num_registers,
        "global_pool": {own: name for name, own in POOLS.items()}.get(model.pool, "token"),
        "pos_embed": "none" if model.positions == "none" else "learn",
        "no_embed_class": model.token_positions == "none", "pre_norm": model.embedding_norm,
        "final_norm": model.final_norm != "none", "fc_norm": model.final_norm == "pooled",
        "pool_include_prefix": model.pool_prefix, "norm_layer": _written_norm(model.norm, model.norm_epsilon),
        "act_layer": PUBLISHED[model.activation],
    }  # fmt: skip
    return config | ({"mlp_layer": PACKED_MLP} if model.gated else {})


def _layout_vit(model: ViT, config: Mapping[str, Any]) -> Layout:
    kinds = {"plain": PLAIN, "packed": PACKED_GATE, "packed_last": PACKED_GATE_LAST, "split": SPLIT_GATE}
    return Layout((*ENTRIES, *kinds[_take_mlp(Fields(_arguments(config, "config"), "config"))]))


def _read_mixer(config: Mapping[str, Any], where: str) -> Mixer:
    fields = Fields(_arguments(config, where), where)
    ratios = fields.take("mlp_ratio", default=(0.5, 4.0))
    if not (isinstance(ratios, (list, tuple)) and len(ratios) == 2):
        raise ConfigError(f"{where}.mlp_ratio: expected a pair, got {ratios!r}")
    width, (norm, epsilon) = fields.take("embed_dim", int, 512), _take_norm(fields)
    if norm != "layer":
        raise UnsupportedError(f"{where}.norm_layer: {norm!r} is not offered, only LayerNorm")
    pool = choose({"avg": "gap", "": "none"}, fields.take("global_pool", str, "avg"), f"{where}.global_pool")
    _take_class(fields, "block_layer", {"mixerblock": True}, "MixerBlock")
    _take_class(fields, "mlp_layer", {"mlp": True}, "Mlp")
    fields.expect("stem_norm", False)
    fields.skip("drop_rate", "drop_path_rate", "nlhb")
    model = Mixer(
        take_size(fields, "patch_size", 16), width, fields.take("num_blocks", int, 8),
        fields.take("num_classes", int, 1000) or None, int(ratios[0] * width), int(ratios[1] * width), pool,
        _take_class(fields, "act_layer", ACTIVATIONS, "GELU")[0], epsilon,
        float(fields.take("proj_drop_rate", float, 0.0)), take_size(fields, "img_size", 224),
        fields.take("in_chans", int, 3), MIXER_NAME,
    )  # fmt: skip
    fields.done()
    return model


def _write_mixer(model: Mixer) -> dict[str, Any]:
    if model.img_size is None:
        raise ConfigError("img_size: a published mixer has it, got None")
    tokens = model.embed_dim // 2 if model.token_mlp_width is None else model.token_mlp_width
    channels = 4 * model.embed_dim if model.channel_mlp_width is None else model.channel_mlp_width
    return {
        "img_size": model.img_size, "patch_size": model.patch_size, "embed_dim": model.embed_dim,
        "num_blocks": model.depth, "num_classes": model.num_classes or 0,
        "mlp_ratio": [tokens / model.embed_dim, channels / model.embed_dim],
        "in_chans": 3 if model.in_channels is None else model.in_channels,
        "global_pool": "avg" if model.pool == "gap" else "", "act_layer": PUBLISHED[model.activation],
        "norm_layer": _written_norm("layer", model.norm_epsilon),
    }  # fmt: skip


ARCHITECTURES = {
    VIT_NAME: Architecture(ViT, _read_vit, _write_vit, image_of, _layout_vit),
    MIXER_NAME: Architecture(Mixer, _read_mixer, _write_mixer, image_of, lambda model, config: MIXER),
}
