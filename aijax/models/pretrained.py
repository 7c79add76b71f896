"""Published models: a folder with `config.json` and safetensors to a module with its parameters, and back.

`ARCHITECTURES` says for each published class how its config makes a module and how its tensors are named. Where a
module has the config's fields as its own, `same_fields` is all there is to say.
"""

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.binding import bind
from aijax.errors import ConfigError, UnsupportedError, did_you_mean
from aijax.models.autoencoder import AutoencoderKL, VQModel
from aijax.models.dit import DiT
from aijax.models.layout import Tensors, from_published, read_object, read_safetensors, to_published, write_safetensors
from aijax.models.mmdit import MMDiT
from aijax.models.text import CLIPText, CLIPTextWithProjection
from aijax.models.unet import UNet
from aijax.models.unet_config import unet_from_config
from aijax.typing import Any, Params

OWN = ("dtype", "param_dtype", "parent", "name")
"""Fields of modules that are no part of a config."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What is to be known of a published class.

    Attributes:
      module: the Linen class.
      from_config: `(config, where) -> module`.
      to_config: `module -> config`, its class included; None where a module does not hold its config.
      inputs: `(module, config) -> shapes` of inputs by name, from which its parameters may be traced.
      rename: a tensor's name in a file -> that of `to_published`; None for one that is no parameter.
      publish: the name of `to_published` -> that in a file.
      file: the name of the file of weights.
    """

    module: type[nn.Module]
    from_config: Callable[[Mapping[str, Any], str], nn.Module]
    to_config: Callable[[nn.Module], dict[str, Any]] | None
    inputs: Callable[[nn.Module, Mapping[str, Any]], dict[str, Any]]
    rename: Callable[[str], str | None] = lambda name: name
    publish: Callable[[str], str] = lambda name: name
    file: str = "diffusion_pytorch_model.safetensors"


def load(folder: str | Path, dtype: Any = None) -> tuple[nn.Module, Params]:
    """Returns the module that a published folder describes, and its parameters.

    Args:
      folder: with `config.json` and a safetensors file, or an index of several.
      dtype: of the parameters; None keeps that of the file.

    Raises:
      DataError: a file that is missing or damaged, or tensors that are not those of the model; they are listed.
      ConfigError: a field of the config that is unknown or of another type; one that is null, false or 0
        passes, as what it stands for is not in use.
      UnsupportedError: a class that is not among `ARCHITECTURES`.
    """
    folder = Path(folder)
    return from_tensors(read_config(folder), read_safetensors(folder), dtype=dtype, where=str(folder))


def save(folder: str | Path, module: nn.Module, params: Params, config: Mapping[str, Any] | None = None) -> None:
    """Writes `config.json` and a safetensors file with the published names into `folder`, which may be new.

    Args:
      folder: where.
      module: of a published class.
      params: of the module.
      config: that of the module, such as `read_config` gave it; None where its fields are those of the config.

    Raises:
      UnsupportedError: a module that is no published class.
      ConfigError: no config for a module that does not hold it.
    """
    folder, architecture = Path(folder), _architecture_of(module)
    if config is None:
        if architecture.to_config is None:
            raise ConfigError(f"config: {type(module).__name__} does not hold its published config; give it")
        config = architecture.to_config(module)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {architecture.publish(name): tensor for name, tensor in to_published(params).items()}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_safetensors(folder / architecture.file, tensors)


def from_tensors(
    config: Mapping[str, Any], tensors: Mapping[str, Any], *, dtype: Any = None, where: str = "config"
) -> tuple[nn.Module, Params]:
    """Returns the module that a published config describes, and its parameters from tensors under published names.

    Args:
      config: its fields; the class is named by `_class_name`, `architectures` or `model_type`.
      tensors: by published name.
      dtype: of the parameters; None keeps that of the tensors.
      where: what they are, for messages.

    Raises:
      DataError, ConfigError, UnsupportedError: as `load`.
    """
    architecture = find_architecture(config, where)
    module = architecture.from_config(config, where)
    names = {name: architecture.rename(name) for name in tensors}
    renamed = Tensors({new: (tensors, name) for name, new in names.items() if new is not None})
    return module, from_published(renamed, _abstract_params(architecture, module, config), dtype=dtype, where=where)


