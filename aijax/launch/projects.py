"""Where configs and experiments live: the user's project folder, and what aijax ships.

A project is the folder that holds `configs/` or `experiments/`. `config.experiment = "train_lm"` names
`experiments/train_lm.py` of the config's project, else one that aijax ships, else any importable dotted module. Looking
one up imports nothing. This module imports no jax.
"""

import importlib
import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

from aijax.errors import ConfigError, did_you_mean

MARKS = ("configs", "experiments")


def project_of(path: Path) -> Path | None:
    """Returns the nearest folder at or above `path` that holds `configs/` or `experiments/`, else None."""
    path = Path(path).resolve()
    folders = [path, *path.parents] if path.is_dir() else path.parents
    return next((folder for folder in folders if any((folder / mark).is_dir() for mark in MARKS)), None)


def shipped_root() -> Path:
    """Returns the folder with the `configs/` and `experiments/` that aijax ships: the wheel's, else the checkout's."""
    package = Path(__file__).resolve().parents[1]
    return package / "shipped" if (package / "shipped").is_dir() else package.parent


def recorded_project(run: Path) -> Path | None:
    """Returns the project of the experiment that the run folder `run` was made with, else None."""
    try:
        recorded = json.loads((run / "run.json").read_text(encoding="utf-8"))["experiment"]["file"]
        return project_of(Path(recorded)) if Path(recorded).is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_experiment(name: str, project: Path) -> Path | str:
    """Returns the file of the experiment `name`, or its dotted module where it is not in an `experiments/` folder.

    Args:
      name: `"train_classifier"`, `"lm.pretrain"` (a sub-folder), or any importable dotted name.
      project: the user's project folder, looked into before what aijax ships.

    Raises:
      ConfigError: no such experiment.
    """
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"config.experiment: expected the name of a module of experiments/, got {name!r}")
    roots = list(dict.fromkeys([Path(project).resolve(), shipped_root()]))
    for root in roots:
        stem = root.joinpath("experiments", *name.split("."))
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if file.is_file():
                return file
    if _is_importable(name, Path(project)):
        return name
    names = {found for root in roots for found in experiment_names(root)}
    raise ConfigError(
        f"config.experiment: no experiment {name!r} in {Path(project) / 'experiments'}, in what aijax ships or among "
        f"the importable modules{did_you_mean(name, names)}"
    )


def experiment_names(root: Path) -> list[str]:
    """Returns the dotted names of the experiments under `root/experiments`."""
    folder = Path(root) / "experiments"
    return [".".join(file.relative_to(folder).with_suffix("").parts) for file in python_files(folder)]


def python_files(folder: Path) -> list[Path]:
    """Returns the Python files under `folder`, sorted, without those whose name begins with `_` or `.`."""
    files = sorted(Path(folder).rglob("*.py"))
    return [file for file in files if not any(part[0] in "._" for part in file.relative_to(folder).parts)]


def import_experiment(found: Path | str, project: Path | None = None) -> ModuleType:
    """Returns the imported module of what `find_experiment` found; the same file is imported once a process.

    The project folder is put on `sys.path`, so that an experiment can import its neighbours; for the copy in a run
    folder, the project that it was copied from comes last.
    """
    if isinstance(found, str):
        _add_to_path(project)
        return importlib.import_module(found)
    file = Path(found).resolve()
    folder = next(parent for parent in file.parents if parent.name == "experiments")
    _add_to_path(folder.parent)
    recorded = recorded_project(folder.parent)
    if recorded is not None and str(recorded) not in sys.path:
        sys.path.append(str(recorded))
    parts = file.relative_to(folder).with_suffix("").parts
    name = ".".join(("experiments", *(parts[:-1] if parts[-1] == "__init__" else parts)))
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _add_to_path(folder: Path | None) -> None:
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _is_importable(name: str, project: Path) -> bool:
    """Returns whether the module `name` can be found, without importing its parents as `importlib.util` would.

    A name without a dot is looked for in the project folder only: `test` and `json` are modules, and no experiments.
    """
    first, *rest = name.split(".")
    spec = importlib.machinery.PathFinder.find_spec(first, [str(project)])
    if spec is None and rest:
        try:
            spec = importlib.util.find_spec(first)
        except ValueError:
            return False
    for depth in range(len(rest)):
        if spec is None or spec.submodule_search_locations is None:
            return False
        full = ".".join((first, *rest[: depth + 1]))
        spec = importlib.machinery.PathFinder.find_spec(full, list(spec.submodule_search_locations))
    return spec is not None and spec.origin is not None
