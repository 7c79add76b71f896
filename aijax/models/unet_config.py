"""UNets as published configs describe them: from the fields of a `config.json` to a `UNet`.

Two classes are published. `UNet2DModel` has the networks of DDPM, ADM and NCSN++; `UNet2DConditionModel` those that
attend to a context, of Stable Diffusion, SDXL and DeepFloyd IF. In the second `attention_head_dim` is the number of
heads of a transformer, and the width of a head elsewhere. Fields that are left out have their published defaults, but
one: NCSN++ networks, told by their Fourier times, have attention of one head unless `attention_head_dim` says
otherwise, for their configs have null there and some writers drop what is null. A field that asks for what is not here
is refused and never passed over.
"""

import math
from collections.abc import Mapping
from typing import Any

from aijax.errors import ConfigError, choose, did_you_mean
from aijax.models.unet import UNet
from aijax.models.unet_blocks import BlockOptions, Level
from aijax.models.unet_conditions import Conditions

COMMON = {
    "sample_size": None, "center_input_sample": False, "time_embedding_type": "positional", "time_embedding_dim": None,
    "freq_shift": 0, "flip_sin_to_cos": True, "layers_per_block": 2, "mid_block_scale_factor": 1, "dropout": 0.0,
    "downsample_padding": 1, "act_fn": "silu", "attention_head_dim": 8, "norm_num_groups": 32, "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default", "class_embed_type": None, "num_class_embeds": None,
}  # fmt: skip
UNCONDITIONAL = COMMON | {
    "in_channels": 3, "out_channels": 3, "block_out_channels": (224, 448, 672, 896),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_type": "conv", "upsample_type": "conv", "attn_norm_num_groups": None, "add_attention": True,
    "num_train_timesteps": None,
}  # fmt: skip
CONDITIONAL = COMMON | {
    "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "only_cross_attention": False, "cross_attention_dim": 1280, "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None, "encoder_hid_dim": None, "encoder_hid_dim_type": None,
    "num_attention_heads": None, "dual_cross_attention": False, "use_linear_projection": False,
    "addition_embed_type": None, "addition_time_embed_dim": None, "upcast_attention": False,
    "resnet_skip_time_act": False, "resnet_out_scale_factor": 1.0, "time_embedding_act_fn": None,
    "timestep_post_act": None, "time_cond_proj_dim": None, "conv_in_kernel": 3, "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None, "attention_type": "default", "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None, "cross_attention_norm": None, "addition_embed_type_num_heads": 64,
}  # fmt: skip
"""The published fields of both classes and their defaults."""
BLOCKS = {
    "": {}, "Attn": {"attention": "self"}, "Resnet": {"resample": "resnet"}, "CrossAttn": {"attention": "cross"},
    "SimpleCrossAttn": {"attention": "joint", "resample": "resnet"}, "Skip": {"progressive": True},
    "AttnSkip": {"attention": "self", "progressive": True},
}  # fmt: skip
"""What the names of published blocks say before "DownBlock2D" and "UpBlock2D"."""


def unet_from_config(
    config: Mapping[str, Any], *, remat: bool = False, dtype: Any = None, param_dtype: Any = "float32"
) -> UNet:
    """Returns the UNet of a published config.

    Args:
      config: its fields. `_class_name` chooses "UNet2DModel" or "UNet2DConditionModel"; without it a field that only
        the second has does.
      remat: see `UNet`.
      dtype, param_dtype: see `aijax.models.transformer.BlockSpec`.

    Raises:
      ConfigError: a field that is not known, or a value that is not known or not offered.

    >>> unet_from_config({"block_out_channels": [32, 64], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    ...                   "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}).up[0].attention
    'self'
    """
    given = {name: value for name, value in config.items() if not name.startswith("_")}
    kinds = {"UNet2DModel": (UNCONDITIONAL, _unconditional), "UNet2DConditionModel": (CONDITIONAL, _conditional)}
    named = "UNet2DConditionModel" if set(given) & (set(CONDITIONAL) - set(UNCONDITIONAL)) else "UNet2DModel"
    known, build = choose(kinds, config.get("_class_name", named), "_class_name")
    for name in given:
        if name not in known:
            raise ConfigError(f"{name}: unknown field{did_you_mean(name, known)}")
    fields = known | given
    if fields["time_embedding_type"] == "fourier" and known is UNCONDITIONAL:
        fields["attention_head_dim"] = given.get("attention_head_dim")
    widths, downs, ups = (fields[name] for name in ("block_out_channels", "down_block_types", "up_block_types"))
    if not len(widths) == len(downs) == len(ups) > 0:
        raise ConfigError(
            "block_out_channels, down_block_types, up_block_types: expected as many of each, "
            f"got {len(widths)}, {len(downs)} and {len(ups)}"
        )
    return build(fields, {"dtype": dtype, "param_dtype": param_dtype}).clone(remat=remat)


