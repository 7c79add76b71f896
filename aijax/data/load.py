"""From a config section to a source: `config.data = {"source": "digits", ...}`."""

import importlib
from collections.abc import Mapping
from typing import Any

from aijax.binding import bind
from aijax.data.source import Source
from aijax.errors import ConfigError, choose

LOADERS = {
    "digits": ("bundled", "digits", {}),
    "captioned_digits": ("captioned_digits", "captioned_digits", {}),
    "iris": ("bundled", "table", {"table": "iris"}),
    "wine": ("bundled", "table", {"table": "wine"}),
    "breast_cancer": ("bundled", "table", {"table": "breast_cancer"}),
    "diabetes": ("bundled", "table", {"table": "diabetes"}),
    "idx": ("idx", "idx", {}),
    "mnist": ("idx", "mnist", {}),
    "npz": ("npz", "npz", {}),
    "cifar10": ("cifar", "cifar10", {}),
    "synthetic": ("synthetic", "synthetic", {}),
    "image_folder": ("image_folder", "image_folder", {}),
    "captioned_images": ("captioned_images", "captioned_images", {}),
    "modular_addition": ("modular_addition", "modular_addition", {}),
    "repeated_segments": ("repeated_segments", "repeated_segments", {}),
    "text": ("text", "text", {}),
    "tfds": ("hub", "tfds", {}),
    "huggingface": ("hub", "huggingface", {}),
}
"""Source name: the module of `aijax.data`, its function, and what the name says already."""


def load_source(section: Mapping[str, Any], split: str, where: str = "config.data") -> Source:
    """Returns the split `split` of the data set that a config section describes.

    Args:
      section: `source` names the loader, the other fields are its arguments.
      split: "train", "validation" or "test".
      where: the section's place in the config, for messages.

    Raises:
      ConfigError: an unknown source, an unknown or missing field, a value of a wrong type.
      DataError: what the loader finds wrong with the files.

    >>> len(load_source({"source": "digits"}, "test"))
    360
    """
    return bind_source(section, where, split=split)()


def bind_source(section: Mapping[str, Any], where: str = "config.data", **given: Any):
    """Returns the loader that a section describes with its arguments bound and checked, but reads nothing."""
    if "source" not in section:
        raise ConfigError(f"{where}.source: missing; expected one of {', '.join(LOADERS)}")
    module, function, known = choose(LOADERS, section["source"], f"{where}.source")
    loader = getattr(importlib.import_module(f"aijax.data.{module}"), function)
    fields = {name: value for name, value in section.items() if name != "source"}
    return bind(loader, fields, where, field=where, **known, **given)
