"""Loads a config: a Python file with `get_config()`, or the `config.json` of a run, with overrides laid on top.

`load("configs/vit/digits.py", [("optimizer.learning_rate", "3e-4")])` answers every mistake that can be seen without
jax in one sentence, and imports no jax itself.
"""

import dataclasses
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from aijax.errors import ConfigError, UserError, did_you_mean
from aijax.launch.overrides import apply
from aijax.launch.plain import MISSING, difference, flatten, freeze, from_json, render_difference, to_json
from aijax.launch.projects import find_experiment, import_experiment, project_of, recorded_project, shipped_root

__all__ = [
    "MISSING",
    "Loaded",
    "difference",
    "find_experiment",
    "flatten",
    "freeze",
    "from_json",
    "import_experiment",
    "load",
    "render_difference",
    "to_json",
]


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A resolved config and where it came from.

    Attributes:
      config: the resolved config; lists are tuples.
      spec: what the user typed, such as `"configs/vit/digits.py:small"`.
      path: the file that was read, absolute.
      argument: the text after the colon, or None.
      name: `"vit/digits"` for `configs/vit/digits.py`; the run's name for a `config.json`.
      project: the folder that holds `configs/` or `experiments/`.
      experiment: the experiment's file, or its dotted module.
      description: the first line of the config's docstring, or "".
    """

    config: config_dict.FrozenConfigDict
    spec: str
    path: Path
    argument: str | None
    name: str
    project: Path
    experiment: Path | str
    description: str


def load(spec: str, overrides: Sequence[tuple[str, str]] = ()) -> Loaded:
    """Returns the config that `spec` names with `overrides` laid on top, resolved and checked as plain data.

    Args:
      spec: `file.py`, `file.py:argument`, a `config.json`, or the run folder that holds one.
      overrides: `(path, text)` pairs, such as `("model.depth", "6")`, without the leading `config.`.

    Raises:
      ConfigError: a file that is missing or cannot be read, a `get_config` that is missing or fails, an override that
        does not fit, a field that is not plain data, an experiment that does not exist.
    """
    path, argument = _split(spec)
    if path.suffix == ".json":
        config, description = config_dict.ConfigDict(from_json(path).to_dict()), ""
        name = path.parent.name
    else:
        config, description = _execute(path, argument)
        name = _label(path)
    config = freeze(apply(config, overrides))
    if config.get("experiment") is None:
        raise ConfigError(
            f"{spec}: config.experiment is missing; name the module of experiments/ that runs this config"
        )
    project = _project(path, config.experiment)
    experiment = find_experiment(config.experiment, project)
    return Loaded(config, spec, path, argument, name, project, experiment, description)


def _split(spec: str) -> tuple[Path, str | None]:
    text, colon, argument = spec.partition(".py:")
    text = text + ".py" if colon else text
    if colon and not argument:
        raise ConfigError(f"{spec}: nothing after the colon; write {text} or {text}:ARGUMENT")
    path = Path(text).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"{spec}: a folder without config.json; expected a config file or a run folder")
        path = path / "config.json"
    elif not path.exists() and not path.is_absolute() and (shipped_root() / path).is_file():
        path = shipped_root() / path
    if not path.exists():
        raise ConfigError(f"{spec}: no such file{_near_files(path)}")
    if path.suffix not in (".py", ".json"):
        raise ConfigError(f"{spec}: expected a config file.py, a config.json or a run folder")
    return path.resolve(), argument if colon else None


def _near_files(path: Path) -> str:
    """Returns the near miss among the config files of the nearest folder that exists above `path`."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    wanted = path.relative_to(folder).as_posix()
    if folder == path.parent:
        files = list(folder.glob("*.py"))
    else:
        files = [file for mark in ("configs", "*/configs") for file in folder.glob(f"{mark}/**/*.py")]
        files += list(folder.glob("*/*.py"))
    near = did_you_mean(wanted, [file.relative_to(folder).as_posix() for file in files])
    return near.replace(
        "did you mean '", f"did you mean '{folder.as_posix()}/" if folder != Path(".") else "did you mean '"
    )


def _label(path: Path) -> str:
    parts = path.with_suffix("").parts
    marks = [index for index, part in enumerate(parts[:-1]) if part == "configs"]
    return "/".join(parts[marks[-1] + 1 :]) if marks else path.stem


def _project(path: Path, experiment: Any) -> Path:
    """Returns the project folder; for a `config.json`, the first candidate that has the experiment."""
    found = [project_of(path)]
    if path.suffix == ".json":
        found.append(recorded_project(path.parent))
    found = [project for project in found if project is not None]
    for project in found:
        try:
            find_experiment(experiment, project)
            return project
        except ConfigError:
            continue
    return found[0] if found else path.parent


def _execute(path: Path, argument: str | None) -> tuple[config_dict.ConfigDict, str]:
    """Returns what the `get_config` of the file `path` builds, and the first line of the file's docstring."""
    module = types.ModuleType("aijax_config")
    module.__file__ = str(path)
    search = list(sys.path)
    sys.path[:0] = [str(path.parent)] + [str(project) for project in [project_of(path)] if project]
    sys.modules[module.__name__] = module
    try:
        source = _guard(path, path.read_bytes)
        code = _guard(path, lambda: compile(source, str(path), "exec"))
        _guard(path, lambda: exec(code, module.__dict__))
        get_config = getattr(module, "get_config", None)
        if not callable(get_config):
            near = did_you_mean("get_config", [name for name, value in vars(module).items() if callable(value)])
            raise ConfigError(f"{path}: no function get_config(){near if 'mean' in near else ''}")
        arguments = _arguments(path, get_config, argument)
        config = _guard(path, lambda: get_config(*arguments))
    finally:
        sys.path[:] = search
        sys.modules.pop(module.__name__, None)
    if not isinstance(config, config_dict.ConfigDict):
        raise ConfigError(
            f"{path}: get_config() returned a {type(config).__name__}; expected an ml_collections.ConfigDict"
        )
    if isinstance(config, config_dict.FrozenConfigDict):
        config = config.as_configdict()
    return config, (module.__doc__ or "").strip().partition("\n")[0].strip()


def _arguments(path: Path, get_config: Callable, argument: str | None) -> tuple[str, ...]:
    arguments = () if argument is None else (argument,)
    signature = inspect.signature(get_config)
    try:
        signature.bind(*arguments)
    except TypeError:
        if argument is None:
            names = ", ".join(signature.parameters)
            raise ConfigError(f"{path}: get_config({names}) needs an argument; write {path.name}:ARGUMENT") from None
        raise ConfigError(f"{path}: get_config() takes no argument, got {argument!r}; write {path.name}") from None
    return arguments


def _guard(path: Path, step: Callable[[], Any]) -> Any:
    """Returns `step()`; what it raises is told in one sentence with the line of the file `path` that led to it."""
    try:
        return step()
    except UserError:
        raise
    except SyntaxError as error:
        raise ConfigError(f"{error.filename or path}:{error.lineno or 1}: syntax error: {error.msg}") from None
    except OSError as error:
        if not error.__traceback__.tb_next or error.filename == str(path):
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        raise _told(path, error) from None
    except (Exception, SystemExit) as error:
        raise _told(path, error) from None


def _told(path: Path, error: BaseException) -> ConfigError:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    message = " ".join(str(error).split())
    message = message if len(message) <= 300 else message[:297] + "..."
    place = f"{path}:{lines[-1]}" if lines else str(path)
    return ConfigError(f"{place}: {type(error).__name__}{': ' + message if message else ''}")
