"""The run folder: what a run leaves behind, enough to look at it, to use what it made and to repeat it.

    config.json     the resolved config                    metrics.jsonl   a line a record
    run.json        command, versions, git, devices        tensorboard/    event files
    data.json       what the sources are like              figures/        PNG files
    experiments/    the experiments' files as they ran     checkpoints/    the states
    summary.json    how it ended                           logs/           what each process printed (several)

This module imports no jax.
"""

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aijax.errors import ConfigError
from aijax.launch.config import Loaded, difference, from_json, render_difference, to_json
from aijax.launch.files import write_text
from aijax.launch.projects import python_files

PACKAGES = ("aijax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "ml-collections")
PLACING_FIELDS = ("mesh",)
"""Fields that say where a run is computed and not what: a run may be resumed with others."""

LOCK = ".lock"
BEFORE_THE_RUN = {LOCK, "logs"}
"""What may be in a folder although no run has begun there."""


def default_folder(name: str, now: datetime.datetime) -> Path:
    """Returns the run folder for a config of that name when the user gives none: `runs/vit-digits/20260102-030405`."""
    stem = Path("runs") / name.replace("/", "-")
    folder = stem / now.strftime("%Y%m%d-%H%M%S")
    return next(path for path in _numbered(folder) if not path.exists())


def claim(folder: Path, config: Mapping[str, Any], *, fresh: bool) -> dict[str, Any] | None:
    """Returns the summary of the run that `folder` holds, or None where it holds none, checked to be of this config.

    Args:
      folder: the run folder, which need not exist.
      config: the resolved config.
      fresh: moves what is there aside instead of going on with it.

    Raises:
      ConfigError: the folder holds a run of another config, or something that is no run.
    """
    if folder.is_file():
        raise ConfigError(f"--workdir: {folder} is a file; expected a folder")
    if not folder.exists() or {path.name for path in folder.iterdir()} <= BEFORE_THE_RUN:
        return None
    if not (folder / "config.json").exists():
        raise ConfigError(f"--workdir: {folder} is not empty and holds no run (no config.json); choose another folder")
    if fresh:
        aside = next(path for path in _numbered(folder.with_name(folder.name + ".before")) if not path.exists())
        folder.rename(aside)
        return None
    changes = [
        change for change in difference(from_json(folder / "config.json"), config)
        if change[0].split(".")[0] not in PLACING_FIELDS
    ]  # fmt: skip
    if changes:
        raise ConfigError(
            f"--workdir: {folder} holds a run of another config ({render_difference(changes)}); choose another folder, "
            "or start it over with --fresh"
        )
    return read_summary(folder)


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Returns what `summary.json` holds, or None when there is none that can be read."""
    try:
        return json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the run folder for this process; raises a `ConfigError` when another process runs in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"--workdir: another process is running in {folder}; wait for it or choose another"
            ) from None
        yield


def write_beginning(folder: Path, loaded: Loaded, sources: Mapping[str, Any], devices: list[str]) -> None:
    """Writes what is known when a run begins: the config, the experiment, the sources, versions and git state."""
    write_text(folder / "config.json", to_json(loaded.config))
    file = loaded.experiment if isinstance(loaded.experiment, Path) else None
    if file is not None:
        copy_experiments(file, folder)
    about = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "config": loaded.spec,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "experiment": {"name": loaded.config.experiment, "file": str(file) if file else None},
        "versions": versions(),
        "git": git_state(loaded.project),
        "devices": devices,
    }
    write_text(folder / "run.json", json.dumps(about, indent=2) + "\n")
    write_text(folder / "data.json", json.dumps(sources, indent=2) + "\n")


def copy_experiments(file: Path, folder: Path) -> None:
    """Copies the Python files of the `experiments/` that holds `file`, so that the run can be opened and repeated when
    they have changed or are gone."""
    root = next(parent for parent in file.parents if parent.name == "experiments")
    for source in python_files(root):
        copy = folder / "experiments" / source.relative_to(root)
        if copy != source:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def write_summary(folder: Path, **summary: Any) -> None:
    """Writes how a run ended."""
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def git_state(project: Path) -> dict[str, Any] | None:
    """Returns `{"commit": ..., "dirty": ...}` of the project's checkout, or None when it is none."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(project), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1