def _unconditional(config: dict, dtypes: dict) -> UNet:
    widths, count = config["block_out_channels"], len(config["block_out_channels"])
    resample = {"down": config["downsample_type"], "up": config["upsample_type"]}
    for way, kind in resample.items():
        choose({"conv": None, "resnet": None}, kind, f"{way}sample_type")

    def level(way, i, width, layers, last):
        kind = _block(config, way, i, ("", "Attn", "Resnet", "Skip", "AttnSkip"))
        fields = {"layers": layers, "head_width": config["attention_head_dim"], "groups": config["norm_num_groups"]}
        fields |= {"attention_groups": config["norm_num_groups"]}
        if kind.get("attention") == "self" and not kind.get("progressive"):
            fields["resample"] = resample[way]
        if kind.get("progressive"):
            fields |= {"groups": None, "attention_groups": 32, "output_scale": math.sqrt(2)}
        return Level(width, **fields | kind | ({"resample": "none"} if last else {}))

    mid = None
    if config["mid_block_type"] is not None:
        choose({"UNetMidBlock2D": None}, config["mid_block_type"], "mid_block_type")
        groups = config["norm_num_groups"] or min(widths[-1] // 4, 32)
        plain = config["resnet_time_scale_shift"] == "default"
        mid = Level(
            widths[-1], 1, "self" if config["add_attention"] else "none", config["attention_head_dim"], groups=groups,
            attention_groups=config["attn_norm_num_groups"] or (groups if plain else None),
            output_scale=config["mid_block_scale_factor"],
        )  # fmt: skip
    layers = config["layers_per_block"]
    time = choose({"positional": 1, "fourier": 2, "learned": 1}, config["time_embedding_type"], "time_embedding_type")
    fourier = config["time_embedding_type"] == "fourier"
    return UNet(
        down=tuple(level("down", i, width, layers, i == count - 1) for i, width in enumerate(widths)),
        mid=mid,
        up=tuple(level("up", i, width, layers + 1, i == count - 1) for i, width in enumerate(reversed(widths))),
        conditions=Conditions(
            time="log_fourier" if fourier else config["time_embedding_type"],
            time_width=config["time_embedding_dim"] or 4 * widths[0],
            time_features=time * widths[0],
            num_times=config["num_train_timesteps"],
            **_classes(config, ("timestep", "identity")),
            **_common_conditions(config, dtypes),
        ),
        divide_by_time=fourier,
        **_common(config, dtypes),
    )


def _conditional(config: dict, dtypes: dict) -> UNet:
    widths, count = config["block_out_channels"], len(config["block_out_channels"])
    _only(config, "num_attention_heads", None)
    _only(config, "dual_cross_attention", False)
    _only(config, "attention_type", "default")
    heads, layers, depths, context = (
        _each(config, name, count)
        for name in ("attention_head_dim", "layers_per_block", "transformer_layers_per_block", "cross_attention_dim")
    )
    if len(set(context)) != 1:
        raise ConfigError(
            f"cross_attention_dim: expected one width for all levels, got {config['cross_attention_dim']!r}"
        )
    only_cross, mid_only_cross = _each(config, "only_cross_attention", count), config["mid_block_only_cross_attention"]
    if mid_only_cross is None:
        mid_only_cross = config["only_cross_attention"] is True
    up_depths = config["reverse_transformer_layers_per_block"]
    if up_depths is None:
        if not all(isinstance(depth, int) for depth in depths):
            raise ConfigError(
                "reverse_transformer_layers_per_block: expected the depths of the way up, as "
                f"transformer_layers_per_block differ within a level: {config['transformer_layers_per_block']!r}"
            )
        up_depths = depths[::-1]

    def level(way, i, width, layers, depth, last, heads, head_width, only_cross):
        kind = _block(config, way, i, ("", "Attn", "Resnet", "CrossAttn", "SimpleCrossAttn"))
        fields = {
            "layers": layers, "head_width": head_width, "num_heads": heads, "depth": _depth(depth, layers),
            "only_cross": only_cross, "groups": config["norm_num_groups"],
            "attention_groups": config["norm_num_groups"], "context_norm": config["cross_attention_norm"],
        }  # fmt: skip
        if kind.get("resample") == "resnet":
            fields["output_scale"] = config["resnet_out_scale_factor"]
            fields["time_activation"] = not config["resnet_skip_time_act"]
        return Level(width, **fields | kind | ({"resample": "none"} if last else {}))

    downs = [
        level("down", i, *each, i == count - 1, heads[i], heads[i], only_cross[i])
        for i, each in enumerate(zip(widths, layers, depths, strict=True))
    ]
    ups = [
        level("up", i, width, n + 1, depth, i == count - 1, heads[-1 - i], heads[i], only_cross[-1 - i])
        for i, (width, n, depth) in enumerate(zip(widths[::-1], layers[::-1], up_depths, strict=True))
    ]
    mids = {
        "UNetMidBlock2DCrossAttn": ("cross", 1), "UNetMidBlock2D": ("none", 0),
        "UNetMidBlock2DSimpleCrossAttn": ("joint", 1),
    }  # fmt: skip
    mid = None
    if config["mid_block_type"] is not None:
        attention, repeats = choose(mids, config["mid_block_type"], "mid_block_type")
        mid = Level(
            widths[-1], repeats, attention, num_heads=heads[-1], depth=_depth(depths[-1], repeats),
            groups=config["norm_num_groups"], output_scale=config["mid_block_scale_factor"], head_width=heads[-1],
            only_cross=attention == "joint" and mid_only_cross, context_norm=config["cross_attention_norm"],
            time_activation=attention != "joint" or not config["resnet_skip_time_act"],
        )  # fmt: skip
    fourier = choose({"positional": False, "fourier": True}, config["time_embedding_type"], "time_embedding_type")
    width = config["time_embedding_dim"] or (2 if fourier else 4) * widths[0]
    return UNet(
        down=tuple(downs),
        mid=mid,
        up=tuple(ups),
        conditions=Conditions(
            time=config["time_embedding_type"],
            time_width=width,
            time_features=width if fourier else widths[0],
            activation=config["act_fn"],
            time_activation_after=config["timestep_post_act"],
            activation_after=config["time_embedding_act_fn"],
            concatenate_class=config["class_embeddings_concat"],
            **_additions(config),
            context_projection=_projection(config, context[0]),
            **_classes(config, ("timestep", "identity", "projection", "simple_projection")),
            **_common_conditions(config, dtypes),
        ),
        context_width=config["encoder_hid_dim"] or context[0],
        in_size=config["conv_in_kernel"],
        out_size=config["conv_out_kernel"],
        out_activation=config["act_fn"],
        **_common(config, dtypes),
    )


def _common(config: dict, dtypes: dict) -> dict:
    return {
        "options": BlockOptions(
            config["norm_eps"], config["act_fn"],
            choose({"default": "default", "scale_shift": "scale_shift"}, config["resnet_time_scale_shift"],
                   "resnet_time_scale_shift"),
            config["downsample_padding"], config.get("use_linear_projection", False), config["dropout"], **dtypes,
        ),
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "out_groups": config["norm_num_groups"] or min(config["block_out_channels"][0] // 4, 32),
        "center_input": config["center_input_sample"],
    }  # fmt: skip


def _common_conditions(config: dict, dtypes: dict) -> dict:
    return {"cosine_first": config["flip_sin_to_cos"], "frequency_shift": config["freq_shift"], **dtypes}


def _classes(config: dict, kinds: tuple[str, ...]) -> dict:
    kind = config["class_embed_type"]
    if kind is None:
        number = config["num_class_embeds"]
        return {"class_labels": "none" if number is None else "label", "num_classes": number}
    return {"class_labels": choose({kind: kind for kind in kinds}, kind, "class_embed_type")}


def _block(config: dict, way: str, i: int, kinds: tuple[str, ...]) -> dict:
    """The fields of a level that the name of its published block says."""
    field = f"{way}_block_types"
    names = {f"{kind}{way.capitalize()}{'sample' if kind == 'Resnet' else ''}Block2D": BLOCKS[kind] for kind in kinds}
    return choose(names, config[field][i].removeprefix("UNetRes"), field)


def _each(config: dict, name: str, count: int) -> list:
    value = config[name]
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise ConfigError(f"{name}: expected one value or {count} of them, got {value!r}")
    return values


def _depth(depth: Any, layers: int) -> int | tuple[int, ...]:
    if isinstance(depth, int):
        return depth
    if len(depth) < layers:
        raise ConfigError(f"transformer_layers_per_block: expected {layers} depths for a level, got {depth!r}")
    return tuple(depth)


def _additions(config: dict) -> dict:
    """What a pooled text or a pooled context adds to the conditions."""
    if config["addition_embed_type"] is None:
        return {}
    kinds = {
        "text_time": {"size_features": config["addition_time_embed_dim"]},
        "text": {"pool_heads": config["addition_embed_type_num_heads"]},
    }
    return choose(kinds, config["addition_embed_type"], "addition_embed_type")


def _projection(config: dict, width: int) -> int | None:
    if config["encoder_hid_dim"] is None:
        _only(config, "encoder_hid_dim_type", None)
        return None
    choose({"text_proj": None}, config["encoder_hid_dim_type"] or "text_proj", "encoder_hid_dim_type")
    return width


def _only(config: dict, name: str, value: Any) -> None:
    if config[name] != value:
        raise ConfigError(f"{name}: only {value!r} is offered, got {config[name]!r}")
