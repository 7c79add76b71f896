"""Configs as plain data: resolved, frozen, written as JSON, compared.

Whatever a `get_config()` builds (references, placeholders, nested `ConfigDict`s), a run sees one immutable tree of
None, bool, int, float, str and tuples. That tree is what `config.json` holds, so a run folder is enough to repeat the
run. This module imports no jax.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from aijax.errors import ConfigError


class _Missing:
    """Stands for a field that one of two configs does not have."""

    def __repr__(self) -> str:
        return "(no such field)"


MISSING = _Missing()


def freeze(config: Mapping[str, Any]) -> config_dict.FrozenConfigDict:
    """Returns `config` with its references followed, its lists turned into tuples, and frozen.

    Raises:
      ConfigError: a required placeholder that nobody has set, a field that is not plain data, a float that is not
        finite, or a reference that cannot be computed.

    >>> freeze({"depth": 2, "betas": [0.9, 0.99]}).betas
    (0.9, 0.99)
    """
    return config_dict.FrozenConfigDict(_plain_section(config, "config"))


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `{"model.depth": 4, ...}`: every field by its full path, in the config's order.

    >>> flatten({"seed": 0, "model": {"depth": 4}})
    {'seed': 0, 'model.depth': 4}
    """
    fields = {}
    for name, value in config.items():
        if isinstance(value, (Mapping, config_dict.ConfigDict)) and len(value):
            fields |= {f"{name}.{path}": leaf for path, leaf in flatten(value).items()}
        else:
            fields[name] = value
    return fields


def to_json(config: Mapping[str, Any]) -> str:
    """Returns the text of `config.json`: the resolved config, indented, tuples as lists."""
    return json.dumps(_plain_section(config, "config"), indent=2, ensure_ascii=False) + "\n"


def from_json(path: str | Path) -> config_dict.FrozenConfigDict:
    """Returns the config that a `config.json` holds.

    Raises:
      ConfigError: a file that is missing, is not JSON, or does not hold one object.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a JSON object of fields, got {type(data).__name__}")
    return freeze(data)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns `(path, old value, new value)` for each field that differs; `MISSING` where one has no such field.

    Lists and tuples with equal items are equal, and so are `1` and `1.0`; `1` and `True` are not.

    >>> difference({"seed": 0, "betas": [1, 2]}, {"seed": 1, "betas": (1, 2)})
    [('seed', 0, 1)]
    """
    before, after = flatten(old), flatten(new)
    paths = list(before) + [path for path in after if path not in before]
    pairs = [(path, before.get(path, MISSING), after.get(path, MISSING)) for path in paths]
    return [(path, a, b) for path, a, b in pairs if _comparable(a) != _comparable(b)]


def render_difference(changes: list[tuple[str, Any, Any]], limit: int = 6) -> str:
    """Returns one line that tells `changes`, at most `limit` of them.

    >>> render_difference([("optimizer.lr", 1e-3, 3e-4), ("seed", 0, 1)])
    'config.optimizer.lr: 0.001 -> 0.0003, config.seed: 0 -> 1'
    """
    told = [f"config.{path}: {old!r} -> {new!r}" for path, old, new in changes[:limit]]
    rest = len(changes) - limit
    return ", ".join(told) + (f" and {rest} more" if rest > 0 else "")


def _comparable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_comparable, value))
    if isinstance(value, (Mapping, config_dict.ConfigDict)):
        return {}
    return (isinstance(value, bool), value)


def _plain_section(section: Mapping[str, Any], where: str) -> dict[str, Any]:
    plain = {}
    for name in section:
        if not isinstance(name, str) or not name or set(name) & set(".=[]") or name != name.strip():
            raise ConfigError(f"{where}: the field name {name!r} cannot be written on a command line; rename it")
        plain[name] = _plain(_get(section, name, f"{where}.{name}"), f"{where}.{name}")
    return plain


def _get(section: Mapping[str, Any], name: str, where: str) -> Any:
    try:
        return section[name]
    except config_dict.RequiredValueError:
        raise ConfigError(f"{where}: required and not set; add --{where}=VALUE") from None
    except Exception as error:
        raise ConfigError(f"{where}: its reference cannot be computed: {type(error).__name__}: {error}") from None


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, (Mapping, config_dict.ConfigDict)):
        return _plain_section(value, where)
    if isinstance(value, (list, tuple)):
        return tuple(_plain_item(item, f"{where}[{index}]") for index, item in enumerate(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: expected a finite number, got {value!r}")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ConfigError(
        f"{where}: a {type(value).__name__} is not plain data; expected None, bool, int, float, str, list or tuple"
    )


def _plain_item(item: Any, where: str) -> Any:
    if isinstance(item, (Mapping, config_dict.ConfigDict)):
        raise ConfigError(f"{where}: a section cannot stand inside a list; make it a field with a name")
    if isinstance(item, config_dict.FieldReference):
        raise ConfigError(f"{where}: a reference cannot stand inside a list; make it a field with a name")
    return _plain(item, where)