def from_config(config: Mapping[str, Any], where: str = "config") -> nn.Module:
    """Returns the module that a published config describes, without parameters.

    >>> from_config({"_class_name": "VQModel", "num_vq_embeddings": 16}).num_vq_embeddings
    16
    """
    return find_architecture(config, where).from_config(config, where)


def read_config(folder: str | Path) -> dict[str, Any]:
    """Returns the object in `config.json` of a folder.

    Raises:
      DataError: no such file, or one that holds no object.
    """
    return read_object(Path(folder) / "config.json", "the config of a published model")


def find_architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """Returns the architecture that a config names: by `_class_name`, `architectures` or `model_type`."""
    named = [config.get("_class_name"), *(config.get("architectures") or ()), config.get("model_type")]
    named = [name for name in named if isinstance(name, str)]
    for name in named:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    told = f"unknown class {named[0]!r}{did_you_mean(named[0], ARCHITECTURES)}" if named else "it names no class"
    raise UnsupportedError(f"{where}: {told}")


def same_fields(
    module: type[nn.Module],
    inputs: Callable[[nn.Module, Mapping[str, Any]], dict[str, Any]],
    *,
    name: str | None = None,
    ignored: tuple[str, ...] = (),
    unpublished: tuple[str, ...] = (),
    constant: Mapping[str, Any] | None = None,
    **more: Any,
) -> Architecture:
    """Returns the architecture of a module whose fields are those of its published config.

    Args:
      module: the Linen class.
      inputs: `(module, config) -> shapes` of its inputs by name.
      name: of the published class; None for that of `module`.
      ignored: fields of configs that change no output and are not kept.
      unpublished: fields of the module that configs do not have.
      constant: what a config has besides the module's fields, such as its class; None for `_class_name`.
      **more: of `Architecture`.
    """
    fields = [field for field in inspect.signature(module).parameters if field not in (*OWN, *unpublished)]
    constant = {"_class_name": name or module.__name__} if constant is None else constant

    def read(config, where):
        given = {
            field: _as_tuples(value)
            for field, value in config.items()
            if field in fields or not (field[:1] == "_" or field in (*ignored, *constant) or value in (None, False))
        }
        return bind(module, given, where)()

    def write(model):
        return {**constant, **{field: getattr(model, field) for field in fields}}

    return Architecture(module, read, write, inputs, **more)


