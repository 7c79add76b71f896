"""Models by name: from `config.model` to a Linen module."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from aijax.binding import bind
from aijax.errors import ConfigError, choose
from aijax.models.autoencoder import AutoencoderKL, VQModel
from aijax.models.clip import CLIP
from aijax.models.cnn import CNN
from aijax.models.dit import DiT
from aijax.models.film_mlp import FiLMMLP
from aijax.models.lm import LanguageModel
from aijax.models.mlp import MLP
from aijax.models.mmdit import MMDiT
from aijax.models.text import CLIPText, TextEncoder
from aijax.models.unet import unet
from aijax.models.vit import ViT, decode_variant

NAMES = {
    "autoencoder_kl": AutoencoderKL, "clip": CLIP, "clip_text": CLIPText, "cnn": CNN, "dit": DiT, "film_mlp": FiLMMLP,
    "lm": LanguageModel, "mlp": MLP, "mmdit": MMDiT, "text_encoder": TextEncoder, "unet": unet, "vit": ViT,
    "vq_autoencoder": VQModel,
}  # fmt: skip
VARIANTS = {"vit": decode_variant}
SIZES = (
    "width", "widths", "embed_dim", "stem_widths", "depth", "num_heads", "patch_size", "img_size", "mlp_ratio",
    "convolutions", "num_groups", "vocab_size", "context_length", "num_classes", "embedding_width", "layers",
    "head_width", "out_channels", "block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups",
    "num_vq_embeddings", "num_layers", "num_hidden_layers", "num_attention_heads", "attention_head_dim", "hidden_size",
    "mlp_width", "num_kv_heads", "projection_width",
    "intermediate_size", "max_position_embeddings", "sample_size", "pos_embed_max_size",
)  # fmt: skip
"""Fields of models that are sizes: above zero, each of them where there are several; an MLP of width 0 is none."""
RATES = ("dropout", "dropout_rate", "attention_dropout_rate", "token_dropout_rate", "stochastic_depth_rate")
"""Fields of models that are probabilities: from 0 to below 1."""


def build(section: Mapping[str, Any], where: str = "config.model", **given: Any) -> nn.Module:
    """Returns the module that a config section describes.

    Args:
      section: `name` chooses the model among `NAMES`, `variant` a named size where it has them; the other fields are
        the module's and override the variant's.
      where: the section's place in the config, for messages.
      **given: fields that the caller supplies, such as `num_classes`; the section may not set them.

    Raises:
      ConfigError: an unknown name, variant or field, a missing field, a value of the wrong type.

    >>> build({"name": "vit", "variant": "mu/4", "depth": 2}, num_classes=10).depth
    2
    """
    if "name" not in section:
        raise ConfigError(f"{where}.name: missing; expected one of {', '.join(NAMES)}")
    module = choose(NAMES, section["name"], f"{where}.name")
    fields = {name: value for name, value in section.items() if name != "variant"}
    variant = section.get("variant")
    if variant is not None:
        if section["name"] not in VARIANTS:
            raise ConfigError(f"{where}.variant: {section['name']} has no named sizes, got {variant!r}")
        fields = VARIANTS[section["name"]](variant, f"{where}.variant") | fields
    bound = bind(module, fields, where, **given)
    check_sizes(bound.keywords, where)
    return bound()


def check_sizes(fields: Mapping[str, Any], where: str) -> None:
    """Raises a `ConfigError` for a size that is not above zero, or a rate that is no probability."""
    for name, value in fields.items():
        each = value if isinstance(value, (tuple, list)) else (value,)
        if name in SIZES and not all(size is None or size > 0 or (name == "mlp_width" and size == 0) for size in each):
            raise ConfigError(f"{where}.{name}: expected sizes above 0, got {value!r}")
        if name in RATES and not 0 <= value < 1:
            raise ConfigError(f"{where}.{name}: expected a probability from 0 to below 1, got {value!r}")
