"""Models by name: from `config.model` to a Linen module."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from aijax.binding import bind
from aijax.errors import ConfigError, choose
from aijax.models.cnn import CNN
from aijax.models.lm import LanguageModel
from aijax.models.mlp import MLP
from aijax.models.vit import ViT, decode_variant

NAMES = {"cnn": CNN, "lm": LanguageModel, "mlp": MLP, "vit": ViT}
VARIANTS = {"vit": decode_variant}


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
    return bind(module, fields, where, **given)()
