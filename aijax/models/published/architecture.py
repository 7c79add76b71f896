"""What is to be known of a published class: how its config makes a module, and how its tensors are named."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.binding import bind
from aijax.errors import ConfigError, UnsupportedError, did_you_mean
from aijax.models.layout import Layout
from aijax.typing import Any

OWN = ("dtype", "param_dtype", "parent", "name", "scan", "remat")
"""Fields of modules that say how they compute and are no part of a config."""
TRAINING = (
    "attention_dropout_rate", "dropout_rate", "implementation", "position_resize", "published_as",
    "stochastic_depth_rate", "token_dropout_rate",
)  # fmt: skip
"""Fields of modules that a config may have and need not: what it is saved with makes the same features."""
TRANSFORMERS = (
    "add_cross_attention", "architectures", "attn_implementation", "bad_words_ids", "begin_suppress_tokens",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "id2label", "initializer_factor",
    "initializer_range", "label2id", "length_penalty", "max_length", "min_length", "model_type",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_scores", "prefix", "problem_type", "pruned_heads", "remove_invalid_values",
    "repetition_penalty", "return_dict", "return_dict_in_generate", "sep_token_id", "suppress_tokens",
    "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tie_word_embeddings",
    "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version", "typical_p",
    "use_bfloat16", "use_cache",
)  # fmt: skip
"""Fields of every transformers config that change no feature."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What is to be known of a published class.

    Attributes:
      module: the Linen class.
      from_config: `(config, where) -> module`.
      to_config: `module -> config`, its class included; None where a module does not hold its config.
      inputs: `(module, config) -> shapes` of inputs by name, from which its parameters may be traced.
      layout: `(module, config) -> Layout`; None where its submodules have the published names.
      rename: a tensor's name in a file -> that of the layout; None for one that is no parameter.
      publish: the name of the layout -> that in a file.
      file: the name of the file of weights.
    """

    module: Callable[..., nn.Module]
    from_config: Callable[[Mapping[str, Any], str], nn.Module]
    to_config: Callable[[nn.Module], dict[str, Any]] | None
    inputs: Callable[[nn.Module, Mapping[str, Any]], dict[str, Any]]
    layout: Callable[[nn.Module, Mapping[str, Any]], Layout] | None = None
    rename: Callable[[str], str | None] = lambda name: name
    publish: Callable[[str], str] = lambda name: name
    file: str = "model.safetensors"


def headless(
    full: Architecture, name: str, *, rename: Callable[[str], str | None], publish: Callable[[str], str]
) -> Architecture:
    """Returns the architecture of the class `name` that lacks the output's matrix of another.

    It is read as a module whose output is tied to the embedding: its logits are products with that, of the features
    that the class gives.
    """

    def read(config: Mapping[str, Any], where: str) -> nn.Module:
        return full.from_config({**config, "tie_word_embeddings": True}, where)

    def write(model: nn.Module) -> dict[str, Any]:
        if not model.tied:
            raise ConfigError(f"tied: {name} has no matrix of an output, so expected True, got False")
        return full.to_config(model) | {"architectures": [name]}

    return dataclasses.replace(full, from_config=read, to_config=write, rename=rename, publish=publish)


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


class Fields:
    """The fields of a published config, which are told apart by whether anything was made of them.

    `take` gives a field's value; `done` refuses the fields that nobody took, unless they are null, false, 0 or one of
    those that change no output.

    >>> fields = Fields({"hidden_size": 4, "rope": None}, "config")
    >>> fields.take("hidden_size", int), fields.take("layer_norm_eps", float, 1e-12)
    (4, 1e-12)
    >>> fields.done()
    """

    def __init__(self, config: Mapping[str, Any], where: str):
        self.config, self.where, self.taken = config, where, set()

    def take(self, name: str, kind: Any = None, default: Any = ...) -> Any:
        """Returns the value of a field, which is to be of a type; `default` where there is none, `...` to need one."""
        self.taken.add(name)
        value = self.config.get(name)
        if value is None and (name not in self.config or default is not ...):
            if default is ...:
                raise ConfigError(f"{self.where}.{name}: missing")
            return default
        numbers = (int, float) if kind is float else kind
        if kind is not None and (not isinstance(value, numbers) or (kind is not bool and isinstance(value, bool))):
            raise ConfigError(f"{self.where}.{name}: expected {kind.__name__}, got {value!r}")
        return value

    def expect(self, name: str, value: Any, *others: Any) -> None:
        """Refuses a field that is there and has another value than those given."""
        found = self.take(name, default=value)
        if found not in (value, *others):
            raise UnsupportedError(f"{self.where}.{name}: {found!r} is not offered, only {value!r}")

    def section(self, name: str) -> "Fields":
        """Returns the fields of a section, an empty one where there is none."""
        return Fields(self.take(name, dict, {}), f"{self.where}.{name}")

    def skip(self, *names: str) -> None:
        """Passes over fields that change no output."""
        self.taken.update(names)

    def done(self) -> None:
        """Refuses fields that were not taken."""
        self.skip(*TRANSFORMERS)
        for name, value in self.config.items():
            if name[:1] != "_" and name not in self.taken and value not in (None, False, 0):
                near = did_you_mean(name, self.taken - set(TRANSFORMERS))
                raise ConfigError(f"{self.where}.{name}: unknown field, got {value!r}{near}")


def shape_of(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """Returns the shape of an input."""
    return jax.ShapeDtypeStruct(shape, dtype)


def _as_tuples(value):
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
