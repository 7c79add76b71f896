"""The space of a search: what each axis may be, and its place on the unit cube, where a model can measure distances.

    optimizer.learning_rate=1e-4:1e-1:log    a number between the two, even in its logarithm
    model.dropout=0:0.5                      a number between the two
    model.width=16:1024:log                  an int from 16 to 1024, even in its logarithm
    model.depth=2:9                          2, 3, ..., 8, as in a grid; also 2:9:2
    batch_size=32,64,128                     one of these numbers, in their order
    optimizer.name=adamw,lion                one of these, in no order

The kind of a range is that of the config's field. A number lies at one coordinate of 0 to 1; a choice without order has
one for each option, 1 at the one taken. This module imports no jax.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from aijax.errors import ConfigError
from aijax.launch.values import split_items

_SPAN = re.compile(r"([^:,()\[\]]+):([^:,()\[\]]+?)(:log)?")
_HALF = math.sqrt(0.5)  # two options lie at distance 1


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of a search.

    Attributes:
      path: the config field.
      text: as it was typed, after the equals sign.
      options: the texts that it may take; empty for a range.
      ordered: whether the options lie in a row.
      low: lowest value of a range.
      high: highest value of a range.
      log: whether the range is even in the logarithm.
      whole: whether its values are ints.
    """

    path: str
    text: str
    options: tuple[str, ...] = ()
    ordered: bool = True
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False

    @property
    def size(self) -> int:
        """How many coordinates it has."""
        return len(self.options) if self.options and not self.ordered else 1

    @property
    def continuous(self) -> bool:
        """Whether a small change of its coordinate is another value."""
        return not self.options and not self.whole

    @property
    def count(self) -> float:
        """How many values it has."""
        if self.options:
            return len(self.options)
        return self.high - self.low + 1 if self.whole else math.inf

    def text_at(self, coordinates: Sequence[float]) -> str:
        """Returns the value nearest to the coordinates, as a text for the command line."""
        if self.options and not self.ordered:
            return self.options[int(np.argmax(coordinates))]
        place = min(max(float(coordinates[0]), 0.0), 1.0)
        if self.options:
            return self.options[round(place * (len(self.options) - 1))]
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = low + (high - low) * place
        value = min(max(math.exp(value) if self.log else value, self.low), self.high)
        return str(round(value)) if self.whole else f"{value:.6g}"

    def place(self, text: str) -> list[float]:
        """Returns the coordinates of a value."""
        if self.options:
            index = self.options.index(text)
            if self.ordered:
                return [index / (len(self.options) - 1)]
            return [_HALF if i == index else 0.0 for i in range(len(self.options))]
        low, high, value = self.low, self.high, float(text)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return [(value - low) / (high - low)]


def range_axis(path: str, text: str, kind: type | None) -> Axis | None:
    """Returns the axis of a range `LOW:HIGH` or `LOW:HIGH:log` for a field of a kind; None for what is no such range.

    >>> range_axis("lr", "1e-4:1e-1:log", float).text_at([0.5])
    '0.00316228'
    >>> range_axis("depth", "2:9", int) is None
    True
    """
    span = _SPAN.fullmatch(text.strip())
    if span is None or (kind is int and not span[3]):
        return None
    where, log = f"--axis {path}={text}", bool(span[3])
    low, high = (_number(end, where) for end in span.groups()[:2])
    if not low < high:
        raise ConfigError(f"{where}: expected LOW:HIGH with LOW below HIGH")
    if log and low <= 0:
        raise ConfigError(f"{where}: a logarithmic range begins above 0, got {span[1]}")
    if kind not in (int, float):
        raise ConfigError(f"{where}: a range is for a field that holds a number; list the values: {path}=VALUE,VALUE")
    if kind is int and not (low.is_integer() and high.is_integer()):
        raise ConfigError(f"{where}: the field holds an int, and so do the ends of its range")
    return Axis(path, text, low=low, high=high, log=log, whole=kind is int)


def list_axis(path: str, text: str, options: Sequence[str], values: Sequence[Any]) -> Axis:
    """Returns the axis of listed options whose values are as given; numbers are put in order."""
    if len(options) < 2:
        raise ConfigError(f"--axis {path}={text}: one value; a search needs two or a range; or --config.{path}={text}")
    ordered = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if ordered:
        options = [option for _, option in sorted(zip(values, options, strict=True))]
    return Axis(path, text, tuple(options), ordered)


def is_log_range(text: str) -> bool:
    """Returns whether `text` is a range that only a search can take."""
    return any(item.endswith(":log") for item in split_items(text))


def texts_at(axes: Sequence[Axis], unit: np.ndarray) -> tuple[str, ...]:
    """Returns the values of all axes nearest to a point of the unit cube."""
    ends = np.cumsum([axis.size for axis in axes])
    return tuple(axis.text_at(unit[end - axis.size : end]) for axis, end in zip(axes, ends, strict=True))


def unit_at(axes: Sequence[Axis], texts: Sequence[str]) -> np.ndarray:
    """Returns the point of the unit cube where the values lie."""
    return np.concatenate([axis.place(text) for axis, text in zip(axes, texts, strict=True)])


def draw_points(
    generator: np.random.Generator, axes: Sequence[Axis], count: int, near: Sequence[str] | None
) -> list[tuple[str, ...]]:
    """Returns values of all axes drawn at random: evenly, and where `near` is given the second half around it."""
    size = sum(axis.size for axis in axes)
    units = generator.random((count, size))
    if near is not None:
        half = count // 2
        reach = 10.0 ** generator.uniform(-2.0, -0.3, (half, 1))
        moved = unit_at(axes, near) + reach * generator.standard_normal((half, size))
        units[:half] = np.where(generator.random((half, size)) < 0.7, moved, unit_at(axes, near))
    return [texts_at(axes, unit) for unit in units]


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{where}: expected numbers, got {text!r}") from None
    if not math.isfinite(value):
        raise ConfigError(f"{where}: expected finite numbers, got {text!r}")
    return value
