"""Binds a section of a config to the function or module that it describes.

A section such as `config.model = {"name": "vit", "depth": 4}` is a call written as data. `bind` checks it against the
signature of what it calls (unknown fields with the near miss, missing fields, wrong types) so that a mistake is one
sentence naming the field, raised before any device work. This module imports no jax.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from aijax.errors import ConfigError, did_you_mean

_MISSING = inspect.Parameter.empty


def bind(function: Callable, section: Mapping[str, Any], where: str, /, **given: Any) -> functools.partial:
    """Returns `function` with the fields of `section` as its keyword arguments.

    Args:
      function: any callable with a signature: a function, a dataclass, a Linen module class.
      section: field name to value. The field `name` is passed over: it chose `function`.
      where: the section's place in the config, for messages, such as `"config.model"`.
      **given: arguments that the caller supplies; the section may not set them.

    Raises:
      ConfigError: a field that `function` does not take, one that it needs and did not get, or a value of a type
        other than its annotation (int is taken for float; annotations that are not plain types, or are text, are not
        checked).
    """
    fields = {name: value for name, value in section.items() if name != "name"}
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in given
        and name not in ("self", "parent", "name")
    }
    hints = {
        name: Any if parameter.annotation is _MISSING or isinstance(parameter.annotation, str) else parameter.annotation
        for name, parameter in parameters.items()
    }
    for name, value in fields.items():
        if name not in parameters:
            raise ConfigError(f"{where}.{name}: unknown field{did_you_mean(name, parameters)}")
        if not fits(value, hints[name]):
            raise ConfigError(f"{where}.{name}: expected {describe(hints[name])}, got {value!r}")
    for name, parameter in parameters.items():
        if parameter.default is _MISSING and name not in fields:
            raise ConfigError(f"{where}.{name}: missing; {function.__name__} needs it")
    return functools.partial(function, **fields, **given)


def fits(value: Any, annotation: Any) -> bool:
    """Returns whether `value` is of the type `annotation`; annotations that are not plain types fit everything.

    >>> fits(3, float), fits(True, int), fits((1, 2), tuple[int, ...]), fits(None, int | None)
    (True, False, True, True)
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (tuple, list) or annotation in (tuple, list):
        if not isinstance(value, (tuple, list)):
            return False
        if not arguments:
            return True
        if arguments[-1] is Ellipsis or origin is list:
            return all(fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    if annotation in (None, type(None)):
        return value is None
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if annotation is complex or hasattr(annotation, "__array__") or hasattr(annotation, "dtype"):
        return isinstance(value, (int, float, complex))
    return True


def describe(annotation: Any) -> str:
    """Returns the words for a type: `int | None` is "int or None"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if annotation in (None, type(None)):
        return "None"
    return getattr(annotation, "__name__", str(annotation)) if not arguments else str(annotation)
