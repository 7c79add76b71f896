"""The text of a value, read as the type of the field that it is for.

`parse("1e3", 64, int, "config.batch_size")` is 1000; `parse("1.5", 64, int, ...)` is an error in one sentence. This
module imports no jax.
"""

import ast
import decimal
import math
import re
from typing import Any

from ml_collections import config_dict

from aijax.errors import ConfigError

BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_EXPECTED = {
    bool: "true or false",
    int: "an int",
    float: "a number",
    str: "a text",
    tuple: "a tuple, such as 1,2",
    list: "a list, such as 1,2",
}


def type_of(section: config_dict.ConfigDict, name: str) -> type | None:
    """Returns the type that the field `name` of `section` holds: of its value or its placeholder; None for any."""
    if name not in section:
        return None
    value = dict(section.items(preserve_field_references=True))[name]
    if isinstance(value, config_dict.FieldReference):
        kind = value.get_type()
    else:
        kind = type(value)
    return kind if kind in _EXPECTED else None


def is_sequence(value: Any) -> bool:
    """Returns whether `value` is a list or a tuple."""
    return isinstance(value, (list, tuple))


def parse(text: str, old: Any, kind: type | tuple[type, ...] | None, where: str) -> Any:
    """Returns the value that `text` says for a field of type `kind`.

    Args:
      text: what the user typed; `None` alone is None whatever the type.
      old: the field's value, whose items say what a list holds.
      kind: one of bool, int, float, str, tuple, list; `(int, float)` for either; None for any Python literal, else
        the text itself.
      where: the field's place, for messages.

    Raises:
      ConfigError: a text that does not say such a value.

    >>> parse("1e3", 64, int, "config.batch_size"), parse("3,4", (1, 2), tuple, "config.patch")
    (1000, (3, 4))
    """
    if text == "None":
        return None
    if kind is None:
        return _literal_or_text(text, where)
    if kind in (tuple, list):
        return _parse_sequence(text, old, kind, where)
    return _parse_scalar(text, kind, where)


def split_items(text: str) -> list[str]:
    """Returns the items of a comma list; commas inside brackets or quotes do not separate.

    >>> split_items("1,(2,3),'a,b'")
    ['1', '(2,3)', "'a,b'"]
    """
    items, depth, quote, current = [], 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if character == "," and not quote and depth == 0:
            items.append(current.strip())
            current = ""
        else:
            current += character
    return items + [current.strip()] if current.strip() or not items else items


def _parse_scalar(text: str, kind: type | tuple[type, ...], where: str) -> Any:
    if kind is str:
        return text
    stripped = text.strip()
    if kind is bool:
        if stripped.lower() in BOOLS:
            return BOOLS[stripped.lower()]
    elif kind is int:
        value = _int(stripped)
        if value is not None:
            return value
    elif kind is float:
        value = _float(stripped, where)
        if value is not None:
            return value
    else:
        value = _int(stripped) if not re.search(r"[.eE]", stripped) else None
        value = _float(stripped, where) if value is None else value
        if value is not None:
            return value
        kind = float
    raise ConfigError(f"{where}: expected {_EXPECTED[kind]}, got {text!r}")


def _int(text: str) -> int | None:
    """Returns the whole number that `text` writes, also as `1e3`, else None."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = decimal.Decimal(text)
    except decimal.InvalidOperation:
        return None
    if not number.is_finite() or number.adjusted() > 30 or number != number.to_integral_value():
        return None
    return int(number)


def _float(text: str, where: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value):
        raise ConfigError(f"{where}: expected a finite number, got {text!r}")
    return value


def _literal_or_text(text: str, where: str) -> Any:
    """Returns the Python literal that `text` is (also true and false), else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    _refuse_odd(value, text, where)
    return value


def _refuse_odd(value: Any, text: str, where: str) -> None:
    if is_sequence(value):
        for item in value:
            _refuse_odd(item, text, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: expected a finite number, got {text!r}")
    elif value is not None and type(value) not in (bool, int, float, str):
        raise ConfigError(f"{where}: expected None, bool, int, float, str, list or tuple, got {text!r}")


def _parse_sequence(text: str, old: Any, kind: type, where: str) -> Any:
    """Returns the list or tuple that `text` says, its items checked against those of `old`."""
    value = _sequence_literal(text)
    if value is not None:
        try:
            return kind(_fit_items(value, old or (), text, where))
        except ConfigError:
            if not _holds_text(old) or any(quote in text for quote in "'\""):
                raise
    elif not text.strip():
        raise ConfigError(f"{where}: expected {_EXPECTED[kind]}, got {text!r}; an empty one is written ()")
    elif old and not _holds_text(old):
        raise ConfigError(f"{where}: expected {_EXPECTED[kind]}, got {text!r}")
    inner = text.strip()
    inner = inner[1:-1] if inner[0] + inner[-1] in ("()", "[]") else inner
    return kind(split_items(inner))


def _sequence_literal(text: str) -> list | tuple | None:
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value if is_sequence(value) else (value,)


def _holds_text(old: Any) -> bool:
    return bool(old) and all(isinstance(item, str) for item in old)


def _fit_items(new: Any, old: Any, text: str, where: str) -> list:
    """Returns the items of `new`, each of a type that `old` has among its items (any, where `old` is empty)."""
    known = [item for item in old if item is not None]
    kinds = {list if is_sequence(item) else type(item) for item in known}
    fitted = []
    for index, item in enumerate(new):
        place = f"{where}[{index}]"
        _refuse_odd(item, text, where)
        if item is None or not known:
            fitted.append(item)
        elif is_sequence(item) and list in kinds:
            inner = [leaf for sequence in known if is_sequence(sequence) for leaf in sequence]
            fitted.append(tuple(_fit_items(item, inner, text, place)))
        elif type(item) in kinds:
            fitted.append(item)
        elif type(item) is int and float in kinds:
            fitted.append(float(item))
        elif type(item) is float and kinds == {int} and item.is_integer() and abs(item) < 2**53:
            fitted.append(int(item))
        else:
            words = " or ".join(sorted(_EXPECTED.get(kind, kind.__name__) for kind in kinds))
            raise ConfigError(f"{place}: expected {words}, got {item!r}")
    return fitted
