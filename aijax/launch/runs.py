"""Run folders read back: config, curves, summary, figures. This module imports no jax."""

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aijax.errors import ConfigError, DataError
from aijax.launch.files import read_json_object
from aijax.launch.plain import MISSING, flatten, freeze

LOWER_IS_BETTER = (
    "loss",
    "error",
    "perplexity",
    "bits",
    "nats",
    "rmse",
    "mse",
    "mae",
    "nll",
    "divergence",
    "ece",
    "fid",
)
_CLOCK = ("step", "seconds")
TELEMETRY = ("per_second", "learning_rate", "gradient_norm", "utilization", "seconds")


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run folder says of its run.

    Attributes:
      folder: the run folder.
      name: the folder's path below the folder that all compared runs share.
      config: every field of the resolved config by its full path.
      curves: metric name to `(step, value)` pairs in the order of the steps; the last value logged at a step counts.
      summary: status ("finished", "stopped", "failed", or "unfinished" without summary.json), step, total_steps,
        seconds, parameters, message.
      metrics: the final metrics: of the summary, else the last ones logged; rates and norms of training are left out.
      figures: the PNG files of `figures/`, without the run's own picture of its curves.
      notes: what was found wrong with the folder's files, in words.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    curves: dict[str, list[tuple[int, float]]]
    summary: dict[str, Any]
    metrics: dict[str, float]
    figures: tuple[Path, ...]
    notes: tuple[str, ...]


def find_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Returns the runs in and below `folders`, each once, by name.

    Raises:
      ConfigError: a folder that does not exist or holds no run.
      DataError: a config.json or summary.json that is not a JSON object.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        path = Path(folder)
        if not path.is_dir():
            raise ConfigError(
                f"{folder}: {'not a folder' if path.exists() else 'no such folder'}; expected run folders"
            )
        below = list(_run_folders(path))
        if not below:
            raise ConfigError(f"{folder}: no run in this folder; a run folder has config.json and metrics.jsonl")
        found |= dict.fromkeys(run.resolve() for run in below)
    shared = Path(os.path.commonpath([run.parent for run in found]))
    return [read_run(run, run.relative_to(shared).as_posix()) for run in sorted(found, key=_natural)]


def read_run(folder: Path, name: str) -> Run:
    """Returns the run in `folder`; a line of metrics.jsonl that a kill cut short is left out and noted."""
    notes: list[str] = []
    config = flatten(freeze(read_json_object(folder / "config.json")))
    curves = _read_curves(folder / "metrics.jsonl", notes)
    last = {metric: points[-1][1] for metric, points in curves.items()}
    step = max((points[-1][0] for points in curves.values()), default=0)
    summary: dict[str, Any] = {"status": "unfinished", "step": step}
    if (folder / "summary.json").is_file():
        summary = read_json_object(folder / "summary.json")
        last = summary.get("metrics") or last
    metrics = {name: value for name, value in last.items() if _is_number(value) and not name.endswith(TELEMETRY)}
    figures = tuple(path for path in sorted((folder / "figures").glob("*.png")) if path.stem != "curves")
    return Run(folder, name, config, curves, summary, metrics, figures, tuple(notes))


def is_finished(folder: Path) -> bool:
    """Returns whether the run in `folder` has finished; an unreadable summary says that it has not."""
    try:
        return read_json_object(folder / "summary.json").get("status") == "finished"
    except DataError:
        return False


def config_differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Returns the config fields that are not the same in all `runs`: path to one value a run, MISSING where absent."""
    paths = dict.fromkeys(path for run in runs for path in run.config)
    values = {path: [run.config.get(path, MISSING) for run in runs] for path in paths}
    return {path: row for path, row in values.items() if len({repr(value) for value in row}) > 1}


def main_metric(names: Iterable[str]) -> str | None:
    """Returns the metric to rank runs by: an accuracy that is not of training, else a held-out loss, else the first.

    >>> main_metric(["train/loss", "test/loss", "test/accuracy"])
    'test/accuracy'
    """
    names = list(names)
    held_out = [name for name in names if not name.startswith("train/")]
    for group in (held_out, names):
        for word in ("accuracy", "loss", ""):
            for name in group:
                if word in name:
                    return name
    return None


def lower_is_better(metric: str) -> bool:
    """Returns whether a smaller value of `metric` is the better one.

    >>> lower_is_better("test/loss"), lower_is_better("test/accuracy")
    (True, False)
    """
    words = metric.lower().replace("/", "_").replace("-", "_").split("_")
    return any(word in LOWER_IS_BETTER for word in words)


def best_first(runs: Sequence[Run], metric: str | None) -> list[Run]:
    """Returns `runs` with the best value of `metric` first and those without a finite one last."""
    sign = 1 if metric and lower_is_better(metric) else -1

    def key(run: Run) -> tuple[bool, float]:
        value = run.metrics.get(metric, math.nan)
        return (True, 0.0) if not math.isfinite(value) else (False, sign * value)

    return sorted(runs, key=key)


def best_value(runs: Sequence[Run], metric: str) -> float | None:
    """Returns the best finite value of `metric` among `runs`; None where fewer than two runs have one."""
    values = [run.metrics[metric] for run in runs if math.isfinite(run.metrics.get(metric, math.nan))]
    return (min if lower_is_better(metric) else max)(values) if len(values) > 1 else None


def metric_names(runs: Sequence[Run]) -> list[str]:
    """Returns the names of the final metrics of `runs`: the one to rank by, other held-out ones, those of training."""
    names = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    main = main_metric(names)
    return sorted(names, key=lambda name: (name != main, name.startswith("train/")))


def _run_folders(folder: Path) -> Iterable[Path]:
    for path, folders, files in os.walk(folder):
        if "config.json" in files and {"metrics.jsonl", "summary.json", "run.json"} & set(files):
            folders.clear()
            yield Path(path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _natural(path: Path) -> list[tuple[int, float, str]]:
    """Orders `seed=2` before `seed=10`, and 0.0003 before 0.001."""
    pieces = str(path).replace("/", ",").replace("=", ",").split(",")
    return [(0, float(piece), "") if _is_text_number(piece) else (1, 0.0, piece) for piece in pieces]


def _is_text_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _read_curves(path: Path, notes: list[str]) -> dict[str, list[tuple[int, float]]]:
    if not path.is_file():
        notes.append("no metrics.jsonl")
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    points: dict[str, dict[int, float]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            step = int(record["step"])
            values = {name: float(value) for name, value in record.items() if name not in _CLOCK and _is_number(value)}
        except (ValueError, KeyError, TypeError, AttributeError):
            place = "the last line" if number == len(lines) else f"line {number}"
            notes.append(f"{place} of metrics.jsonl is cut short and was left out")
            continue
        for name, value in values.items():
            points.setdefault(name, {})[step] = value
    return {name: sorted(curve.items()) for name, curve in points.items()}
