"""What goes wrong by a user's hand, and how it is said.

A mistake in a config, a shape, a mesh or a file is raised as a `UserError`: one sentence that names the field and the
value and says what was expected. The command line prints that sentence and exits with `exit_status`; anything else
that escapes is a bug of ours and keeps its traceback. This module imports no jax.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend, told in one sentence."""

    exit_status = 2


class ConfigError(UserError, ValueError):
    """A field of a config, an argument or a mesh that cannot be used as given."""


class UnsupportedError(ConfigError, NotImplementedError):
    """Something that makes sense and that is not offered."""


class DataError(UserError, ValueError):
    """A file or a record that is missing, malformed or out of range."""


class RunError(UserError, RuntimeError):
    """A run that began well and could not go on: a loss that is not finite, a full disk, a process that died."""

    exit_status = 1


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Returns `"; did you mean 'x'?"` for the option nearest to `name`, else the options when they are few.

    >>> did_you_mean("varient", ["variant", "depth"])
    "; did you mean 'variant'?"
    """
    options = sorted(set(options))
    same = [option for option in options if option.lower() == name.lower()]
    near = same or difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    if 0 < len(options) <= 12:
        return f"; expected one of {', '.join(options)}"
    return ""


def choose(options: dict, name: str, where: str):
    """Returns `options[name]`; an unknown name is a `ConfigError` that names the field and the nearest option."""
    if not isinstance(name, str) or name not in options:
        raise ConfigError(f"{where}: unknown value {name!r}{did_you_mean(str(name), options)}")
    return options[name]
