"""Durations of a run, in whatever unit the user thinks in: steps, epochs, examples or a fraction of the whole.

A config writes a duration as one field whose ending is its unit: `total_epochs = 60`, `warmup_fraction = 0.1`,
`checkpoint_every_examples = 100_000`. `resolve` turns it into a number of steps; it is the only place that does, and
two units for one duration are refused. This module imports no jax.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from aijax.errors import ConfigError

UNITS = ("steps", "epochs", "examples", "fraction")


@dataclasses.dataclass(frozen=True)
class Clock:
    """What turns a duration into steps: examples a step, examples an epoch, and steps of the whole run when known."""

    batch_size: int
    examples_per_epoch: int
    total_steps: int | None = None


def split_field(field: str) -> tuple[str, str] | None:
    """Returns `(name, unit)` of a field that is a duration, else None.

    >>> split_field("warmup_fraction"), split_field("depth")
    (('warmup', 'fraction'), None)
    """
    name, _, unit = field.rpartition("_")
    return (name, unit) if name and unit in UNITS else None


def given_units(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns `{unit: value}` for the units in which `section` gives the duration `name`; a None is not given."""
    fields = {unit: section.get(f"{name}_{unit}") for unit in UNITS}
    return {unit: value for unit, value in fields.items() if value is not None}


def resolve(section: Mapping[str, Any], name: str, clock: Clock, *, where: str, default: int | None = None) -> int:
    """Returns the duration `name` of `section` in steps, at least one where it is positive (epochs are rounded to the
    nearest step).

    Args:
      section: a config section that holds at most one of `{name}_steps`, `_epochs`, `_examples`, `_fraction`.
      name: the duration, such as `"total"` or `"evaluate_every"`.
      clock: examples a step and an epoch; `total_steps` is needed for a fraction.
      where: the section's place in the config, for messages.
      default: steps when no unit is given; without a default a missing duration is an error.

    Raises:
      ConfigError: no unit, two units, a negative or non-finite value, a fraction above 1 or without a total.
    """
    given = given_units(section, name)
    fields = [f"{where}.{name}_{unit}" for unit in given]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(fields)}: two units for one duration; keep one and set the other to None")
    if not given:
        if default is None:
            raise ConfigError(f"{where}.{name}_steps: missing; give {name} as one of {', '.join(UNITS)}")
        return default
    (field,), ((unit, value),) = fields, given.items()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"{field}: expected a number of {unit}, zero or more, got {value!r}")
    if unit in ("steps", "examples") and value != int(value):
        raise ConfigError(f"{field}: expected a whole number of {unit}, got {value!r}")
    if unit == "fraction":
        if value > 1:
            raise ConfigError(f"{field}: expected a fraction of the run between 0 and 1, got {value!r}")
        if clock.total_steps is None:
            raise ConfigError(f"{field}: a fraction of what? give {name} in steps, epochs or examples")
        steps = value * clock.total_steps
    elif unit == "epochs":
        steps = value * clock.examples_per_epoch / clock.batch_size
    elif unit == "examples":
        steps = value / clock.batch_size
    else:
        steps = value
    return max(1, round(steps)) if value > 0 else 0