def shape_of(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """Returns the shape of an input."""
    return jax.ShapeDtypeStruct(shape, dtype)


def _abstract_params(architecture, module, config):
    inputs = architecture.inputs(module, config)
    return jax.eval_shape(lambda given: module.init(jax.random.key(0), **given)["params"], inputs)


def _architecture_of(module):
    for architecture in ARCHITECTURES.values():
        if type(module) is architecture.module:
            return architecture
    raise UnsupportedError(f"module: {type(module).__name__} is no published class")


def _as_tuples(value):
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value


def _image(model, config):
    side = 2 ** (len(model.block_out_channels) - 1)
    return {"x": shape_of(1, side, side, model.in_channels)}


def _class_latents(model, config):
    latents = shape_of(1, model.patch_size, model.patch_size, model.in_channels)
    return {"x": latents, "t": shape_of(1), "labels": shape_of(1, dtype=jnp.int32)}


def _text_latents(model, config):
    latents = shape_of(1, model.patch_size, model.patch_size, model.in_channels)
    text, pooled = shape_of(1, 1, model.joint_attention_dim), shape_of(1, model.pooled_projection_dim)
    return {"x": latents, "t": shape_of(1), "text": text, "pooled": pooled}


def _tokens(model, config):
    return {"tokens": shape_of(1, 1, dtype=jnp.int32)}


def _unet(model, config):
    side, told = 2 ** len(model.down), model.conditions
    width = config.get("projection_class_embeddings_input_dim")
    inputs = {"x": shape_of(1, side, side, model.in_channels), "t": shape_of(1)}
    if told.class_labels in ("label", "timestep"):
        inputs["class_labels"] = shape_of(1, dtype=jnp.int32)
    elif told.class_labels != "none":
        inputs["class_labels"] = shape_of(1, told.time_width if told.class_labels == "identity" else width)
    if model.context_width is not None:
        inputs["context"] = shape_of(1, 1, model.context_width)
    if told.size_features is not None:
        sizes = 6
        inputs["text_embeds"] = shape_of(1, width - sizes * told.size_features)
        inputs["time_ids"] = shape_of(1, sizes)
    if config.get("time_cond_proj_dim") is not None:
        inputs["time_condition"] = shape_of(1, config["time_cond_proj_dim"])
    return inputs


OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The names of attention over pixels in what was published before 2023."""


def _new_attention(name):
    *path, part, leaf = name.split(".") if name.count(".") > 1 else ("", name, "")
    if len(path) > 1 and path[-2] == "attentions" and part in OLD_ATTENTION:
        return ".".join([*path, OLD_ATTENTION[part], leaf])
    return name


def _without_positions(name):
    """Positions that are no parameters of a DiT are in some files."""
    return None if name == "pos_embed.pos_embed" else name


DIT = same_fields(
    DiT, _class_latents, name="DiTTransformer2DModel", ignored=("upcast_attention",), rename=_without_positions
)


def _without_prefix(name):
    """CLIP's text encoder with its module's name before each tensor, as most files have it, or without; old files hold
    the numbers of places too."""
    return None if name.endswith("position_ids") else name.removeprefix("text_model.")


def _text_model(name):
    return f"text_model.{name}"


def _without_places(name):
    return None if name.endswith("position_ids") else name


TRANSFORMERS = (
    "diversity_penalty", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "id2label", "initializer_factor",
    "initializer_range", "label2id", "length_penalty", "max_length", "min_length", "num_beam_groups", "num_beams",
    "num_return_sequences", "problem_type", "projection_dim", "repetition_penalty", "return_dict", "temperature",
    "tie_word_embeddings", "top_k", "top_p", "torch_dtype", "transformers_version", "typical_p", "use_cache",
)  # fmt: skip
"""Fields of every transformers config that change no feature."""
CLIP_TEXT = same_fields(
    CLIPText, _tokens, ignored=TRANSFORMERS, rename=_without_prefix, publish=_text_model, file="model.safetensors",
    constant={"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"},
)  # fmt: skip
CLIP_TEXT_WITH_PROJECTION = same_fields(
    CLIPTextWithProjection, _tokens, ignored=TRANSFORMERS, rename=_without_places, file="model.safetensors",
    constant={"architectures": ["CLIPTextModelWithProjection"], "model_type": "clip_text_model"},
)  # fmt: skip

UNET = Architecture(UNet, lambda config, where: unet_from_config(config), None, _unet, rename=_new_attention)

ARCHITECTURES = {
    "AutoencoderKL": same_fields(AutoencoderKL, _image, ignored=("force_upcast",), rename=_new_attention),
    "CLIPTextModel": CLIP_TEXT,
    "CLIPTextModelWithProjection": CLIP_TEXT_WITH_PROJECTION,
    "DiTTransformer2DModel": DIT,
    "SD3Transformer2DModel": same_fields(MMDiT, _text_latents, name="SD3Transformer2DModel"),
    "Transformer2DModel": DIT,
    "UNet2DConditionModel": UNET,
    "UNet2DModel": UNET,
    "VQModel": same_fields(
        VQModel, _image, ignored=("force_upcast",), unpublished=("commitment",), rename=_new_attention
    ),
    "clip_text_model": CLIP_TEXT,
}
"""Published class or model type: what is to be known of it."""
