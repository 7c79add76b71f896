"""Overrides from the command line, `--config.model.depth=6`, checked against the config that they change.

The type of a field is the type of its value in the config (or of its placeholder), and a text that does not fit is an
error in one sentence. A field that is None takes any Python literal, else the text itself; the exact text `None` sets
any field to None. An override of a duration in another unit replaces the config's own unit. This module imports no jax.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import config_dict

from aijax.durations import UNITS, split_field
from aijax.errors import ConfigError, did_you_mean
from aijax.launch.values import is_sequence, parse, type_of

Section = config_dict.ConfigDict
_ITEM = re.compile(r"\[(\d+)\]")


def apply(config: Section, overrides: Sequence[tuple[str, str]]) -> Section:
    """Returns `config`, changed in place by `overrides`; references to a changed field follow it.

    Args:
      config: a ConfigDict that may hold references and placeholders.
      overrides: `(path, text)` pairs such as `("model.depth", "6")` or `("betas[0]", "0.8")`.

    Raises:
      ConfigError: an unknown field (with the near miss), a text that does not fit the field, a section set whole, one
        field set to two values, a duration given in two units.

    >>> apply(Section({"lr": 0.1, "betas": (0.9, 0.99)}), [("lr", "1e-3"), ("betas[0]", "0.8")]).to_dict()
    {'betas': (0.8, 0.99), 'lr': 0.001}
    """
    texts: dict[str, str] = {}
    for path, text in overrides:
        if texts.setdefault(path, text) != text:
            raise ConfigError(f"config.{path}: set twice, to {texts[path]!r} and to {text!r}; keep one")
    whole = {path.partition("[")[0] for path in texts if "[" in path} & set(texts)
    if whole:
        raise ConfigError(f"config.{min(whole)}: set whole and by item at once; keep one")
    units: dict[str, str] = {}
    for path, text in texts.items():
        _set(config, path, text, units)
    return config


def leaves(config: Section, prefix: str = "") -> Iterator[str]:
    """Yields the full path of every field of `config` that is not a section."""
    for name, value in config.items(preserve_field_references=True):
        if isinstance(value, Section):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _set(config: Section, path: str, text: str, units: dict[str, str]) -> None:
    section, name, items = _locate(config, path)
    kind = type_of(section, name)
    duration = split_field(name)
    numeric = duration is not None and kind in (None, int, float)
    if numeric:
        kind = int if duration[1] in ("steps", "examples") else (int, float)
    old = None if name not in section or kind is None else _current(section, name)
    if items:
        new = _with_item(old, items, text, f"config.{path}", f"config.{path.partition('[')[0]}")
    else:
        new = parse(text, old, kind, f"config.{path}")
    if section.is_locked:
        section.unlock()
    if numeric and new is not None:
        _replace_unit(section, path, duration, units)
    with section.ignore_type():
        try:
            section[name] = new
        except config_dict.MutabilityError as error:
            raise ConfigError(f"config.{path}: cannot be set: {error}") from None


def _current(section: Section, name: str) -> Any:
    try:
        return section[name]
    except Exception:  # a placeholder that is not set, or computed from one: only its type is known
        return None


def _locate(config: Section, path: str) -> tuple[Section, str, list[int]]:
    """Returns the section that holds the field at `path`, the field's name, and the item's indices in it."""
    names = path.split(".")
    if not all(names):
        raise ConfigError(f"config.{path}: an empty field name; expected --config.section.field=value")
    section = config
    for depth, name in enumerate(names[:-1]):
        if name not in section:
            raise ConfigError(_unknown(config, section, names, depth))
        inner = _current(section, name)
        if not isinstance(inner, Section):
            where = ".".join(["config", *names[: depth + 1]])
            raise ConfigError(f"{where}: {_describe(inner)}, not a section; it has no field '{names[depth + 1]}'")
        section = inner
    name, bracket, rest = names[-1].partition("[")
    if bracket and not re.fullmatch(r"(\[\d+\])+", bracket + rest):
        raise ConfigError(f"config.{path}: malformed index; expected {name}[0]")
    if name not in section and not _other_units(section, name):
        raise ConfigError(_unknown(config, section, [*names[:-1], name], len(names) - 1))
    if name in section and isinstance(_current(section, name), Section):
        fields = ", ".join(section[name].keys()) or "none"
        raise ConfigError(f"config.{path}: a section cannot be set whole; set one of its fields: {fields}")
    return section, name, [int(index) for index in _ITEM.findall(bracket + rest)]


def _unknown(config: Section, section: Section, names: list[str], depth: int) -> str:
    """Returns the sentence for the unknown name `names[depth]` of `section`, with the likeliest intention."""
    where = ".".join(["config", *names[: depth + 1]])
    last, sought, paths = names[-1], names[depth], list(leaves(config))
    same = [path for path in paths if path.rpartition(".")[2] == last]
    if same:
        near = difflib.get_close_matches(".".join(names), same, n=1, cutoff=0)
        return f"{where}: unknown field; did you mean 'config.{near[0]}'?"
    sibling = did_you_mean(sought, section.keys())
    if "did you mean" in sibling:
        return f"{where}: unknown field{sibling}"
    short = [path for path in paths if "".join(word[0] for word in path.rpartition(".")[2].split("_") if word) == last]
    tails = difflib.get_close_matches(last, [path.rpartition(".")[2] for path in paths], n=1, cutoff=0.75)
    short += [path for path in paths if path.rpartition(".")[2] in tails]
    if short:
        return f"{where}: unknown field; did you mean 'config.{short[0]}'?"
    return f"{where}: unknown field{sibling}"


def _describe(value: Any) -> str:
    return "None" if value is None else f"{'an' if isinstance(value, int) else 'a'} {type(value).__name__}"


def _other_units(section: Section, name: str) -> list[str]:
    """Returns the fields of `section` that give the duration of the field `name` in another unit."""
    duration = split_field(name)
    if duration is None:
        return []
    fields = [f"{duration[0]}_{unit}" for unit in UNITS if unit != duration[1]]
    return [field for field in fields if field in section]


def _replace_unit(section: Section, path: str, duration: tuple[str, str], units: dict[str, str]) -> None:
    """Sets the other units of the duration at `path` to None; two units given on one command line are an error."""
    parent, dot, name = path.rpartition(".")
    key = f"{parent}{dot}{duration[0]}"
    if key in units:
        raise ConfigError(f"config.{units[key]} and config.{path}: two units for one duration; keep one")
    units[key] = path
    with section.ignore_type():
        for other in _other_units(section, name):
            section[other] = None


def _with_item(old: Any, items: list[int], text: str, where: str, field: str) -> Any:
    """Returns the sequence `old` with the item at the indices `items` replaced by what `text` says."""
    if not is_sequence(old):
        raise ConfigError(f"{where}: {field} is {_describe(old)}, which has no items")
    index, *rest = items
    if index >= len(old):
        raise ConfigError(f"{where}: no such item; {field} has {len(old)} item{'s' * (len(old) != 1)}, counted from 0")
    if rest:
        new = _with_item(old[index], rest, text, where, f"{field}[{index}]")
    else:
        new = parse(text, old[index], None if old[index] is None else type(old[index]), where)
    return type(old)([*old[:index], new, *old[index + 1 :]])
